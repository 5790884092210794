"""AutoAugment and RandAugment: right at every magnitude, and as the published recipes had them."""

from __future__ import annotations

import random
from itertools import product
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from torchclas.data.policies import GRAY, OPERATIONS, AutoAugment, Fill, PlainRandAugment, RandAugment, Range, Step

FILL = Fill((124, 116, 104), Image.Resampling.BICUBIC)
SIZES = [(1, 1), (1, 7), (7, 1), (2, 2), (24, 24), (25, 16)]
POLICIES = [AutoAugment(), RandAugment(FILL), PlainRandAugment()]

Pixels = npt.NDArray[np.uint8]


def pictures(count: int = 4) -> list[Image.Image]:
    """Noise, and images of one intensity, in all sizes."""
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (*size, 3), np.uint8) for size in SIZES for _ in range(count)]
    plain = [np.full((*size, 3), value, np.uint8) for size in SIZES for value in (0, 1, 127, 128, 255)]
    return [Image.fromarray(pixels) for pixels in (*noise, *plain)]


def changed(name: str, value: float, pixels: Pixels) -> Pixels:
    return np.asarray(OPERATIONS[name](Image.fromarray(pixels), value, FILL))


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_takes_every_image_at_its_extremes(name: str) -> None:
    ranges = [policy.RANGES[name] for policy in POLICIES if name in policy.RANGES]
    values = {
        sign * found.at(share)
        for found in ranges
        for share in (0.0, 0.5, 1.0)
        for sign in ((1, -1) if found.signed else (1,))
    }
    for image, value in product(pictures(), values):
        result = OPERATIONS[name](image, value, FILL)
        assert (result.size, result.mode) == (image.size, "RGB")


@pytest.mark.parametrize("policy", POLICIES, ids=["AutoAugment", "RandAugment", "PlainRandAugment"])
def test_thousands_of_images_pass(policy: AutoAugment | RandAugment | PlainRandAugment) -> None:
    images = pictures()
    for number in range(4000):
        image = images[number % len(images)]
        result = policy(image, np.random.default_rng(number))
        assert (result.size, result.mode) == (image.size, "RGB")


def test_intensities_are_changed_as_defined() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    for bits in range(9):
        assert np.array_equal(changed("posterize", bits, ramp), ramp >> (8 - bits) << (8 - bits) if bits else 0 * ramp)
    for threshold in (0, 28.44, 113.78, 128, 256):
        expected = np.where(ramp < threshold, ramp, 255 - ramp)
        assert np.array_equal(changed("solarize", threshold, ramp), expected)
    for added in (0, 55, 110):
        expected = np.where(ramp < 128, np.minimum(255, ramp.astype(int) + added), ramp)
        assert np.array_equal(changed("solarize_add", added, ramp), expected)
    assert np.array_equal(changed("invert", 0, ramp), 255 - ramp)
    for name in ("color", "contrast", "brightness", "sharpness", "rotate", "shear_x", "shear_y", "translate_x"):
        assert np.array_equal(changed(name, 0, ramp), ramp)


def test_what_moves_into_the_picture_is_the_fill() -> None:
    white = np.full((20, 20, 3), 255, np.uint8)
    moved = changed("translate_x", 0.45, white)
    assert (moved[:, 11:] == FILL.colour).all()
    assert (moved[:, :11] == 255).all()
    assert (changed("translate_y", -0.45, white)[:9] == FILL.colour).all()
    assert tuple(changed("rotate", 30, white)[0, 0]) == FILL.colour
    assert tuple(changed("shear_x", 0.3, white)[-1, -1]) == FILL.colour


def only(policy: type[AutoAugment], *steps: Step) -> AutoAugment:
    """The policy with one pair of operations, both always done."""
    chosen = policy()
    pair = tuple(step._replace(probability=1.0) for step in (*steps, Step("posterize", 1.0, 0))[:2])
    object.__setattr__(chosen, "PAIRS", (pair,))
    return chosen


