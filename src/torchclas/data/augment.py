"""From an image to a training input, as the published recipes made it: crop, flip, policy, normalisation, erasing."""

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
from torchclas.data.policies import AutoAugment, Fill, RandAugment
from torchclas.data.preprocess import OPENCV_INTERPOLATION, PILLOW_INTERPOLATION, Preprocess
from torchclas.recipes import Augment
from torchclas.sizes import Size, to_size

# Random erasing: the rectangle's share of the area, its aspect ratio, and how often a place for it is looked for.
ERASED_AREA = (0.02, 1 / 3)
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
        if self._policy is not None:
            pixels = np.asarray(self._policy(Image.fromarray(pixels), rng))
        normalized = self._evaluation.normalize(np.asarray(pixels, np.uint8))
        if rng.random() < self.augment.erasing:
            erase(normalized, rng)
        return torch.from_numpy(normalized)  # pyright: ignore[reportUnknownMemberType]

    def _crop(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        if self.augment.crop == "center":
            return np.ascontiguousarray(self._evaluation.fit(pixels))
        height, width = self.size
        ratio = (self.augment.ratio[0] * width / height, self.augment.ratio[1] * width / height)
        pixels = random_crop(pixels, rng, self.augment.scale, ratio)
        size = (width, height)
        if self.augment.backend == "pillow":
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


def erase(image: npt.NDArray[np.float32], rng: np.random.Generator) -> None:
    """Fill a random rectangle of a normalised image [C, H, W] with noise (zero mean, unit variance), in place."""
    channels, height, width = image.shape
    for _ in range(ERASING_ATTEMPTS):
        area = rng.uniform(*ERASED_AREA) * height * width
        aspect = math.exp(rng.uniform(math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1])))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            image[:, top : top + h, left : left + w] = rng.standard_normal((channels, h, w), np.float32)
            return


def _policy(augment: Augment, preset: Preset) -> Policy | None:
    if not augment.policy:
        return None
    if augment.policy == "autoaugment":
        return AutoAugment()
    mean = tuple(min(255, round(255 * value)) for value in preset.mean)
    return RandAugment(Fill(mean, PILLOW_INTERPOLATION[augment.interpolation]))
