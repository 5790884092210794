"""Every text that meets the user has its Chinese, and the Chinese says what the English does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from torchclas import messages

SOURCES = Path(messages.__file__).parents[1]

# Not said on the command line: arguments of Python functions, pictures (their fonts need not have Chinese), code.
ELSEWHERE = (
    "models/", "layers/", "messages/", "counterparts.py", "catalog.py", "errors.py:48", "tasks/sample_pages.py",
    "tasks/completion.py", "tasks/options.py", "tasks/recipe.py", "reporting/charts.py", "reporting/confusion.py",
    "reporting/curves.py", "reporting/fonts.py", "reporting/line_chart.py", "reporting/mistakes.py",
    "reporting/speed_charts.py", "reporting/speed_page.py", "http.py", "complexity.py", "version.py",
)  # fmt: skip
NUMBER_FORMAT = re.compile(r"[,+]*(\.\d+)?[defgn%]?")


def _template(node: ast.expr) -> str | None:
    """A literal as `zh.toml` has it: what is filled in is `{0}`, `{1}` …, or `{0:n}` where it is a number."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        count = iter(range(9))
        return re.sub(r"%[sd]", lambda found: f"{{{next(count)}{':n' * (found[0] == '%d')}}}", node.value)
    if not isinstance(node, ast.JoinedStr):
        return None
    text, number = "", 0
    for part in node.values:
        if isinstance(part, ast.Constant):
            text += str(part.value)
        elif isinstance(part, ast.FormattedValue):
            text += f"{{{number}{':n' if _is_number(part) else ''}}}"
            number += 1
    return text


def _is_number(part: ast.FormattedValue) -> bool:
    match part.format_spec:
        case ast.JoinedStr(values=[ast.Constant(value=str(how))]):
            return bool(how) and NUMBER_FORMAT.fullmatch(how) is not None
        case _:
            return isinstance(part.value, ast.Call) and getattr(part.value.func, "id", "") == "len"


def _literals(node: ast.AST) -> Iterator[tuple[int, str]]:
    """All templates below `node`, with their lines; not docstrings, help texts and annotations."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.keyword) and node.arg in ("help", "help_epilogue"):
        return
    if isinstance(node, ast.expr) and (template := _template(node)) is not None:
        yield node.lineno, template
        children = [part.value for part in getattr(node, "values", ()) if isinstance(part, ast.FormattedValue)]
    else:
        fields = [value for name, value in ast.iter_fields(node) if name not in ("annotation", "returns")]
        children = [child for value in fields for child in (value if isinstance(value, list) else [value])]
    for child in children:
        if isinstance(child, ast.AST):
            yield from _literals(child)


@cache
def _sources() -> dict[str, str]:
    """Every literal of the sources, and where it is."""
    found: dict[str, str] = {}
    for path in sorted(SOURCES.rglob("*.py")):
        name = path.relative_to(SOURCES).as_posix()
        if not name.startswith(ELSEWHERE):
            for line, template in _literals(ast.parse(path.read_text(encoding="utf-8"))):
                found.setdefault(template, f"{name}:{line}")
    for path in sorted(SOURCES.rglob("*.html")):
        for template in re.findall(r"\b_\(\"([^\"]+)\"", path.read_text(encoding="utf-8")):
            found.setdefault(template, path.name)
    return found


def _is_text(template: str) -> bool:
    """Whether people read it: words, not a name or a number."""
    return re.search(r"[a-z]{2,}[:,;)`]* [a-z({`-]|[}\])] [a-z]{2,}", template) is not None


@cache
def _headings() -> dict[str, str]:
    """What the sources give as headings of columns."""
    found: dict[str, str] = {}
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_column" and node.args:
                if isinstance(node.args[0], ast.Constant):
                    found[str(node.args[0].value)] = f"{path.name}:{node.lineno}"
    return found
