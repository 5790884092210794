"""Typed, strict reading of TOML or JSON tables: every key is taken once, with its type, and the rest is rejected."""

from __future__ import annotations

import difflib
import reprlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast, get_args, overload

from torchclas.errors import Error

T = TypeVar("T")
D = TypeVar("D")
_REQUIRED = object()


class Table:
    """A table that is being read; `close` rejects the keys that nobody took.

    Whatever is wrong raises an `error` whose message names the table and the key.
    """

    def __init__(self, name: str, values: Mapping[str, object], error: type[Error]) -> None:
        self.name = name
        self._values = dict(values)
        self._known: list[str] = []
        self._error = error

    def error(self, key: str, problem: str) -> Error:
        """What to raise for a key whose value breaks a rule."""
        return self._error(f"{self.name}: {key}: {problem}")

    def fill(self, defaults: Mapping[str, object]) -> None:
        """Add the keys that the table leaves out."""
        self._values = {**defaults, **self._values}

    @overload
    def take(self, key: str, read: Callable[[object], T]) -> T: ...
    @overload
    def take(self, key: str, read: Callable[[object], T], default: D) -> T | D: ...
    def take(self, key: str, read: Callable[[object], Any], default: object = _REQUIRED) -> Any:
        """The value of a key as `read` understands it; without a default the key must be there."""
        self._known.append(key)
        if key not in self._values:
            if default is _REQUIRED:
                raise self.error(key, "is missing")
            return default
        value = self._values.pop(key)
        try:
            return read(value)
        except ValueError as error:
            raise self.error(key, f"must be {error}, not {_shown(value)}") from None

    def rest(self) -> dict[str, object]:
        """Take all other keys, as they are."""
        rest, self._values = self._values, {}
        return rest

    def tables(self, key: str) -> Iterator[Table]:
        """The tables inside the table at `key`, each named by its own key."""
        for name, value in self.take(key, mapping).items():
            if not isinstance(value, Mapping):
                raise self.error(f"{key}.{name}", f"must be a table, not {_shown(value)}")
            yield Table(name, cast(Mapping[str, object], value), self._error)

    def defined(self, key: str, name: str, known: Mapping[str, T]) -> T:
        """What `name`, the value of `key`, refers to."""
        if name not in known:
            raise self.error(key, f"{name!r} is not defined{nearest(name, known)}")
        return known[name]

    def close(self) -> None:
        """Reject what was not taken."""
        for key in self._values:
            raise self.error(ascii(key)[1:-1][:80], f"unknown key{nearest(key[:80], self._known)}")


def _shown(value: object) -> str:
    """A value as it is written, or its beginning: values may come from strangers, and be of any size."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python refuses to write integers of thousands of digits
        return "a number of thousands of digits"


def nearest(name: str, known: Iterable[str]) -> str:
    """`, did you mean …?` where a known name is like this one, or else nothing."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {match[0]}?" if match else ""


# Readers of values: they return the value with its type, or raise ValueError with what it must be.


def text(value: object) -> str:
    """A string."""
    if not isinstance(value, str):
        raise ValueError("text")
    return value


def truth(value: object) -> bool:
    """A boolean."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def positive_integer(value: object) -> int:
    """An integer above 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError("a positive integer")
    return value


def integer_within(low: int, high: int) -> Callable[[object], int]:
    """A reader of the integers from `low` to `high`."""

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"an integer from {low:,} to {high:,}")
        return value

    return read


def number(value: object) -> float:
    """A finite number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
        raise ValueError("a number")
    return float(value)


def positive(value: object) -> float:
    """A finite number above 0."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= sys.float_info.max:
        raise ValueError("a positive number")
    return float(value)


def mapping(value: object) -> Mapping[str, object]:
    """A table."""
    if not isinstance(value, Mapping):
        raise ValueError("a table")
    return cast(Mapping[str, object], value)


def sequence(value: object) -> Sequence[object]:
    """A list."""
    if not isinstance(value, (list, tuple)):
        raise ValueError("a list")
    return cast(Sequence[object], value)


def texts(value: object) -> tuple[str, ...]:
    """A list of strings."""
    return tuple(text(item) for item in sequence(value))


def numbers(value: object) -> tuple[float, ...]:
    """A list of numbers."""
    return tuple(number(item) for item in sequence(value))


def one_of(choices: object) -> Callable[[object], Any]:
    """A reader of the values that a `Literal` type allows."""
    allowed = get_args(choices)

    def read(value: object) -> Any:
        if value not in allowed:
            raise ValueError("one of " + ", ".join(choice or '""' for choice in allowed))
        return value

    return read
