"""Images in archives: WebDataset tar shards and Parquet.

Both are read at random, by an index, instead of as a stream. A stream shuffles within a buffer and forgets where it
was; with an index, batches follow from (seed, epoch, step) as they do for files, and a run goes on exactly.

- A tar file is uncompressed, so an image is a place in it. One pass over the headers finds all, and is kept in the
  cache.
- Parquet is compressed in row groups of hundreds of images, all of which would be decoded for one. Its rows are copied
  once into an Arrow file in the cache, of about the same size, which is mapped into memory.

Archives come from strangers: sizes are compared with the file's own before anything is read or allocated.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from torchclas.atomic import atomic_path, disk_is_full, locked
from torchclas.data.datasets import Indices
from torchclas.data.kept import break_seal, is_sealed, kept_path, seal
from torchclas.data.parquet_labels import MAX_LABEL, holds_lists, label_columns, read_classes, read_labels
from torchclas.data.sources import SUFFIXES
from torchclas.errors import DataError, Error, ImageError, MissingDependencyError, OutputError

_MAX_HEADER = 2**16  # bytes of a tar header with all that belongs to it: long names, attributes
_MAX_LABEL_FILE = 2**20  # bytes
# Images are compressed already: Parquet makes them hardly smaller, unless the same ones stand in many rows.
_UNPACKED_BASE = 2**24  # bytes
_UNPACKED_RATIO = 16


@dataclass(frozen=True)
class TarMember:
    """An image in a tar shard: where its bytes are, and its class."""

    key: str
    offset: int
    size: int
    label: int


@dataclass(frozen=True, eq=False)
class TarShards:
    """The images of WebDataset tar shards, in the order of `paths`; their classes are numbers without names."""

    paths: tuple[str, ...]
    classes: tuple[str, ...] | None = None

    @cached_property
    def _members(self) -> list[tuple[int, TarMember]]:
        return [(shard, member) for shard, path in enumerate(self.paths) for member in tar_index(path)]

    @property
    def labels(self) -> Indices:
        """The class of every image, [N]."""
        return np.fromiter((member.label for _, member in self._members), np.int64, len(self))

    def __len__(self) -> int:
        return len(self._members)

    def name(self, index: int) -> str:
        """`shard.tar/member.jpg`."""
        shard, member = self._members[index]
        return f"{self.paths[shard]}/{member.key}"

    def key(self, index: int) -> str:
        """The member's name."""
        return self._members[index][1].key

    def read(self, index: int) -> bytes:
        """Return the image's file; raises ImageError with the reason alone."""
        shard, member = self._members[index]
        return _read_at(self.paths[shard], member.offset, member.size)


