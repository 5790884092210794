"""Reads the tensors of PyTorch's `.pth` files, of any version, without an unpickler and without torch's own reader.

`torch.save` writes a zip archive of stored records: a pickle, and beside it the bytes of each tensor; before torch 1.6
it wrote a row of pickles with the bytes behind them. In both, a tensor is a place in the file. So this module looks at
all sizes before it reads or allocates anything, and takes no more memory than the tensors it returns.

Checkpoints hold more than tensors: counters, optimizers, the training script's options. What is of an unknown kind is
passed over, and nothing of it is imported or called; see `weights/pickles.py`.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from torchclas.errors import CheckpointError
from torchclas.weights.pickles import CHUNK, MAX_NAME, Damaged, Interpreter, Span, as_list, expect, listed

# Where checkpoints of the usual training scripts keep the weights; averaged ones are those meant for use.
WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
)
PREFIXES = ("module.", "_orig_mod.", "model.")  # of DistributedDataParallel, torch.compile, Lightning

_MAX_PICKLE = 64 * 2**20  # bytes; a tensor's entry takes some 200
_MAX_DIRECTORY = 8 * 2**20  # bytes; an entry takes about 80 of them, and ten times as much in memory
_MAX_DIMENSIONS = 32
_MAX_SHARING = 8  # all tensors together, in sizes of the file
_LEGACY = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# Bytes per element of types that no network here has; the older form needs them to find what lies behind.
_OTHERS = {
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
    "QInt32Storage": 4,
    "QInt8Storage": 1,
    "QUInt8Storage": 1,
}
_REBUILD = tuple(f"torch._utils._rebuild_{kind}" for kind in ("tensor", "tensor_v2"))
_PARAMETER = tuple(f"torch._utils._rebuild_{kind}" for kind in ("parameter", "parameter_with_state"))
_TYPES = ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")
_WORDS = {
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_sparse_csr_tensor": "a sparse tensor",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
    "torch._utils._rebuild_qtensor": "a quantized tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor on the meta device, without values",
    "torch._utils._rebuild_tensor_v3": "a tensor of a rare type",
    "torch._utils._rebuild_wrapper_subclass": "a tensor of a subclass",
    "torch._tensor._rebuild_from_type_v2": "a tensor of a subclass",
    "numpy.core.multiarray._reconstruct": "a NumPy array",
    "numpy._core.multiarray._reconstruct": "a NumPy array",
}
_SAVE = "save the network's weights alone, with torch.save(model.state_dict(), …)"


def read_torch(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a file of `torch.save`, in file order, without running any code of it.

    Takes a state dict, or a checkpoint that holds one under a usual name (`state_dict`, `model`, …; averaged weights
    such as `state_dict_ema` go first). A prefix that all names share (`module.`, `_orig_mod.`, `model.`) is left out.

    Raises:
        CheckpointError: no state dict in the file, something other than plain dense tensors in it, or a damaged file.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise Damaged("the file is empty")
            content, places = _open(file, size)
            return _without_prefixes(_read_tensors(file, _state_dict(content), places, size))
    except Damaged as error:
        raise CheckpointError(f"{path}: {error}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error


@dataclass(frozen=True)
class _Place:
    """Where the bytes of a storage are."""

    start: int
    size: int
    crc: int | None = None


@dataclass(frozen=True)
class _Name:
    """A class or function that the stream names; nothing is imported."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False)
class _Foreign:
    """Something that is not read."""

    name: str

    def __str__(self) -> str:
        return _WORDS.get(self.name, self.name)


@dataclass(frozen=True)
class _Storage:
    key: str
    type: str
    count: int  # of elements


