"""A contact sheet: the first pictures as the network saw them, each with its likeliest class."""

from __future__ import annotations

import math
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps

from torchclas.atomic import atomic_path
from torchclas.data.loader import Batch
from torchclas.data.preprocess import NoPreprocess
from torchclas.errors import Error, ImageError
from torchclas.inference.classifier import Classifier, Prediction
from torchclas.tasks.output import printable, short_label

MAX_PICTURES = 64
MAX_COLUMNS = 8

TILE, CAPTION, GAP = 192, 50, 14  # pixels
PAPER, INK, FAINT = "#ffffff", "#1c2330", "#717b8c"
BAR, TRACK, BLANK = "#2f6fde", "#e6e9ef", "#e6e9ef"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Pillow's own font has no Chinese; these do, in this order of preference.
_CHINESE_FONTS = (
    "NotoSansCJK-Regular*",
    "NotoSansSC-Regular*",
    "NotoSansCJKsc-Regular*",
    "NotoSansCJK*",
    "SourceHanSans*Regular*",
    "wqy-microhei*",
    "wqy-zenhei*",
    "DroidSansFallback*",
    "PingFang*",
    "STHeiti*",
    "msyh*",
    "simhei*",
    "uming*",
)
_FONT_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "~/Library/Fonts",
    "C:/Windows/Fonts",
)


class Montage:
    """Collects pictures with their predictions, and draws them in rows of at most eight."""

    def __init__(self, classifier: Classifier) -> None:
        classes = classifier.spec.classes
        self.preprocess = classifier.preprocess
        self.english = dict(zip(classes.ids, classes.names("en"), strict=True))
        self.pictures: list[tuple[Prediction, Image.Image | None]] = []

    def add(self, batch: Batch, rows: Sequence[Prediction]) -> None:
        """Take the predictions for a batch; those after the first 64 pictures are ignored."""
        for row, (_, pixels) in zip(rows, batch.rows(list(batch.images)), strict=True):
            if len(self.pictures) == MAX_PICTURES:
                return
            self.pictures.append((row, None if isinstance(pixels, ImageError) else self._picture(pixels)))

    def draw(self) -> Image.Image:
        """The sheet."""
        columns = max(1, min(MAX_COLUMNS, math.ceil(math.sqrt(len(self.pictures)))))
        rows = max(1, math.ceil(len(self.pictures) / columns))
        size = GAP + columns * (TILE + GAP), GAP + rows * (TILE + CAPTION + GAP)
        sheet = Image.new("RGB", size, PAPER)
        pen = ImageDraw.Draw(sheet)
        for index, (row, picture) in enumerate(self.pictures):
            left = GAP + index % columns * (TILE + GAP)
            top = GAP + index // columns * (TILE + CAPTION + GAP)
            if picture is None:
                _draw_error(pen, left, top, row.error or "")
            else:
                sheet.paste(picture, (left, top))
            self._caption(pen, left, top + TILE, row)
        return sheet

    def _picture(self, pixels: npt.NDArray[Any]) -> Image.Image:
        """The crop that the network saw."""
        if isinstance(self.preprocess, NoPreprocess):  # a model that crops them itself
            return ImageOps.fit(Image.fromarray(pixels), (TILE, TILE), Image.Resampling.LANCZOS)
        return Image.fromarray(self.preprocess.pixels(pixels)).resize((TILE, TILE), Image.Resampling.LANCZOS)

    def _caption(self, pen: ImageDraw.ImageDraw, left: int, top: int, row: Prediction) -> None:
        name = printable(Path(row.source).name)
        if row.scores:
            pen.rectangle((left, top + 3, left + TILE - 1, top + 6), TRACK)
            pen.rectangle((left, top + 3, left + max(1, round(TILE * row.scores[0])) - 1, top + 6), BAR)
            score = f"{row.scores[0]:.1%}"
            room = TILE - _width(score, 14) - 8
            pen.text((left + TILE, top + 26), score, INK, _font(score, 14), anchor="rs")
            label = self._label(row)
            pen.text((left, top + 26), _clipped(label, 15, room), INK, _font(label, 15), anchor="ls")
        else:
            text = "–" if row.error is None else "error"
            pen.text((left, top + 26), text, FAINT, _font(text, 15), anchor="ls")
        pen.text((left, top + 44), _clipped(name, 12, TILE), FAINT, _font(name, 12), anchor="ls")

    def _label(self, row: Prediction) -> str:
        for text in (row.labels[0], self.english[row.class_ids[0]]):
            if not _is_chinese(text) or chinese_font():
                return short_label(text)
        return row.class_ids[0]


@contextmanager
def open_montage(path: Path, classifier: Classifier) -> Generator[Montage, None, None]:
    """Yield a montage that is drawn to `path` at the end; raises `Error` where Pillow knows no format by its suffix."""
    Image.init()
    if Image.EXTENSION.get(path.suffix.lower()) not in Image.SAVE:
        raise Error(f"{path}: cannot draw a montage in the format {path.suffix or 'of no suffix'}: end it in .png")
    montage = Montage(classifier)
    yield montage
    if any(row.labels and _is_chinese(row.labels[0]) for row, _ in montage.pictures) and not chinese_font():
        print(f"{path}: no font with Chinese characters was found, so its labels are English", file=sys.stderr)
    with atomic_path(path) as temporary:
        montage.draw().save(temporary)


@cache
def chinese_font() -> Path | None:
    """A font of this machine that has Chinese characters."""
    folders = [folder for folder in (Path(name).expanduser() for name in _FONT_FOLDERS) if folder.is_dir()]
    return next((path for name in _CHINESE_FONTS for folder in folders for path in sorted(folder.rglob(name))), None)


def _draw_error(pen: ImageDraw.ImageDraw, left: int, top: int, reason: str) -> None:
    pen.rectangle((left, top, left + TILE - 1, top + TILE - 1), BLANK)
    lines = list(_wrapped(printable(reason), 13, TILE - 24))
    lines = [*lines[:7], "…"] if len(lines) > 8 else lines
    y = top + TILE / 2 - 18 * (len(lines) - 1) / 2
    for line in lines:
        pen.text((left + TILE / 2, y), line, FAINT, _font(line, 13), anchor="mm")
        y += 18


def _wrapped(text: str, size: int, room: float) -> Iterator[str]:
    line = ""
    for word in text.split():
        if line and _width(f"{line} {word}", size) > room:
            yield line
            line = ""
        while _width(word, size) > room:  # a path, or Chinese
            cut = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or _width(word[:n], size) <= room)
            yield word[:cut]
            word = word[cut:]
        line = f"{line} {word}" if line else word
    if line:
        yield line


def _clipped(text: str, size: int, room: float) -> str:
    if _width(text, size) <= room:
        return text
    while text and _width(f"{text}…", size) > room:
        text = text[:-1]
    return f"{text.rstrip()}…"


def _width(text: str, size: int) -> float:
    return _font(text, size).getlength(text)


def _font(text: str, size: int) -> Font:
    return _load_font(chinese_font() if _is_chinese(text) else None, size)


@cache
def _load_font(path: Path | None, size: int) -> Font:
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(str(path), size)


def _is_chinese(text: str) -> bool:
    return any(character >= "\u2e80" for character in text)  # where CJK begins in Unicode