@dataclass(frozen=True, eq=False)
class ParquetImages:
    """The rows of Parquet files with the column `image` (bytes, or Hugging Face's {bytes, path}) and labels.

    Raises DataError: other columns, or a file that cannot be read. MissingDependencyError: no pyarrow.
    """

    paths: tuple[str, ...]
    _copies: list[Path] = field(default_factory=list[Path], init=False, repr=False)
    _tables: list[Any] = field(default_factory=list[Any], init=False, repr=False)

    def __post_init__(self) -> None:
        self._copies[:] = [_unpack(Path(path)) for path in self.paths]

    def __getstate__(self) -> dict[str, object]:
        kept = {key: value for key, value in self.__dict__.items() if key not in ("labels", "classes")}
        return {**kept, "_tables": []}  # each process maps the files itself

    @cached_property
    def classes(self) -> tuple[str, ...] | None:
        """The names that columns, lists or the Hugging Face metadata have, where there are any."""
        return read_classes(self.paths, self._mapped())

    @property
    def lists(self) -> bool:
        """Whether a row lists the classes that its image is of, so that the labels of others may be missing."""
        return holds_lists(self._mapped()[0])

    @cached_property
    def labels(self) -> Indices:
        """The class of every image, [N], -1 where the row has none; or [N, classes] of 0 and 1."""
        return read_labels(self.paths, self._mapped())

    @cached_property
    def _starts(self) -> Indices:
        return np.cumsum([0, *(table.num_rows for table in self._mapped())])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def name(self, index: int) -> str:
        """`file.parquet row 12 (name)`, from 0, with the image's own name where it has one."""
        file, row = self._locate(index)
        own = self._image(index)[1]
        return f"{self.paths[file]} row {row}" + (f" ({own})" if own else "")

    def key(self, index: int) -> str:
        """The file's name and the row."""
        file, row = self._locate(index)
        return f"{Path(self.paths[file]).name}/{row}"

    def read(self, index: int) -> bytes:
        """Return the image's file; raises ImageError with the reason alone."""
        content = self._image(index)[0]
        if content is None:
            raise ImageError("the row holds no image bytes")
        return content

    def _image(self, index: int) -> tuple[bytes | None, str]:
        file, row = self._locate(index)
        value = self._mapped()[file].column("image")[row]
        if not hasattr(value, "keys"):
            return value.as_py(), ""
        if not value.is_valid:
            return None, ""
        own = value["path"].as_py() if "path" in value else None
        return value["bytes"].as_py(), own.decode(errors="replace") if isinstance(own, bytes) else ""

    def _locate(self, index: int) -> tuple[int, int]:
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        return file, index - int(self._starts[file])

    def _mapped(self) -> list[Any]:
        if not self._tables:
            # At once: threads that come here together must not add to the same list.
            self._tables[:] = [_mapped(Path(path), copy) for path, copy in zip(self.paths, self._copies, strict=True)]
        return self._tables


def tar_index(path: str | Path) -> list[TarMember]:
    """Where the images of a WebDataset shard are; from the cache, or by one pass over the headers.

    A sample is the files that share a name up to its first dot: an image, and its class as a number in `.cls`, or as
    `label` or `cls` in `.json`. A sample without one has the class -1.

    Raises DataError: no such file, no tar file, or a class beyond all reason.
    """
    path = Path(path)
    kept = kept_path(path, ".index")
    if is_sealed(kept):
        try:
            return [TarMember(*row) for row in json.loads(kept.read_bytes())]
        except (OSError, ValueError, TypeError):
            break_seal(kept)
    members = list(_scan(path))
    rows = [[member.key, member.offset, member.size, member.label] for member in members]
    try:
        with locked(kept):
            with atomic_path(kept) as temporary:
                temporary.write_text(json.dumps(rows), encoding="utf-8")
            seal(kept, path)
    except (OutputError, OSError):
        pass  # no cache that can be written: the next process makes its own pass
    return members


