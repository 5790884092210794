"""Architectures: one file per forward graph, merged into one table."""

from __future__ import annotations

from fnmatch import fnmatchcase
from importlib import import_module
from types import ModuleType
from typing import Any

from torchclas.errors import UnknownNameError
from torchclas.layers.network import Network, Renames, count_of

FAMILIES: tuple[ModuleType, ...] = tuple(
    import_module(f"{__name__}.{name}")
    for name in (
        "resnet",
        "pplcnet",
        "mobilenet_v1",
        "mobilenet_v2",
        "mobilenet_v3",
        "efficientnet",
        "levit",
        "vgg",
        "alexnet",
        "squeezenet",
        "shufflenet_v2",
        "ghostnet",
        "darknet",
        "mixnet",
        "rexnet",
        "res2net",
        "densenet",
        "dpn",
        "repvgg",
        "hardnet",
        "resnest",
        "regnet",
        "rednet",
        "inception_v3",
        "inception_v4",
        "googlenet",
        "twins",
        "tnt",
        "vision_transformer",
        "swin_transformer",
        "hrnet",
        "xception",
        "xception_deeplab",
        "dla",
    )
)


def _merge() -> dict[str, ModuleType]:
    owner: dict[str, ModuleType] = {}
    for family in FAMILIES:
        for arch in family.VARIANTS:
            if arch in owner:
                raise RuntimeError(f"{arch} is defined by both {owner[arch].__name__} and {family.__name__}")
            owner[arch] = family
    return owner


_OWNER = _merge()


def architectures() -> list[str]:
    """Names that `build` takes."""
    return list(_OWNER)


def build(arch: str, *, num_classes: int = 1000, in_channels: int = 3) -> Network:
    """The architecture with fresh weights.

    Raises:
        UnknownNameError: no such architecture.
        Error: `num_classes` or `in_channels` is no such number.
    """
    num_classes = count_of("num_classes", num_classes, least=0)
    in_channels = count_of("in_channels", in_channels, least=1)
    cls, fields = _family(arch).VARIANTS[arch]
    network = cls(**fields, num_classes=num_classes, in_channels=in_channels)
    network.arch = arch
    return network


def renames(arch: str) -> Renames:
    """The layouts in which `arch` was published → how their names follow from ours."""
    found: Renames = {}
    for row, rules in _family(arch).RENAMES.items():
        layout, _, globs = row.partition(":")
        if not globs or any(fnmatchcase(arch, glob) for glob in globs.split()):
            found.setdefault(layout, rules)
    return found


def family(arch: str) -> str:
    """The name of the file that defines `arch`."""
    return _family(arch).__name__.rpartition(".")[2]


def _family(arch: str) -> Any:
    try:
        return _OWNER[arch]
    except KeyError:
        raise UnknownNameError("architecture", arch, _OWNER) from None
