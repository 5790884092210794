"""The inputs of a long run, numbered by the order in which they are named, in a file beside what is made of them.

A million names wait on disk, not in memory; and a later run sees whether it has the same ones.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import IO

from torchclas.errors import DataError


class ListingChangedError(DataError):
    """Inputs that are not those of before; the message says where they part."""


class Listing:
    """The names of inputs. As one is asked for, it is numbered, compared with that of an earlier run, and kept.

    `path` is a file of JSON lines: the current folder, to which names may be relative, the names, and once all are
    there their count. What an earlier run left in it is compared; half a line at its end is written again. Names that
    arrive slowly hold up nobody who can do with the first of them. Use it as a context manager.

    Raises:
        ListingChangedError: at the first name that differs from the earlier one of its number.
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, names: Iterable[str]) -> None:
        self.path = path
        self.count = 0  # of those that were asked for so far
        self.complete = False
        self._names = iter(names)
        self._folder = str(Path.cwd())
        self._file: IO[bytes] = path.open("r+b" if path.exists() else "w+b")
        self._new = False  # whether what is numbered next was not there before
        self._compared = 0  # bytes of the file
        before = self._earlier()
        self._folder_before = before if isinstance(before, str) else self._folder
        if before is None:
            self._append({"folder": self._folder})
            self._file.flush()

    def __enter__(self) -> Listing:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read_all(self) -> int:
        """Number all names; returns how many there are."""
        while self._next() is not None:
            pass
        self._file.flush()
        return self.count

    def names(self, start: int = 0) -> Iterator[str]:
        """The names from number `start` on, in order."""
        with self.path.open("rb") as file:
            file.readline()  # the folder
            for number in count():
                if number >= self.count:
                    if self._next() is None:
                        return
                    self._file.flush()
                line = file.readline()
                if number >= start:
                    yield json.loads(line)

    def sync(self) -> None:
        """See to it that what was numbered so far outlives the machine."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def sha256(self) -> str:
        """The SHA-256 of the names, which must be complete, in hexadecimal."""
        digest = hashlib.sha256()
        for name in self.names():
            digest.update(json.dumps(name).encode() + b"\n")
        return digest.hexdigest()

    def _next(self) -> str | None:
        """Take one more name; None where there is none."""
        if self.complete:
            return None
        name = next(self._names, None)
        before = self._earlier()
        if before is None:  # nobody knows of a later one
            self._append({"inputs": self.count} if name is None else name)
        elif name is None:
            if isinstance(before, str):
                raise ListingChangedError(f"input {self.count + 1:,} was {before}, and now there are {self.count:,}")
        elif not isinstance(before, str):
            raise ListingChangedError(f"there were {self.count:,} inputs, and now {name} follows")
        elif name != before:
            raise ListingChangedError(f"input {self.count + 1:,} was {before}, and now is {name}")
        elif self._folder != self._folder_before and _is_relative(name):
            raise ListingChangedError(f"{name} was one in {self._folder_before}, and now is one in {self._folder}")
        self.complete = name is None
        self.count += name is not None
        return name

    def _earlier(self) -> str | int | None:
        """What the next line of an earlier run says: the folder, a name, or how many there are; None for no line."""
        if self._new:
            return None
        line = self._file.readline()
        try:
            if not line.endswith(b"\n"):
                raise ValueError  # half a line, of a process that was killed
            value: str | dict[str, str | int] = json.loads(line)
        except ValueError:
            self._new = True
            self._file.seek(self._compared)
            self._file.truncate()
            return None
        self._compared += len(line)
        return value if isinstance(value, str) else next(iter(value.values()))

    def _append(self, value: object) -> None:
        self._file.write(json.dumps(value).encode() + b"\n")


def _is_relative(name: str) -> bool:
    return "://" not in name and not os.path.isabs(name)  # noqa: PTH117 - a Path for each of a million names
