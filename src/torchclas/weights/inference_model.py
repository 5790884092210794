"""Reads models that PaddlePaddle exported for inference, without it: the program, and the parameters beside it.

PaddlePaddle 2 writes a program as Protocol Buffers (`inference.pdmodel`), PaddlePaddle 3 as JSON (`inference.json`);
the parameters are one tensor after the other (`inference.pdiparams`), in the order of their names. These names number
layers by kind in the order in which they were made, so they do not tell which layer is which: `weights/dataflow.py`
finds that out from the program.

Files come from strangers: a program is no larger than `_MAX_PROGRAM` bytes, of it only names, shapes and the order of
operators are kept, and the sizes of all tensors are compared with the file before any of them is read.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from torchclas.errors import CheckpointError
from torchclas.weights.kinds import files_of
from torchclas.weights.pickles import MAX_NAME, Damaged, listed

IMAGES = ("feed", "data")  # kinds of operators that give what the network is given

Array = npt.NDArray[np.generic]

_MAX_PROGRAM = 16 * 2**20  # bytes; the largest network here takes some 4 million
_MAX_DIMENSIONS = 9  # Paddle's own limit
_NO_PROGRAM = "it is no program of PaddlePaddle, or damaged"
_CUT_OFF = "the file ends early: the transfer was cut off, get it again from where it came from"


@dataclass(frozen=True)
class Parameter:
    """A tensor that the program takes from the file of parameters; `dtype` is Paddle's word for it."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * _DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Operator:
    """One step of a program: what it is called in PaddlePaddle 2, the values it takes, and those it gives.

    Weights stand before biases; a batch norm takes image, weight, bias, mean and variance. A convolution has strides.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    strides: tuple[int, ...] = ()


@dataclass(frozen=True)
class Program:
    """What an exported network computes, step by step, and the shapes at its two ends; -1 is any length."""

    operators: tuple[Operator, ...]
    parameters: Mapping[str, Parameter]
    image: tuple[int, ...]
    outputs: tuple[tuple[int, ...], ...]

    @property
    def num_classes(self) -> int:
        """The length of the first output's vectors; 0 where it gives none."""
        shape = self.outputs[0] if self.outputs else ()
        return shape[1] if len(shape) == 2 and shape[1] > 0 else 0

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the images that it takes; None where it takes any."""
        height, width = self.image[2:]
        return (height, width) if height > 0 < width else None

    @property
    def last(self) -> str:
        """What is done last to the first output, such as softmax."""
        makers = {output: one for one in self.operators for output in one.outputs}
        fetched = next((one.inputs[0] for one in self.operators if one.kind == "fetch" and one.inputs), "")
        maker = makers.get(fetched)
        while maker is not None and maker.kind in _PASS and maker.inputs:
            maker = makers.get(maker.inputs[0])
        return "" if maker is None else maker.kind


class InferenceTensors(dict[str, Array]):
    """The parameters of an inference model under the exporter's names, and the program that says what they are for."""

    def __init__(self, program: Program, tensors: Mapping[str, Array]) -> None:
        super().__init__(tensors)
        self.program = program


def read_inference_model(path: Path) -> InferenceTensors:
    """Program and parameters of an inference model; `path` is the file of either.

    Raises CheckpointError: a file is missing, damaged, or does not belong to the other.
    """
    program_path, parameters_path = files_of(path)
    program = read_program(program_path)
    return InferenceTensors(program, read_parameters(parameters_path, program))


