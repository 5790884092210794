"""Every text that meets the user has its Chinese, and the Chinese says what the English does."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from torchclas import messages
from torchclas.cli import run
from torchclas.reporting.console import Console, Table, escape, verbatim

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports] - installed where Python has none

SOURCES = Path(messages.__file__).parents[1]

# Not said on the command line: arguments of Python functions, pictures (their fonts need not have Chinese), code.
ELSEWHERE = (
    "models/", "layers/", "messages/", "counterparts.py", "catalog.py", "data/sample_pages.py",
    "completion.py", "training/options.py", "tasks/recipe.py", "reporting/charts.py", "reporting/confusion.py",
    "reporting/curves.py", "reporting/fonts.py", "reporting/line_chart.py", "reporting/mistakes.py",
    "reporting/model_card.py", "exporting/timm_page.py",
    "reporting/speed_charts.py", "reporting/speed_page.py", "http.py", "complexity.py", "version.py",
    # What a service answers and logs is for programs.
    "serving/access.py", "serving/app.py", "serving/batching.py", "serving/bodies.py", "serving/explorer.py",
    "serving/metrics.py", "serving/models.py", "serving/protocol.py", "serving/refusals.py", "serving/service.py",
    "serving/simple.py",
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
            match node:
                case ast.Call(func=ast.Attribute(attr="add_column"), args=[ast.Constant(value=str(heading)), *_]):
                    found[heading] = f"{path.name}:{node.lineno}"
                case _:
                    pass
    return found


# Literals that look like texts, and are code, names, parts of commands, or of messages of other software.
NOT_SAID = {
    "module 'torchclas' has no attribute {0}{1}",
    "torchclas: {0}",
    "torchclas {0}",
    "array scaled to 0..255",
    "system volume information",
    "DataLoader worker",
    "Insufficient memory",
    "allocate memory",
    "out of memory",
    "shared memory",
    "bold red",
    "No space left on device",
    "Mapping[str, object]",
    "dict[str, object]",
    "import sys, _tools; sys.exit(not _tools.mnnconvert(['mnnconvert', *sys.argv[1:]]))",
    "dict[object, object]",
    "bytes {0}-",
    "one of ",
    "Many models",  # of --help
    "body error",
    "bucket does not exist",
    "Account must be specified",
    "Debug source",
    "profile {0}",
}
COMMANDS = re.compile(
    r"gallery \w+|--(set|device|no-deps) \S+( --set \S+)*|weights \w+|torchclas \w+|-m \{0\} --weights \{1\}"
    r"|\{0\} (predict|info|list)\b.*"
)
# Said, and the same in Chinese, or too general for a template: numbers with units, parts of a record's key.
UNITS = {
    " on {0}",
    "{0} as {1}",
    "{0} row {1}",
    "epoch {0}, position {1}, seed {2}",
    "{0} images, batches of {1}, process {2} of {3}",
    "{0} {1:n} ms",
    "{0}, {1} and {2}",
    "{0} probabilities for {1:n} × {2}",
    "{0}, with {1}",
    "{0} of {1}",
    "{0} on {1}: top-1 {2}, ECE {3:n} %",
    "{0} ms",
    "{0} (--series {1})",
    "{0:n} ms ({1})",
    "{0} px",
    "input_size: {0}",
    "as {0}",
    "{0:n} ({1}), {2:n} values",
    "layout of {0}",
    "the {0} {1} {2}",
}


def _zh() -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    table = tomllib.loads((SOURCES / "messages" / "zh.toml").read_text(encoding="utf-8"))
    return table["messages"], table["labels"], table["foreign"]


def test_every_text_has_its_chinese() -> None:
    said, labels, _ = _zh()
    missing = {
        place: template
        for template, place in (_sources() | _headings()).items()
        if (_is_text(template) or template in _headings())
        and template not in said
        and template not in labels
        and template not in NOT_SAID | UNITS
        and not COMMANDS.fullmatch(template)
        and re.search(r"[a-z]{4}", template)
    }
    assert not missing, "\n".join(f"{place}: {template}" for place, template in missing.items())


def test_no_chinese_is_left_over() -> None:
    said, labels, _ = _zh()
    known = {template.rstrip("\n") for template in _sources()} | set(_sources()) | set(_headings())
    assert [template for template in (*said, *labels) if template not in known] == []
    assert [template for template in NOT_SAID | UNITS if template not in _sources()] == []


def _fields(template: str) -> list[str]:
    return sorted(re.findall(r"\{(\d+)(?::n|:label)?\}", template))


def test_chinese_has_the_placeholders_of_the_english() -> None:
    for table in _zh():
        for english, words in table.items():
            assert _fields(words) == _fields(english), english


@pytest.mark.parametrize("number", ["7", "1,234.5"])
def test_each_text_is_recognised_as_its_own_template(number: str) -> None:
    said, _, foreign = _zh()
    for english, words in (said | foreign).items():
        text = re.sub(r"\{(\d+)(:n)?\}", lambda found: number if found[2] else f"«{found[1]}»", english)
        if messages.translate(text, "zh") == text:  # which takes numbers alone
            text = re.sub("«.*?»", "7", text)
        value = {found[1]: found[0] for found in re.finditer("«(.*?)»", text)}
        for piece in re.split(r"\{\d+(?::label)?\}", words):
            assert piece.strip() in messages.translate(text, "zh"), (english, messages.translate(text, "zh"), value)


def test_errors_within_errors_are_translated() -> None:
    text = "a: b.jpg: no such file"
    assert messages.translate(text, "zh") == "a: b.jpg：没有这个文件"
    text = (
        "photos: 3 of its 3 classes (blue, green, red) are not among the 1,000 of X (n1, n2 and 998 more): rename the "
        "folders, or say with --labels FILE what the model's outputs are called, a line for each in their order"
    )
    assert not re.search("among|rename", messages.translate(text, "zh"))
    text = "best: epoch 3 of 9, top-1 71.30 %, validation loss 1.2e-05"
    assert messages.translate(text, "zh") == "最佳：第 3 轮（共 9 轮），top-1 71.30 %，验证损失 1.2e-05"


@pytest.mark.parametrize(
    "text", ["model", "right", "fashion models", "a bank card", "猫", "", "x" * 10_000, "no: idea"]
)
def test_what_is_not_ours_stays(text: str) -> None:
    assert messages.translate(text, "zh") == text


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8", "LC_MESSAGES": "zh_TW.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": ""}, "zh"),
    ],
)
def test_the_locale_chooses(environment: dict[str, str], language: str) -> None:
    assert messages.of_environment(environment) == language


@pytest.fixture
def english() -> Iterator[None]:
    yield
    messages.use("en")


@pytest.mark.usefixtures("english")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--lang", "zh", "info", "nosuch"],
        ["info", "nosuch", "--lang=zh"],
        ["info", "--lang", "zh", "nosuch"],
    ],
)
def test_lang_anywhere(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert "没有名为 'nosuch' 的模型" in capsys.readouterr().err


@pytest.mark.usefixtures("english")
@pytest.mark.parametrize("arguments", [["list", "--lang", "xx"], ["list", "--lang"], ["--lang=", "list"]])
def test_a_language_that_is_not_there(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert "choose from en, zh" in capsys.readouterr().err


@pytest.mark.usefixtures("english")
def test_the_locale_changes_no_machine_readable_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs: list[str] = []
    for locale in ("C.UTF-8", "zh_CN.UTF-8"):
        monkeypatch.setenv("LC_ALL", locale)
        assert run(["info", "PPLCNet_x1_0", "--json"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_english_reads_no_translations() -> None:
    code = (
        "import torchclas.messages as m, sys; m.say('no such file'); assert not {'tomllib', 'tomli'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("part", ["aa: ", "aa; ", "aa (b); c, or put the file at ", "aa, bb and cc ", "is aa: fit "])
def test_a_name_cannot_make_it_slow(part: str) -> None:
    start = time.perf_counter()
    messages.translate(part * (3900 // len(part)) + "aa", "zh")
    assert time.perf_counter() - start < 5


@pytest.mark.usefixtures("english")
def test_names_of_classes_are_no_messages() -> None:
    messages.use("zh")
    shown = io.StringIO()
    console = Console(file=shown, width=100)
    table = Table(title="Classes")
    table.add_column("name")
    table.add_row(verbatim("no classifier"))
    console.print(table)
    console.print(f"[yellow]Note:[/] {escape('pip: no such file')}")
    assert "类别" in shown.getvalue()
    assert "名称" in shown.getvalue()
    assert "no classifier" in shown.getvalue()
    assert "注意：pip：没有这个文件" in shown.getvalue()