@dataclass(frozen=True)
class _Stored:
    """A tensor as the file describes it."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Interpreter(Interpreter):
    """Runs the stream of a checkpoint; what is neither a tensor nor plain data becomes `_Foreign`."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(file, size)
        self.storages: dict[str, _Storage] = {}

    def step(self, opcode: bytes) -> None:
        match opcode:
            case pickle.BINPERSID:
                self.push(self.storage(self.stack.pop()))
            case pickle.NEWOBJ:
                self.stack.pop()
                self.push(_Foreign(_name_of(self.stack.pop())))
            case pickle.NEWOBJ_EX:
                del self.stack[-2:]
                self.push(_Foreign(_name_of(self.stack.pop())))
            case pickle.EMPTY_SET:
                self.push(_Foreign("set"))
            case pickle.ADDITEMS:
                self.since_mark()
            case pickle.FROZENSET:
                self.since_mark()
                self.push(_Foreign("frozenset"))
            case _:
                super().step(opcode)

    def update(self, items: list[object]) -> None:
        target = self.stack[-1]
        if isinstance(target, _Foreign):  # a class that is a dictionary
            return
        target = cast("dict[object, object]", expect(target, dict, "a dictionary"))
        if len(items) % 2:
            raise Damaged("a key of the pickle has no value: the file is damaged")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self._key(key)] = value

    def _key(self, key: object) -> object:
        if isinstance(key, Span) and key.size <= MAX_NAME:
            return self.text(key)
        # Tuples are not hashed: one that holds itself twice, and so on, never comes to an end.
        return key if isinstance(key, int | float | None) else _Foreign("a key")

    def extend(self, items: list[object]) -> None:
        target = self.stack[-1]
        if not isinstance(target, _Foreign):
            as_list(target).extend(items)

    def named(self, name: str) -> _Name:
        return _Name(name)

    def reduce(self, function: object, arguments: object) -> object:
        name = _name_of(function)
        match arguments:
            case ():
                return {} if name == "collections.OrderedDict" else _Foreign(name)
            case (_Storage() as storage, int() as offset, tuple() as shape, tuple() as stride, *rest) if (
                name in _REBUILD and not any(rest[2:])  # the third says that values stand for their negatives or so
            ):
                return _stored(storage, offset, shape, stride)
            case (_Stored() as data, *_) if name in _PARAMETER:
                return data
            case (_Name() as function, _Name() as type_, tuple() as inner, *_) if (
                name == "torch._tensor._rebuild_from_type_v2" and type_.name in _TYPES
            ):
                return self.reduce(function, cast("object", inner)) if function.name != name else _Foreign(name)
            case _:
                return _Foreign(name)

    def storage(self, reference: object) -> object:
        """What a persistent id stands for: the bytes of a tensor. View metadata was always None since torch 0.4."""
        match reference:
            case (Span() as kind, _Name() as type_, Span() as key, Span(), int() as count, *view) if self.text(
                kind
            ) == "storage" and not any(view):
                storage = _Storage(self.text(key), type_.name.rpartition(".")[2], count)
                if self.storages.setdefault(storage.key, storage) != storage:
                    raise Damaged("the pickle says two things of one storage: the file is damaged")
                return storage
            case _:
                return _Foreign("a storage of an unknown form")

    def build(self, state: object) -> None:
        """Attributes of objects, such as a state dict's `_metadata`, have no use here."""


def _name_of(value: object) -> str:
    return value.name if isinstance(value, _Name | _Foreign) else "an unknown object"


def _stored(storage: _Storage, offset: int, shape: tuple[object, ...], stride: tuple[object, ...]) -> _Stored:
    sizes = [size for size in shape if type(size) is int and size >= 0]
    steps = [step for step in stride if type(step) is int and step >= 0]
    if len(shape) > _MAX_DIMENSIONS or not len(sizes) == len(shape) == len(steps) == len(stride) or offset < 0:
        raise Damaged("the pickle holds a tensor of an impossible shape: the file is damaged")
    return _Stored(storage, offset, tuple(sizes), tuple(steps))


# The two forms of the file


def _open(file: BinaryIO, size: int) -> tuple[object, dict[str, _Place]]:
    """What was saved, and where the bytes of each storage are."""
    start = file.read(32)
    file.seek(0)
    if start.startswith(b"PK\x03\x04"):
        return _open_archive(file, size)
    if start.startswith(_LEGACY, 2):  # behind the pickle's protocol
        return _open_row(file, size)
    raise Damaged("this is not a file of torch.save: it is neither a zip archive nor a row of pickles")


