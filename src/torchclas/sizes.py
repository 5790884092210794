"""Image sizes: height and width in pixels, which people write as one number where they are the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from torchclas.errors import ImageSizeError

Size: TypeAlias = tuple[int, int]  # height, width


def to_size(value: int | Sequence[int]) -> Size:
    """`224` → (224, 224); a pair stays; raises `ImageSizeError` for anything else."""
    sides = (value, value) if isinstance(value, int) else tuple(value)
    if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in sides):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ImageSizeError(f"an image size is a number of pixels, or height and width such as (80, 160), not {value}")
    return sides[0], sides[1]


def parse_size(text: str) -> Size:
    """`224` → (224, 224), `80x160` or `80,160` → (80, 160), height first; raises `ImageSizeError` for anything else."""
    height, by, width = text.lower().replace("×", "x").replace(",", "x").partition("x")
    if not height.strip().isdecimal() or (by and not width.strip().isdecimal()):
        raise ImageSizeError(f"{text!r} is no image size: write one number, or HEIGHTxWIDTH such as 80x160")
    return to_size((int(height), int(width) if by else int(height)))


def show_size(size: Size) -> str:
    """`224` or `80×160`."""
    height, width = size
    return str(height) if height == width else f"{height}×{width}"
