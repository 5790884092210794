"""Predictions as a table, JSON lines, CSV or Parquet, written while they arrive.

Every format has one row per input, in order:

- `table`, for people: source, then the classes below each other, each with its score and the first of its names.
- `jsonl`: one object per line: `source`, `status` (`ok` or `error`), the lists `labels`, `scores` and `class_ids` (best
  first), `error` (null or the reason), `engine` (null or what computed it).
- `csv`: `source`, `status`, `label_1`, `class_id_1`, `score_1`, `label_2` … for as many classes as were asked for,
  `error`, `engine`. Fields without a value are empty.
- `parquet`: the columns of `jsonl`, scores as float32, in row groups of 1,024 rows or more.

File names need not be text: bytes that are not come as `\\udcXX` in JSON and Parquet, and unchanged in CSV.

Spreadsheets compute cells that begin with =, +, -, @, a tab or a line break. In CSV such text gets an apostrophe before
it, and such a path `./` (see `torchclas.text`); the other formats have it as it is.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from rich.cells import cell_len, set_cell_size

from torchclas.atomic import atomic_path
from torchclas.errors import Error, MissingDependencyError, OutputError
from torchclas.messages import label, say
from torchclas.signals import held_back
from torchclas.text import ANY_NAME, csv_path, csv_text, json_text, printable
from torchclas.vocabulary import ROW_FORMATS, RowFormat

if TYPE_CHECKING:
    from torchclas.inference.classifier import Prediction


ROW_GROUP = 1024  # rows: fewer would cost more in metadata than in data
_SUFFIXES: dict[str, RowFormat] = {
    ".txt": "table",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}


class Writer(Protocol):
    """Takes predictions; `close` writes what is left of them."""

    def write(self, rows: Sequence[Prediction]) -> None:
        """Write all of `rows`."""
        ...

    def close(self) -> None:
        """Make the file complete."""
        ...


def format_of(output: Path | None, chosen: RowFormat | None) -> RowFormat:
    """The format asked for, or else the one that the file's suffix stands for; raises `Error` for any other suffix."""
    if chosen is None:
        if output is None:
            return "table"
        try:
            chosen = _SUFFIXES[output.suffix.lower()]
        except KeyError:
            raise Error(
                f"{output}: cannot tell the format from {output.suffix or 'a name without suffix'!r}: "
                f"end it in {', '.join(_SUFFIXES)}, or add --format ({', '.join(ROW_FORMATS)})"
            ) from None
    if chosen == "parquet" and output is None:
        raise Error("Parquet is no text: say where it goes with --output FILE.parquet")
    return chosen


@contextmanager
def open_output(path: Path, output_format: RowFormat, *, top_k: int) -> Generator[Writer, None, None]:
    """Yield a writer to `path`, which appears (or is replaced) complete at the end, or on an error not at all.

    Who writes under `signals.held_back`, and catches KeyboardInterrupt before leaving, has a valid file of what was
    written until then. Devices and pipes are written to directly.

    Raises:
        OutputError: the disk is full, or `path` cannot be written.
        MissingDependencyError: Parquet without pyarrow.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder: name a file in it")
    with _destination(path) as destination, destination.open("wb") as file:
        writer = _writer(file, output_format, top_k)
        yield writer
        with held_back():
            writer.close()
            file.flush()


def open_stream(stream: IO[str], output_format: RowFormat, *, top_k: int, clip: int | None = None) -> Writer:
    """A writer to a text stream; `clip` is the width beyond which the table shortens sources."""
    if output_format == "table":
        return TableWriter(stream, clip)
    return _Flushed(JsonLinesWriter(stream) if output_format == "jsonl" else CsvWriter(stream, top_k), stream)


def short_label(label: str) -> str:
    """The first of a class's names: `tench, Tinca tinca` → `tench`."""
    return label.partition(", ")[0]


class TableWriter:
    """Aligned columns for people, whatever the script; the first column grows when a longer source arrives."""

    MAX_SOURCE = 60  # terminal cells; longer sources break the alignment rather than make it useless

    def __init__(self, stream: IO[str], clip: int | None = None) -> None:
        self.stream = stream
        self.clip = clip
        self.width = cell_len(label("image"))
        self.started = False

    def write(self, rows: Sequence[Prediction]) -> None:
        """Write all of `rows`."""
        sources = [self._shown(row.source) for row in rows]
        lengths = [length for length in map(cell_len, sources) if length <= self.MAX_SOURCE]
        self.width = max(self.width, *lengths, 0)
        lines: list[str] = []
        if not self.started:
            lines.append(
                f"{_padded(label('image'), self.width)}   {set_cell_size(label('score'), 5)}  {label('class')}"
            )
            self.started = True
        for source, row in zip(sources, rows, strict=True):
            for number, text in enumerate(self._classes(row)):
                lines.append(f"{_padded('' if number else source, self.width)}  {text}")
        self.stream.write("".join(f"{line}\n" for line in lines))
        self.stream.flush()

    def close(self) -> None:
        """Nothing is left."""

    def _shown(self, source: str) -> str:
        source = printable(source)
        if self.clip is None or cell_len(source) <= self.clip:
            return source
        while cell_len(source) >= self.clip:  # the end of a path tells more than its beginning
            source = source[1:]
        return f"…{source}"

    @staticmethod
    def _classes(row: Prediction) -> list[str]:
        if row.error is not None:
            return [f" error  {say(printable(row.error))}"]
        classes = zip(row.scores, map(printable, row.labels), strict=True)
        return [f"{score:6.1%}  {short_label(label)}" for score, label in classes] or [
            say("     –  no class scores enough")
        ]


