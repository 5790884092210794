"""AutoAugment (arXiv 1805.09501) and RandAugment (arXiv 1909.13719), with the ranges that the published recipes have.

Pillow images [RGB] in and out; what happens to one follows from the generator alone. Upstream's AutoAugment departs
from the paper in turning images counterclockwise only, and so does its plain RandAugment. The one that its transformers
are trained with is timm's `rand-m9-mstd0.5-inc1`, in which every operation changes more as the magnitude grows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

GRAY = (128, 128, 128)
ADDED_BELOW = 128  # brighter pixels are left alone where darker ones are lightened


class Fill(NamedTuple):
    """What comes into the picture when it is moved, and how its pixels are interpolated."""

    colour: tuple[int, ...]
    resample: Image.Resampling


Operation = Callable[[Image.Image, float, Fill], Image.Image]


def _affine(image: Image.Image, matrix: tuple[float, ...], fill: Fill) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, fill.resample, fillcolor=fill.colour)


def _posterize(image: Image.Image, bits: float, _: Fill) -> Image.Image:
    """Keep the highest bits of each intensity; Pillow's own function refuses to keep none, which is black."""
    kept = 256 - 2 ** (8 - int(bits))
    return image.point([value & kept for value in range(256)] * 3)


def _solarize_add(image: Image.Image, added: float, _: Fill) -> Image.Image:
    lighter = [min(255, value + int(added)) if value < ADDED_BELOW else value for value in range(256)]
    return image.point(lighter * 3)


OPERATIONS: Mapping[str, Operation] = {
    "autocontrast": lambda image, _, fill: ImageOps.autocontrast(image),
    "equalize": lambda image, _, fill: ImageOps.equalize(image),
    "invert": lambda image, _, fill: ImageOps.invert(image),
    "posterize": _posterize,
    "solarize": lambda image, threshold, fill: ImageOps.solarize(image, threshold),  # pyright: ignore[reportArgumentType]
    "solarize_add": _solarize_add,
    "color": lambda image, change, fill: ImageEnhance.Color(image).enhance(1 + change),
    "contrast": lambda image, change, fill: ImageEnhance.Contrast(image).enhance(1 + change),
    "brightness": lambda image, change, fill: ImageEnhance.Brightness(image).enhance(1 + change),
    "sharpness": lambda image, change, fill: ImageEnhance.Sharpness(image).enhance(1 + change),
    "rotate": lambda image, degrees, fill: image.rotate(degrees, fill.resample, fillcolor=fill.colour),
    "shear_x": lambda image, factor, fill: _affine(image, (1, factor, 0, 0, 1, 0), fill),
    "shear_y": lambda image, factor, fill: _affine(image, (1, 0, 0, factor, 1, 0), fill),
    "translate_x": lambda image, share, fill: _affine(image, (1, 0, share * image.width, 0, 1, 0), fill),
    "translate_y": lambda image, share, fill: _affine(image, (1, 0, 0, 0, 1, share * image.height), fill),
}


class Range(NamedTuple):
    """What an operation is given from the least magnitude to the greatest; `signed` ones take either sign."""

    least: float = 0.0
    greatest: float = 0.0
    signed: bool = False
    rounded: Callable[[float], float] = float

    def at(self, share: float) -> float:
        """The value for a magnitude in 0..1, without its sign."""
        return self.rounded(self.least + (self.greatest - self.least) * share)

    def draw(self, share: float, rng: np.random.Generator) -> float:
        """The value with its sign, if it has one, drawn at random."""
        return -self.at(share) if self.signed and rng.random() < 0.5 else self.at(share)


class Step(NamedTuple):
    """An operation of a sub-policy: how often it is done, and its magnitude in 0..9."""

    operation: str
    probability: float
    magnitude: int = 0


