"""From an image to a training input, as the published recipes made it: crop, flip, policy, shift, normalise, erase."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from torchclas.catalog import Preset
from torchclas.data.decode import ImageLike, Pixels, decode
from torchclas.data.policies import AutoAugment, Fill, PlainRandAugment, RandAugment
from torchclas.data.preprocess import OPENCV_INTERPOLATION, PILLOW_INTERPOLATION, Preprocess
from torchclas.recipes import Augment
from torchclas.sizes import Size, to_size

# Random erasing: the rectangle's aspect ratio, and how often a place for it is looked for.
ERASED_ASPECT = (0.3, 1 / 0.3)
ERASING_ATTEMPTS = 10

Policy = Callable[[Image.Image, np.random.Generator], Image.Image]


class TrainTransform:
    """The training transform of one recipe, for anything `decode` reads; the result depends on `rng` alone.

    The published operators differ from torchvision's `RandomResizedCrop`: the aspect ratio is drawn uniformly (not its
    logarithm), and a crop that would not fit is made smaller before it is drawn, so there is no fallback to the centre.
    """

    def __init__(self, augment: Augment, preset: Preset, size: int | Size, channels: int = 3) -> None:
        self.augment = augment
        self.size = to_size(size)
        self._policy = _policy(augment, preset)
        self._evaluation = Preprocess(preset.at(size), channels=channels)

    def __call__(self, image: ImageLike, rng: np.random.Generator) -> torch.Tensor:
        """Return float32 [channels, height, width]; raises ImageError as `decode` does."""
        pixels = self._crop(decode(image), rng)
        if rng.random() < self.augment.flip:
            pixels = cv2.flip(pixels, 1)  # pyright: ignore[reportAssignmentType]
        if self._policy is not None and (self.augment.policy_prob == 1 or rng.random() < self.augment.policy_prob):
            pixels = np.asarray(self._policy(Image.fromarray(pixels), rng))
        if self.augment.shift is not None:
            pixels = shift(np.asarray(pixels, np.uint8), rng, self.augment.shift)
        normalized = self._evaluation.normalize(np.asarray(pixels, np.uint8))
        if rng.random() < self.augment.erasing:
            erase(normalized, rng, self.augment)
        if self.augment.cutout:
            cut_out(normalized, rng, self.augment.cutout)
        return torch.from_numpy(normalized)  # pyright: ignore[reportUnknownMemberType]

    def _crop(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        if self.augment.crop == "center":
            return np.ascontiguousarray(self._evaluation.fit(pixels))
        height, width = self.size
        ratio = (self.augment.ratio[0] * width / height, self.augment.ratio[1] * width / height)
        pixels = random_crop(pixels, rng, self.augment.scale, ratio)
        size = (width, height)
        if self.augment.backend != "opencv":
            resized = Image.fromarray(pixels).resize(size, PILLOW_INTERPOLATION[self.augment.interpolation])
            return np.asarray(resized)
        interpolation = OPENCV_INTERPOLATION[self.augment.interpolation]
        return cv2.resize(pixels, size, interpolation=interpolation)  # pyright: ignore[reportReturnType]


def generator(seed: int, epoch: int, draw: int) -> np.random.Generator:
    """The random numbers of one image: the `draw`-th of an epoch."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, epoch, draw)))


def random_crop(
    pixels: Pixels, rng: np.random.Generator, scale: tuple[float, float], ratio: tuple[float, float]
) -> Pixels:
    """Return a rectangle of the image that covers a `scale` share of it, or as much as its aspect ratio lets fit."""
    height, width = pixels.shape[:2]
    aspect = rng.uniform(*ratio)
    largest = min(width / height / aspect, height / width * aspect)  # as a share of the image
    area = height * width * rng.uniform(min(scale[0], largest), min(scale[1], largest))
    # A few pixels may leave less than one for a side, and rounding one too many.
    crop_width = min(max(int(math.sqrt(area * aspect)), 1), width)
    crop_height = min(max(int(math.sqrt(area / aspect)), 1), height)
    left = int(rng.integers(width - crop_width + 1))
    top = int(rng.integers(height - crop_height + 1))
    return np.ascontiguousarray(pixels[top : top + crop_height, left : left + crop_width])


def shift(pixels: Pixels, rng: np.random.Generator, most: Size) -> Pixels:
    """The image moved by at most so many pixels [height, width] either way; what comes into it is black."""
    (height, width), (down, right) = pixels.shape[:2], most
    padded = np.pad(pixels, ((down, down), (right, right), (0, 0)))
    top, left = int(rng.integers(2 * down + 1)), int(rng.integers(2 * right + 1))
    return np.ascontiguousarray(padded[top : top + height, left : left + width])


def erase(image: npt.NDArray[np.float32], rng: np.random.Generator, settings: Augment = Augment()) -> None:  # noqa: B008
    """Fill a random rectangle of a normalised image [C, H, W], in place, with noise (zero mean, unit variance) or 0."""
    channels, height, width = image.shape
    for _ in range(ERASING_ATTEMPTS):
        area = rng.uniform(*settings.erasing_area) * height * width
        if settings.erasing_ratio == "log":
            aspect = math.exp(rng.uniform(math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1])))
        else:
            aspect = rng.uniform(*ERASED_ASPECT)
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            noise = settings.erasing_fill == "noise"
            filled = rng.standard_normal((channels, h, w), np.float32) if noise else np.float32(0)
            image[:, top : top + h, left : left + w] = filled
            return


def cut_out(image: npt.NDArray[np.float32], rng: np.random.Generator, length: int) -> None:
    """Fill a square of a normalised image [C, H, W] with 0, in place; its centre may be anywhere in it."""
    _, height, width = image.shape
    row, column, half = int(rng.integers(height)), int(rng.integers(width)), length // 2
    image[:, max(0, row - half) : row + half, max(0, column - half) : column + half] = 0


def _policy(augment: Augment, preset: Preset) -> Policy | None:
    if not augment.policy:
        return None
    if augment.policy == "autoaugment":
        return AutoAugment()
    if augment.policy == "randaugment":
        return PlainRandAugment()
    mean = tuple(min(255, round(255 * value)) for value in preset.mean)
    return RandAugment(Fill(mean, PILLOW_INTERPOLATION[augment.policy_interpolation or augment.interpolation]))