def _open_archive(file: BinaryIO, size: int) -> tuple[object, dict[str, _Place]]:
    records = _records(file, size)
    folders = {name.partition("/")[0] for name in records}
    if len(folders) != 1:
        raise Damaged("this is a zip archive, but not one of torch.save")
    [folder] = folders
    if f"{folder}/constants.pkl" in records:
        raise Damaged(f"this is a TorchScript program, not weights: {_SAVE}")
    if f"{folder}/archive_format" in records or f"{folder}/serialized_exported_program.json" in records:
        raise Damaged(f"this is an exported program (.pt2), not weights: {_SAVE}")
    main = records.get(f"{folder}/data.pkl")
    if main is None:
        raise Damaged("this is a zip archive, but not one of torch.save: it holds no data.pkl")
    if main.size > _MAX_PICKLE:
        raise Damaged(f"its data.pkl has {main.size:,} bytes, which no state dict needs: {_SAVE}")
    order = records.get(f"{folder}/byteorder")
    if order is not None and (order.size > 16 or _bytes(file, order) != b"little"):
        raise Damaged("its numbers are not little-endian, as all but very rare machines write them")
    content = _Interpreter(io.BytesIO(_bytes(file, main)), main.size).run()
    data = f"{folder}/data/"
    return content, {name.removeprefix(data): place for name, place in records.items() if name.startswith(data)}


def _records(file: BinaryIO, size: int) -> dict[str, _Place]:
    """The archive's records; as torch does, all must be stored as they are, so that none is larger than the file."""
    records: dict[str, _Place] = {}
    total = 0
    try:
        with zipfile.ZipFile(cast(BinaryIO, _Bounded(file))) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error, EOFError) as error:
        raise Damaged(f"the zip archive is damaged ({error}): fetch or save it again") from None
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
            raise Damaged("the zip archive is compressed or encrypted, which torch.save never does: unpack it first")
        if entry.filename in records:
            raise Damaged(f"the zip archive holds {listed([entry.filename])} twice: the file is damaged")
        records[entry.filename] = _Place(_start(file, entry.header_offset), entry.file_size, entry.CRC)
        total += entry.file_size
    if total > size or any(place.start + place.size > size for place in records.values()):
        raise Damaged("the zip archive's records are larger than the file: it is cut off or malicious")
    return records


class _Bounded:
    """A file of which not all is read at once, whatever size its own end gives the archive's directory."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self._read = file.read

    def read(self, count: int = -1) -> bytes:
        content = self._read(count if 0 <= count <= _MAX_DIRECTORY else _MAX_DIRECTORY + 1)
        if len(content) > _MAX_DIRECTORY:
            raise Damaged("the directory of the zip archive is larger than that of any state dict")
        return content


def _start(file: BinaryIO, header: int) -> int:
    """Where a record's bytes start: behind its own header, whose lengths the directory does not tell."""
    file.seek(header)
    head = file.read(30)
    if len(head) < 30 or head[:4] != b"PK\x03\x04":
        raise Damaged("a record of the zip archive is not where its directory says: the file is damaged")
    return header + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")


def _open_row(file: BinaryIO, size: int) -> tuple[object, dict[str, _Place]]:
    """Before torch 1.6: a magic number, a version, a dictionary about the machine, the content, the storages' keys."""
    magic, version, machine = (_Interpreter(file, size).run() for _ in range(3))
    little = isinstance(machine, dict) and cast("dict[object, object]", machine).get("little_endian") is True
    if not isinstance(magic, int) or version != 1001 or not little:
        raise Damaged("this is a torch file of an unknown version or from a big-endian machine: save it anew")
    main = _Interpreter(file, size)
    content = main.run()
    keys = as_list(_Interpreter(file, size).run())
    stream = _Interpreter(file, size)
    places: dict[str, _Place] = {}
    for key in keys:
        name = stream.text(key)
        if (storage := main.storages.get(name)) is None or (itemsize := _itemsize(storage)) == 0:
            raise Damaged("its storages are not those that its tensors need: the file is damaged")
        length = stream.integer(8, signed=True) * itemsize
        start = file.tell()
        if not 0 <= length <= size - start:
            raise Damaged("the file ends early: the transfer was cut off, fetch or save it again")
        places[name] = _Place(start, length)
        file.seek(length, os.SEEK_CUR)
    return content, places


def _itemsize(storage: _Storage) -> int:
    return _DTYPES[storage.type].itemsize if storage.type in _DTYPES else _OTHERS.get(storage.type, 0)


def _bytes(file: BinaryIO, place: _Place) -> bytes:
    return _array(file, place).tobytes()


