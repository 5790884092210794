"""The metadata of exported models, read without the packages that run them.

ONNX files and OpenVINO's have it inside. Those of the runtimes of phones have it in a file beside them, as JSON.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast
from xml.parsers import expat

from torchclas.digest import sha256_of
from torchclas.errors import CheckpointError
from torchclas.runtimes.ncnn import weights_beside
from torchclas.vocabulary import EngineName

# What runs each kind of file of the runtimes of phones: that one alone.
RUNTIMES: dict[str, EngineName] = {".param": "ncnn", ".mnn": "mnn", ".pte": "executorch"}
SUFFIXES = (".onnx", ".xml", *RUNTIMES)

# Fields of ONNX's ModelProto and StringStringEntryProto; wire types of Protocol Buffers.
_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2
_GRAPH, _FUNCTIONS, _NODES_OF_GRAPH, _NODES_OF_FUNCTION, _OPERATOR, _DOMAIN = 7, 25, 1, 7, 4, 7
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_FIELDS = 100_000  # in one message; files of ours have some ten
_MAX_ENTRY = 64 * 2**20  # bytes of metadata
_MAX_SIDECAR = 64 * 2**20  # bytes
_MAX_XML = 64 * 2**20  # bytes; the weights are in a file beside it
_MAX_DEPTH = 100  # of elements; OpenVINO's have some ten


def read_note(path: Path, key: str) -> str | None:
    """What an exported model says under `key`; None where it says nothing. Raises `CheckpointError`."""
    if path.suffix in RUNTIMES:
        values = _sidecar(path)
        return json.dumps(values[key], ensure_ascii=False) if key in values else None
    try:
        return _of_openvino(path, key) if path.suffix == ".xml" else _of_onnx(path, key)
    except (OSError, ValueError, expat.ExpatError) as error:
        kind = "OpenVINO" if path.suffix == ".xml" else "ONNX"
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: not a readable {kind} file ({reason})") from error


def sidecar_of(path: Path) -> Path:
    """The file beside a model of a runtime of phones that says what it is."""
    return path.with_name(f"{path.name}.json")


def parts(path: Path) -> tuple[Path, ...]:
    """The files that a runtime of phones reads of one model; ncnn has its weights in a file of their own."""
    return (path, weights_beside(path)) if path.suffix == ".param" else (path,)


def digests(path: Path) -> list[str]:
    """The SHA-256 of each of `parts`. Raises `CheckpointError`: one is missing."""
    found: list[str] = []
    for part in parts(path):
        try:
            found.append(sha256_of(part))
        except OSError as error:
            raise CheckpointError(f"{part}: cannot be read ({error.strerror})") from error
    return found


def batch_of(path: Path) -> int | None:
    """How many images a model of a runtime of phones takes at once, None for any number. Raises `CheckpointError`."""
    match _sidecar(path):
        case {"input": {"shape": [int(batch), *_]}} if batch > 0:
            return batch
        case {"input": {"shape": ["N", *_]}}:
            return None
        case _:
            raise CheckpointError(f"{sidecar_of(path)}: not a description that `torchclas export` wrote")


def check_parts(path: Path) -> None:
    """Raise `CheckpointError` unless a model of a runtime of phones is what was written: their readers trust it."""
    if _sidecar(path).get("sha256") != digests(path):
        raise CheckpointError(
            f"{path}: it, or what belongs to it, has changed since {sidecar_of(path).name} was written: export it again"
        )


def _sidecar(path: Path) -> dict[str, Any]:
    beside = sidecar_of(path)
    try:
        with beside.open("rb") as file:
            content = file.read(_MAX_SIDECAR + 1)
        if len(content) > _MAX_SIDECAR:
            raise ValueError("it is larger than any model's description")
        values: object = json.loads(content)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: {beside.name}, which says what it is, is missing: put it beside the model, as "
            "`torchclas export` wrote both"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{beside}: not a readable description ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{beside}: not a description that `torchclas export` wrote")
    return cast("dict[str, Any]", values)


def operators(path: Path) -> set[str]:
    """The operators of an ONNX file's graph, those outside of ONNX's own set as `domain.Name`.

    Raises `CheckpointError`.
    """
    found: set[str] = set()
    try:
        with path.open("rb") as file:
            for holder, nodes in ((_GRAPH, _NODES_OF_GRAPH), (_FUNCTIONS, _NODES_OF_FUNCTION)):
                for start, end in _spans(file, (0, file.seek(0, io.SEEK_END)), holder):
                    for span in _spans(file, (start, end), nodes):
                        name, domain = (_text(file, span, field) for field in (_OPERATOR, _DOMAIN))
                        found.add(name if domain in ("", "ai.onnx") else f"{domain}.{name}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: not a readable ONNX file ({reason})") from error
    return found


def _text(file: IO[bytes], node: tuple[int, int], field: int) -> str:
    for start, end in _spans(file, node, field):
        file.seek(start)
        return file.read(min(end - start, 200)).decode("utf-8", "replace")
    return ""


def _spans(file: IO[bytes], message: tuple[int, int], wanted: int) -> Iterator[tuple[int, int]]:
    """Where in a file the fields with one number in a message are, from its first byte to behind its last."""
    position, end = message
    while position < end:
        file.seek(position)
        number, kind = divmod(_varint(file), 8)
        if kind == _VARINT:
            _varint(file)
            position = file.tell()
            continue
        if kind not in (_BYTES, _FIXED32, _FIXED64):
            raise ValueError(f"unknown kind of field {kind}")
        length = _varint(file) if kind == _BYTES else 8 if kind == _FIXED64 else 4
        start = file.tell()
        position = start + length
        if position > end:
            raise ValueError("it is truncated")
        if number == wanted and kind == _BYTES:
            yield start, position


def _of_openvino(path: Path, key: str) -> str | None:
    """No tree is built: the network's own elements, a million of them in a hostile file, leave nothing behind."""
    open_elements: list[str] = []
    found: list[str | None] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        if len(open_elements) >= _MAX_DEPTH:
            raise ValueError("its elements are nested without end")
        open_elements.append(tag)
        if open_elements == ["net", "rt_info", key]:
            found.append(attributes.get("value"))

    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type, which OpenVINO never does")

    parser = expat.ParserCreate("utf-8")  # whatever the file says: OpenVINO writes nothing else
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _tag: open_elements.pop()
    parser.StartDoctypeDeclHandler = refuse  # and with it entities that grow beyond the file
    with path.open("rb") as file:
        content = file.read(_MAX_XML + 1)
    if len(content) > _MAX_XML:
        raise ValueError("it is larger than any network's description")
    parser.Parse(content, True)  # at once: in pieces, a long value would be looked at from its start again and again
    return found[0] if found else None


