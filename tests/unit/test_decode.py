"""Decoding: equal results for every kind of input, and a clear reason for every bad one."""

import io
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image, features

from torchclas.data import decode as decoding
from torchclas.data.decode import decode
from torchclas.data.sources import read
from torchclas.errors import ImageError

IMAGES = Path(__file__).parents[1] / "data" / "preprocess" / "images"
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (20, 30, 3), np.uint8)


def encoded(pixels: NDArray[Any], kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG of some 60 bytes that claims any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("path", sorted(IMAGES.iterdir()), ids=lambda path: path.name)
def test_equals_opencv(path: Path) -> None:
    read = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert read is not None
    expected = read[:, :, ::-1]
    np.testing.assert_array_equal(decode(path), expected)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats(kind: str) -> None:
    np.testing.assert_array_equal(decode(encoded(PIXELS, kind)), PIXELS)


def test_opencv_without_rgb_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 4.11 it knows BGR alone."""
    choose = np.random.default_rng(0)
    image = Image.fromarray(choose.integers(0, 256, (9, 13, 3), np.uint8)).resize((130, 90))
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    files: list[bytes] = []
    for mode in ("RGB", "L", "RGBA", "P"):
        for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
            if not (kind == "JPEG" and mode in ("RGBA", "P")):
                file = io.BytesIO()
                image.convert(mode).save(file, kind, exif=turned)
                files.append(file.getvalue())
    expected = [decode(file) for file in files]
    monkeypatch.setattr("torchclas.data.decode._RGB", None)
    for file, pixels in zip(files, expected, strict=True):
        np.testing.assert_array_equal(decode(file), pixels)


def test_a_jpeg_that_is_more_than_enough_is_decoded_smaller() -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (10, 13, 3), np.uint8)
    whole = Image.fromarray(coarse).resize((1300, 1000), Image.Resampling.BICUBIC)
    data = encoded(np.asarray(whole), "JPEG")
    for enough, scale in ((501, 1), (500, 2), (251, 2), (250, 4), (125, 8), (1, 8)):
        pixels = decode(data, enough=enough)
        width, height = -(-1300 // scale), 1000 // scale
        assert pixels.shape == (height, width, 3)
        expected = np.asarray(whole.resize((width, height), Image.Resampling.BOX), np.int16)
        assert np.abs(pixels - expected).mean() < 3
    assert np.array_equal(decode(data, enough=501), decode(data))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    whole.save(turned, "JPEG", exif=exif)
    assert decode(turned.getvalue(), enough=250).shape == (325, 250, 3)
    png = encoded(np.asarray(whole), "PNG")
    assert np.array_equal(decode(png, enough=1), np.asarray(whole))


def test_gif_is_its_first_frame() -> None:
    frames = [Image.fromarray(np.full((8, 9, 3), color, np.uint8)) for color in ((255, 0, 0), (0, 0, 255))]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(file.getvalue()), np.full((8, 9, 3), (255, 0, 0)))


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif() -> None:
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    np.testing.assert_allclose(decode(encoded(flat, "AVIF", quality=95)), flat, atol=4)


def test_cmyk_tiff_which_opencv_cannot_read() -> None:
    file = io.BytesIO()
    Image.new("CMYK", (5, 4), (0, 255, 255, 0)).save(file, "TIFF")
    np.testing.assert_allclose(decode(file.getvalue()), np.full((4, 5, 3), (255, 0, 0)), atol=1)


def test_transparency_is_dropped_not_blended() -> None:
    rgba = np.dstack([PIXELS, np.zeros((20, 30), np.uint8)])
    np.testing.assert_array_equal(decode(encoded(rgba, "PNG")), PIXELS)
    np.testing.assert_array_equal(decode(Image.fromarray(rgba)), PIXELS)
    np.testing.assert_array_equal(decode(rgba), PIXELS)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1)])
def test_gray_arrays_are_expanded(shape: tuple[int, int, int] | tuple[int, int]) -> None:
    gray = np.ascontiguousarray(PIXELS[:, :, 0]).reshape(shape)
    np.testing.assert_array_equal(decode(gray), PIXELS[:, :, [0, 0, 0]])


def test_views_are_read_as_they_look() -> None:
    np.testing.assert_array_equal(decode(PIXELS[::-1, ::2, ::-1]), PIXELS[::-1, ::2, ::-1])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_pillow_modes(mode: str) -> None:
    image = Image.new("L", (6, 5), 255).convert(mode) if mode != "I;16" else Image.new("I;16", (6, 5), 65535)
    np.testing.assert_array_equal(decode(image), np.full((5, 6, 3), 255))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "the file is empty"),
        (b"This is a text file.\n", "is not an image .* starts with 'This is a text file"),
        (b"<!DOCTYPE html><html>", "is not an image .* starts with '<!DOCTYPE html>"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "kind 'heic' .* is not supported: convert it to JPEG"),
        (b"\xff\xd8\xff\xe0", "truncated or damaged JPEG"),
        (png_header(30_000, 30_000), "30,000 × 30,000 pixels, more than the limit of 100,000,000"),
        (png_header(30, 30), "truncated or damaged"),
        (np.zeros((4, 4, 3), np.float32), r"float32, .* pass \(array \* 255\)\.round\(\)\.astype\(np\.uint8\)"),
        (np.zeros((4, 4, 3), np.int64), "int64, images are uint8"),
        (np.zeros((3, 8, 8), np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"shape \(2, 4, 4, 3\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (Image.new("F", (2, 2)), "mode F have no fixed range"),
        (Image.new("RGB", (0, 3)), "no pixels"),
        (42, "cannot read an image from int"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else type(value).__name__,
)
def test_bad_input(image: Any, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode(image)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_file(kind: str, share: float, capfd: pytest.CaptureFixture[str]) -> None:
    data = encoded(RNG.integers(0, 256, (64, 64, 3), np.uint8), kind)
    with pytest.raises(ImageError, match="truncated or damaged"):
        decode(data[: int(len(data) * share)])
    assert "imgcodecs" not in capfd.readouterr().err  # OpenCV's own lines would drown the report


def test_truncated_progressive_jpeg() -> None:
    data = (IMAGES / "coffee_progressive.jpg").read_bytes()
    with pytest.raises(ImageError, match="truncated or damaged"):
        decode(data[:-1000])


def test_truncated_jpeg_with_complete_preview() -> None:
    """The end marker of an EXIF thumbnail must not pass for the image's."""
    thumbnail = encoded(PIXELS, "JPEG")
    data = encoded(np.tile(PIXELS, (8, 8, 1)), "JPEG")
    comment = b"\xff\xfe" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    data = data[:2] + comment + data[2:]
    assert decode(data).shape == (160, 240, 3)
    with pytest.raises(ImageError, match="truncated or damaged"):
        decode(data[:-500])


def test_jpeg_with_bytes_after_its_end_is_whole() -> None:
    data = (IMAGES / "cat.jpg").read_bytes()
    np.testing.assert_array_equal(decode(data + b"\0" * 100), decode(data))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged TIFF files
@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000"]),
    damage=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_file_is_an_image_or_an_image_error(kind: str, damage: list[tuple[int, int]]) -> None:
    data = bytearray(encoded(PIXELS, kind))
    for position, value in damage:
        data[position % len(data)] = value
    with suppress(ImageError):
        pixels = decode(bytes(data), max_pixels=10**6)
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        assert pixels.size > 0


def test_png_chunk_that_claims_gigabytes_does_not_reach_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(encoded(PIXELS, "PNG"))
    data[data.index(b"IDAT") - 4] = 0xF0
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("OpenCV would reserve 4 GB"))
    np.testing.assert_array_equal(decode(bytes(data)), PIXELS)  # all pixels are there, only the chunk's length is wrong


