"""Reads and writes PaddlePaddle's `.pdparams` files with NumPy alone.

A `.pdparams` file is a pickle of `{name: array}`, and a pickle is a program. Weights come from strangers, so this
module does not hand them to an unpickler: it interprets the few opcodes that a dictionary of arrays is made of, and
knows no others. No class is imported and no function is called on the file's behalf; what a stream may name is listed
in `_GLOBALS`, and each entry is something the interpreter does by itself.

That is also the leanest way. Strings stay in the file as `Span`s until they are needed, so that the bytes of a tensor
go from the disk straight into its array and reading takes the memory of the tensors alone. An unpickler takes twice as
much for protocol 2, where bytes are text in UTF-8.

What a hostile stream can ask for is bounded by the size of its file: arrays are allocated after their size was compared
with the bytes stored, all arrays together are no larger than the file, and the number of opcodes is limited.
"""

from __future__ import annotations

import math
import os
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
import numpy.typing as npt

from torchclas.atomic import atomic_path
from torchclas.errors import CheckpointError
from torchclas.weights.pickles import (
    CHUNK,
    MAX_NAME,
    Damaged,
    Interpreter,
    Span,
    as_dict,
    as_list,
    as_tuple,
    expect,
    listed,
)

Tensors = dict[str, npt.NDArray[Any]]

NAME_TABLE = "StructuredToParameterName@@"
SLICE_TABLE = "UnpackBigParamInfor@@"  # sic
PART_BYTES = 2**30 - 1  # Paddle slices larger tensors in protocols 2 and 3, whose strings end at 4 GiB

_DTYPES = frozenset(("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"))
_MAX_DIMENSIONS = 32  # NumPy's own limit before 2.0


def read_pdparams(path: str | os.PathLike[str]) -> Tensors:
    """Read the tensors of a `.pdparams` file, in file order, without running any code of it.

    Paddle stores bfloat16 as uint16: such tensors come back as they are, to be reinterpreted by who knows the model.

    Raises:
        CheckpointError: the file is not a plain state dict, is damaged, or asks for anything but arrays.
    """
    return read_pdparams_with_names(path)[0]


