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
import shutil
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from rich.cells import cell_len, set_cell_size

from torchclas.errors import Error, OutputError
from torchclas.messages import label, say
from torchclas.reporting.row_groups import ROW_GROUP, RowGroups, arrow, encodable_row, parquet
from torchclas.signals import held_back
from torchclas.text import ANY_NAME, csv_path, csv_text, json_text, printable
from torchclas.vocabulary import ROW_FORMATS, RowFormat

if TYPE_CHECKING:
    from torchclas.inference.classifier import Prediction


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
def open_device(path: Path, output_format: RowFormat, *, top_k: int) -> Generator[Writer, None, None]:
    """Yield a writer to what is no regular file: a pipe, a device. Rows are on their way at once.

    Raises:
        OutputError: it cannot be written.
        MissingDependencyError: Parquet without pyarrow.
    """
    try:
        with _open(path, output_format, top_k) as writer:
            yield writer
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


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
            values = {**asdict(row), "scores": [rounded(score) for score in row.scores]}
            self.stream.write(json_text(json.dumps(values, ensure_ascii=False, allow_nan=False)) + "\n")

    def close(self) -> None:
        """Nothing is left."""


class CsvWriter:
    """Comma-separated values with a header, flat: three columns per class."""

    def __init__(self, stream: IO[str], top_k: int, *, header: bool = True) -> None:
        self.top_k = top_k
        self.shown = printable if stream.isatty() else str
        self.csv = csv.writer(stream, lineterminator="\n")
        if not header:
            return
        columns = (f"{kind}_{rank}" for rank in range(1, top_k + 1) for kind in ("label", "class_id", "score"))
        self.csv.writerow(("source", "status", *columns, "error", "engine"))

    def write(self, rows: Sequence[Prediction]) -> None:
        """Write all of `rows`."""
        for row in rows:
            labels, ids = (map(csv_text, texts) for texts in (row.labels, row.class_ids))
            scores = (str(rounded(score)) for score in row.scores)
            classes = [cell for triple in zip(labels, ids, scores, strict=True) for cell in triple]
            missing = [""] * (3 * self.top_k - len(classes))
            cells = csv_path(row.source), row.status, *classes, *missing, csv_text(row.error or ""), row.engine or ""
            self.csv.writerow(map(self.shown, cells))

    def close(self) -> None:
        """Nothing is left."""


class ParquetWriter(RowGroups["Prediction"]):
    """Typed columns."""

    def __init__(self, file: IO[bytes]) -> None:
        types = arrow()
        text, texts = types.string(), types.list_(types.string())
        columns = {"source": text, "status": text, "labels": texts, "scores": types.list_(types.float32())}
        schema = types.schema({**columns, "class_ids": texts, "error": text, "engine": text})
        super().__init__(file, schema, lambda rows: types.Table.from_pylist([*map(encodable_row, rows)], schema=schema))


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


@dataclass(frozen=True)
class PredictionFiles:
    """Files of predictions for `torchclas.inference.parts`: what is joined of parts is as if written at once.

    Parts of CSV have no header. Those of a table are JSON lines, since the width of its columns depends on all rows
    before. `batch_size` is that of the rows that are written at once.
    """

    format: RowFormat
    top_k: int
    batch_size: int

    @property
    def suffix(self) -> str:
        """The suffix of parts."""
        return ".jsonl" if self.format == "table" else f".{self.format}"

    @contextmanager
    def open(self, path: Path) -> Generator[Writer, None, None]:
        """Write the rows of a part; raises `MissingDependencyError` for Parquet without pyarrow."""
        kind: RowFormat = "jsonl" if self.format == "table" else self.format
        with _open(path, kind, self.top_k, header=False) as writer:
            yield writer

    def join(self, parts: Iterable[Path], output: Path) -> None:
        """Make one file of parts that follow each other."""
        with output.open("wb") as file:
            if self.format == "parquet":
                _join_parquet(parts, file, -(-ROW_GROUP // self.batch_size) * self.batch_size)
            elif self.format == "table":
                writer = _writer(file, "table", self.top_k)
                rows = (_from_json(line) for part in parts for line in _lines(part))
                while batch := [*islice(rows, self.batch_size)]:
                    writer.write(batch)
            else:
                writer = _writer(file, self.format, self.top_k)  # and a header, where there is one
                for part in parts:
                    with part.open("rb") as source:
                        shutil.copyfileobj(source, file, 2**20)
                writer.close()

    def count(self, path: Path) -> tuple[int, int]:
        """How many rows a Parquet file has, and how many of them are errors; both are in its footer."""
        metadata: Any = parquet().ParquetFile(path).metadata
        column: int = metadata.schema.names.index("error")
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        without = sum(group.column(column).statistics.null_count for group in groups)
        return metadata.num_rows, metadata.num_rows - without


@contextmanager
def _open(path: Path, output_format: RowFormat, top_k: int, *, header: bool = True) -> Generator[Writer, None, None]:
    with path.open("wb") as file:
        writer = _writer(file, output_format, top_k, header=header)
        yield writer
        with held_back():
            writer.close()
            file.flush()


def _writer(file: IO[bytes], output_format: RowFormat, top_k: int, *, header: bool = True) -> Writer:
    if output_format == "parquet":
        return ParquetWriter(file)
    # Written through, so that nothing is left to fail when the file is closed.
    stream = io.TextIOWrapper(file, encoding="utf-8", errors=ANY_NAME, newline="", write_through=True)
    if output_format == "csv":
        return _Flushed(CsvWriter(stream, top_k, header=header), stream)
    return open_stream(stream, output_format, top_k=top_k)


def _join_parquet(parts: Iterable[Path], file: IO[bytes], group: int) -> None:
    """Row groups of `group` rows, wherever the parts end."""
    writer, tables = ParquetWriter(file), arrow()
    pending: Any = writer.schema.empty_table()
    for part in parts:
        for rows in parquet().ParquetFile(part).iter_batches(batch_size=group):
            pending = tables.concat_tables([pending, tables.Table.from_batches([rows])])
            while len(pending) >= group:
                writer.file.write_table(pending.slice(0, group).combine_chunks())
                pending = pending.slice(group)
    if len(pending):
        writer.file.write_table(pending.combine_chunks())
    writer.close()


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _from_json(line: bytes) -> Prediction:
    from torchclas.inference.classifier import Prediction

    values: dict[str, Any] = json.loads(line)
    lists: dict[str, Any] = {name: tuple(values[name]) for name in ("labels", "scores", "class_ids")}
    return Prediction(**(values | lists))


def rounded(score: float) -> float:
    """With as many digits as a float32 has."""
    return float(f"{score:.7g}")


def _padded(text: str, width: int) -> str:
    return text if cell_len(text) > width else set_cell_size(text, width)
