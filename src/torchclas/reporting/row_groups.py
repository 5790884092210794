"""Parquet files whose rows arrive one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import IO, Any, Generic, TypeVar

from torchclas.errors import MissingDependencyError
from torchclas.text import encodable

ROW_GROUP = 1024  # rows: fewer would cost more in metadata than in data

Row = TypeVar("Row")


class RowGroups(Generic[Row]):
    """Typed columns, written in row groups of `ROW_GROUP` rows or more.

    `schema` is Arrow's, and `table` makes an Arrow table of it from rows.
    """

    def __init__(self, file: IO[bytes], schema: Any, table: Callable[[list[Row]], Any]) -> None:
        self.schema = schema
        self.file: Any = parquet().ParquetWriter(file, schema)
        self._table = table
        self._pending: list[Row] = []

    def write(self, rows: Sequence[Row]) -> None:
        """Take all of `rows`; they are written when there are enough of them."""
        self._pending += rows
        if len(self._pending) >= ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Write the last row group and the footer."""
        if self._pending:
            self._flush()
        self.file.close()

    def _flush(self) -> None:
        self.file.write_table(self._table(self._pending))
        self._pending.clear()


def encodable_row(row: Any) -> dict[str, Any]:
    """The fields of a dataclass, with text that UTF-8 can hold."""
    return {name: _encodable_value(value) for name, value in asdict(row).items()}


def _encodable_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [*map(_encodable_value, value)]  # pyright: ignore[reportUnknownVariableType]
    return encodable(value) if isinstance(value, str) else value


def arrow() -> Any:
    """pyarrow; raises `MissingDependencyError`."""
    try:
        import pyarrow
    except ImportError:
        raise MissingDependencyError("pyarrow", "'torchclas[parquet]'") from None
    return pyarrow


def parquet() -> Any:
    """What pyarrow has for Parquet files; raises `MissingDependencyError`."""
    arrow()
    import pyarrow.parquet

    return pyarrow.parquet