def _of_onnx(path: Path, key: str) -> str | None:
    """Only the outermost fields are walked over; the graph and its weights are never read."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        for entry in _fields(file, size, _METADATA_PROPS):
            stream = io.BytesIO(entry)
            if next(_fields(stream, len(entry), _KEY), b"").decode() == key:
                stream.seek(0)
                return next(_fields(stream, len(entry), _VALUE), b"").decode()
    return None


def _fields(file: IO[bytes], size: int, wanted: int) -> Iterator[bytes]:
    """The contents of the fields with one number in a message of Protocol Buffers that is `size` bytes long."""
    for _ in range(_MAX_FIELDS):
        if file.tell() >= size:
            return
        number, kind = divmod(_varint(file), 8)
        if kind == _VARINT:
            _varint(file)
            continue
        if kind not in (_BYTES, _FIXED32, _FIXED64):
            raise ValueError(f"unknown kind of field {kind}")
        length = _varint(file) if kind == _BYTES else 8 if kind == _FIXED64 else 4
        if file.tell() + length > size:
            raise ValueError("it is truncated")
        if number == wanted and kind == _BYTES:
            if length > _MAX_ENTRY:
                raise ValueError(f"its metadata has {length:,} bytes")
            yield file.read(length)
        else:
            file.seek(length, io.SEEK_CUR)
    raise ValueError(f"it has more than {_MAX_FIELDS:,} fields")


def _varint(file: IO[bytes]) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it is truncated")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number has no end")
