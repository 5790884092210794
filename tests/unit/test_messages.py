"""Messages in the user's language: every entry belongs to the sources, and fits what they say."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from torchclas import messages
from torchclas.cli import run

SOURCES = Path(messages.__file__).parents[1]
# Rooms whose errors a user meets in daily work: all of them are translated.
COVERED = ("atomic.py", "tasks", "training", "data/folders.py", "data/lists.py", "data/matching.py", "data/sources.py",
           "data/opening.py", "data/decode.py", "engines/opening.py")  # fmt: skip
# What several strings are put together to, and what the system says.
COMPOSED = {
    "unknown {} '{}': {}",
    "unknown option {}: see `torchclas predict --help`",
    "{}: the file is empty: what wrote or fetched it did not finish",
    "{} images, {} of them failed, {} s → {}",
    "{} images, {} of them failed, {} s",
    "{} images, {} s → {}",
    "{} is the fastest for {} here: {} for {} images at once",
    "{} models of {} in {} series, {} cached in {}",
    "{} models of {}, {} cached in {}",
    "{} models in {} series, {} cached in {}",
    "1 model of {}, {} cached in {}",
    "{}, going on at epoch {}, step {}",
    *(
        f"{{}}, {what} {{}}, {start}: {{}} images of {{}} classes, {{}} to validate, {{}} px, batches of {{}}, "
        "{} epoch{} → {}"
        for what in ("recipe", "published recipe")
        for start in ("from scratch", "from weights")
    ),
    "[bold red]✗ {}: {}[/] [dim]({})[/]",
    "[yellow]· {}: {}[/] [dim]({})[/]",
    "{}: {}, logits within {} of the model's, {} s",
    "Permission denied",
    "Read-only file system",
    "No such file or directory",
    "Is a directory",
}


@pytest.fixture(autouse=True)
def _english_again() -> Iterator[None]:
    yield
    messages.use("en")


def templates(node: ast.expr) -> list[str]:
    """What a string of the sources may be, with {} for what is filled in."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=values):
            found = [""]
            for value in values:
                ends = templates(value.value) if isinstance(value, ast.FormattedValue) else templates(value)
                found = [start + end for start in found for end in ends]
            return found
        case ast.IfExp(body=body, orelse=other):
            return [*templates(body), *templates(other)]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return [start + end for start in templates(left) for end in templates(right)]
        case _:
            return ["{}"]


def all_strings() -> set[str]:
    """Every string in the sources, as templates; and every literal of the pages."""
    found: set[str] = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Constant, ast.JoinedStr, ast.IfExp, ast.BinOp)):
                found.update(templates(node))
    for page in SOURCES.rglob("*.html"):
        found.update(re.sub(r"%[\d.]*[sdf]", "{}", text).replace("%%", "%") for text in
                     re.findall(r'"([^"]*)"\|(?:said|format)', page.read_text(encoding="utf-8")))  # fmt: skip
    return found


def errors() -> Iterator[tuple[str, str]]:
    """Where an error is raised, and its template."""
    for path in SOURCES.rglob("*.py"):
        name = path.relative_to(SOURCES).as_posix()
        if not name.startswith(COVERED):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Error"):
                for argument in node.args[:1]:
                    yield from ((f"{name}:{node.lineno}", text) for text in templates(argument))


def gaps(template: str) -> int:
    return sum(field is not None for _, field, _, _ in string.Formatter().parse(template))


def together(template: str) -> str:
    """Gaps beside each other are one."""
    return re.sub(r"(\{\d*\})+", "{}", template)


def test_every_entry_is_said_somewhere() -> None:
    said = set(map(together, all_strings()))
    assert not [text for text in messages.catalog() if together(text) not in said and text not in COMPOSED]


def test_chinese_fills_the_same_gaps() -> None:
    for english, chinese in messages.catalog().items():
        values = [f"<{number}>" for number in range(gaps(english))]
        filled = chinese.format(*values)
        lost = [value for value in values if value not in filled]
        assert lost == (["<8>"] if "epoch{}" in english else []), english  # Chinese has no plural


def test_a_message_finds_its_own_entry() -> None:
    messages.use("zh")
    for english, chinese in messages.catalog().items():
        values = [f"<{number}>" for number in range(gaps(english))]
        assert messages.translate(english.format(*values)) == chinese.format(*values)


def test_errors_of_daily_work_are_translated() -> None:
    known = set(map(together, messages.catalog()))
    words = re.compile(r"[a-z]{2,} ")
    assert not [(place, text) for place, text in errors() if words.search(text) and together(text) not in known]


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LC_MESSAGES": "zh_TW", "LANG": "en_US"}, "zh"),
        ({}, "en"),
    ],
)
def test_the_locale_decides(environment: dict[str, str], language: str) -> None:
    assert messages.of_locale(environment) == language


def test_an_error_in_chinese(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cat").mkdir()
    assert run(["data", "check", str(tmp_path), "--lang", "zh"]) == 2
    assert "没有" in capsys.readouterr().err
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert run(["data", "check", str(tmp_path / "nosuch")]) == 2
    assert "文件或文件夹不存在" in capsys.readouterr().err
    assert run(["data", "check", str(tmp_path / "nosuch"), "--lang=en"]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    assert run(["list", "--lang", "de"]) == 2
    assert "--lang de" in capsys.readouterr().err
