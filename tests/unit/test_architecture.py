"""ARCHITECTURE.md names the largest functions and existing files."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "torchclas"
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
MOST = 60  # lines, without the docstring


def lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_the_table_of_the_largest_functions_is_true() -> None:
    found = {
        (path.relative_to(PACKAGE).as_posix(), node.name): lines(node)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and lines(node) > MOST
    }
    told = {
        (file, name): int(count)
        for file, name, count in re.findall(r"^\| `(\S+): (\w+)` \| (\d+) \|", TEXT, re.MULTILINE)
    }
    assert told == found


def test_every_file_that_is_named_exists() -> None:
    for name in set(re.findall(r"`([\w/]+\.(?:py|toml))`", TEXT)):
        assert (PACKAGE / name).is_file() or (ROOT / name).is_file() or [*PACKAGE.rglob(name)], name
    for name in set(re.findall(r"`([\w/]+)/`", TEXT)):
        assert (PACKAGE / name).is_dir() or (ROOT / name).is_dir() or [*PACKAGE.rglob(name)], name
