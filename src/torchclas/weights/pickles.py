"""Reads pickles of plain data without an unpickler.

A pickle is a program, and weights come from strangers. This module interprets the few opcodes that dictionaries of
arrays are made of, and knows no others. No class is imported and no function is called on the file's behalf: what a
name that the stream uses stands for is decided by the reader of each format, in a subclass.

Strings stay in the file as `Span`s until they are needed, so that the bytes of a tensor go from the disk straight into
its array and reading takes the memory of the tensors alone. The number of opcodes is limited.
"""

from __future__ import annotations

import codecs
import os
import pickle
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, TypeVar, cast

_Kind = TypeVar("_Kind")

MAX_NAME = 1024  # bytes
CHUNK = 2**20
_MAX_OPCODES = 1_000_000  # about 50 per tensor; the largest published file needs some 50,000


class Damaged(Exception):  # noqa: N818 - internal: becomes a CheckpointError once the file's name is at hand
    """What is wrong with the file."""


@dataclass(frozen=True)
class Span:
    """A string left in the file. Text and bytes need no distinction: bytes are what Latin-1 makes of the text."""

    start: int
    size: int
    utf8: bool


class Interpreter:
    """Runs the stream of a pickle made of dictionaries, names, numbers and arrays; subclasses say what objects are."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size
        self.stack: list[object] = []
        self.marked: list[list[object]] = []
        self.memo: dict[int, object] = {}
        self.names: dict[Span, str] = {}

    def run(self) -> object:
        """What the stream leaves behind; raises `Damaged`."""
        try:
            for _ in range(_MAX_OPCODES):
                opcode = self.take(1)
                if opcode == pickle.STOP:
                    return self.stack.pop()
                self.step(opcode)
        except (IndexError, KeyError):
            raise Damaged("the pickle refers to what is not there: the file is damaged, fetch it again") from None
        except UnicodeError:
            raise Damaged("a string of the pickle is not valid text: the file is damaged, fetch it again") from None
        raise Damaged(f"the pickle has more than {_MAX_OPCODES:,} opcodes: no state dict needs as many")

    def step(self, opcode: bytes) -> None:
        """Do what one opcode says."""
        push = self.push
        match opcode:
            # References
            case pickle.BINPUT:
                self.memo[self.take(1)[0]] = self.stack[-1]
            case pickle.LONG_BINPUT:
                self.memo[self.integer(4)] = self.stack[-1]
            case pickle.MEMOIZE:
                self.memo[len(self.memo)] = self.stack[-1]
            case pickle.BINGET:
                push(self.memo[self.take(1)[0]])
            case pickle.LONG_BINGET:
                push(self.memo[self.integer(4)])
            # Strings
            case pickle.SHORT_BINUNICODE:
                push(self.span(1, utf8=True))
            case pickle.BINUNICODE:
                push(self.span(4, utf8=True))
            case pickle.BINUNICODE8:
                push(self.span(8, utf8=True))
            case pickle.SHORT_BINBYTES | pickle.SHORT_BINSTRING:  # Python 2 wrote *STRING
                push(self.span(1, utf8=False))
            case pickle.BINBYTES | pickle.BINSTRING:
                push(self.span(4, utf8=False))
            case pickle.BINBYTES8:
                push(self.span(8, utf8=False))
            # Numbers
            case pickle.BININT1:
                push(self.integer(1))
            case pickle.BININT2:
                push(self.integer(2))
            case pickle.BININT:
                push(self.integer(4, signed=True))
            case pickle.LONG1:
                push(self.integer(self.integer(1), signed=True))
            case pickle.BINFLOAT:
                push(struct.unpack(">d", self.take(8))[0])
            case pickle.NONE:
                push(None)
            case pickle.NEWTRUE:
                push(True)
            case pickle.NEWFALSE:
                push(False)
            # Containers
            case pickle.MARK:
                self.marked.append(self.stack)
                self.stack = []
            case pickle.EMPTY_TUPLE:
                push(())
            case pickle.TUPLE:
                push(tuple(self.since_mark()))
            case pickle.TUPLE1 | pickle.TUPLE2 | pickle.TUPLE3:
                count = opcode[0] - pickle.TUPLE1[0] + 1
                push(tuple(reversed([self.stack.pop() for _ in range(count)])))
            case pickle.EMPTY_DICT:
                push({})
            case pickle.SETITEM:
                value = self.stack.pop()
                self.update([self.stack.pop(), value])
            case pickle.SETITEMS:
                self.update(self.since_mark())
            case pickle.EMPTY_LIST:
                push([])
            case pickle.APPEND:
                self.extend([self.stack.pop()])
            case pickle.APPENDS:
                self.extend(self.since_mark())
            # Objects
            case pickle.GLOBAL:
                push(self.named(f"{self.line()}.{self.line()}"))
            case pickle.STACK_GLOBAL:
                name = self.text(self.stack.pop())
                push(self.named(f"{self.text(self.stack.pop())}.{name}"))
            case pickle.REDUCE:
                arguments = self.stack.pop()
                push(self.reduce(self.stack.pop(), arguments))
            case pickle.BUILD:
                self.build(self.stack.pop())
            case pickle.PROTO:
                self.take(1)
            case pickle.FRAME:
                self.take(8)
            case _:
                raise Damaged(
                    f"the pickle holds the opcode {opcode!r} at byte {self.file.tell() - 1}, which no state dict has: "
                    "the file is damaged or of another kind"
                )

    # The file

    def take(self, count: int) -> bytes:
        """The next bytes of the stream."""
        data = self.file.read(count)
        if len(data) < count:
            raise Damaged(f"the file ends early, after {self.size:,} bytes: the transfer was cut off, fetch it again")
        return data

    def line(self) -> str:
        """The rest of a line."""
        line = self.file.readline(256)
        if not line.endswith(b"\n"):
            raise Damaged("the pickle names something without end: the file is damaged, fetch it again")
        return line[:-1].decode()

    def integer(self, size: int, *, signed: bool = False) -> int:
        """The next `size` bytes as a number."""
        return int.from_bytes(self.take(size), "little", signed=signed)

    def span(self, length_size: int, *, utf8: bool) -> Span:
        """A string whose length comes first; it is passed over."""
        length = self.integer(length_size)
        start = self.file.tell()
        if length > self.size - start:
            raise Damaged(
                f"the file ends early: a string of {length:,} bytes starts at byte {start:,} of {self.size:,}; "
                "the transfer was cut off, fetch it again"
            )
        self.file.seek(length, os.SEEK_CUR)
        return Span(start, length, utf8)

    def text(self, value: object) -> str:
        """A short string's characters."""
        span = expect(value, Span, "a name")
        if span not in self.names:  # or a stream could multiply one long name by referring to it often
            if span.size > MAX_NAME:
                raise Damaged(f"the pickle holds a name of {span.size:,} bytes: the file is damaged")
            here = self.file.tell()
            self.file.seek(span.start)
            self.names[span] = self.take(span.size).decode("utf-8" if span.utf8 else "latin-1")
            self.file.seek(here)
        return self.names[span]

    def pieces(self, span: Span) -> Iterator[bytes]:
        """Yield the bytes of `span` in order."""
        here = self.file.tell()
        self.file.seek(span.start)
        decode = codecs.getincrementaldecoder("utf-8")().decode
        for start in range(0, span.size, CHUNK):
            piece = self.take(min(CHUNK, span.size - start))
            yield decode(piece, final=start + CHUNK >= span.size).encode("latin-1") if span.utf8 else piece
        self.file.seek(here)

    # Containers

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def since_mark(self) -> list[object]:
        """What the stack holds since its last mark, taken from it."""
        items, self.stack = self.stack, self.marked.pop()
        return items

    # What a format decides

    def update(self, items: list[object]) -> None:
        """Put keys and values into the dictionary on the stack."""
        raise NotImplementedError

    def extend(self, items: list[object]) -> None:
        """Append to the list on the stack."""
        raise NotImplementedError

    def named(self, name: str) -> object:
        """What `module.name` stands for."""
        raise NotImplementedError

    def reduce(self, function: object, arguments: object) -> object:
        """What a call gives."""
        raise NotImplementedError

    def build(self, state: object) -> None:
        """Give the object on the stack its state."""
        raise NotImplementedError


def expect(value: object, kind: type[_Kind], what: str) -> _Kind:
    """`value`, which must be of this kind."""
    if not isinstance(value, kind):
        raise Damaged(f"the pickle has something else where {what} should be: the file is damaged")
    return value


def as_dict(value: object) -> dict[str, object]:
    """`value`, which must be a dictionary."""
    return cast("dict[str, object]", expect(value, dict, "a dictionary"))


def as_tuple(value: object) -> tuple[object, ...]:
    """`value`, which must be a tuple."""
    return cast("tuple[object, ...]", expect(value, tuple, "a tuple"))


def as_list(value: object) -> list[object]:
    """`value`, which must be a list."""
    return cast("list[object]", expect(value, list, "a list"))


def listed(names: list[str]) -> str:
    """Name a few; the names come from strangers, and may be long or hold what a terminal obeys."""
    shown = [f"{name:.60}{'…' if len(name) > 60 else ''}" for name in names[:5]]
    shown = [name if name.isprintable() else ascii(name) for name in shown]
    return ", ".join(shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
