"""Decode images exactly as the published evaluations did.

That is OpenCV's `imdecode(..., IMREAD_COLOR)`: EXIF orientation applied, alpha dropped, gray expanded, 16 bits reduced
to 8. Formats that OpenCV's wheels decode only sometimes (GIF, AVIF), or not at all, go through Pillow with the same
rules, so that a result does not depend on the installed OpenCV.
"""

from __future__ import annotations

import io
import re
import struct
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from torchclas.data.sources import read
from torchclas.errors import ImageError

Pixels: TypeAlias = npt.NDArray[np.uint8]  # [H, W, 3], RGB
ImageLike: TypeAlias = "str | Path | bytes | Image.Image | npt.NDArray[Any]"

MAX_PIXELS = 100_000_000  # the default; decoding takes 6 (JPEG, PNG) to 16 (JPEG 2000) bytes of memory for each
MAX_SIDE = 64_000  # of any image; WebP and JPEG have no longer ones
MAX_SCANS = 20  # of a JPEG at the limit of pixels, in proportion more of a smaller one; encoders write ten
BYTES_PER_PIXEL = 8  # that no format takes more than: four channels of 16 bits, not compressed
BAND = 2**24  # pixels that are converted at once

OPENCV_FORMATS = frozenset({"JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF", "JPEG2000", "PPM"})
_PLUGINS = {  # of Pillow's, in the order in which they are tried
    "JPEG": "JpegImagePlugin",
    "PNG": "PngImagePlugin",
    "WEBP": "WebPImagePlugin",
    "BMP": "BmpImagePlugin",
    "GIF": "GifImagePlugin",
    "TIFF": "TiffImagePlugin",
    "AVIF": "AvifImagePlugin",
    "JPEG2000": "Jpeg2KImagePlugin",
    "PPM": "PpmImagePlugin",
}
FORMATS = tuple(_PLUGINS)

# Since OpenCV 4.11 decoders write RGB themselves, which saves a pass over the pixels.
_RGB: int | None = getattr(cv2, "IMREAD_COLOR_RGB", None)

# Decoders of JPEG leave out the frequencies that a smaller picture does not need. There is no flag for RGB.
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}

# A bad image is reported as an ImageError; OpenCV's own lines on stderr would only repeat it without its name.
set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel  # OpenCV 4 or 5
set_log_level(0)


def decode(image: ImageLike, *, max_pixels: int = MAX_PIXELS, enough: int | None = None) -> Pixels:
    """Return an image (path, URL, file content, Pillow image or array) as uint8 RGB of shape [H, W, 3].

    Arrays are uint8 in RGB order: [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]. The result may share their memory, or be
    read-only. A Pillow image is turned as its EXIF orientation says, as the file would be.
    `max_pixels` is compared with the size in the header, before anything is decoded; it bounds the size of a file too,
    which is not read beyond that, and the work that a JPEG of many scans makes. No side is longer than 64,000 pixels.

    With `enough` a JPEG file is decoded to the smallest of 1/1, 1/2, 1/4 and 1/8 of its size of which no side is
    shorter than that: in less time, to about the pixels that averaging gives.

    A truncated file is an error, not a half-gray image: a JPEG without its end marker, or any file that ends before
    its pixels do. (Damage inside a JPEG that has its end marker is not detectable; it decodes as in OpenCV.)

    Raises ImageError: cannot be read, is not an image, is truncated, is too large.
    """
    if isinstance(image, (str, Path)):
        try:
            file = read(image, max_bytes=max_file_bytes(max_pixels), accept=_check_start)
            return _decode_bytes(file, max_pixels, enough)
        except ImageError as error:
            raise ImageError(f"{image}: {error}") from error.__cause__
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, Image.Image):
        return _from_pillow(image, max_pixels)
    if isinstance(image, (bytes, bytearray, memoryview)):  # pyright: ignore[reportUnnecessaryIsInstance]
        return _decode_bytes(bytes(image), max_pixels, enough)
    raise ImageError(
        f"cannot read an image from {type(image).__name__}: give a path, URL, bytes, Pillow image or NumPy array"
    )


def max_file_bytes(max_pixels: int) -> int:
    """The largest file that may hold an image of `max_pixels`."""
    return BYTES_PER_PIXEL * max_pixels + 2**26  # beside the pixels there may be previews and profiles


def is_image(start: bytes) -> bool:
    """Whether a file that starts so (16 bytes tell) is in one of the formats that can be decoded."""
    return _format(start) is not None


def _decode_bytes(data: bytes, max_pixels: int, enough: int | None) -> Pixels:
    header = _open(data)
    _check_size(header.size, max_pixels)
    _check_codestream(header, data, max_pixels)
    if header.format in OPENCV_FORMATS and _reaches_its_end(data):
        scale = 1 if enough is None or header.format not in ("JPEG", "MPO") else _scale(header.size, enough)
        flag = _REDUCED.get(scale, cv2.IMREAD_COLOR if _RGB is None else _RGB)
        try:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
        except cv2.error:  # beyond OpenCV's own limits on sides and pixels
            pixels = None
        # Without an array the file is broken, or of a variety only Pillow knows (CMYK TIFF): Pillow tells which.
        if pixels is not None:
            if flag != _RGB:
                pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
            return pixels  # pyright: ignore[reportReturnType]
    return _from_pillow(header, max_pixels)


