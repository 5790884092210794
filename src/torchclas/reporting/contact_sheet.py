"""A contact sheet: the first pictures as the network saw them, each with its likeliest class."""

from __future__ import annotations

import math
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageOps

from torchclas.atomic import atomic_path
from torchclas.data.loader import Batch
from torchclas.data.preprocess import NoPreprocess
from torchclas.errors import Error, ImageError
from torchclas.inference.classifier import Classifier, Prediction
from torchclas.messages import say
from torchclas.reporting.fonts import chinese_font, is_chinese, pillow_font
from torchclas.reporting.heat import heated_by_places
from torchclas.reporting.rows import short_label
from torchclas.text import printable

MAX_PICTURES = 64
MAX_COLUMNS = 8

TILE, CAPTION, GAP, BETWEEN = 192, 50, 14, 4  # pixels
PAPER, INK, FAINT = "#ffffff", "#1c2330", "#717b8c"
BAR, TRACK, BLANK = "#2f6fde", "#e6e9ef", "#e6e9ef"
WRONG = "#c0392b"
LINE = 18  # pixels that the caption of a mistake is higher


class Picture(NamedTuple):
    """A prediction, what the network saw (None: nothing), and for a mistake the lines that say what is wrong.

    `heated` is what it saw below the heat map of the wrong class, where there is one.
    """

    row: Prediction
    image: Image.Image | None
    wrong: tuple[str, ...] = ()
    heated: Image.Image | None = None


