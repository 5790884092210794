"""Files of embeddings, with one row per input, in order; what the vectors are is in the file's metadata, as JSON.

- `parquet`: the columns `source`, `status` (`ok` or `error`), `embedding` (a list of fixed length; null for an error),
  `error` (null or the reason), `engine`; metadata under the key `torchclas`.
- `npz`: the arrays `vectors` [N, dimension] (NaN for an error), `sources`, `status`, `error` and `engine` [N], and
  `metadata`.
- `safetensors`: the tensors `vectors` [N, dimension] (NaN for an error) and `rows`, the bytes of a JSON list of objects
  with `source`, `status`, `error` and `engine`; metadata under the key `torchclas`.

File names need not be text: bytes that are not come as `\\udcXX`. Vectors go to the disk as they arrive, so memory does
not grow with them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, get_args

import numpy as np

from torchclas.atomic import atomic_path
from torchclas.errors import OutputError
from torchclas.inference.classifier import Embedding
from torchclas.inference.embedder import KEY, Provenance
from torchclas.reporting.row_groups import RowGroups, arrow
from torchclas.signals import held_back
from torchclas.tensor_file import write_header
from torchclas.text import encodable
from torchclas.vocabulary import VectorFormat

_FORMATS: tuple[VectorFormat, ...] = get_args(VectorFormat)


class VectorWriter(Protocol):
    """Takes embeddings; `close` writes what is left of them."""

    def write(self, rows: Sequence[Embedding]) -> None:
        """Write all of `rows`."""
        ...

    def close(self) -> None:
        """Make the file complete."""
        ...


def vector_format(path: Path) -> VectorFormat:
    """The format that the suffix stands for; raises `OutputError` for any other suffix."""
    for known in _FORMATS:
        if path.suffix.lower() == f".{known}":
            return known
    raise OutputError(f"{path}: vectors are written as .parquet, .npz or .safetensors: choose one of these suffixes")


@contextmanager
def open_vectors(path: Path, provenance: Provenance) -> Generator[VectorWriter]:
    """Yield a writer to `path`, which appears (or is replaced) complete at the end, or on an error not at all.

    Who writes under `signals.held_back`, and catches KeyboardInterrupt before leaving, has a valid file of what was
    written until then.

    Raises:
        OutputError: the disk is full, `path` cannot be written, or is of another suffix.
        MissingDependencyError: Parquet without pyarrow.
    """
    kind = vector_format(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder: name a file in it")
    with ExitStack() as stack:
        temporary = stack.enter_context(atomic_path(path.resolve()))  # a link stays one
        file = stack.enter_context(temporary.open("wb"))
        if kind == "parquet":
            writer: VectorWriter = ParquetVectors(file, provenance)
        else:
            spool = stack.enter_context(tempfile.TemporaryFile(dir=temporary.parent))
            writer = (NpzVectors if kind == "npz" else SafetensorsVectors)(file, spool, provenance)
        yield writer
        with held_back():
            writer.close()
            file.flush()


class ParquetVectors(RowGroups[Embedding]):
    """Typed columns."""

    def __init__(self, file: IO[bytes], provenance: Provenance) -> None:
        self._types = types = arrow()
        text = types.string()
        number = types.float16() if provenance.dtype == "fp16" else types.float32()
        self._vector = types.list_(number, provenance.dimension)
        self._blank = np.zeros(provenance.dimension, _number(provenance))
        columns = {"source": text, "status": text, "embedding": self._vector, "error": text, "engine": text}
        super().__init__(file, types.schema(columns, metadata={KEY: provenance.to_json()}), self._tabled)

    def _tabled(self, rows: Sequence[Embedding]) -> Any:
        types, facts = self._types, [*map(_facts, rows)]
        values = np.concatenate([self._blank if row.vector is None else row.vector for row in rows])
        missing = types.array([row.vector is None for row in rows])
        columns = {
            name: types.array([row[name] for row in facts], types.string())
            for name in ("source", "status", "error", "engine")
        }
        columns["embedding"] = types.FixedSizeListArray.from_arrays(
            types.array(values), type=self._vector, mask=missing
        )
        return types.Table.from_arrays([columns[name] for name in self.schema.names], schema=self.schema)


class _Spooled:
    """Keeps vectors in a file until it is known how many they are."""

    def __init__(self, file: IO[bytes], spool: IO[bytes], provenance: Provenance) -> None:
        self.file, self.spool, self.provenance = file, spool, provenance
        self.blank = np.full(provenance.dimension, np.nan, _number(provenance))
        self.rows: list[dict[str, str | None]] = []

    def write(self, rows: Sequence[Embedding]) -> None:
        """Write all of `rows`."""
        for row in rows:
            self.spool.write((self.blank if row.vector is None else row.vector).tobytes())
        self.rows += map(_facts, rows)

    @property
    def shape(self) -> tuple[int, int]:
        """Of all vectors."""
        return len(self.rows), self.provenance.dimension


class NpzVectors(_Spooled):
    """NumPy's archive of arrays."""

    def close(self) -> None:
        """Write the arrays."""
        with zipfile.ZipFile(self.file, "w") as archive:
            with archive.open("vectors.npy", "w", force_zip64=True) as member:
                header = {"descr": self.blank.dtype.str, "fortran_order": False, "shape": self.shape}
                np.lib.format.write_array_header_1_0(member, header)
                self.spool.seek(0)
                shutil.copyfileobj(self.spool, member)
            for array, name in (("sources", "source"), ("status", "status"), ("error", "error"), ("engine", "engine")):
                self._write(archive, array, np.array([row[name] or "" for row in self.rows], np.str_))
            self._write(archive, "metadata", np.array(self.provenance.to_json()))

    @staticmethod
    def _write(archive: zipfile.ZipFile, name: str, values: np.ndarray[Any, Any]) -> None:
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, values, allow_pickle=False)


class SafetensorsVectors(_Spooled):
    """Tensors that can be memory-mapped."""

    def close(self) -> None:
        """Write the tensors."""
        rows = json.dumps(self.rows, ensure_ascii=False).encode()
        tensors = {"vectors": (self.blank.dtype, self.shape), "rows": (np.dtype(np.uint8), (len(rows),))}
        write_header(self.file, tensors, {KEY: self.provenance.to_json()})
        self.spool.seek(0)
        shutil.copyfileobj(self.spool, self.file)
        self.file.write(rows)


def _number(provenance: Provenance) -> type[np.floating[Any]]:
    return np.float16 if provenance.dtype == "fp16" else np.float32


def _facts(row: Embedding) -> dict[str, str | None]:
    """All of a row but the vector, as text that every file can hold."""
    values = {"source": row.source, "status": row.status, "error": row.error, "engine": row.engine}
    return {name: value and encodable(value) for name, value in values.items()}