def read_program(path: Path) -> Program:
    """The program in a `.pdmodel` or `.json`.

    Raises CheckpointError: it is damaged, or no program of a network that takes one image.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(min(size, _MAX_PROGRAM))
        if size > _MAX_PROGRAM:
            raise Damaged(f"the program is larger than {_MAX_PROGRAM:,} bytes, and than that of any network here")
        return _of_json(content) if path.suffix.lower() == ".json" else _of_protobuf(content)
    except Damaged as error:
        raise CheckpointError(f"{path}: {error}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_parameters(path: Path, program: Program) -> dict[str, Array]:
    """The tensors of a `.pdiparams`, bfloat16 as float32.

    Raises CheckpointError: it is damaged, or holds other tensors than the program takes.
    """
    # Sorted as C++ sorts strings, by their bytes.
    expected = sorted(program.parameters.values(), key=lambda parameter: parameter.name.encode())
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            if sum(parameter.size + _LEAST_HEADER for parameter in expected) > size:
                raise Damaged("the file holds fewer tensors, or smaller ones, than the program takes: it was cut off")
            tensors = {parameter.name: _tensor(file, parameter) for parameter in expected}
            if file.tell() != size:
                raise Damaged("the file holds more tensors than the program takes: it is of another model")
            return tensors
    except Damaged as error:
        raise CheckpointError(f"{path}: {error}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error


# Parameters

# Paddle's numbers of types in Protocol Buffers, and its words in PaddlePaddle 3.
_NUMBERS = {0: "bool", 1: "i16", 2: "i32", 3: "i64", 4: "f16", 5: "f32", 6: "f64", 20: "ui8", 21: "i8", 22: "bf16"}
_DTYPES = {
    "bool": np.dtype("?"),
    "i8": np.dtype("i1"),
    "ui8": np.dtype("u1"),
    "i16": np.dtype("<i2"),
    "i32": np.dtype("<i4"),
    "i64": np.dtype("<i8"),
    "bf16": np.dtype("<u2"),
    "f16": np.dtype("<f2"),
    "f32": np.dtype("<f4"),
    "f64": np.dtype("<f8"),
}
# Version, number of levels of detail (none in a parameter), version, size of the description.
_HEADER = struct.Struct("<IQIi")
_LEAST_HEADER = _HEADER.size + 2


def _tensor(file: BinaryIO, parameter: Parameter) -> Array:
    version, levels, tensor_version, length = _HEADER.unpack(_take(file, _HEADER.size))
    if (version, levels, tensor_version) != (0, 0, 0) or not 2 <= length <= 16 * _MAX_DIMENSIONS:
        raise Damaged(f"no tensor of Paddle's where {listed([parameter.name])} should be: the file is damaged")
    shape, dtype = _description(memoryview(_take(file, length)))
    if (shape, dtype) != (parameter.shape, parameter.dtype):
        raise Damaged(
            f"{listed([parameter.name])} is {dtype} {list(shape)} in the file, but {parameter.dtype} "
            f"{list(parameter.shape)} in the program: the files are of two models, or optimized "
            "for one machine; take both as PaddleClas exported them"
        )
    array = np.fromfile(file, _DTYPES[dtype], math.prod(shape))
    if array.size != math.prod(shape):
        raise Damaged(_CUT_OFF)
    if dtype == "bf16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.reshape(shape)


def _take(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise Damaged(_CUT_OFF)
    return data


# Programs of PaddlePaddle 2: Protocol Buffers, of which these fields are read.
_BLOCKS, _VARIABLES, _OPERATORS = 1, 3, 4
_NAME, _TYPE, _PERSISTABLE = 1, 2, 3  # of a variable
_KIND, _DENSE, _DENSE_TENSOR = 1, 3, 7  # of its type: what it is, a tensor's description, the number of tensors
_ELEMENTS, _DIMENSIONS = 1, 2  # of a tensor's description
_INPUTS, _OUTPUTS, _OPERATOR, _ATTRIBUTE = 1, 2, 3, 4  # of an operator
_INTEGERS = 6  # of an attribute
_SLOT, _ARGUMENTS = 1, 2  # of its inputs and outputs

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_ORDER = {"Scale": 1, "Bias": 2, "B": 2, "Mean": 3, "Variance": 4}  # of an operator's inputs; all others come first


def _of_protobuf(content: bytes) -> Program:
    block = next((part for part in _messages(memoryview(content), _BLOCKS)), None)
    if block is None:
        raise Damaged(_NO_PROGRAM)
    shapes: dict[str, tuple[int, ...]] = {}
    parameters: dict[str, Parameter] = {}
    operators: list[Operator] = []
    for number, value in _fields(block):
        if number == _VARIABLES:
            _variable(_message(value), shapes, parameters)
        elif number == _OPERATORS:
            operators.append(_operator(_message(value)))
    return _program(operators, parameters, shapes)


def _variable(message: memoryview, shapes: dict[str, tuple[int, ...]], parameters: dict[str, Parameter]) -> None:
    name, persistable, kind = "", False, memoryview(b"")
    for number, value in _fields(message):
        if number == _NAME:
            name = _text(value)
        elif number == _TYPE:
            kind = _message(value)
        elif number == _PERSISTABLE:
            persistable = bool(value)
    if next((value for number, value in _fields(kind) if number == _KIND), None) != _DENSE_TENSOR:
        return
    for dense in _messages(kind, _DENSE):
        for tensor in _messages(dense, 1):
            shape, dtype = _description(tensor)
            shapes[name] = shape
            if persistable:
                parameters[name] = Parameter(name, _known(name, shape), dtype)


def _operator(message: memoryview) -> Operator:
    kind = ""
    strides: tuple[int, ...] = ()
    inputs: list[tuple[str, list[str]]] = []
    outputs: list[tuple[str, list[str]]] = []
    for number, value in _fields(message):
        if number == _OPERATOR:
            kind = _text(value)
        elif number == _ATTRIBUTE:
            strides = _strides(_message(value)) or strides
        elif number in (_INPUTS, _OUTPUTS):
            slot, names = "", list[str]()
            for place, word in _fields(_message(value)):
                if place == _SLOT:
                    slot = _text(word)
                elif place == _ARGUMENTS:
                    names.append(_text(word))
            (inputs if number == _INPUTS else outputs).append((slot, names))
    inputs.sort(key=lambda item: _ORDER.get(item[0], 0))
    taken, given = (tuple(name for _, names in slots for name in names) for slots in (inputs, outputs))
    return Operator(kind, taken, given, strides)


def _strides(attribute: memoryview) -> tuple[int, ...]:
    """The numbers of the attribute that is called so; of others none."""
    numbers: list[int] = []
    for number, value in _fields(attribute):
        if number == _NAME and bytes(_message(value)[:8]) != b"strides":
            return ()
        if number == _INTEGERS:
            numbers += [value] if isinstance(value, int) else _packed(value)
    return tuple(numbers[:_MAX_DIMENSIONS])


def _description(message: memoryview) -> tuple[tuple[int, ...], str]:
    """Shape and type of a tensor."""
    shape: list[int] = []
    element = -1
    for number, value in _fields(message):
        if number == _ELEMENTS and isinstance(value, int):
            element = value
        elif number == _DIMENSIONS:
            lengths = [value] if isinstance(value, int) else _packed(value)
            shape += [length - 2**64 if length >= 2**63 else length for length in lengths]
    if element not in _NUMBERS:
        raise Damaged(f"a tensor is of a type that no network here has ({element})")
    if len(shape) > _MAX_DIMENSIONS:
        raise Damaged("a tensor has an impossible shape: the file is damaged")
    return tuple(shape), _NUMBERS[element]


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Numbers and contents of a message's fields; fixed ones, which nothing here needs, are passed over."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, kind = divmod(key, 8)
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if kind not in (_BYTES, _FIXED32, _FIXED64):
            raise Damaged(_NO_PROGRAM)
        length, position = _varint(message, position) if kind == _BYTES else (8 if kind == _FIXED64 else 4, position)
        if length > len(message) - position:
            raise Damaged(_CUT_OFF)
        if kind == _BYTES:
            yield number, message[position : position + length]
        position += length


def _messages(message: memoryview, number: int) -> Iterator[memoryview]:
    return (_message(value) for found, value in _fields(message) if found == number)


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise Damaged(_NO_PROGRAM)
    return value


def _packed(message: memoryview) -> list[int]:
    values: list[int] = []
    position = 0
    while position < len(message) and len(values) <= _MAX_DIMENSIONS:
        value, position = _varint(message, position)
        values.append(value)
    return values


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise Damaged(_CUT_OFF)
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise Damaged(_NO_PROGRAM)


def _text(value: int | memoryview) -> str:
    content = _message(value)
    if len(content) > MAX_NAME:
        raise Damaged(f"a name has {len(content):,} bytes: the file is damaged")
    try:
        return bytes(content).decode()
    except UnicodeDecodeError:
        raise Damaged("a name is no text: the file is damaged") from None


# Programs of PaddlePaddle 3: JSON. Its keys are short: "#" is the kind of an operator, "I" and "O" its inputs and
# outputs, "%" the number of a value, "TT" its type, of which "D" are the details.

_BATCH_NORM = ("batch_norm_", "sync_batch_norm_")
_CONVOLUTIONS = ("conv2d", "depthwise_conv2d")
_BATCH_NORM_ORDER = (0, 3, 4, 1, 2)  # it takes image, mean, variance, weight, bias


def _of_json(content: bytes) -> Program:
    try:
        whole: object = json.loads(content)
    except RecursionError:
        raise Damaged("it is nested without end") from None
    except ValueError as error:
        raise Damaged(f"it is not JSON, or was cut off ({error})") from None
    block = _first(_entry(_first(_entry(_entry(whole, "program"), "regions")), "blocks"))
    shapes: dict[str, tuple[int, ...]] = {}
    parameters: dict[str, Parameter] = {}
    operators: list[Operator] = []
    names: dict[str, str] = {}  # of parameters, whose values have numbers as all others have
    for operator in _sequence(_entry(block, "ops")):
        kind = _word(_entry(operator, "#"))
        if kind == "p":
            output = _entry(operator, "O")
            name = _word(next(iter(_sequence(_entry(operator, "A"))[3:]), None))
            found = _type(output)
            if found is None:
                raise Damaged(f"the parameter {listed([name])} is no tensor: the file is damaged")
            names[_number(output)] = name
            parameters[name] = Parameter(name, _known(name, found[0]), found[1])
            continue
        kind = kind.rpartition(".")[2]
        inputs = [_number(value) for value in _sequence(_entry(operator, "I"))]
        if kind in _BATCH_NORM and len(inputs) == len(_BATCH_NORM_ORDER):
            inputs = [inputs[place] for place in _BATCH_NORM_ORDER]
        outputs = _sequence(_entry(operator, "O"))
        for output in outputs:
            if (found := _type(output)) is not None:
                shapes[_number(output)] = found[0]
        values = tuple(names.get(value, value) for value in inputs)
        strides = _strides_of(_sequence(_entry(operator, "A"))) if kind in _CONVOLUTIONS else ()
        operators.append(Operator(kind, values, tuple(map(_number, outputs)), strides))
    return _program(operators, parameters, shapes)


def _strides_of(attributes: list[object]) -> tuple[int, ...]:
    for attribute in attributes:
        if isinstance(attribute, dict) and cast("dict[str, object]", attribute).get("N") == "strides":
            numbers = [_entry(one, "D") for one in _sequence(_entry(_entry(attribute, "AT"), "D"))[:_MAX_DIMENSIONS]]
            return tuple(number for number in numbers if isinstance(number, int))
    return ()


def _entry(value: object, key: str) -> object:
    if not isinstance(value, dict) or key not in value:
        raise Damaged(_NO_PROGRAM)
    return cast("dict[str, object]", value)[key]


def _sequence(value: object) -> list[object]:
    if not isinstance(value, list):
        raise Damaged(_NO_PROGRAM)
    return cast("list[object]", value)


def _first(value: object) -> object:
    items = _sequence(value)
    if not items:
        raise Damaged(_NO_PROGRAM)
    return items[0]


def _word(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_NAME:
        raise Damaged(_NO_PROGRAM)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Damaged("a name is no text: the file is damaged") from None
    return value


def _number(value: object) -> str:
    """What a value is called here; names of parameters do not begin so."""
    number = _entry(value, "%")
    if not isinstance(number, int) or abs(number) >= 2**63:
        raise Damaged(_NO_PROGRAM)
    return f"%{number}"


def _type(value: object) -> tuple[tuple[int, ...], str] | None:
    """Shape and type of a value; None where it is no tensor."""
    kind = cast("dict[str, object]", value).get("TT") if isinstance(value, dict) else None
    if not isinstance(kind, dict) or cast("dict[str, object]", kind).get("#") != "0.t_dtensor":
        return None
    details = _sequence(_entry(kind, "D"))
    if len(details) < 2:
        raise Damaged(_NO_PROGRAM)
    dtype = _word(_entry(details[0], "#")).removeprefix("0.t_")
    shape = [length for length in _sequence(details[1]) if isinstance(length, int) and abs(length) < 2**63]
    if len(shape) != len(_sequence(details[1])) or len(shape) > _MAX_DIMENSIONS:
        raise Damaged("a tensor has an impossible shape: the file is damaged")
    return tuple(shape), dtype


# What both have in common

_PASS = ("scale", "assign", "share_data", "share_data_", "cast", "memcpy_d2h", "memcpy_h2d")


def _known(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a parameter, all of whose lengths are known."""
    if any(length <= 0 for length in shape):
        raise Damaged(f"{listed([name])} has an impossible shape: the file is damaged")
    return shape


def _program(
    operators: Sequence[Operator], parameters: Mapping[str, Parameter], shapes: Mapping[str, tuple[int, ...]]
) -> Program:
    if unknown := {parameter.dtype for parameter in parameters.values()} - set(_DTYPES):
        raise Damaged(f"it has parameters of a type that no network here has ({listed(sorted(unknown))})")
    images = [shapes.get(name, ()) for one in operators if one.kind in IMAGES for name in one.outputs]
    images = [shape for shape in images if len(shape) == 4]
    if len(images) != 1 or images[0][1] <= 0:
        raise Damaged(f"its program takes {len(images)} images, where a classifier takes one [N, channels, H, W]")
    outputs = [shapes.get(name, ()) for one in operators if one.kind == "fetch" for name in one.inputs]
    if not outputs or not parameters:
        raise Damaged("its program has no output, or no parameters: it is no network")
    if quantized := next((one.kind for one in operators if "quantize" in one.kind), None):
        raise Damaged(f"it is quantized ({listed([quantized])}): take the model that it was made from")
    return Program(tuple(operators), parameters, images[0], tuple(outputs))
