"""Every format has one row per input, and a file is complete or not there."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import uuid
from pathlib import Path
from typing import get_args

import pytest
from rich.cells import cell_len

from torchclas.errors import Error, MissingDependencyError, OutputError
from torchclas.inference.classifier import Prediction
from torchclas.reporting.rows import ROW_GROUP, TableWriter, format_of, open_output, printable
from torchclas.vocabulary import RowFormat

ROWS = [
    Prediction(
        "cat.jpg",
        "ok",
        ("tabby, tabby cat", "lynx, catamount"),
        (0.75, 0.2),
        ("n02123045", "n02127052"),
        None,
        "openvino fp32",
    ),
    Prediction("咖啡/杯子.jpg", "ok", ("意式浓缩咖啡",), (0.98765432,), ("n07920052",)),
    Prediction("nothing, likely.jpg", "ok"),
    Prediction(os.fsdecode(b"latin-\xe9.jpg"), "error", error="no such file"),
    Prediction("line\nbreak\x1b[2J.jpg", "error", error="the file is empty"),
]


KINDS = ("label", "class_id", "score")


def write(path: Path, rows: list[Prediction], batch: int = 2) -> Path:
    with open_output(path, format_of(path, None), top_k=2) as writer:
        for start in range(0, len(rows), batch):
            writer.write(rows[start : start + batch])
    return path


def test_json_lines(tmp_path: Path) -> None:
    content = write(tmp_path / "out.jsonl", ROWS).read_bytes()
    assert "咖啡".encode() in content, "readable, not escaped"
    found = [json.loads(line) for line in content.decode("utf-8").splitlines()]
    assert [row["source"] for row in found] == [row.source for row in ROWS]
    assert [row["error"] for row in found] == [None, None, None, "no such file", "the file is empty"]
    assert found[0]["labels"] == ["tabby, tabby cat", "lynx, catamount"]
    assert [row["engine"] for row in found[:2]] == ["openvino fp32", None]
    assert found[1]["scores"] == [0.9876543]


def test_csv_is_flat(tmp_path: Path) -> None:
    path = write(tmp_path / "out.csv", ROWS)
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        header, *found = csv.reader(file)
    assert header == ["source", "status", *(f"{kind}_{rank}" for rank in (1, 2) for kind in KINDS), "error", "engine"]
    assert [row[0] for row in found] == [row.source for row in ROWS]
    assert found[0][2:8] == ["tabby, tabby cat", "n02123045", "0.75", "lynx, catamount", "n02127052", "0.2"]
    assert found[1][5:] == found[2][5:] == ["", "", "", "", ""]
    assert found[0][9] == "openvino fp32"
    assert found[3][1:] == ["error", *[""] * 6, "no such file", ""]


def test_parquet_has_columns_of_types_in_row_groups(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    file = parquet.ParquetFile(write(tmp_path / "out.parquet", ROWS * 500, batch=16))
    assert file.metadata.num_row_groups == -(-len(ROWS) * 500 // ROW_GROUP)
    found = file.read().slice(0, len(ROWS)).to_pylist()
    assert [row["labels"] for row in found] == [list(row.labels) for row in ROWS]
    assert found[0]["scores"] == pytest.approx([0.75, 0.2])
    assert found[3]["source"] == "latin-\\udce9.jpg", "Parquet holds text alone"
    assert str(file.schema_arrow.field("scores").type) == "list<element: float>"


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'torchclas\[parquet\]'"):
        write(tmp_path / "out.parquet", ROWS)
    assert not list(tmp_path.iterdir())


def test_table_is_aligned_in_every_script() -> None:
    stream = io.StringIO()
    writer = TableWriter(stream)
    writer.write(ROWS)
    header, *lines = stream.getvalue().splitlines()
    assert len(lines) == 6, "two lines for the first image, one for each other"
    shown = zip(lines, ("tabby", "lynx", "意式"), strict=False)
    assert {cell_len(line[: line.index(label)]) for line, label in shown} == {header.index("class")}
    assert " 75.0%  tabby" in lines[0], "the first synonym, in percent"
    assert not lines[1].split()[0].startswith("cat"), "a source is named once"
    assert "no class scores enough" in lines[3]
    assert "error  no such file" in lines[4]
    assert "\x1b" not in stream.getvalue(), "a file's name must not command the terminal"


def test_table_keeps_to_a_terminal_but_cuts_nothing_for_a_pipe() -> None:
    long = Prediction("/a" * 60 + "/cat.jpg", "ok", ("tabby",), (0.75,), ("n02123045",))
    for clip, width in ((30, 30), (None, len(long.source))):
        stream = io.StringIO()
        TableWriter(stream, clip).write([long])
        shown = stream.getvalue().splitlines()[1].split()[0]
        assert len(shown) == width
        assert shown.endswith("/cat.jpg")


@pytest.mark.parametrize(
    ("name", "chosen", "expected"),
    [
        (None, None, "table"),
        (None, "csv", "csv"),
        ("a.CSV", None, "csv"),
        ("a.ndjson", None, "jsonl"),
        ("a.dat", "parquet", "parquet"),
    ],
)
def test_format(name: str | None, chosen: RowFormat | None, expected: RowFormat) -> None:
    assert format_of(None if name is None else Path(name), chosen) == expected


@pytest.mark.parametrize(("name", "chosen"), [("a.json", None), ("a", None), (None, "parquet")])
def test_no_format(name: str | None, chosen: RowFormat | None) -> None:
    with pytest.raises(Error, match=r"parquet"):
        format_of(None if name is None else Path(name), chosen)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("kind", get_args(RowFormat))
def test_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: RowFormat) -> None:
    path = tmp_path / "out.data"
    path.write_text("precious")
    some = uuid.uuid4()
    monkeypatch.setattr(uuid, "uuid4", lambda: some)
    (tmp_path / f".out.{some.hex[:12]}.data").symlink_to("/dev/full")

    def write_much() -> None:
        with open_output(path, kind, top_k=2) as writer:
            for _ in range(1000):
                writer.write(ROWS)

    with pytest.raises(OutputError, match="the disk is full"):
        write_much()
    assert path.read_text() == "precious"
    assert [found.name for found in tmp_path.iterdir()] == ["out.data"]


def test_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("precious")

    def fail() -> None:
        with open_output(path, "csv", top_k=2) as writer:
            writer.write(ROWS)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "precious"


def test_links_and_devices_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to("file.csv")
    (tmp_path / "null.csv").symlink_to("/dev/null")
    write(tmp_path / "link.csv", ROWS)
    write(tmp_path / "null.csv", ROWS)
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "file.csv").read_text(errors="replace").startswith("source,")
    assert (tmp_path / "null.csv").is_char_device()


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"), open_output(tmp_path, "csv", top_k=1):
        pass


def test_printable() -> None:
    assert printable("a\nb\t\x1b[0m咖啡\udce9") == "a\\nb\\t\\x1b[0m咖啡\\udce9"
