"""What documentation tells people to type is spelled right; tests/sweep runs what can be run."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import torchclas
from tests.documented_blocks import DOCS, LANGUAGES, ROOT, blocks, commands, pages
from torchclas.cli import app, spellings

PAGES = [*pages(), ROOT / "README.md"]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@each_page
def test_every_command_is_one_that_exists(page: Path) -> None:
    for block in blocks(page):
        if block.language != "bash":
            continue
        for arguments in commands(block.code):
            if "--install-completion" not in arguments:
                spellings.check(app, arguments)
                app.parse_args(arguments, print_error=False, exit_on_error=False)


@each_page
def test_python_is_python_and_names_what_is_public(page: Path) -> None:
    for block in blocks(page):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.code)):
            match node:
                case ast.Attribute(value=ast.Name(id="torchclas"), attr=name):
                    assert hasattr(torchclas, name), name
                case _:
                    pass


def code(page: Path) -> list[tuple[str, str]]:
    """Blocks of shell and Python without comments and docstrings."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    said = re.compile(r' *# .*| *"""[^"]*"""')
    return [(kind, said.sub("", text)) for kind, text in found if kind in LANGUAGES]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(DOCS)))
def test_both_languages_have_the_same_code(page: Path) -> None:
    twin = page.with_suffix(".zh-CN.md")
    if twin.exists():
        assert code(twin) == code(page)
