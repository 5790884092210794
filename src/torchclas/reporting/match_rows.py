"""What a gallery has for pictures, as a table, JSON lines, CSV or Parquet: one row per input, in order.

- `table`, for people: source, then the neighbours or classes below each other, each with its similarity.
- `jsonl`: one object per line: `source`, `status` (`ok`, `unknown` or `error`), the lists `classes`, `similarities` and
  `neighbours` (the most similar first), `near_tie`, `error` (null or the reason), `engine`.
- `csv`: `source`, `status`, `class_1`, `similarity_1`, `neighbour_1`, `class_2` … for as many as were asked for,
  `near_tie` (0 or 1), `error`, `engine`.
- `parquet`: the columns of `jsonl`, similarities as float32.

Names are treated as in `torchclas.reporting.rows`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Protocol

from rich.cells import cell_len, set_cell_size

from torchclas.atomic import atomic_path
from torchclas.errors import OutputError
from torchclas.messages import label, say
from torchclas.reporting.row_groups import RowGroups, arrow, encodable_row
from torchclas.reporting.rows import rounded
from torchclas.retrieval.searcher import Match
from torchclas.signals import held_back
from torchclas.text import ANY_NAME, csv_path, csv_text, json_text, printable
from torchclas.vocabulary import RowFormat


class MatchWriter(Protocol):
    """Takes matches; `close` writes what is left of them."""

    def write(self, rows: Sequence[Match]) -> None:
        """Write all of `rows`."""
        ...

    def close(self) -> None:
        """Make the file complete."""
        ...


@contextmanager
def open_matches(path: Path, output_format: RowFormat, count: int) -> Generator[MatchWriter]:
    """Yield a writer to `path`, which appears (or is replaced) complete at the end, or on an error not at all.

    Raises:
        OutputError: the disk is full, or `path` cannot be written.
        MissingDependencyError: Parquet without pyarrow.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder: name a file in it")
    with atomic_path(path.resolve()) as temporary, temporary.open("wb") as file:
        if output_format == "parquet":
            writer: MatchWriter = _Parquet(file)
        else:
            stream = io.TextIOWrapper(file, encoding="utf-8", errors=ANY_NAME, newline="", write_through=True)
            writer = match_stream(stream, output_format, count)
        yield writer
        with held_back():
            writer.close()
            file.flush()


def match_stream(stream: IO[str], output_format: RowFormat, count: int) -> MatchWriter:
    """A writer to a text stream; CSV has columns for `count` neighbours or classes."""
    if output_format == "jsonl":
        return _JsonLines(stream)
    return _Csv(stream, count) if output_format == "csv" else _Table(stream)


def standing(row: Match) -> str:
    """What is to be said of a row beyond its classes; empty for most."""
    if row.status == "unknown":
        return label("unknown")
    return label("near-tie") if row.near_tie else ""


class _Table:
    """Aligned columns; the first grows when a longer source arrives."""

    MAX_SOURCE = 60  # terminal cells

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.width = cell_len(label("image"))
        self.started = False

    def write(self, rows: Sequence[Match]) -> None:
        sources = [printable(row.source) for row in rows]
        self.width = max([self.width, *(length for length in map(cell_len, sources) if length <= self.MAX_SOURCE)])
        if not self.started:
            self.started = True
            heading = label("similarity")
            self._line(label("image"), f"{' ' * (10 - cell_len(heading))}{heading}  {label('class')}")
        for source, row in zip(sources, rows, strict=True):
            for number, text in enumerate(self._lines(row)):
                self._line("" if number else source, text)
        self.stream.flush()

    def close(self) -> None:
        """Nothing is left."""

    def _line(self, source: str, text: str) -> None:
        padded = source if cell_len(source) > self.width else set_cell_size(source, self.width)
        self.stream.write(f"{padded}  {text}\n")

    @staticmethod
    def _lines(row: Match) -> list[str]:
        if row.error is not None:
            return [f"{label('error')}  {say(printable(row.error))}"]
        lines = [
            f"{similarity:10.3f}  {printable(name) or '–'}  {printable(neighbour)}"
            for name, similarity, neighbour in zip(row.classes, row.similarities, row.neighbours, strict=True)
        ]
        remark = standing(row)
        return [f"{'':10}  {remark}", *lines] if remark else lines


class _JsonLines:
    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream

    def write(self, rows: Sequence[Match]) -> None:
        for row in rows:
            values = {**asdict(row), "similarities": [*map(rounded, row.similarities)]}
            self.stream.write(json_text(json.dumps(values, ensure_ascii=False, allow_nan=False)) + "\n")
        self.stream.flush()

    def close(self) -> None:
        """Nothing is left."""


class _Csv:
    def __init__(self, stream: IO[str], count: int) -> None:
        self.stream, self.count = stream, count
        self.shown = printable if stream.isatty() else str
        self.csv = csv.writer(stream, lineterminator="\n")
        columns = (f"{kind}_{rank}" for rank in range(1, count + 1) for kind in ("class", "similarity", "neighbour"))
        self.csv.writerow(("source", "status", *columns, "near_tie", "error", "engine"))

    def write(self, rows: Sequence[Match]) -> None:
        for row in rows:
            classes, neighbours = map(csv_text, row.classes), map(csv_path, row.neighbours)
            similarities = (str(rounded(value)) for value in row.similarities)
            cells = [cell for each in zip(classes, similarities, neighbours, strict=True) for cell in each]
            missing = [""] * (3 * self.count - len(cells))
            rest = str(int(row.near_tie)), csv_text(row.error or ""), row.engine or ""
            self.csv.writerow(map(self.shown, (csv_path(row.source), row.status, *cells, *missing, *rest)))
        self.stream.flush()

    def close(self) -> None:
        """Nothing is left."""


class _Parquet(RowGroups[Match]):
    def __init__(self, file: IO[bytes]) -> None:
        types = arrow()
        text, texts = types.string(), types.list_(types.string())
        columns = {"source": text, "status": text, "classes": texts, "similarities": types.list_(types.float32())}
        more = {"neighbours": texts, "near_tie": types.bool_(), "error": text, "engine": text}
        schema = types.schema({**columns, **more})
        super().__init__(file, schema, lambda rows: types.Table.from_pylist([*map(encodable_row, rows)], schema=schema))
