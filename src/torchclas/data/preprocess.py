"""From an image to a network's input, bit for bit as the published evaluations computed it.

Fitted to the network's size, normalised. With the preset's backend: OpenCV and Pillow resize to visibly different
pixels (OpenCV's bilinear does not antialias), and published accuracies hold for one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from torchclas.catalog import Preset
from torchclas.data.decode import MAX_PIXELS, ImageLike, Pixels, decode
from torchclas.errors import DataError
from torchclas.sizes import Size
from torchclas.vocabulary import TestTimeAugmentation

if TYPE_CHECKING:
    import torch

OPENCV_INTERPOLATION = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "lanczos": cv2.INTER_LANCZOS4}
PILLOW_INTERPOLATION = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

# Of a strip whose sides differ more than this many times as much as the crop's, only the middle is resized: a
# 1 × 60,000 image would otherwise become 256 × 15,360,000. All the crop sees lies well within; it may shift by less
# than one source pixel.
MAX_ASPECT = 16

OVERSAMPLED = 4  # times as large as the resized image is what a fast decoder leaves; by 2, more classes change


class Rectangle(NamedTuple):
    """A part of a picture, in its pixels from the upper left corner; it may reach beyond the picture."""

    top: float
    left: float
    height: float
    width: float


class _Placement(NamedTuple):
    """The `middle` of a picture (top, left, height, width) becomes `resized`, of which the network sees a window.

    `corner` is the window's top and left; both are negative where the window is larger.
    """

    middle: tuple[int, int, int, int]
    resized: Size
    corner: tuple[int, int]

    def middle_of(self, pixels: Pixels) -> Pixels:
        top, left, height, width = self.middle
        if (height, width) == pixels.shape[:2]:
            return pixels
        return np.ascontiguousarray(pixels[top : top + height, left : left + width])


@dataclass(frozen=True)
class Preprocess:
    """The evaluation transform of one preset, for anything `decode` reads.

    With `channels=1` images become gray, and are normalised by the averages of `mean` and `std`. `fast_decode` makes
    large JPEG files faster, and other pixels than the published evaluations had: they are decoded to a half, a quarter
    or an eighth of their size, if that is still four times the size that they are brought to.
    """

    preset: Preset
    max_pixels: int = MAX_PIXELS
    channels: int = 3
    fast_decode: bool = False

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise DataError(
                f"images have 3 channels, or 1 in gray: what a network with {self.channels} input channels is given, "
                "prepare yourself"
            )
        short = min(self.preset.size)
        if self.preset.fit == "crop" and short > self.preset.resize_short:
            raise DataError(
                f"cannot crop {short} pixels from a short side of {self.preset.resize_short}: resize_short must be at "
                "least that"
            )

    def __call__(self, image: ImageLike) -> torch.Tensor:
        """Return float32 [channels, height, width]."""
        import torch  # `array` serves engines that run without it

        return torch.from_numpy(self.array(image))  # pyright: ignore[reportUnknownMemberType]

    def array(self, image: ImageLike) -> npt.NDArray[np.float32]:
        """Return float32 [channels, height, width] without importing torch."""
        return self.normalize(self.fit(self.decode(image)))

    def decode(self, image: ImageLike) -> Pixels:
        """The image as uint8 RGB [H, W, 3]; raises ImageError."""
        enough = OVERSAMPLED * max(self.preset.resize_short, *self.preset.size) if self.fast_decode else None
        return decode(image, max_pixels=self.max_pixels, enough=enough)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of every result: [channels, height, width]."""
        return (self.channels, *self.preset.size)

    def pixels(self, normalized: npt.NDArray[np.float32]) -> Pixels:
        """Undo the normalisation: uint8 RGB [height, width, 3], as near as float32 allows for."""
        mean, std = (values[:, None] for values in self._statistics)
        pixels = ((normalized * std + mean) * 255).round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
        return np.repeat(pixels, 3 // self.channels, axis=2)

    def fit(self, pixels: Pixels) -> Pixels:
        """Bring uint8 RGB [H, W, 3] to [height, width, 3] as the preset says."""
        resized, placement = self._placed(pixels)
        height, width = self.preset.size
        top, left = placement.corner
        if self.preset.fit != "pad":
            return resized[top : top + height, left : left + width]
        padded = np.full((height, width, 3), [round(255 * value) for value in self.preset.mean], np.uint8)
        rows, columns = placement.resized
        padded[-top : rows - top, -left : columns - left] = resized
        return padded

    def seen(self, height: int, width: int) -> Rectangle:
        """The part of a picture of `height` × `width` pixels, turned as `decode` does, that fills the network's input.

        It reaches beyond the picture where that is padded.
        """
        (above, before, rows, columns), resized, (top, left) = self._placement(height, width)
        down, across = rows / resized[0], columns / resized[1]  # pixels of the picture for one of the input
        return Rectangle(
            above + top * down, before + left * across, self.preset.size[0] * down, self.preset.size[1] * across
        )

    def _placed(self, pixels: Pixels) -> tuple[Pixels, _Placement]:
        """The image resized, and which part of it the network is given."""
        placement = self._placement(*pixels.shape[:2])
        return self._resize(placement.middle_of(pixels), *placement.resized), placement

    def _placement(self, rows: int, columns: int) -> _Placement:
        """How a picture of this size comes to the network's."""
        height, width = self.preset.size
        whole = 0, 0, rows, columns
        match self.preset.fit:
            case "squeeze":
                return _Placement(whole, (height, width), (0, 0))
            case "pad":
                scale = min(height / rows, width / columns)
                resized = max(1, round(rows * scale)), max(1, round(columns * scale))
                return _Placement(whole, resized, (-((height - resized[0]) // 2), -((width - resized[1]) // 2)))
            case "crop":
                # Height and width of what is cropped, before the crop; exactly resize_short where they are the same.
                covered = tuple(side * self.preset.resize_short / min(height, width) for side in (height, width))
                middle = _without_ends(rows, columns, MAX_ASPECT * max(covered) / min(covered))
                rows, columns = middle[2:]
                scale = max(covered[0] / rows, covered[1] / columns)
                if self.preset.backend == "torchvision" and height == width:
                    short = self.preset.resize_short
                    resized = short * rows // min(rows, columns), short * columns // min(rows, columns)
                else:
                    resized = round(rows * scale), round(columns * scale)
                return _Placement(middle, resized, self._corner(resized[0] - height, resized[1] - width))

    def _corner(self, rows: int, columns: int) -> tuple[int, int]:
        """Where a crop begins of which so many rows and columns are cut off.

        As torchvision rounds, a half pixel goes to the even side; else to the upper and left one.
        """
        if self.preset.backend == "torchvision":
            return round(rows / 2), round(columns / 2)
        return rows // 2, columns // 2

    def _resize(self, pixels: Pixels, height: int, width: int) -> Pixels:
        if self.preset.backend != "opencv":
            filtered = PILLOW_INTERPOLATION[self.preset.interpolation]
            return np.asarray(Image.fromarray(pixels).resize((width, height), filtered))
        interpolation = OPENCV_INTERPOLATION[self.preset.interpolation]
        return cv2.resize(pixels, (width, height), interpolation=interpolation)  # pyright: ignore[reportReturnType]

    def normalize(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """uint8 RGB [height, width, 3] → float32 [channels, height, width]."""
        if self.channels == 1:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)  # pyright: ignore[reportAssignmentType]
        normalized = np.empty(self.shape, np.float32)
        for table, plane, channel in zip(self._tables, cv2.split(pixels), normalized, strict=True):
            cv2.LUT(plane, table, dst=channel)
        return normalized

    @cached_property
    def _tables(self) -> npt.NDArray[np.float32]:
        """The normalised value of each of the 256 intensities, [channels, 256]: 7 times faster than computing them."""
        intensities = np.arange(256, dtype=np.float32) * np.float32(1 / 255)
        mean, std = self._statistics
        return (intensities - mean) / std

    @property
    def _statistics(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Mean and deviation, [channels, 1] each."""
        mean, std = (np.array(values, np.float32)[:, None] for values in (self.preset.mean, self.preset.std))
        if self.channels == 1:
            return mean.mean(keepdims=True), std.mean(keepdims=True)
        return mean, std


@dataclass(frozen=True)
class SeveralViews(Preprocess):
    """An evaluation transform that takes several views of each image, the usual one first.

    `flip` adds its mirror image, `five-crop` the four corners of the resized image around the centre.

    Raises:
        DataError: five crops of images that are not cropped.
    """

    views: TestTimeAugmentation = "flip"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.views == "five-crop" and self.preset.fit != "crop":
            raise DataError(
                f"five crops are of images that are cropped, and this model's are fitted by {self.preset.fit}"
            )

    def array(self, image: ImageLike) -> npt.NDArray[np.float32]:
        """Return float32 [views, channels, height, width]."""
        pixels = self.decode(image)
        if self.views == "flip":
            usual = self.normalize(self.fit(pixels))
            return np.stack([usual, usual[:, :, ::-1]])
        height, width = self.preset.size
        resized, placement = self._placed(pixels)
        bottom, right = placement.resized[0] - height, placement.resized[1] - width
        corners = (placement.corner, (0, 0), (0, right), (bottom, 0), (bottom, right))
        cuts = (resized[top : top + height, left : left + width] for top, left in corners)
        return np.stack([self.normalize(each) for each in cuts])


@dataclass(frozen=True)
class NoPreprocess:
    """Stands in for `Preprocess` where a network takes the pixels of images as they are."""

    max_pixels: int = MAX_PIXELS
    shape: tuple[int, int, int] = (0, 0, 3)  # of no image in particular

    def array(self, image: ImageLike) -> Pixels:
        """Return uint8 [H, W, 3]."""
        return decode(image, max_pixels=self.max_pixels)


def _without_ends(rows: int, columns: int, aspect: float) -> tuple[int, int, int, int]:
    """The middle of an image whose long side is more than `aspect` times its short one: top, left, height, width."""
    longest = int(aspect * min(rows, columns))
    height, width = min(rows, longest), min(columns, longest)
    return (rows - height) // 2, (columns - width) // 2, height, width
