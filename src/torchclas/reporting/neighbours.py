"""Pictures beside what a gallery has for them: a contact sheet, and a page."""

from __future__ import annotations

import io
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from PIL import Image, ImageDraw, ImageOps

from torchclas.atomic import atomic_path
from torchclas.data.decode import MAX_PIXELS, decode
from torchclas.errors import ImageError, OutputError
from torchclas.messages import say
from torchclas.reporting import pages
from torchclas.reporting.contact_sheet import (
    BAR,
    FAINT,
    GAP,
    INK,
    PAPER,
    WRONG,
    clipped,
    draw_error,
    draw_score,
)
from torchclas.reporting.fonts import chinese_font, is_chinese, pillow_font
from torchclas.reporting.match_rows import standing
from torchclas.retrieval.searcher import Match
from torchclas.text import printable

MAX_ROWS, MAX_ON_PAGE = 32, 100  # pictures that are asked for
TILE, CAPTION, APART = 176, 50, 20  # pixels
ON_PAGE = 320  # pixels along a side
PAGES = (".html", ".htm")


class NeighbourFile(Protocol):
    """Takes matches, one after another."""

    def add(self, row: Match) -> None:
        """Take one."""
        ...

    def save(self, path: Path) -> None:
        """Write all."""
        ...


@contextmanager
def open_neighbours(path: Path, gallery: str) -> Generator[NeighbourFile]:
    """Yield what takes matches; a page (.html) or a picture of the first is written to `path` at the end.

    Raises OutputError: it cannot be written, or is of another suffix.
    """
    Image.init()
    is_page = path.suffix.lower() in PAGES
    if not is_page and Image.EXTENSION.get(path.suffix.lower()) not in Image.SAVE:
        raise OutputError(f"{path}: neighbours are drawn as a picture (.png, .jpg) or a page (.html): choose a suffix")
    drawn: NeighbourFile = Page(gallery) if is_page else Sheet()
    with atomic_path(path) as temporary:
        yield drawn
        drawn.save(temporary)


class Sheet:
    """A row for each of the first 32 pictures: itself, and to the right of it what is like it."""

    def __init__(self) -> None:
        self.rows: list[Match] = []

    def add(self, row: Match) -> None:
        """Take one."""
        if len(self.rows) < MAX_ROWS:
            self.rows.append(row)

    def save(self, path: Path) -> None:
        """Write the sheet in the format of the path's suffix."""
        self.draw().save(path)

    def draw(self) -> Image.Image:
        """The sheet."""
        columns = 1 + max((len(row.neighbours) for row in self.rows), default=0)
        width = GAP + columns * (TILE + GAP) + (APART if columns > 1 else 0)
        sheet = Image.new("RGB", (width, GAP + max(1, len(self.rows)) * (TILE + CAPTION + GAP)), PAPER)
        pen = ImageDraw.Draw(sheet)
        for number, row in enumerate(self.rows):
            top = GAP + number * (TILE + CAPTION + GAP)
            _draw_tile(sheet, pen, GAP, top, row.source, row.error)
            name, remark = printable(Path(row.source).name), standing(row) if _drawable(standing(row)) else row.status
            pen.text((GAP, top + TILE + 22), clipped(name, 13, TILE), INK, pillow_font(name, 13), anchor="ls")
            pen.text((GAP, top + TILE + 42), remark, WRONG, pillow_font(remark, 13), anchor="ls")
            for place, (label, value, neighbour) in enumerate(_neighbours(row)):
                left = GAP + (place + 1) * (TILE + GAP) + APART
                _draw_tile(sheet, pen, left, top, neighbour)
                colour = WRONG if row.status == "unknown" else BAR
                shown, name = printable(label) if _drawable(label) else "…", printable(Path(neighbour).name)
                bar = min(1.0, max(0.0, value))
                draw_score(pen, left, top + TILE, TILE, shown, bar, colour, share=f"{value:.3f}")
                below = clipped(name, 12, TILE)
                pen.text((left, top + TILE + 44), below, FAINT, pillow_font(name, 12), anchor="ls")
        return sheet


class Page:
    """An article for each of the first 100 pictures."""

    def __init__(self, gallery: str) -> None:
        self.gallery = gallery
        self.total = 0
        self.rows: list[tuple[Match, str | None, list[tuple[str, float, str, str | None]]]] = []

    def add(self, row: Match) -> None:
        """Take one."""
        self.total += 1
        if len(self.rows) < MAX_ON_PAGE:
            neighbours = [(label, value, name, _jpeg(name)) for label, value, name in _neighbours(row)]
            self.rows.append((row, _jpeg(row.source), neighbours))

    def save(self, path: Path) -> None:
        """Write the page."""
        pages.write_page(path, "neighbours.html", gallery=self.gallery, total=self.total, rows=self.rows)


def _neighbours(row: Match) -> Sequence[tuple[str, float, str]]:
    return [*zip(row.classes, row.similarities, row.neighbours, strict=True)]


def _picture(source: str) -> Image.Image:
    """A file as `decode` turns it; raises ImageError where it is none (any more)."""
    if not Path(source).is_file():
        raise ImageError("is no file here")
    return Image.fromarray(decode(source, max_pixels=MAX_PIXELS))


def _draw_tile(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, left: int, top: int, source: str, error: str | None = None
) -> None:
    try:
        if error is not None:
            raise ImageError(error)
        picture = ImageOps.contain(_picture(source), (TILE, TILE), Image.Resampling.LANCZOS)
        sheet.paste(picture, (left + (TILE - picture.width) // 2, top + (TILE - picture.height) // 2))
    except ImageError as problem:
        reason = say(str(problem))
        draw_error(pen, left, top, reason if _drawable(reason) else str(problem), TILE)


def _drawable(text: str) -> bool:
    return not is_chinese(text) or chinese_font() is not None


def _jpeg(source: str) -> str | None:
    try:
        picture = _picture(source)
    except ImageError:
        return None
    picture.thumbnail((ON_PAGE, ON_PAGE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return pages.embedded(buffer.getvalue(), "jpeg")
