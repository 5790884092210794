"""Images in archives: WebDataset tar shards and Parquet.

Both are read at random, by an index, instead of as a stream. A stream shuffles within a buffer and forgets where it
was; with an index, batches follow from (seed, epoch, step) as they do for files, and a run goes on exactly.

- A tar file is uncompressed, so an image is a place in it. One pass over the headers finds all; it is kept as
  `shard.tar.idx.json` where the folder can be written.
- Parquet is compressed in row groups of hundreds of images, all of which would be decoded for one. Its rows are copied
  once into an Arrow file (`.name.parquet.arrow` beside it, or in the cache where that cannot be written; of
  about the same size), which is mapped into memory.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from torchclas.atomic import atomic_path, locked
from torchclas.data.datasets import Indices
from torchclas.data.sources import SUFFIXES
from torchclas.errors import DataError, ImageError, MissingDependencyError, OutputError


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
    """The rows of Parquet files with the columns `image` (bytes, or Hugging Face's {bytes, path}) and `label`.

    Raises DataError: other columns, or a file that cannot be read. MissingDependencyError: no pyarrow.
    """

    paths: tuple[str, ...]
    _tables: list[Any] = field(default_factory=list[Any], init=False, repr=False)

    def __post_init__(self) -> None:
        for path in self.paths:
            _unpack(Path(path))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_tables": []}  # each process maps the files itself

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names in the Hugging Face metadata, where there are any."""
        description = (self._mapped()[0].schema.metadata or {}).get(b"huggingface")
        features = json.loads(description)["info"]["features"] if description else {}
        names = features.get("label", {}).get("names")
        return tuple(names) if names else None

    @property
    def labels(self) -> Indices:
        """The class of every image, [N]; -1 where the row has none."""
        columns = [table.column("label").fill_null(-1).to_numpy() for table in self._mapped()]
        return np.concatenate(columns).astype(np.int64)

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
        value = self._mapped()[file].column("image")[row].as_py()
        if isinstance(value, Mapping):
            image = cast(Mapping[str, Any], value)
            return image.get("bytes"), image.get("path") or ""
        return value, ""

    def _locate(self, index: int) -> tuple[int, int]:
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        return file, index - int(self._starts[file])

    def _mapped(self) -> list[Any]:
        if not self._tables:
            import pyarrow as pa

            # At once: threads that come here together must not add to the same list.
            self._tables[:] = [pa.ipc.open_file(pa.memory_map(str(_arrow(Path(p))))).read_all() for p in self.paths]
        return self._tables


def tar_index(path: str | Path) -> list[TarMember]:
    """Where the images of a WebDataset shard are; from `path.idx.json`, or by one pass over the headers.

    A sample is the files that share a name up to its first dot: an image, and its class as a number in `.cls`, or as
    `label` or `cls` in `.json`. A sample without one has the class -1.

    Raises DataError: no such file, or no tar file.
    """
    path = Path(path)
    kept = path.with_name(f"{path.name}.idx.json")
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    version = [1, status.st_size, status.st_mtime_ns]
    try:
        index = json.loads(kept.read_text(encoding="utf-8", errors="surrogateescape"))
        if index["version"] == version:
            return [TarMember(*row) for row in index["images"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # there is none, or it is of no use
    members = list(_scan(path))
    rows = [[member.key, member.offset, member.size, member.label] for member in members]
    try:
        with atomic_path(kept) as temporary:
            temporary.write_text(json.dumps({"version": version, "images": rows}), encoding="utf-8")
    except OutputError:
        pass  # a folder that is read-only: the next process makes its own pass
    return members


def _scan(path: Path) -> Iterator[TarMember]:
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isreg():
                    continue
                folder, _, file = member.name.rpartition("/")
                stem, _, extension = file.partition(".")
                sample, extension = f"{folder}/{stem}", extension.lower()
                if f".{extension}" in SUFFIXES:
                    images[sample] = member
                elif extension in ("cls", "json"):
                    content = cast(io.BufferedReader, archive.extractfile(member)).read()
                    label = _label(content, extension)
                    if label is not None:
                        labels[sample] = label
    except (tarfile.TarError, OSError) as error:
        if not images:
            raise DataError(f"{path}: is not an uncompressed tar file: {error}") from None
        # cut off: what is whole can be used
    for sample, member in images.items():
        yield TarMember(member.name, member.offset_data, member.size, labels.get(sample, -1))


def _label(content: bytes, extension: str) -> int | None:
    try:
        value = json.loads(content)
    except ValueError:
        return None
    if extension == "json" and isinstance(value, dict):
        fields = cast(dict[str, object], value)
        value = fields.get("label", fields.get("cls"))
    return value if isinstance(value, int) and value >= 0 else None


def _read_at(path: str, offset: int, size: int) -> bytes:
    # Opened anew each time: a file shared by forked worker processes would share its position too.
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            file.seek(offset)
            content = file.read(size)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from None
    if len(content) < size:
        raise ImageError("the shard ends within the image")
    return content


def _arrow(path: Path) -> Path:
    beside = path.with_name(f".{path.name}.arrow")
    if beside.exists() or os.access(path.parent, os.W_OK):
        return beside
    from torchclas.weights.cache import cache_dir  # and with it what downloads weights

    digest = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]
    return cache_dir() / "data" / f"{path.stem}-{digest}.arrow"


def _unpack(path: Path) -> None:
    """Make the Arrow file of a Parquet file, unless it is there and no older."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingDependencyError("pyarrow", "'torchclas[parquet]'") from None
    copy = _arrow(path)
    if _is_current(copy, path):
        return
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from None
    with file:
        _check_columns(file.schema_arrow, path)
        with locked(copy):
            if _is_current(copy, path):  # made by another process meanwhile
                return
            schema = pa.schema([file.schema_arrow.field(name) for name in ("image", "label")])
            schema = schema.with_metadata(file.schema_arrow.metadata)
            with atomic_path(copy) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
                try:
                    for rows in file.iter_batches(batch_size=64, columns=["image", "label"]):
                        writer.write_batch(rows.cast(schema) if rows.schema != schema else rows)
                except (pa.ArrowException, OSError) as error:
                    raise DataError(f"{path}: is damaged: {error}") from None


def _is_current(copy: Path, path: Path) -> bool:
    try:
        return copy.stat().st_mtime_ns >= path.stat().st_mtime_ns
    except OSError:
        return False


def _check_columns(schema: Any, path: Path) -> None:
    import pyarrow as pa

    def is_binary(kind: Any) -> bool:
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    if {"image", "label"} <= set(schema.names):
        image, label = schema.field("image").type, schema.field("label").type
        if pa.types.is_struct(image) and image.get_field_index("bytes") >= 0:
            image = image.field("bytes").type
        if is_binary(image) and pa.types.is_integer(label):
            return
    raise DataError(
        f"{path}: expected the columns image (bytes, or a struct with bytes) and label (integers), "
        f"not {', '.join(f'{name} ({schema.field(name).type})' for name in schema.names)}"
    )