def _scale(size: tuple[int, int], enough: int) -> int:
    """By how much a JPEG may be smaller without a side below `enough` pixels."""
    return max((scale for scale in _REDUCED if min(size) // scale >= enough), default=1)


def _open(data: bytes) -> Image.Image:
    """Read the header. `Image.open` would do, but for its own pixel limit, which is a setting of the whole process."""
    name = _check_start(data)
    try:
        return Image.OPEN[name][0](io.BytesIO(data), "")
    except Exception as error:  # whatever a damaged header makes of the parser
        raise ImageError(f"is a truncated or damaged {name} file: {error}") from error


def _check_start(data: bytes) -> str:
    """Return the format of a file from its first bytes; raises ImageError where it is none that can be decoded."""
    if (name := _format(data)) is not None:
        return name
    if not data:
        raise ImageError("the file is empty")
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("ascii", "replace")
        raise ImageError(f"is of the kind {brand!r} (HEIC, video …), which is not supported: convert it to JPEG")
    start = data[:24].decode("ascii", "replace")
    raise ImageError(f"is not an image (known are {', '.join(FORMATS)}): it starts with {start!r}")


def _format(data: bytes) -> str | None:
    for name in FORMATS:
        _import_plugin(name)
        _, accepts = Image.OPEN.get(name, (None, None))  # Pillow may be built without AVIF
        if accepts and accepts(data[:16]) is True:
            return name
    return None


@cache
def _import_plugin(name: str) -> None:
    """Make Pillow able to read one format. `Image.init` would import forty, which takes as long as ten photographs."""
    with suppress(ImportError):  # Pillow may be built without it
        import_module(f"PIL.{_PLUGINS[name]}")


def _reaches_its_end(data: bytes) -> bool:
    """Whether a JPEG or PNG file is complete by its own structure; OpenCV must not see one that is not.

    Older releases fill up a JPEG with gray. From a PNG chunk that claims 4 GB, OpenCV reserves and clears them first.
    """
    if data.startswith(b"\xff\xd8"):
        end, scan = b"\xff\xd9", b"\xff\xda"  # neither occurs in coded pixels; a preview before them has both
        return data.endswith(end) or data.rfind(end) > data.rfind(scan)
    if data.startswith(b"\x89PNG"):
        position, kind = 8, b""
        while kind != b"IEND" and position + 12 <= len(data):
            length, kind = struct.unpack_from(">I4s", data, position)
            position += 12 + length
        return kind == b"IEND" and position <= len(data)
    return True  # in the other formats OpenCV finds out by itself


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height == 0:
        raise ImageError(f"measures {width} × {height}: it holds no pixels")
    if width * height > max_pixels:
        raise ImageError(
            f"has {width:,} × {height:,} pixels, more than the limit of {max_pixels:,}: "
            "make it smaller, or raise max_pixels (--max-pixels) if you trust it"
        )
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"measures {width:,} × {height:,} pixels, no side may have more than {MAX_SIDE:,}: cut it up")


def _check_codestream(header: Image.Image, data: bytes, max_pixels: int) -> None:
    """Check what Pillow's look at the header leaves out, and decoders would follow."""
    pixels = header.width * header.height
    if header.info.get("progressive"):  # the only JPEGs of which a scan may take less than one bit for a block
        scans = data.count(b"\xff\xda")  # does not occur in coded pixels
        if scans * pixels > MAX_SCANS * max_pixels:
            raise ImageError(
                f"has {header.width:,} × {header.height:,} pixels in {scans:,} scans, as much work as an image of "
                f"{scans * pixels // MAX_SCANS:,} pixels: write it anew, or raise max_pixels (--max-pixels)"
            )
    if header.format == "JPEG2000":  # its container says the size once more
        for found in re.finditer(rb"\xff\x4f\xff\x51.{4}(.{16})", data, re.DOTALL):
            right, bottom, left, top = struct.unpack(">4I", found[1])
            _check_size((max(right - left, 1), max(bottom - top, 1)), max_pixels)


def _from_pillow(image: Image.Image, max_pixels: int) -> Pixels:
    _check_size(image.size, max_pixels)
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # else it would be copied
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):  # Pillow would clip to 255; OpenCV keeps the high byte
            high = (np.asarray(image) >> 8).astype(np.uint8)
            return cv2.cvtColor(high, cv2.COLOR_GRAY2RGB)  # pyright: ignore[reportReturnType]
        if image.mode not in ("I", "F"):
            return _to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # whatever damaged data makes of the decoder
        raise ImageError(f"is truncated or damaged: {error}") from error
    raise ImageError(f"Pillow images of mode {image.mode} have no fixed range: scale to 0..255 and convert to RGB")


def _to_rgb(image: Image.Image) -> Pixels:
    """What `np.asarray(image.convert("RGB"))` is, without holding the image four times."""
    rows = max(1, BAND // image.width)
    if image.height <= rows:
        return np.asarray(image.convert("RGB"))
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        pixels[top : top + rows] = np.asarray(band.convert("RGB"))
    return pixels


def _from_array(array: npt.NDArray[Any]) -> Pixels:
    if array.dtype != np.uint8:
        scale = "(array * 255).round()" if np.issubdtype(array.dtype, np.floating) else "array scaled to 0..255"
        raise ImageError(f"the array is {array.dtype}, images are uint8 (0..255): pass {scale}.astype(np.uint8)")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        hint = "; transpose(1, 2, 0) brings channels last" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        raise ImageError(f"the array has shape {array.shape}, images are [H, W] or [H, W, 1, 3 or 4]{hint}")
    if array.size == 0:
        raise ImageError(f"the array has shape {array.shape}: it holds no pixels")
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(array[:, :, :3])