class AutoAugment:
    """The paper's policy for ImageNet: one of 25 pairs of operations, each done with a probability of its own."""

    RANGES: Mapping[str, Range] = {
        "autocontrast": Range(),
        "equalize": Range(),
        "invert": Range(),
        "posterize": Range(8, 4, rounded=round),
        "solarize": Range(256, 0),
        "color": Range(0, 0.9, signed=True),
        "contrast": Range(0, 0.9, signed=True),
        "sharpness": Range(0, 0.9, signed=True),
        "rotate": Range(0, 30),
        "shear_x": Range(0, 0.3, signed=True),
    }
    # Table 9 of the paper.
    PAIRS: Sequence[tuple[Step, Step]] = (
        (Step("posterize", 0.4, 8), Step("rotate", 0.6, 9)),
        (Step("solarize", 0.6, 5), Step("autocontrast", 0.6)),
        (Step("equalize", 0.8), Step("equalize", 0.6)),
        (Step("posterize", 0.6, 7), Step("posterize", 0.6, 6)),
        (Step("equalize", 0.4), Step("solarize", 0.2, 4)),
        (Step("equalize", 0.4), Step("rotate", 0.8, 8)),
        (Step("solarize", 0.6, 3), Step("equalize", 0.6)),
        (Step("posterize", 0.8, 5), Step("equalize", 1.0)),
        (Step("rotate", 0.2, 3), Step("solarize", 0.6, 8)),
        (Step("equalize", 0.6), Step("posterize", 0.4, 6)),
        (Step("rotate", 0.8, 8), Step("color", 0.4, 0)),
        (Step("rotate", 0.4, 9), Step("equalize", 0.6)),
        (Step("equalize", 0.0), Step("equalize", 0.8)),
        (Step("invert", 0.6), Step("equalize", 1.0)),
        (Step("color", 0.6, 4), Step("contrast", 1.0, 8)),
        (Step("rotate", 0.8, 8), Step("color", 1.0, 2)),
        (Step("color", 0.8, 8), Step("solarize", 0.8, 7)),
        (Step("sharpness", 0.4, 7), Step("invert", 0.6)),
        (Step("shear_x", 0.6, 5), Step("equalize", 1.0)),
        (Step("color", 0.4, 0), Step("equalize", 0.6)),
        (Step("equalize", 0.4), Step("solarize", 0.2, 4)),
        (Step("solarize", 0.6, 5), Step("autocontrast", 0.6)),
        (Step("invert", 0.6), Step("equalize", 1.0)),
        (Step("color", 0.6, 4), Step("contrast", 1.0, 8)),
        (Step("equalize", 0.8), Step("equalize", 0.6)),
    )

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """An image of the same size."""
        for step in self.PAIRS[int(rng.integers(len(self.PAIRS)))]:
            if rng.random() < step.probability:
                # Upstream shears by a bicubic filter and turns by none.
                resample = Image.Resampling.NEAREST if step.operation == "rotate" else Image.Resampling.BICUBIC
                value = self.RANGES[step.operation].draw(step.magnitude / 9, rng)
                image = OPERATIONS[step.operation](image, value, Fill(GRAY, resample))
        return image


class RandAugment:
    """Two operations of fifteen, the same one twice perhaps, each done every second time at a magnitude of about 9."""

    MAGNITUDE, DEVIATION, GREATEST = 9.0, 0.5, 10.0
    COUNT, PROBABILITY = 2, 0.5
    RANGES: Mapping[str, Range] = {
        "autocontrast": Range(),
        "equalize": Range(),
        "invert": Range(),
        "rotate": Range(0, 30, signed=True),
        "posterize": Range(4, 0, rounded=math.ceil),
        "solarize": Range(256, 0, rounded=math.ceil),
        "solarize_add": Range(0, 110, rounded=math.floor),
        "color": Range(0, 0.9, signed=True),
        "contrast": Range(0, 0.9, signed=True),
        "brightness": Range(0, 0.9, signed=True),
        "sharpness": Range(0, 0.9, signed=True),
        "shear_x": Range(0, 0.3, signed=True),
        "shear_y": Range(0, 0.3, signed=True),
        "translate_x": Range(0, 0.45, signed=True),
        "translate_y": Range(0, 0.45, signed=True),
    }

    def __init__(self, fill: Fill) -> None:
        self.fill = fill

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """An image of the same size."""
        names = list(self.RANGES)
        for chosen in rng.integers(len(names), size=self.COUNT).tolist():
            if rng.random() < self.PROBABILITY:
                magnitude = min(max(rng.normal(self.MAGNITUDE, self.DEVIATION), 0.0), self.GREATEST)
                value = self.RANGES[names[chosen]].draw(magnitude / self.GREATEST, rng)
                image = OPERATIONS[names[chosen]](image, value, self.fill)
        return image


class PlainRandAugment:
    """Two operations of fourteen, the same one twice perhaps, always at a magnitude of 5 of 10."""

    COUNT, SHARE = 2, 0.5
    RANGES: Mapping[str, Range] = {
        "shear_x": Range(0, 0.3, signed=True),
        "shear_y": Range(0, 0.3, signed=True),
        "translate_x": Range(0, 150 / 331, signed=True),
        "translate_y": Range(0, 150 / 331, signed=True),
        "rotate": Range(0, 30),
        "color": Range(0, 0.9, signed=True),
        "posterize": Range(0, 4, rounded=int),
        "solarize": Range(0, 256),
        "contrast": Range(0, 0.9, signed=True),
        "sharpness": Range(0, 0.9, signed=True),
        "brightness": Range(0, 0.9, signed=True),
        "autocontrast": Range(),
        "equalize": Range(),
        "invert": Range(),
    }

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """An image of the same size."""
        names = list(self.RANGES)
        for chosen in rng.integers(len(names), size=self.COUNT).tolist():
            sheared = names[chosen].startswith("shear")
            resample = Image.Resampling.BICUBIC if sheared else Image.Resampling.NEAREST
            value = self.RANGES[names[chosen]].draw(self.SHARE, rng)
            image = OPERATIONS[names[chosen]](image, value, Fill(GRAY, resample))
        return image
