"""Text from strangers: harmless on a terminal and in a spreadsheet, and whole wherever it is kept."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from torchclas.catalog import find
from torchclas.cli import run
from torchclas.cli.app import app, log_to_stderr
from torchclas.errors import Error
from torchclas.exporting.onnx import class_lines
from torchclas.reporting.console import Console, escape
from torchclas.text import ANY_NAME, csv_path, csv_text, json_text, printable
from torchclas.weights.metadata import Metadata

HOSTILE = "\x1b]0;title\x07\x1b[2J\u202egnp.exe\x9b31m\ud800\nnext"
COMMANDS = set("\x1b\x07\x9b\u202e\ud800")
FORMULA = set("=+-@\t\r\n＝＋－＠")

anything = st.text(st.characters(exclude_categories=()))
names = st.text(st.sampled_from([*FORMULA, "'", "a"]))


def test_printable() -> None:
    assert printable("a\nb\t\x1b[0m咖啡\udce9") == "a\\nb\\t\\x1b[0m咖啡\\udce9"


@given(anything)
def test_printable_is_one_line_that_can_be_encoded(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()
    assert printable(shown) == shown


@given(st.one_of(names, anything))
def test_csv_text_is_no_formula_and_can_be_read_back(text: str) -> None:
    cell = csv_text(text)
    assert cell[:1] not in FORMULA
    marked = cell.startswith("'") and cell.lstrip("'")[:1] in FORMULA
    assert (cell[1:] if marked else cell) == text


@pytest.mark.parametrize("name", ["=1+1.jpg", "-1.jpg", "@home/cat.png", "\tx.png", "photos/=1.jpg", "/-/a.jpg"])
def test_csv_path_leads_to_the_same_file(name: str, tmp_path: Path) -> None:
    cell = csv_path(name)
    assert cell[:1] not in FORMULA
    assert tmp_path / cell == tmp_path / name


@given(st.recursive(anything, lambda values: st.lists(values) | st.dictionaries(anything, values)))
def test_json_text_means_the_same(value: object) -> None:
    line = json_text(json.dumps(value, ensure_ascii=False))
    assert line.isprintable()
    assert json.loads(line) == json.loads(json.dumps(value))


def test_any_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text("caf\udce9 \ud83d 咖啡", encoding="utf-8", errors=ANY_NAME)
    assert path.read_bytes() == b"caf\xe9 \\ud83d " + "咖啡".encode()


def test_console_obeys_no_text() -> None:
    """Also where `escape` was forgotten, in all that a console prints."""
    file = io.StringIO()
    console = Console(file=file, width=200)
    table = Table(HOSTILE, title=HOSTILE, caption=HOSTILE)
    table.add_row(HOSTILE)
    console.print(HOSTILE, table)
    console.print(HOSTILE, markup=False, highlight=False, soft_wrap=True)
    console.rule(HOSTILE)
    assert not COMMANDS & set(file.getvalue())


def test_escape_keeps_a_cell_on_its_line() -> None:
    file = io.StringIO()
    table = Table(box=None, show_header=False)
    table.add_row(escape(f"[bold]{HOSTILE}"))
    Console(file=file, width=200).print(table)
    (line,) = file.getvalue().splitlines()
    assert line.strip() == f"[bold]{printable(HOSTILE)}"


def test_errors_and_logs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        log_to_stderr()
        logging.getLogger("torchclas").info("%s runs", HOSTILE)
        raise Error(HOSTILE)

    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    app.command(fail, name="fail")
    try:
        assert run(["fail"]) == 2
    finally:
        del app["fail"]
        logging.getLogger("torchclas").setLevel(logging.NOTSET)
    written = capsys.readouterr().err
    assert len(written.splitlines()) == 2
    assert not COMMANDS & set(written)


def test_names_of_classes_survive_in_files() -> None:
    """As they are in our own metadata, a line for each class in what other runtimes read."""
    names = ("\u202egnp.exe", "café", "咖啡")
    metadata = Metadata("PPLCNet_x0_25", 3, find("PPLCNet_x0_25").preset, class_ids=("0", "1", "2"), class_names=names)
    text = metadata.to_json()
    text.encode()
    assert Metadata.from_json(text).class_names == names
    lines = class_lines(metadata)["labels"].encode().decode().split("\n")
    assert lines == [printable(name) for name in names]
