"""Every format has one row per input, and a file is complete or not there."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from rich.cells import cell_len

from torchclas.errors import Error, MissingDependencyError, OutputError
from torchclas.inference.classifier import Prediction
from torchclas.reporting.row_groups import ROW_GROUP
from torchclas.reporting.rows import PredictionFiles, TableWriter, format_of, open_device, printable
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


def write(path: Path, rows: list[Prediction], batch: int = 2, part: int | None = None) -> Path:
    """Write rows, `batch` at a time, in parts of `part` batches."""
    files = PredictionFiles(format_of(path, None), 2, batch)
    batches = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    size = part or len(batches)
    parts: list[Path] = []
    for start in range(0, len(batches), size):
        parts.append(path.with_name(f"{path.stem}.{start}{files.suffix}"))
        with files.open(parts[-1]) as writer:
            for each in batches[start : start + size]:
                writer.write(each)
    files.join(parts, path)
    for each in parts:
        each.unlink()
    return path


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.txt", "out.parquet"])
def test_parts_are_joined_as_if_written_at_once(tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    rows = [replace(ROWS[i % 5], source=f"{'x' * (i % 50)}{i}.jpg") for i in range(2501)]
    once = write(tmp_path / name, rows, batch=48).read_bytes()
    for part in (1, 7, 40):
        assert write(tmp_path / name, rows, batch=48, part=part).read_bytes() == once
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_table_of_parts_is_that_of_a_stream(tmp_path: Path) -> None:
    stream = io.StringIO()
    writer = TableWriter(stream)
    for start in range(0, len(ROWS), 2):
        writer.write(ROWS[start : start + 2])
    assert write(tmp_path / "out.txt", ROWS, part=1).read_text(encoding="utf-8") == stream.getvalue()


def test_a_parquet_file_says_how_many_rows_are_errors(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = write(tmp_path / "out.parquet", ROWS * 500, batch=16)
    assert PredictionFiles("parquet", 2, 16).count(path) == (2500, 1000)


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
def test_a_full_device(kind: RowFormat) -> None:
    def write_much() -> None:
        with open_device(Path("/dev/full"), kind, top_k=2) as writer:
            for _ in range(1000):
                writer.write(ROWS)

    with pytest.raises(OutputError, match="/dev/full: cannot be written: No space left"):
        write_much()


def test_printable() -> None:
    assert printable("a\nb\t\x1b[0m咖啡\udce9") == "a\\nb\\t\\x1b[0m咖啡\\udce9"