def test_pixel_limit_is_the_callers_choice() -> None:
    data = encoded(PIXELS, "PNG")
    assert decode(data, max_pixels=600).shape == (20, 30, 3)
    with pytest.raises(ImageError, match="limit of 599"):
        decode(data, max_pixels=599)
    with pytest.raises(ImageError, match="limit of 599"):
        decode(Image.fromarray(PIXELS), max_pixels=599)


@pytest.mark.parametrize("size", [(1, 64_001), (64_001, 1)])
def test_no_side_is_longer_than_64_000_pixels(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="no side may have more than 64,000"):
        decode(png_header(*size), max_pixels=10**12)


def test_jpeg_of_many_scans_counts_as_a_larger_image() -> None:
    """Each scan, of which one may take 14 bytes, makes as much work as all pixels."""
    data = encoded(PIXELS, "JPEG", progressive=True)
    last = data[data.rfind(b"\xff\xda") : -2]
    assert decode(data, max_pixels=600).shape == (20, 30, 3)
    many = data[:-2] + 100 * last + data[-2:]
    assert decode(many).shape == (20, 30, 3)
    with pytest.raises(ImageError, match=r"30 × 20 pixels in 1\d\d scans.*--max-pixels"):
        decode(many, max_pixels=600)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow has no JPEG 2000")
def test_jpeg_2000_says_its_size_twice() -> None:
    data = bytearray(encoded(PIXELS, "JPEG2000"))
    struct.pack_into(">II", data, data.index(b"\xff\x4f\xff\x51") + 8, 60_000, 60_000)
    with pytest.raises(ImageError, match="60,000 × 60,000 pixels, more than the limit"):
        decode(bytes(data))


def test_large_images_are_converted_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(PIXELS).quantize(16)
    whole = decode(image)
    monkeypatch.setattr(decoding, "BAND", 70)  # two rows at a time
    for other in (image, image.convert("RGBA"), encoded(np.asarray(image.convert("RGB")), "GIF")):
        np.testing.assert_array_equal(decode(other), whole)


def test_large_file_is_not_read_before_a_look_at_its_start(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    with path.open("wb") as file:
        file.truncate(3 * 2**30)  # without taking place on the disk
    with pytest.raises(ImageError, match="is not an image"):
        decode(path)
    with path.open("r+b") as file:
        file.write(encoded(PIXELS, "PNG"))
    with pytest.raises(ImageError, match=r"is a file of 3,221,225,472 bytes, more than.*--max-pixels"):
        decode(path)
    with path.open("r+b") as file:
        file.truncate(2**24 + 1)
    np.testing.assert_array_equal(decode(path), PIXELS)
    with path.open("r+b") as file:
        file.truncate(3 * 2**30)
    with pytest.raises(ImageError, match="is a file of 3"):
        read(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        decode(tmp_path / "none.jpg")
    assert str(caught.value) == f"{tmp_path}/none.jpg: no such file"


def test_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ImageError, match=r"is a folder, not an image; it holds 1 × \.txt"):
        decode(tmp_path)


def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(PIXELS, "PNG"))
    path.chmod(0)
    root = os.geteuid() == 0  # to whom no permission is denied
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(ImageError, match="permission denied"):
            decode(path)
    finally:
        if root:
            os.seteuid(0)


def test_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="not a regular file"):
        decode(tmp_path / "pipe.jpg")
