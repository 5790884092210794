"""From an image to a network's input, bit for bit as the published evaluations computed it.

Fitted to the network's size, normalised. With the preset's backend: OpenCV and Pillow resize to visibly different
pixels (OpenCV's bilinear does not antialias), and published accuracies hold for one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from torchclas.catalog import Preset
from torchclas.data.decode import MAX_PIXELS, ImageLike, Pixels, decode
from torchclas.errors import DataError
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


@dataclass(frozen=True)
class Preprocess:
    """The evaluation transform of one preset, for anything `decode` reads.

    With `channels=1` images become gray, and are normalised by the averages of `mean` and `std`.
    """

    preset: Preset
    max_pixels: int = MAX_PIXELS
    channels: int = 3

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
        return self.normalize(self.fit(decode(image, max_pixels=self.max_pixels)))

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
        match self.preset.fit:
            case "crop":
                return self._crop(pixels)
            case "squeeze":
                return self._resize(pixels, *self.preset.size)
            case "pad":
                return self._pad(pixels)

    def _crop(self, pixels: Pixels) -> Pixels:
        return self._cut(self._covering(pixels), *self.preset.size)

    def _covering(self, pixels: Pixels) -> Pixels:
        """The image resized so that the crop fits in."""
        height, width = self.preset.size
        # Height and width of what is cropped, before the crop; exactly resize_short where they are the same.
        covered = tuple(side * self.preset.resize_short / min(height, width) for side in (height, width))
        pixels = _without_ends(pixels, MAX_ASPECT * max(covered) / min(covered))
        scale = max(covered[0] / pixels.shape[0], covered[1] / pixels.shape[1])
        rows, columns = pixels.shape[:2]
        if self.preset.backend == "torchvision" and height == width:
            short = self.preset.resize_short
            rows, columns = (short * side // min(rows, columns) for side in (rows, columns))
        else:
            rows, columns = round(rows * scale), round(columns * scale)
        return self._resize(pixels, rows, columns)

    def _cut(self, pixels: Pixels, height: int, width: int) -> Pixels:
        return _centre(pixels, height, width, to_even=self.preset.backend == "torchvision")

    def _pad(self, pixels: Pixels) -> Pixels:
        height, width = self.preset.size
        scale = min(height / pixels.shape[0], width / pixels.shape[1])
        rows, columns = (max(1, round(side * scale)) for side in pixels.shape[:2])
        mean = [round(255 * value) for value in self.preset.mean]
        padded = np.full((height, width, 3), mean, np.uint8)
        _centre(padded, rows, columns)[:] = self._resize(pixels, rows, columns)
        return padded

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
        pixels = decode(image, max_pixels=self.max_pixels)
        if self.views == "flip":
            usual = self.normalize(self.fit(pixels))
            return np.stack([usual, usual[:, :, ::-1]])
        height, width = self.preset.size
        resized = self._covering(pixels)
        bottom, right = resized.shape[0] - height, resized.shape[1] - width
        corners = ((0, 0), (0, right), (bottom, 0), (bottom, right))
        cuts = (resized[top : top + height, left : left + width] for top, left in corners)
        return np.stack([self.normalize(each) for each in (self._cut(resized, height, width), *cuts)])


@dataclass(frozen=True)
class NoPreprocess:
    """Stands in for `Preprocess` where a network takes the pixels of images as they are."""

    max_pixels: int = MAX_PIXELS
    shape: tuple[int, int, int] = (0, 0, 3)  # of no image in particular

    def array(self, image: ImageLike) -> Pixels:
        """Return uint8 [H, W, 3]."""
        return decode(image, max_pixels=self.max_pixels)


def _without_ends(pixels: Pixels, aspect: float) -> Pixels:
    """The middle of an image whose long side is more than `aspect` times its short one."""
    height, width = pixels.shape[:2]
    longest = int(aspect * min(height, width))
    if max(height, width) <= longest:
        return pixels
    return np.ascontiguousarray(_centre(pixels, min(height, longest), min(width, longest)))


def _centre(pixels: Pixels, height: int, width: int, *, to_even: bool = False) -> Pixels:
    """With `to_even` a half pixel goes to the even side, as torchvision rounds; else to the upper and left one."""
    rest = pixels.shape[0] - height, pixels.shape[1] - width
    top, left = (round(side / 2) if to_even else side // 2 for side in rest)
    return pixels[top : top + height, left : left + width]
