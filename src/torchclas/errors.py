"""Errors a user can act on. Each message says what is wrong and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class Error(Exception):
    """Base of all errors torchclas raises on purpose; the CLI prints its one line and exits 2."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Python would call the class with the finished message, which fails where it takes something else.
        return _again, (type(self), self.args), self.__dict__


def _again(kind: type[Error], arguments: tuple[Any, ...]) -> Error:
    return kind.__new__(kind, *arguments)


class UnknownNameError(Error, KeyError):
    """A model, series, recipe, option … that does not exist; the message suggests the nearest ones."""

    def __init__(
        self, kind: str, name: str, known: Iterable[str], otherwise: str = "`torchclas list` prints all names"
    ) -> None:
        lowered = {candidate.lower(): candidate for candidate in known}
        close = difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)
        longer = [candidate for candidate in lowered if name and name.lower() in candidate]
        near = [lowered[match] for match in dict.fromkeys([*longer[:2], *close])][:3]
        hint = f"did you mean {', '.join(near)}?" if near else otherwise
        super().__init__(f"unknown {kind} {name!r}: {hint}")

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0])


class UnknownArgumentError(Error, TypeError):
    """A keyword argument that a function does not have; the message says what it is called here, where it has one."""

    def __init__(self, function: str, name: str, counterpart: str | None, known: Iterable[str] = ()) -> None:
        if counterpart is None:
            near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else f"help(torchclas.{function}) lists its arguments"
        else:
            hint = f"here it is {counterpart}" if counterpart.endswith(("=…", "=FILE", "]")) else counterpart
        super().__init__(f"{function}() has no argument {name!r}: {hint}")


class CheckpointError(Error):
    """A weights file that cannot be read, or does not belong to the model."""


class DownloadError(Error):
    """Weights that could not be fetched."""


class ImageError(Error):
    """An image that cannot be decoded, or must not be (too large)."""


class ImageSizeError(ImageError, ValueError):
    """An image of a size that the network cannot take."""


class DataError(Error):
    """A data set, list file or set of sources that cannot be used."""


class OutputError(Error):
    """A result that could not be written."""


class MissingDependencyError(Error, ImportError):
    """A package that a feature needs is not installed."""

    def __init__(self, package: str, install: str) -> None:
        super().__init__(f"{package} is needed for this: run `pip install {install}`")
