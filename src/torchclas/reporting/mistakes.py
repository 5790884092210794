"""Images that a network gave the wrong class, and a contact sheet of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageOps

from torchclas.atomic import atomic_path
from torchclas.reporting.fonts import pillow_font
from torchclas.reporting.heat import heated_by_places

TILE, CAPTION, GAP, BETWEEN, COLUMNS = 144, 40, 12, 3, 8  # pixels, but for the last


@dataclass(frozen=True, eq=False)
class Mistake:
    """A validation image, as the network saw it (uint8 [H, W, 3]), that it gave the wrong class with this score.

    `heat` is where it saw that class, in 0..1, [h, w]; None where nobody asked.
    """

    source: str
    truth: str
    said: str
    score: float
    pixels: npt.NDArray[np.uint8]
    heat: npt.NDArray[np.float32] | None = None


def draw_mistakes(mistakes: Sequence[Mistake], path: Path) -> None:
    """A contact sheet: what each image is, and below it what it was taken for; beside it, its heat map."""
    tiles = 2 if any(mistake.heat is not None for mistake in mistakes) else 1
    room = tiles * (TILE + BETWEEN) - BETWEEN
    columns = max(1, min(COLUMNS // tiles, len(mistakes)))
    rows = max(1, -(-len(mistakes) // columns))
    sheet = Image.new("RGB", (GAP + columns * (room + GAP), GAP + rows * (TILE + CAPTION + GAP)), "#ffffff")
    pen = ImageDraw.Draw(sheet)
    for index, mistake in enumerate(mistakes):
        left = GAP + index % columns * (room + GAP)
        top = GAP + index // columns * (TILE + CAPTION + GAP)
        small = [tile(mistake), *([] if mistake.heat is None else [heated_tile(mistake)])]
        for place, each in enumerate(small):
            at = left + place * (TILE + BETWEEN)
            sheet.paste(each, (at + (TILE - each.width) // 2, top + (TILE - each.height) // 2))
        lines = ((mistake.truth, "#1c2330", 17), (f"said {mistake.said} ({mistake.score:.0%})", "#b42318", 35))
        for text, colour, below in lines:
            letters = pillow_font(text, 13)
            while text and letters.getlength(text) > room:
                text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
            pen.text((left, top + TILE + below), text, colour, letters, anchor="ls")
    with atomic_path(path) as temporary:
        sheet.save(temporary)


def tile(mistake: Mistake) -> Image.Image:
    """All of the image, as large as a square of one size has room for."""
    small = max(mistake.pixels.shape) < TILE
    how = Image.Resampling.BICUBIC if small else Image.Resampling.LANCZOS
    return ImageOps.contain(Image.fromarray(mistake.pixels), (TILE, TILE), how)


def heated_tile(mistake: Mistake) -> Image.Image:
    """The same below its heat map."""
    assert mistake.heat is not None
    return Image.fromarray(heated_by_places(np.asarray(tile(mistake)), mistake.heat))


def jpegs(mistake: Mistake) -> list[bytes]:
    """The tile as a file, and that below the heat map, where there is one."""
    files: list[bytes] = []
    for picture in (tile(mistake), *([] if mistake.heat is None else [heated_tile(mistake)])):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=85)
        files.append(buffer.getvalue())
    return files