def _scan(path: Path) -> Iterator[TarMember]:
    images: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, int] = {}
    last = -1
    try:
        with path.open("rb") as file, tarfile.open(fileobj=cast(Any, _Headers(file)), mode="r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[assignment] # or tarfile keeps all, and their headers
                if member.size < 0 or member.offset <= last:
                    raise tarfile.ReadError("a header leads backwards")
                last = member.offset
                if not member.isreg() or member.issparse():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                sample, extension = f"{folder}/{stem}", extension.lower()
                if f".{extension}" in SUFFIXES:
                    images[sample] = member.name, member.offset_data, member.size
                elif extension in ("cls", "json"):
                    label = _label(file, member, extension)
                    if label is not None:
                        labels[sample] = label
    except DataError as error:
        raise DataError(f"{path}/{error}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # tarfile's own, and what headers that contradict themselves make of it
        if not images:
            raise DataError(f"{path}: is not an uncompressed tar file: {error}") from None
        # cut off: what is whole can be used
    for sample, place in images.items():
        yield TarMember(*place, labels.get(sample, -1))


class _Headers:
    """A tar file whose headers are read, and nothing larger: tarfile believes the sizes that they give."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._read(size)


def _label(file: BinaryIO, member: tarfile.TarInfo, extension: str) -> int | None:
    """The class in a sample's `.cls` or `.json` file; None where there is none."""
    if member.size > _MAX_LABEL_FILE:
        raise DataError(f"{member.name}: has {member.size:,} bytes, which no class needs")
    here = file.tell()
    file.seek(member.offset_data)
    content = file.read(member.size)
    file.seek(here)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if extension == "json" and isinstance(value, dict):
        fields = cast(dict[str, object], value)
        value = fields.get("label", fields.get("cls"))
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        return None
    if value > MAX_LABEL:
        raise DataError(f"{member.name}: its class is larger than {MAX_LABEL:,}: classes are counted from 0")
    return value


def _read_at(path: str, offset: int, size: int) -> bytes:
    # Opened anew each time: a file shared by forked worker processes would share its position too.
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            if offset + size > os.fstat(file.fileno()).st_size:
                raise ImageError("the shard ends within the image")
            file.seek(offset)
            content = file.read(size)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from None
    if len(content) < size:
        raise ImageError("the shard ends within the image")
    return content


def _unpack(path: Path) -> Path:
    """Make the Arrow file of a Parquet file, unless it is there, and return where it is."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingDependencyError("pyarrow", "'torchclas[parquet]'") from None
    copy = kept_path(path, ".arrow")
    if is_sealed(copy):
        return copy
    limit = _UNPACKED_BASE + _UNPACKED_RATIO * path.stat().st_size
    try:
        with pq.ParquetFile(path) as file, locked(copy):
            if is_sealed(copy):  # made by another process meanwhile
                return copy
            columns = file.schema_arrow
            kept = ["image", *label_columns(columns, path)]
            fields = [columns.field(name).with_type(_without_text(columns.field(name).type)) for name in kept]
            schema = pa.schema(fields, columns.metadata)
            with atomic_path(copy) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
                size = 0
                for rows in _batches(file, path, limit, kept):
                    size += rows.nbytes
                    if size > limit:
                        raise _too_large(path, size)
                    writer.write_batch(rows.cast(schema) if rows.schema != schema else rows)
            seal(copy, path)
    except Error:
        raise
    except Exception as error:  # pyarrow's own, and what columns that contradict themselves make of it
        if isinstance(error, OSError) and disk_is_full(error, copy.parent):
            raise OutputError(f"{copy}: the disk is full: free some space or set TORCHCLAS_CACHE") from error
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from None
    return copy


def _without_text(kind: Any) -> Any:
    """The type of a column with bytes in place of text, which need not be UTF-8."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        return pa.list_(_without_text(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_without_text(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_text(field.type)) for field in kind])
    return {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}.get(kind, kind)


def _batches(file: Any, path: Path, limit: int, columns: list[str]) -> Iterator[Any]:
    """The rows, in pieces that stay small also where one large value stands for many rows."""
    for group in range(file.metadata.num_row_groups):
        # Not the sum over its columns: pyarrow ends the process where the statistics of one contradict themselves.
        size = file.metadata.row_group(group).total_byte_size
        if not 0 <= size <= limit:
            raise _too_large(path, size)
        rows = min(64, max(1, 2**28 // max(size, 1)))
        yield from file.iter_batches(batch_size=rows, row_groups=[group], columns=columns)


def _too_large(path: Path, size: int) -> DataError:
    return DataError(
        f"{path}: unpacks to {size:,} bytes and more, over {_UNPACKED_RATIO} times its size: it is damaged, or one "
        "image stands for many rows; keep the images as files or tar shards"
    )


def _mapped(path: Path, copy: Path) -> Any:
    """The rows of the copy, once it is sure that what they refer to lies within it."""
    import pyarrow as pa

    for last in (False, True):
        try:
            table = pa.ipc.open_file(pa.memory_map(str(copy))).read_all()
            table.validate(full=True)
            label_columns(table.schema, copy)
            table.schema.to_string()  # which fails where a name in it is no text
        except (pa.ArrowException, OSError, ValueError, DataError) as error:
            if last:
                raise DataError(f"{path}: its copy {copy} cannot be read: {error}") from None
            break_seal(copy)
            if _unpack(path) != copy:
                raise DataError(f"{path}: was changed since it was opened") from None
        else:
            return table
    raise AssertionError