def test_autoaugment_is_upstreams() -> None:
    """It turns counterclockwise by the nearest pixel, shears by a bicubic filter, and solarizes from 256 down."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    for seed in range(8):
        turned = only(AutoAugment, Step("rotate", 1, 9))(noise, np.random.default_rng(seed))
        assert turned.tobytes() == noise.rotate(30, fillcolor=GRAY).tobytes()
    sheared = {
        only(AutoAugment, Step("shear_x", 1, 9))(noise, np.random.default_rng(seed)).tobytes() for seed in range(16)
    }
    assert sheared == {
        noise.transform(
            noise.size, Image.Transform.AFFINE, (1, factor, 0, 0, 1, 0), Image.Resampling.BICUBIC, fillcolor=GRAY
        ).tobytes()
        for factor in (0.3, -0.3)
    }
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    for level, first in ((0, 256), (3, 171), (4, 143), (5, 114), (7, 57), (8, 29), (9, 0)):
        result = only(AutoAugment, Step("solarize", 1, level))(Image.fromarray(ramp), np.random.default_rng(0))
        assert np.array_equal(np.asarray(result), np.where(ramp < first, ramp, 255 - ramp))


def test_autoaugment_posterizes_to_the_papers_bits() -> None:
    bits = [AutoAugment.RANGES["posterize"].at(level / 9) for level in range(10)]
    assert bits == [8, 8, 7, 7, 6, 6, 5, 5, 4, 4]


def test_randaugment_does_two_of_fifteen_every_second_time() -> None:
    """Operations are counted in place of being done."""
    counts = dict.fromkeys(RandAugment.RANGES, 0)
    image = Image.new("RGB", (4, 4))

    def counting(name: str) -> object:
        def count(image: Image.Image, value: float, fill: Fill) -> Image.Image:
            counts[name] += 1
            return image

        return count

    with patch.dict(OPERATIONS, {name: counting(name) for name in OPERATIONS}):  # pyright: ignore[reportArgumentType]
        rng = np.random.default_rng(0)
        for _ in range(6000):
            RandAugment(FILL)(image, rng)
    assert len(counts) == 15
    assert sum(counts.values()) == pytest.approx(6000, rel=0.03)
    assert min(counts.values()) > 330
    assert max(counts.values()) < 470


def test_either_sign_is_as_likely() -> None:
    rng = np.random.default_rng(0)
    values = [Range(0, 30, signed=True).draw(1.0, rng) for _ in range(1000)]
    assert set(values) == {30.0, -30.0}
    assert 430 < values.count(30.0) < 570


TIMM = {
    "autocontrast": "AutoContrast", "equalize": "Equalize", "invert": "Invert", "rotate": "Rotate",
    "posterize": "PosterizeIncreasing", "solarize": "SolarizeIncreasing", "solarize_add": "SolarizeAdd",
    "color": "ColorIncreasing", "contrast": "ContrastIncreasing", "brightness": "BrightnessIncreasing",
    "sharpness": "SharpnessIncreasing", "shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateXRel",
    "translate_y": "TranslateYRel",
}  # fmt: skip


@pytest.mark.parametrize("name", RandAugment.RANGES)
def test_randaugment_equals_timms(name: str) -> None:
    """That upstream's was taken from: each bit, at magnitudes near the recipe's and far from it, with either sign."""
    timm = pytest.importorskip("timm.data.auto_augment")
    images = [image for image in pictures() if min(image.size) > 1]
    for level, sign in product((0.0, 2.5, 5.0, 7.4, 8.3, 9.0, 9.6, 9.99), (0.1, 0.9)):
        theirs = timm.AugmentOp(
            TIMM[name], 1.0, level, {"img_mean": FILL.colour, "interpolation": FILL.resample, "translate_pct": 0.45}
        )
        value = RandAugment.RANGES[name].at(level / 10)
        value = -value if RandAugment.RANGES[name].signed and sign > 0.5 else value
        for image in images[:6]:
            with patch.object(random, "random", lambda sign=sign: sign):
                expected = theirs(image)
            assert OPERATIONS[name](image, value, FILL).tobytes() == expected.tobytes()
