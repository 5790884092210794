"""Images that a network gave the wrong class, or not all of theirs and no others, and a contact sheet of them."""

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

TILE, LINE, GAP, BETWEEN, COLUMNS = 144, 18, 12, 3, 8  # pixels, but for the last
INK, FAINT, WRONG = "#1c2330", "#717b8c", "#b42318"


@dataclass(frozen=True, eq=False)
class Mistake:
    """A validation image, as the network saw it (uint8 [H, W, 3]), that it gave the wrong class with this score.

    `heat` is where it saw that class, in 0..1, [h, w]; None where nobody asked. Where an image has any number of
    classes, the wrong class is the one that the network is surest of, and `missed` and `added` are all wrong ones with
    their scores: those of the image that are not named, and those named that are not of the image.
    """

    source: str
    truth: str
    said: str
    score: float
    pixels: npt.NDArray[np.uint8]
    heat: npt.NDArray[np.float32] | None = None
    missed: tuple[tuple[str, float], ...] = ()
    added: tuple[tuple[str, float], ...] = ()

    @property
    def several(self) -> bool:
        """Whether the image may have any number of classes."""
        return bool(self.missed or self.added)


def scored(classes: Sequence[tuple[str, float]]) -> str:
    """Classes, each with its score."""
    return ", ".join(f"{name} {score:.0%}" for name, score in classes)


def what_is_wrong(missed: Sequence[tuple[str, float]], added: Sequence[tuple[str, float]]) -> tuple[str, ...]:
    """A line for the classes that are missed, and one for those that are added, where there are any."""
    return tuple(f"{kind} {scored(classes)}" for kind, classes in (("missed", missed), ("added", added)) if classes)


def _caption(mistake: Mistake) -> list[tuple[str, str]]:
    """What stands below an image, line by line, with its colour."""
    if not mistake.several:
        return [(mistake.truth, INK), (f"said {mistake.said} ({mistake.score:.0%})", WRONG)]
    wrong = what_is_wrong(mistake.missed, mistake.added)
    lines = [(mistake.truth, INK), *((line, WRONG) for line in wrong)]
    return lines if mistake.heat is None else [*lines, (f"heat map: {mistake.said}", FAINT)]


def draw_mistakes(mistakes: Sequence[Mistake], path: Path) -> None:
    """A contact sheet: what each image is, and below it what it was taken for; beside it, its heat map."""
    tiles = 2 if any(mistake.heat is not None for mistake in mistakes) else 1
    room = tiles * (TILE + BETWEEN) - BETWEEN
    columns = max(1, min(COLUMNS // tiles, len(mistakes)))
    captions = list(map(_caption, mistakes))
    caption = LINE * max(map(len, captions), default=0) + 4
    rows = max(1, -(-len(mistakes) // columns))
    sheet = Image.new("RGB", (GAP + columns * (room + GAP), GAP + rows * (TILE + caption + GAP)), "#ffffff")
    pen = ImageDraw.Draw(sheet)
    for index, mistake in enumerate(mistakes):
        left = GAP + index % columns * (room + GAP)
        top = GAP + index // columns * (TILE + caption + GAP)
        small = [tile(mistake), *([] if mistake.heat is None else [heated_tile(mistake)])]
        for place, each in enumerate(small):
            at = left + place * (TILE + BETWEEN)
            sheet.paste(each, (at + (TILE - each.width) // 2, top + (TILE - each.height) // 2))
        for number, (text, colour) in enumerate(captions[index]):
            letters = pillow_font(text, 13)
            while text and letters.getlength(text) > room:
                text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
            pen.text((left, top + TILE + 17 + LINE * number), text, colour, letters, anchor="ls")
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
