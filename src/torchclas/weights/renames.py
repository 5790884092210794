"""From our parameter names to the published ones.

A layout is a short ordered tuple of rules `(ours, published)`, given by the family. Every rule replaces the whole
dotted segments it matches, one after the other, so the same table loads a published file and writes one back.

- `{x}` on our side stands for a number; on the published side `{x}`, `{x+2}` and `{x:letter}` (0 → a) print it.
- `{n}` on the published side is the running number of the block over all stages; after the stages, their length.
- A third element `"linear"` says that the published layer is a fully connected one where ours is a 1×1 convolution,
  `"conv"` that it is the other way round. The layouts of timm and torchvision have others: see `weights/libraries.py`.

What holds for every PaddlePaddle file (batch-norm statistics' names, [in, out] order of linear weights) is added here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

_BLOCK = re.compile(r"stages\.(\d+)\.(\d+)\.")
_PLACEHOLDER = re.compile(r"\{(\w+)(?:([+-]\d+)|:letter)?\}")
_STATISTICS = {"running_mean": "_mean", "running_var": "_variance"}


@dataclass(frozen=True)
class PublishedName:
    """What a parameter is called in a published file, and how it differs there, as the rules' third elements say."""

    name: str
    linear: bool = False
    conv: bool = False
    identity: bool = False
    times: float = 1.0
    eps: float | None = None


def published_names(
    ours: Iterable[str], rules: Sequence[tuple[str, ...]], *, paddle: bool = True
) -> dict[str, PublishedName]:
    """Our name → published name, for every name in `ours`; `paddle=False` keeps torch's names of statistics."""
    names = list(ours)
    depths = _depths(names)
    statistics = _STATISTICS if paddle else {}
    return {name: _rename(name, rules, depths, statistics) for name in names}


def _rename(
    name: str, rules: Sequence[tuple[str, ...]], depths: dict[int, int], statistics: dict[str, str]
) -> PublishedName:
    match = _BLOCK.match(name)
    stage, block = (int(match[1]), int(match[2])) if match else (len(depths), 0)
    number = block + sum(depth for earlier, depth in depths.items() if earlier < stage)
    found: set[str] = set()
    for ours, published, *flags in rules:
        name, count = _pattern(ours).subn(lambda match: _expand(published, match, number), name)  # noqa: B023
        found.update(flags if count else ())
    head, dot, leaf = name.rpartition(".")
    numbers = [[float(flag.removeprefix(word)) for flag in found if flag.startswith(word)] for word in ("×", "eps ")]
    return PublishedName(
        f"{head}{dot}{statistics.get(leaf, leaf)}",
        linear="linear" in found,
        conv="conv" in found,
        identity="identity" in found,
        times=next(iter(numbers[0]), 1.0),
        eps=next(iter(numbers[1]), None),
    )


def _depths(names: Iterable[str]) -> dict[int, int]:
    """Stage → how many blocks it has. Those without parameters count: published lists number them too."""
    depths: dict[int, int] = {}
    for match in filter(None, map(_BLOCK.match, names)):
        stage, block = int(match[1]), int(match[2])
        depths[stage] = max(depths.get(stage, 0), block + 1)
    return depths


@cache
def _pattern(template: str) -> re.Pattern[str]:
    body = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", re.escape(template))
    return re.compile(rf"(?<![^.]){body}(?![^.])")


def _expand(template: str, match: re.Match[str], number: int) -> str:
    values = {"n": number} | {key: int(value) for key, value in match.groupdict().items()}

    def value(placeholder: re.Match[str]) -> str:
        result = values[placeholder.group(1)] + int(placeholder.group(2) or 0)
        return chr(ord("a") + result) if placeholder.group(0).endswith(":letter}") else str(result)

    return _PLACEHOLDER.sub(value, template)
