"""What timm and torchvision call the networks that are here too: a view of `correspondence.toml` without torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Literal, get_args

from torchclas.errors import Error
from torchclas.tables import Table, mapping, one_of, text, texts

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports] - installed where Python has none

Library = Literal["timm", "torchvision"]
LIBRARIES: tuple[Library, ...] = get_args(Library)


@dataclass(frozen=True)
class Counterpart:
    """The same network in another library: what its builder is called with.

    Weights go both ways, unless `only` says that they only come from there (`load`) or only go there (`write`).
    """

    arch: str
    library: Library
    name: str
    arguments: Mapping[str, object] = field(default_factory=dict[str, object], hash=False)
    only: Literal["load", "write", ""] = ""


@dataclass(frozen=True)
class _Correspondence:
    counterparts: Mapping[Library, Mapping[str, Counterpart]]
    lookalikes: Mapping[str, tuple[str, ...]]


@cache
def _table() -> _Correspondence:
    content = resources.files("torchclas").joinpath("correspondence.toml").read_text(encoding="utf-8")
    top = Table("correspondence", tomllib.loads(content), Error)
    found: dict[Library, Mapping[str, Counterpart]] = {
        library: {arch: _read(arch, library, value) for arch, value in top.take(library, mapping).items()}
        for library in LIBRARIES
    }
    lookalikes = {arch: texts(names) for arch, names in top.take("lookalikes", mapping).items()}
    top.close()
    return _Correspondence(found, lookalikes)


def counterparts(library: Library) -> Mapping[str, Counterpart]:
    """Our architecture → its counterpart, in the order of the table."""
    return _table().counterparts[library]


def written_as(library: Library, arch: str) -> Counterpart | None:
    """The counterpart that weights of ours go to; None where they cannot."""
    counterpart = counterparts(library).get(arch)
    return None if counterpart is None or counterpart.only == "load" else counterpart


def lookalikes(arch: str) -> tuple[str, ...]:
    """Networks of timm that have the same tensors and compute something else with them."""
    return _table().lookalikes.get(arch, ())


def namesakes(name: str) -> list[Counterpart]:
    """What may be meant by `name`, a model of another library, with or without its tag (`resnet50d.ra2_in1k`).

    Those that the name alone makes come first, before those that need arguments.
    """
    plain = name.rpartition("/")[2].partition(".")[0].lower()
    found = [each for library in LIBRARIES for each in counterparts(library).values() if each.name == plain]
    return sorted(found, key=lambda counterpart: bool(counterpart.arguments))


def called_here(name: str) -> str:
    """What to say of a name of another library; empty where it is none."""
    if not (found := namesakes(name)):
        return ""
    theirs, library, arguments = found[0].name, found[0].library, shown_arguments(found[0])
    here = ", ".join(dict.fromkeys(each.arch for each in found if each.arguments == found[0].arguments))
    return (
        f"{theirs} of {library} with {arguments} is {here} here"
        if arguments
        else f"{theirs} of {library} is {here} here"
    )


def shown_arguments(counterpart: Counterpart) -> str:
    """What is typed there besides the name."""
    return ", ".join(f"{name}={value!r}" for name, value in counterpart.arguments.items())


def _read(arch: str, library: Library, value: object) -> Counterpart:
    table = Table(f"{library}.{arch}", value if isinstance(value, Mapping) else {"name": value}, Error)
    counterpart = Counterpart(
        arch,
        library,
        name=table.take("name", text),
        arguments=table.take("arguments", mapping, dict[str, object]()),
        only=table.take("only", one_of(Literal["load", "write"]), ""),
    )
    table.close()
    return counterpart
