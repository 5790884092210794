"""A sheet of explanations: each picture, and beside it the same below the heat map of each class."""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from torchclas.explanation.heat_map import Explanation, HeatMap
from torchclas.reporting.contact_sheet import (
    BLANK,
    FAINT,
    GAP,
    MAX_COLUMNS,
    MAX_PICTURES,
    PAPER,
    clipped,
    draw_error,
    draw_score,
)
from torchclas.reporting.fonts import chinese_font, is_chinese, pillow_font
from torchclas.reporting.heat import draw
from torchclas.reporting.rows import short_label
from torchclas.text import printable

TILE, CAPTION = 256, 36  # pixels
BETWEEN = 4  # tiles of one picture


class Sheet:
    """Collects explanations as small pictures, and draws them; those after the first 64 are ignored."""

    room: int | None = MAX_PICTURES

    def __init__(self) -> None:
        self.rows: list[tuple[Explanation, list[Image.Image]]] = []

    def add(self, explanation: Explanation) -> None:
        """Take one."""
        if len(self.rows) == MAX_PICTURES:
            return
        kept = Explanation(explanation.source, explanation.status, explanation.maps, error=explanation.error)
        tiles: list[Image.Image] = []
        if explanation.status == "ok":
            indices: list[int | None] = [None, *range(len(explanation.maps))]
            tiles = [draw(explanation, index, TILE) for index in indices]
        self.rows.append((kept, tiles))

    def save(self, path: Path) -> None:
        """Write the sheet in the format of the path's suffix."""
        self.draw().save(path)

    def draw(self) -> Image.Image:
        """The sheet."""
        tiles = max((len(tiles) for _, tiles in self.rows), default=1) or 1
        group = tiles * (TILE + BETWEEN) - BETWEEN
        # About as high as it is wide, with eight tiles side by side at most.
        columns = max(1, min(MAX_COLUMNS // tiles, round(math.sqrt(len(self.rows) * (TILE + CAPTION) / group))))
        rows = max(1, math.ceil(len(self.rows) / columns))
        size = GAP + columns * (group + GAP), GAP + rows * (TILE + CAPTION + GAP)
        sheet = Image.new("RGB", size, PAPER)
        pen = ImageDraw.Draw(sheet)
        for index, (explanation, pictures) in enumerate(self.rows):
            left = GAP + index % columns * (group + GAP)
            top = GAP + index // columns * (TILE + CAPTION + GAP)
            name = printable(Path(explanation.source).name)
            pen.text((left, top + TILE + 26), clipped(name, 15, TILE), FAINT, pillow_font(name, 15), anchor="ls")
            if explanation.status == "error":
                draw_error(pen, left, top, explanation.error or "", TILE)
            for place, picture in enumerate(pictures):
                at = left + place * (TILE + BETWEEN)
                sheet.paste(ImageOps.pad(picture, (TILE, TILE), color=BLANK), (at, top))
                if place > 0:
                    _caption(pen, at, top + TILE, explanation.maps[place - 1])
        return sheet


def _caption(pen: ImageDraw.ImageDraw, left: int, top: int, shown: HeatMap) -> None:
    drawable = chinese_font() or not is_chinese(shown.label)
    name = short_label(shown.label) if drawable else shown.class_id
    draw_score(pen, left, top, TILE, printable(name), shown.score)
