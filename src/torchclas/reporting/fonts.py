"""Fonts for pictures with Chinese text, which neither Pillow's own font nor matplotlib's holds."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# These have Chinese characters, in this order of preference.
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


@cache
def chinese_font() -> Path | None:
    """A font of this machine that has Chinese characters."""
    folders = [folder for folder in (Path(name).expanduser() for name in _FONT_FOLDERS) if folder.is_dir()]
    return next((path for name in _CHINESE_FONTS for folder in folders for path in sorted(folder.rglob(name))), None)


def is_chinese(text: str) -> bool:
    """Whether it holds characters that only such a font has."""
    return any(character >= "\u2e80" for character in text)  # where CJK begins in Unicode


def pillow_font(text: str, size: int) -> Font:
    """A font to draw `text` with, `size` pixels high."""
    return _load(chinese_font() if is_chinese(text) else None, size)


@cache
def _load(path: Path | None, size: int) -> Font:
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(str(path), size)


@contextmanager
def matplotlib_fonts(texts: Iterable[str]) -> Generator[None]:
    """Let matplotlib draw `texts` while this is open; characters that no font of this machine has become boxes."""
    import matplotlib as mpl
    from matplotlib.font_manager import FontProperties, fontManager

    fonts = ["DejaVu Sans"]
    if any(map(is_chinese, texts)) and (chinese := chinese_font()) is not None:
        fontManager.addfont(chinese)
        fonts.append(FontProperties(fname=chinese).get_name())
    # As families, since of the fonts behind `sans-serif` matplotlib takes the first alone.
    with warnings.catch_warnings(), mpl.rc_context({"font.family": fonts}):
        warnings.filterwarnings("ignore", "Glyph .* missing")
        yield