def read_pdparams_with_names(path: str | os.PathLike[str]) -> tuple[Tensors, dict[str, str]]:
    """Read a `.pdparams` file and its table from structured names to Paddle's parameter names (`conv2d_0.w_0`).

    The table is empty where the file has none, as in those that static graphs write.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            _refuse_other_formats(file.read(512))
            file.seek(0)
            return _state_dict(_Interpreter(file, size).run())
    except Damaged as error:
        raise CheckpointError(f"{path}: {error}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error


def write_pdparams(
    path: str | os.PathLike[str],
    tensors: Mapping[str, npt.NDArray[Any]],
    *,
    parameter_names: Mapping[str, str] | None = None,
    protocol: Literal[2, 3, 4] = 4,
    part_bytes: int = PART_BYTES,
) -> None:
    """Write a `.pdparams` file for `paddle.load`, any PaddlePaddle 2.x or 3.x with any NumPy.

    `parameter_names` maps names of `tensors` to Paddle's parameter names. Protocols 2 and 3 slice tensors larger than
    `part_bytes`, as Paddle does.

    Raises:
        CheckpointError: a tensor's dtype or a name has no place in such a file.
        OutputError: the file cannot be written.
    """
    if unknown := set(parameter_names or ()) - set(tensors):
        raise CheckpointError(f"{path}: parameter names without a tensor: {listed(sorted(unknown))}")
    if reserved := {NAME_TABLE, SLICE_TABLE} & set(tensors):
        raise CheckpointError(f"{path}: names reserved by the format: {listed(sorted(reserved))}")
    for name, tensor in tensors.items():
        if tensor.dtype.str[1:] not in _DTYPES:
            raise CheckpointError(f"{path}: {name} is of type {tensor.dtype}, which the format cannot hold")
        if len(name.encode()) > MAX_NAME:
            raise CheckpointError(f"{path}: the name {name[:40]}… is longer than {MAX_NAME} bytes")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        _Emitter(file, protocol).state_dict(tensors, parameter_names, part_bytes if protocol < 4 else None)


def _refuse_other_formats(head: bytes) -> None:
    """Name the usual impostors; every file that Paddle pickles starts with the PROTO opcode."""
    redownload = "get it again from where it came from"
    if not head:
        raise Damaged(f"the file is empty: {redownload}")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise Damaged(f"this is a web page (HTML or XML) saved as weights: check the address, {redownload}")
    if head.startswith(b"version https://git-lfs"):
        raise Damaged("this is a Git LFS pointer, not the weights: run `git lfs pull`")
    if head.startswith(b"PK\x03\x04"):
        raise Damaged("this is a zip archive, probably a PyTorch .pth or .pt checkpoint, not a .pdparams file")
    if head.startswith(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"):
        raise Damaged("this is a PyTorch checkpoint of the format before 1.6, not a .pdparams file")
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")) or head[257:262] == b"ustar":
        raise Damaged("this is a compressed file or archive: unpack it first")
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        raise Damaged("this is a safetensors file: rename it to end in .safetensors")
    if head.startswith(b"\0\0\0\0"):
        raise Damaged("this looks like .pdiparams of an exported inference model: the .pdparams file is needed")
    if head[0:1] != pickle.PROTO:
        raise Damaged(f"this is no .pdparams file (it does not start as a pickle does): {redownload}")
    if head[1:2] not in (b"\2", b"\3", b"\4"):
        raise Damaged("the pickle's protocol is not 2, 3 or 4, the ones PaddlePaddle writes")


@dataclass(frozen=True)
class _Global:
    """A name the stream may use; REDUCE acts on it."""

    role: Literal["array", "array type", "dtype", "encode", "bytes", "tuple", "dict"]


class _Array:
    """An array before and after BUILD: the stream may refer to it in between."""

    value: npt.NDArray[Any] | None = None


_GLOBALS = {
    "numpy.core.multiarray._reconstruct": _Global("array"),
    "numpy._core.multiarray._reconstruct": _Global("array"),
    "numpy.ndarray": _Global("array type"),
    "numpy.dtype": _Global("dtype"),
    "_codecs.encode": _Global("encode"),  # protocol 2 writes bytes as text
    "__builtin__.bytes": _Global("bytes"),  # and empty bytes as a call
    "__builtin__.tuple": _Global("tuple"),  # tensors outside of a state dict are (name, array)
    "builtins.tuple": _Global("tuple"),
    "collections.OrderedDict": _Global("dict"),
}


class _Interpreter(Interpreter):
    """Runs the stream of a state dict of PaddlePaddle."""

    tensor_bytes = 0

    def update(self, items: list[object]) -> None:
        target = as_dict(self.stack[-1])
        if len(items) % 2:
            raise Damaged("a key of the pickle has no value: the file is damaged")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self.text(key)] = self.text(value) if isinstance(value, Span) else value

    def extend(self, items: list[object]) -> None:
        target = as_list(self.stack[-1])
        target.extend(self.text(item) if isinstance(item, Span) else item for item in items)

    # Objects

    def named(self, name: str) -> _Global:
        if name not in _GLOBALS:
            hint = " (a PyTorch checkpoint?)" if name.startswith("torch.") else ""
            raise Damaged(
                f"the pickle refers to {name!r}{hint}, which tensors do not need: nothing of it was run; "
                "save the state dict alone, and distrust the file's source"
            )
        return _GLOBALS[name]

    def reduce(self, function: object, arguments: object) -> object:
        match expect(function, _Global, "a function").role, as_tuple(arguments):
            case "array", (_Global("array type"), _, _):
                return _Array()
            case "dtype", (Span() as code, *_):
                return self.dtype(self.text(code))
            case "encode", (Span() as text, Span() as encoding) if self.text(encoding) in ("latin1", "latin-1"):
                return text
            case "bytes", ():
                return Span(0, 0, utf8=False)
            case "tuple", ((Span() as name, _Array() as array),):
                return self.text(name), array
            case "dict", ():
                return {}
            case role, _:
                raise Damaged(f"the pickle makes {role!r} of something unexpected: the file is damaged")

    def dtype(self, code: str) -> np.dtype[Any]:
        if code not in _DTYPES:
            raise Damaged(f"the pickle holds arrays of type {code!r}: only numbers are read")
        return np.dtype(f"<{code}")

    def build(self, state: object) -> None:
        target, values = self.stack[-1], as_tuple(state)
        if isinstance(target, np.dtype) and len(values) > 1:
            if self.text(values[1]) not in ("<", "|"):
                raise Damaged("the arrays are not little-endian, as PaddlePaddle's are")
        elif isinstance(target, _Array) and target.value is None and len(values) == 5:
            _, shape, dtype, fortran_order, data = values
            target.value = self.array(
                as_tuple(shape),
                expect(dtype, np.dtype, "a dtype"),
                "F" if expect(fortran_order, bool, "the order of an array") else "C",
                expect(data, Span, "the bytes of an array"),
            )
        else:
            raise Damaged("the pickle builds something other than an array: the file is damaged")

    def array(
        self, shape: tuple[object, ...], dtype: np.dtype[Any], order: Literal["C", "F"], data: Span
    ) -> npt.NDArray[Any]:
        sizes = _sizes(shape, self.size)
        if sizes is None:
            raise Damaged("the pickle holds an array of an impossible shape: the file is damaged")
        count = math.prod(sizes) * dtype.itemsize
        # UTF-8 takes one or two bytes for each
        if not (count <= data.size <= 2 * count if data.utf8 else data.size == count):
            raise Damaged(f"an array of shape {sizes} and type {dtype} has {data.size:,} bytes: the file is damaged")
        self.tensor_bytes += count
        if self.tensor_bytes > self.size:
            raise Damaged("the pickle's arrays are larger than the file: it is damaged or malicious")
        flat = np.empty(count, np.uint8)
        filled = 0
        for piece in self.pieces(data):
            if filled + len(piece) > count:
                break
            flat[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
            filled += len(piece)
        else:
            if filled == count:
                return flat.view(dtype).reshape(sizes, order=order)
        raise Damaged(f"an array of shape {sizes} and type {dtype} has other than {count:,} bytes: the file is damaged")


def _state_dict(content: object) -> tuple[Tensors, dict[str, str]]:
    """Check what the stream left behind: tensors by name, and the tables beside them."""
    if isinstance(content, _Array | tuple | list):
        raise Damaged("the file holds a tensor or a list, not a dictionary of tensors: save the model's state_dict()")
    entries = as_dict(content)
    name_table = as_dict(entries.pop(NAME_TABLE, {}))
    slice_table = as_dict(entries.pop(SLICE_TABLE, {}))
    names = {name: parameter for name, parameter in name_table.items() if isinstance(parameter, str)}
    tensors: Tensors = {}
    others: list[str] = []
    for name, value in entries.items():
        match value:
            case _Array(value=np.ndarray() as array):
                tensors[name] = array
            case (str() as parameter, _Array(value=np.ndarray() as array)):
                tensors[name], names[name] = array, parameter
            case _:
                others.append(name)
    if others:
        raise Damaged(
            f"not a plain state dict: besides {len(tensors)} tensors it holds {listed(others)}; "
            "save the model's state_dict() alone, without optimizer or nesting"
        )
    if not tensors:
        raise Damaged("the file holds no tensors: save the model's state_dict()")
    entries.clear()  # or it would keep the slices alive
    for name, table in slice_table.items():
        tensors[name] = _joined(name, as_dict(table), tensors)
    return tensors, names


def _sizes(shape: tuple[object, ...], most: int) -> list[int] | None:
    """A shape whose dimensions, but for those that are 0, multiply to at most `most`; None for any other."""
    sizes = [size for size in shape if type(size) is int and 0 <= size <= most]
    if len(sizes) < len(shape) or len(shape) > _MAX_DIMENSIONS or math.prod(filter(None, sizes)) > most:
        return None
    return sizes


def _joined(name: str, table: dict[str, object], tensors: Tensors) -> npt.NDArray[Any]:
    """Take the slices of a large tensor out of `tensors` and join them."""
    slices = as_list(table.get("slices"))
    parts = [tensors.pop(part) for part in slices if isinstance(part, str) and part in tensors]
    count = sum(part.size for part in parts)
    sizes = _sizes(as_tuple(table.get("OriginShape")), count)
    if len(parts) < len(slices) or sizes is None or math.prod(sizes) != count or len({p.dtype for p in parts}) != 1:
        raise Damaged(f"the slices of {listed([name])} do not add up to the tensor: the file is damaged")
    whole = np.empty(count, parts[0].dtype)
    filled = 0
    while parts:  # each slice is freed once it is copied
        part = parts.pop(0).reshape(-1)
        whole[filled : filled + part.size] = part
        filled += part.size
    return whole.reshape(sizes)


class _Emitter:
    """Writes the stream of a state dict, tensors straight from their memory.

    NumPy's own pickles name modules of the NumPy that wrote them; those of NumPy 2 do not open in NumPy 1, which
    PaddlePaddle 2 needs. `numpy.core.multiarray` exists in both.
    """

    def __init__(self, file: BinaryIO, protocol: int) -> None:
        self.write = file.write
        self.protocol = protocol

    def state_dict(
        self, tensors: Mapping[str, npt.NDArray[Any]], names: Mapping[str, str] | None, part_bytes: int | None
    ) -> None:
        self.write(pickle.PROTO + bytes([self.protocol]) + pickle.EMPTY_DICT)
        sliced: dict[str, tuple[tuple[int, ...], list[str]]] = {}
        for name, tensor in tensors.items():
            if part_bytes is None or tensor.nbytes <= part_bytes:
                self.item(name, tensor)
                continue
            step = max(1, part_bytes // tensor.itemsize)
            flat = tensor.reshape(-1)
            slices = {f"{name}@@.{i}": flat[start : start + step] for i, start in enumerate(range(0, flat.size, step))}
            for part, values in slices.items():
                self.item(part, values)
            sliced[name] = (tensor.shape, list(slices))
        if names is not None:
            # paddle.load looks every name of the table up: those of sliced tensors are found once it has joined them
            self.item(NAME_TABLE, names)
        if sliced:
            tables = {name: {"OriginShape": shape, "slices": parts} for name, (shape, parts) in sliced.items()}
            self.item(SLICE_TABLE, tables)
        self.write(pickle.STOP)

    def item(self, key: str, value: object) -> None:
        self.value(key)
        self.value(value)
        self.write(pickle.SETITEM)

    def value(self, value: object) -> None:
        match value:
            case str():
                encoded = value.encode()
                self.write(pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded)
            case bool():
                self.write(pickle.NEWTRUE if value else pickle.NEWFALSE)
            case int():
                self.write(pickle.LONG1 + b"\x08" + struct.pack("<q", value))
            case tuple():
                self.write(pickle.MARK)
                for element in cast("tuple[object, ...]", value):
                    self.value(element)
                self.write(pickle.TUPLE)
            case list():
                self.write(pickle.EMPTY_LIST + pickle.MARK)
                for element in cast("list[object]", value):
                    self.value(element)
                self.write(pickle.APPENDS)
            case np.ndarray():
                self.array(value)
            case _:
                self.write(pickle.EMPTY_DICT)
                for key, element in cast("Mapping[str, object]", value).items():
                    self.item(key, element)

    def array(self, array: npt.NDArray[Any]) -> None:
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
        self.write(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n")
        self.value((0,))
        self.binary(np.frombuffer(b"b", np.uint8))
        self.write(pickle.TUPLE3 + pickle.REDUCE + pickle.MARK)
        self.value(1)
        self.value(array.shape)
        self.write(b"cnumpy\ndtype\n")
        self.value((array.dtype.str[1:], False, True))
        self.write(pickle.REDUCE)
        self.write(pickle.MARK)
        self.value(3)
        self.value("|" if array.itemsize == 1 else "<")
        self.write(pickle.NONE * 3)
        self.value(-1)
        self.value(-1)
        self.value(0)
        self.write(pickle.TUPLE + pickle.BUILD)
        self.value(False)
        self.binary(array.reshape(-1).view(np.uint8))
        self.write(pickle.TUPLE + pickle.BUILD)

    def binary(self, data: npt.NDArray[np.uint8]) -> None:
        if self.protocol >= 3:
            large = data.size >= 2**32
            self.write(pickle.BINBYTES8 if large else pickle.BINBYTES)
            self.write(struct.pack("<Q" if large else "<I", data.size))
            self.write(data.data)
            return
        # Protocol 2 has no bytes: they go as text, one character each, which the reader encodes again.
        self.write(b"c_codecs\nencode\n" + pickle.BINUNICODE)
        self.write(struct.pack("<I", data.size + int(np.count_nonzero(data >= 0x80))))
        for start in range(0, data.size, CHUNK):
            self.write(data[start : start + CHUNK].tobytes().decode("latin-1").encode())
        self.value("latin1")
        self.write(pickle.TUPLE2 + pickle.REDUCE)
