"""The metadata inside exported models, ONNX files and OpenVINO's, read without the packages of either."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

from torchclas.errors import CheckpointError

SUFFIXES = (".onnx", ".xml")

# Fields of ONNX's ModelProto and StringStringEntryProto; wire types of Protocol Buffers.
_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2
_GRAPH, _FUNCTIONS, _NODES_OF_GRAPH, _NODES_OF_FUNCTION, _OPERATOR, _DOMAIN = 7, 25, 1, 7, 4, 7
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_note(path: Path, key: str) -> str | None:
    """What an exported model says under `key`; None where it says nothing. Raises `CheckpointError`."""
    try:
        return _of_openvino(path, key) if path.suffix == ".xml" else _of_onnx(path, key)
    except (OSError, ValueError, ElementTree.ParseError) as error:
        kind = "OpenVINO" if path.suffix == ".xml" else "ONNX"
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: not a readable {kind} file ({reason})") from error


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
    open_elements: list[str] = []
    for event, element in ElementTree.iterparse(path, events=("start", "end")):
        if event == "start":
            open_elements.append(element.tag)
            continue
        if open_elements == ["net", "rt_info", key]:
            return element.get("value")
        open_elements.pop()
        element.clear()
    return None


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
    while file.tell() < size:
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
            yield file.read(length)
        else:
            file.seek(length, io.SEEK_CUR)


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