def _array(file: BinaryIO, place: _Place) -> npt.NDArray[np.uint8]:
    content = np.empty(place.size, np.uint8)
    view, crc = content.data, 0
    file.seek(place.start)
    for start in range(0, place.size, CHUNK):
        piece = view[start : start + CHUNK]
        piece[:] = file.read(len(piece))
        crc = zlib.crc32(piece, crc)
    if place.crc not in (None, crc):
        raise Damaged(
            "a checksum is wrong: the file is damaged, fetch it again "
            "(or it was saved without checksums: save it with torch.serialization.set_crc32_options(True))"
        )
    return content


# From what was saved to tensors


def _state_dict(content: object) -> dict[str, _Stored]:
    """The weights, whatever else was saved with them."""
    if isinstance(content, _Foreign | _Name):
        raise Damaged(f"it holds a whole object ({listed([str(content)])}), which is never read from a file: {_SAVE}")
    if not isinstance(content, dict):
        raise Damaged(f"it holds a tensor or a list, not a dictionary of tensors: {_SAVE}")
    entries = cast("dict[object, object]", content)
    if wrapped := [name for name in WRAPPERS if _holds_tensors(entries.get(name))]:
        entries = cast("dict[object, object]", entries[wrapped[0]])
    state = {name: value for name, value in entries.items() if isinstance(name, str) and isinstance(value, _Stored)}
    others = [f"{_shown(name)} ({_shown(value)})" for name, value in entries.items() if name not in state]
    if others and state:
        raise Damaged(f"besides {len(state)} tensors it holds what is none: {listed(others)}; {_SAVE}")
    if others:
        raise Damaged(f"it holds no weights under a usual name, but {listed(others)}; {_SAVE}")
    if not state:
        raise Damaged(f"it holds no tensors: {_SAVE}")
    return state


def _holds_tensors(value: object) -> bool:
    return isinstance(value, dict) and any(isinstance(v, _Stored) for v in cast("dict[object, object]", value).values())


def _shown(value: object) -> str:
    """A word for something in the file; never its own contents at length."""
    if isinstance(value, str | _Foreign | _Name):
        return str(value)
    return repr(value) if isinstance(value, int | float | None) else type(value).__name__.replace("Span", "text")


def _read_tensors(
    file: BinaryIO, state: Mapping[str, _Stored], places: Mapping[str, _Place], size: int
) -> dict[str, Tensor]:
    """All sizes are looked at before the first byte is read."""
    total = 0
    for name, tensor in state.items():
        total += _checked_size(name, tensor, places)
        if total > _MAX_SHARING * size:
            raise Damaged(f"its tensors are views of the same bytes, and together much larger than the file: {_SAVE}")
    storages: dict[str, Tensor] = {}  # those of tensors that share one are read once
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.items():
        key, dtype = tensor.storage.key, _DTYPES[tensor.storage.type]
        if key not in storages:
            storages[key] = torch.from_numpy(_array(file, places[key])).view(dtype)
        tensors[name] = storages[key].as_strided(tensor.shape, tensor.stride, tensor.offset)
    return tensors


def _checked_size(name: str, tensor: _Stored, places: Mapping[str, _Place]) -> int:
    """The bytes of a tensor, once it is sure that they are there."""

    def problem(text: str) -> Damaged:
        return Damaged(f"the tensor {listed([name])} {text}")

    storage = tensor.storage
    if storage.type not in _DTYPES:
        raise problem(f"is of type {listed([storage.type.removesuffix('Storage')])}, which no network here has")
    itemsize = _itemsize(storage)
    count = math.prod(tensor.shape)
    if count == 0 or storage.count <= 0:
        raise problem("is empty: the file is damaged, or of another kind of model")
    if storage.key not in places or places[storage.key].size != storage.count * itemsize:
        raise problem("has other bytes in the file than it needs: the file is damaged")
    last = tensor.offset + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride, strict=True))
    if last >= storage.count:
        raise problem("reaches beyond its bytes in the file: the file is damaged")
    if count > storage.count:
        raise problem("repeats its values instead of storing them (it was expanded): save it as .contiguous()")
    return count * itemsize


def _without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if "n_averaged" in tensors and all(name.startswith("module.") for name in tensors if name != "n_averaged"):
        tensors = {name: tensor for name, tensor in tensors.items() if name != "n_averaged"}  # torch's AveragedModel
    while shared := [prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in tensors)]:
        tensors = {name.removeprefix(shared[0]): tensor for name, tensor in tensors.items()}
    return tensors