class Montage:
    """Collects pictures with their predictions, and draws them in rows of at most eight."""

    room = MAX_PICTURES

    def __init__(self, classifier: Classifier) -> None:
        classes = classifier.spec.classes
        self.preprocess = classifier.preprocess
        self.several = classifier.spec.multi_label
        self.english = dict(zip(classes.ids, classes.names("en"), strict=True))
        self.pictures: list[Picture] = []

    def add(self, batch: Batch, rows: Sequence[Prediction]) -> None:
        """Take the predictions for a batch; those after the first 64 pictures are ignored."""
        for row, (_, pixels) in zip(rows, batch.rows(list(batch.images)), strict=True):
            if len(self.pictures) == MAX_PICTURES:
                return
            self.pictures.append(Picture(row, None if isinstance(pixels, ImageError) else self.thumbnail(pixels)))

    def draw(self) -> Image.Image:
        """The sheet."""
        tiles = 2 if any(picture.heated for picture in self.pictures) else 1
        room = tiles * (TILE + BETWEEN) - BETWEEN
        columns = max(1, min(MAX_COLUMNS // tiles, math.ceil(math.sqrt(len(self.pictures) / tiles))))
        rows = max(1, math.ceil(len(self.pictures) / columns))
        caption = CAPTION + LINE * max((len(picture.wrong) for picture in self.pictures), default=0)
        size = GAP + columns * (room + GAP), GAP + rows * (TILE + caption + GAP)
        sheet = Image.new("RGB", size, PAPER)
        pen = ImageDraw.Draw(sheet)
        for index, picture in enumerate(self.pictures):
            left = GAP + index % columns * (room + GAP)
            top = GAP + index // columns * (TILE + caption + GAP)
            if picture.image is None:
                draw_error(pen, left, top, picture.row.error or "")
            else:
                sheet.paste(picture.image, (left, top))
            if picture.heated is not None:
                sheet.paste(picture.heated, (left + TILE + BETWEEN, top))
            self._caption(pen, left, top + TILE, picture, room)
        return sheet

    def save(self, path: Path) -> None:
        """Write the sheet in the format of the path's suffix."""
        labels = (picture.row.labels[0] for picture in self.pictures if picture.row.labels)
        if any(map(is_chinese, labels)) and not chinese_font():
            remark = "no font with Chinese characters was found, so its labels are English"
            print(f"{printable(str(path))}: {say(remark)}", file=sys.stderr)
        with atomic_path(path) as temporary:
            self.draw().save(temporary)

    def thumbnail(self, pixels: npt.NDArray[Any], heat: npt.NDArray[np.float32] | None = None) -> Image.Image:
        """The crop that the network saw, below a heat map of it in 0..1, [h, w], where one is given."""
        if isinstance(self.preprocess, NoPreprocess):  # a model that crops them itself
            return ImageOps.fit(Image.fromarray(pixels), (TILE, TILE), Image.Resampling.LANCZOS)
        seen = self.preprocess.pixels(pixels)
        picture = Image.fromarray(seen if heat is None else heated_by_places(seen, heat))
        return ImageOps.pad(picture, (TILE, TILE), Image.Resampling.LANCZOS, color=PAPER)

    def _caption(self, pen: ImageDraw.ImageDraw, left: int, top: int, picture: Picture, width: int) -> None:
        row, name = picture.row, printable(Path(picture.row.source).name)
        if row.scores:
            share = "" if self.several else f"{row.scores[0]:.1%}"
            draw_score(pen, left, top, width, self._label(row), row.scores[0], WRONG if picture.wrong else BAR, share)
        else:
            text = "–" if row.error is None else "error"
            pen.text((left, top + 26), text, FAINT, pillow_font(text, 15), anchor="ls")
        for line in picture.wrong:
            top += LINE
            pen.text((left, top + 26), clipped(line, 13, width), WRONG, pillow_font(line, 13), anchor="ls")
        pen.text((left, top + 44), clipped(name, 12, width), FAINT, pillow_font(name, 12), anchor="ls")

    def _label(self, row: Prediction) -> str:
        """The likeliest class, or all of them, each with its score, where an image has any number."""
        if not self.several:
            return self._name(row, 0)
        return ", ".join(f"{self._name(row, index)} {score:.0%}" for index, score in enumerate(row.scores))

    def _name(self, row: Prediction, index: int) -> str:
        for text in (row.labels[index], self.english[row.class_ids[index]]):
            if not is_chinese(text) or chinese_font():
                return short_label(printable(text))
        return printable(row.class_ids[index])


@contextmanager
def open_montage(path: Path, classifier: Classifier) -> Generator[Montage, None, None]:
    """Yield a montage that is drawn to `path` at the end; raises `Error` where Pillow knows no format by its suffix."""
    Image.init()
    if Image.EXTENSION.get(path.suffix.lower()) not in Image.SAVE:
        raise Error(f"{path}: cannot draw a montage in the format {path.suffix or 'of no suffix'}: end it in .png")
    montage = Montage(classifier)
    yield montage
    montage.save(path)


def draw_score(
    pen: ImageDraw.ImageDraw,
    left: int,
    top: int,
    width: int,
    label: str,
    score: float,
    colour: str = BAR,
    share: str | None = None,
) -> None:
    """A score as a bar and as a share, below a picture; and what it is of. `share` takes the place of the score's."""
    pen.rectangle((left, top + 3, left + width - 1, top + 6), TRACK)
    pen.rectangle((left, top + 3, left + max(1, round(width * score)) - 1, top + 6), colour)
    share = f"{score:.1%}" if share is None else share
    room = width - _text_width(share, 14) - 8
    pen.text((left + width, top + 26), share, INK, pillow_font(share, 14), anchor="rs")
    pen.text((left, top + 26), clipped(label, 15, room), INK, pillow_font(label, 15), anchor="ls")


def draw_error(pen: ImageDraw.ImageDraw, left: int, top: int, reason: str, side: int = TILE) -> None:
    """A blank tile that says why there is no picture."""
    pen.rectangle((left, top, left + side - 1, top + side - 1), BLANK)
    lines = list(_wrapped(printable(reason), 13, side - 24))
    lines = [*lines[:7], "…"] if len(lines) > 8 else lines
    y = top + side / 2 - 18 * (len(lines) - 1) / 2
    for line in lines:
        pen.text((left + side / 2, y), line, FAINT, pillow_font(line, 13), anchor="mm")
        y += 18


def _wrapped(text: str, size: int, room: float) -> Iterator[str]:
    line = ""
    for word in text.split():
        if line and _text_width(f"{line} {word}", size) > room:
            yield line
            line = ""
        while _text_width(word, size) > room:  # a path, or Chinese
            cut = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or _text_width(word[:n], size) <= room)
            yield word[:cut]
            word = word[cut:]
        line = f"{line} {word}" if line else word
    if line:
        yield line


def clipped(text: str, size: int, room: float) -> str:
    """As much of a text, `size` pixels high, as so many pixels have room for."""
    if _text_width(text, size) <= room:
        return text
    while text and _text_width(f"{text}…", size) > room:
        text = text[:-1]
    return f"{text.rstrip()}…"


def _text_width(text: str, size: int) -> float:
    """In pixels, `size` pixels high."""
    return pillow_font(text, size).getlength(text)
