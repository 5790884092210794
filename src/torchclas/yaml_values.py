"""Values of YAML, which says nothing of their kinds: readers for `torchclas.tables.Table`, as PaddleClas means them."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from torchclas.catalog import MAX_SIDE
from torchclas.tables import sequence

if TYPE_CHECKING:
    from torchclas.sizes import Size
    from torchclas.yaml_text import Yaml

NOTHING = ("", "~", "null", "Null", "NULL", "None")
_FRACTION = re.compile(r"([\d.eE+-]{1,30})(?:/([\d.eE+-]{1,30}))?")  # PaddleClas writes 1.0/255.0


def entries(value: object) -> Mapping[str, Yaml]:
    """A table without the entries that say nothing; what is no table has none."""
    table = cast("Mapping[str, Yaml]", value) if isinstance(value, dict) else {}
    return {key: entry for key, entry in table.items() if entry not in NOTHING}


def anything(value: object) -> object:
    """Any value, as it is."""
    return value


def truth(value: object) -> bool:
    """True or false."""
    if not isinstance(value, str) or value.lower() not in ("true", "false"):
        raise ValueError("true or false")
    return value.lower() == "true"


def number(value: object) -> float:
    """A finite number, or a fraction."""
    match = _FRACTION.fullmatch(value.replace(" ", "")) if isinstance(value, str) else None
    try:
        assert match is not None
        found = float(match[1]) / float(match[2] or 1)
    except (AssertionError, ValueError, ZeroDivisionError):
        raise ValueError("a number") from None
    if not abs(found) <= sys.float_info.max:
        raise ValueError("a number")
    return found


def integer(value: object) -> int:
    """A whole number."""
    found = number(value)
    if found != int(found):
        raise ValueError("a whole number")
    return int(found)


def count(value: object) -> int:
    """A whole number above 0."""
    found = integer(value)
    if found < 1:
        raise ValueError("a whole number above 0")
    return found


def score(value: object) -> float:
    """A number in 0..1."""
    found = number(value)
    if not 0 <= found <= 1:
        raise ValueError("a score in 0..1")
    return found


def numbers(value: object) -> tuple[float, ...]:
    """A list of numbers."""
    return tuple(map(number, sequence(value)))


def three(value: object) -> tuple[float, float, float]:
    """A list of three numbers."""
    found = numbers(value)
    if len(found) != 3:
        raise ValueError("three numbers")
    return found[0], found[1], found[2]


def two(value: object) -> tuple[float, float]:
    """A list of two numbers."""
    found = numbers(value)
    if len(found) != 2:
        raise ValueError("two numbers")
    return found[0], found[1]


def side(value: object) -> int:
    """A number of pixels."""
    found = number(value)
    if found != int(found) or not 1 <= found <= MAX_SIDE:
        raise ValueError(f"a number of pixels up to {MAX_SIDE:,}")
    return int(found)


def width_and_height(value: object) -> Size:
    """Height and width, which PaddleClas writes the other way round, or one number for both."""
    if isinstance(value, str):
        return side(value), side(value)
    sides = [side(each) for each in sequence(value)]
    if len(sides) != 2:
        raise ValueError("a side, or width and height")
    return sides[1], sides[0]
