"""Files that name classes: a name per line, or PaddleClas's maps of number and name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torchclas.encoding import read_text
from torchclas.errors import DataError

_NUMBER_FIRST = re.compile(r"(?P<number>\d{1,9})(?:\s*[,:，：]\s*|\s+)(?P<name>\S.*)")
_NUMBER_LAST = re.compile(r"(?P<name>\S.*?)(?:\s*[,:，：]\s*|\s+)(?P<number>\d{1,9})")

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


class _Numbered(NamedTuple):
    number: int
    name: str


def read_names(path: str | Path, count: int | None = None) -> tuple[str, ...]:
    """The names of classes in the order of their numbers, from a text file.

    A line holds a name, or a number and a name (`0 cat`, `0\\tcat`, `0,cat`, `0: cat`, `cat 0`), as in PaddleClas's
    `class_id_map_file`, torchvision's and timm's lists. Numbered lines may stand in any order. Empty lines count for
    nothing. Names that repeat, as ImageNet's cranes do, get their number behind them. With `count`, the file must name
    that many classes.

    Raises:
        DataError: the file cannot be read or names nothing; numbers start at 1, repeat or leave gaps; some lines have
            numbers and others have none; the names are not `count`.
    """
    path = Path(path)
    lines = [line.strip() for line in read_text(path).splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise DataError(f"{path}: names no classes: write one name per line, in the order of their numbers")
    binary = next((line for line in lines if _CONTROL.search(line)), None)
    if binary is not None:
        raise DataError(f"{path}: no list of class names: {binary[:40]!r} has control characters")
    names = _by_number(path, lines) or _by_last_number(lines) or tuple(lines)
    if count is not None and len(names) != count:
        raise DataError(f"{path}: names {len(names)} classes, but there are {count}")
    times = Counter(names)
    return tuple(f"{name} ({number})" if times[name] > 1 else name for number, name in enumerate(names))


def _by_number(path: Path, lines: Sequence[str]) -> tuple[str, ...] | None:
    """Names of lines that begin with numbers; None where the lines are the names, whatever those begin with."""
    matches = [_NUMBER_FIRST.fullmatch(line) for line in lines]
    numbered = [_Numbered(int(match["number"]), match["name"]) for match in matches if match]
    if len(numbered) == len(lines):
        names = dict(numbered)
        if len(names) == len(lines) == max(names) + 1:
            return tuple(names[number] for number in range(len(names)))
        raise DataError(f"{path}: {_wrong([entry.number for entry in numbered])}")
    # "7 up" beside "cola" is a name; "1 cola" in the second line, beside a line without a number, is a mistake.
    in_place = any(match and int(match["number"]) == place for place, match in enumerate(matches))
    if in_place:
        bare = next(line for line, match in zip(lines, matches, strict=True) if not match)
        raise DataError(
            f"{path}: {bare[:40]!r} has no number or no name, other lines have both: number all lines or none"
        )
    return None


def _by_last_number(lines: Sequence[str]) -> tuple[str, ...] | None:
    """Names of lines like `cat 0`; None for names such as `class 0`, which differ in their numbers only."""
    matches = [_NUMBER_LAST.fullmatch(line) for line in lines]
    names = {int(match["number"]): match["name"] for match in matches if match}
    if not len(names) == len(lines) == max(names, default=0) + 1 == len(set(names.values())):
        return None
    return tuple(names[number] for number in range(len(names)))


def _wrong(numbers: Sequence[int]) -> str:
    known = set(numbers)
    repeated, times = Counter(numbers).most_common(1)[0]
    if times > 1:
        return f"two lines have the number {repeated}: number each class once, from 0"
    if min(known) == 1 and max(known) == len(known):
        return "numbers start at 1: classes are numbered from 0, as the network's outputs are"
    missing = next(number for number in range(max(known) + 1) if number not in known)
    return f"no line has the number {missing}: number all classes from 0, without gaps"