class JsonLinesWriter:
    """One JSON object per line."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream

    def write(self, rows: Sequence[Prediction]) -> None:
        """Write all of `rows`."""
        for row in rows:
            values = {**asdict(row), "scores": [_rounded(score) for score in row.scores]}
            self.stream.write(json_text(json.dumps(values, ensure_ascii=False, allow_nan=False)) + "\n")

    def close(self) -> None:
        """Nothing is left."""


class CsvWriter:
    """Comma-separated values with a header, flat: three columns per class."""

    def __init__(self, stream: IO[str], top_k: int) -> None:
        self.top_k = top_k
        self.shown = printable if stream.isatty() else str
        self.csv = csv.writer(stream, lineterminator="\n")
        columns = (f"{kind}_{rank}" for rank in range(1, top_k + 1) for kind in ("label", "class_id", "score"))
        self.csv.writerow(("source", "status", *columns, "error", "engine"))

    def write(self, rows: Sequence[Prediction]) -> None:
        """Write all of `rows`."""
        for row in rows:
            labels, ids = (map(csv_text, texts) for texts in (row.labels, row.class_ids))
            scores = (str(_rounded(score)) for score in row.scores)
            classes = [cell for triple in zip(labels, ids, scores, strict=True) for cell in triple]
            missing = [""] * (3 * self.top_k - len(classes))
            cells = csv_path(row.source), row.status, *classes, *missing, csv_text(row.error or ""), row.engine or ""
            self.csv.writerow(map(self.shown, cells))

    def close(self) -> None:
        """Nothing is left."""


class ParquetWriter:
    """Typed columns, written in row groups."""

    def __init__(self, file: IO[bytes]) -> None:
        try:
            import pyarrow as arrow
            import pyarrow.parquet as parquet
        except ImportError:
            raise MissingDependencyError("pyarrow", "'torchclas[parquet]'") from None
        text, texts = arrow.string(), arrow.list_(arrow.string())
        columns = {"source": text, "status": text, "labels": texts, "scores": arrow.list_(arrow.float32())}
        self.schema: Any = arrow.schema({**columns, "class_ids": texts, "error": text, "engine": text})
        self.table_of: Any = arrow.Table.from_pylist
        self.file: Any = parquet.ParquetWriter(file, self.schema)
        self.pending: list[dict[str, object]] = []

    def write(self, rows: Sequence[Prediction]) -> None:
        """Take all of `rows`; they are written when there are enough of them."""
        for row in rows:
            changed = {"source": _encodable(row.source), "error": None if row.error is None else _encodable(row.error)}
            lists = {"labels": [*map(_encodable, row.labels)], "class_ids": [*map(_encodable, row.class_ids)]}
            self.pending.append({**asdict(row), **changed, **lists})
        if len(self.pending) >= ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Write the last row group and the footer."""
        if self.pending:
            self._flush()
        self.file.close()

    def _flush(self) -> None:
        self.file.write_table(self.table_of(self.pending, schema=self.schema))
        self.pending.clear()


class _Flushed:
    """A writer whose rows are on their way at once: somebody may be reading along."""

    def __init__(self, writer: Writer, stream: IO[str]) -> None:
        self.writer = writer
        self.stream = stream

    def write(self, rows: Sequence[Prediction]) -> None:
        self.writer.write(rows)
        self.stream.flush()

    def close(self) -> None:
        self.writer.close()
        self.stream.flush()


def _writer(file: IO[bytes], output_format: RowFormat, top_k: int) -> Writer:
    if output_format == "parquet":
        return ParquetWriter(file)
    # Written through, so that nothing is left to fail when the file is closed.
    stream = io.TextIOWrapper(file, encoding="utf-8", errors=ANY_NAME, newline="", write_through=True)
    return open_stream(stream, output_format, top_k=top_k)


def _destination(path: Path) -> AbstractContextManager[Path]:
    if path.exists() and not path.is_file():
        return _in_place(path)
    return atomic_path(os.path.realpath(path))  # a link stays one


@contextmanager
def _in_place(path: Path) -> Generator[Path, None, None]:
    try:
        yield path
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _rounded(score: float) -> float:
    return float(f"{score:.7g}")  # a float32 has no more digits


def _padded(text: str, width: int) -> str:
    return text if cell_len(text) > width else set_cell_size(text, width)
