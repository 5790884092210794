"""Training transforms: the published crop, and results that depend on the key alone."""

import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from torchclas.catalog import Backend, Interpolation, Preset
from torchclas.data.augment import TrainTransform, cut_out, erase, generator, random_crop, shift
from torchclas.data.preprocess import Preprocess
from torchclas.errors import ImageError
from torchclas.recipes import Augment, Policy

PRESET = Preset(36, (32, 32), "bilinear", "opencv", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
POLICIES: list[Policy] = ["", "autoaugment", "rand-m9-mstd0.5-inc1"]


def photo(height: int = 60, width: int = 80) -> NDArray[Any]:
    small = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def global_state() -> tuple[object, ...]:
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()


@pytest.mark.parametrize("policy", POLICIES)
def test_follows_from_the_key_alone(policy: Policy) -> None:
    transform = TrainTransform(Augment(policy=policy, erasing=0.25), PRESET, 32)
    keys = [(0, epoch, draw) for epoch in range(2) for draw in range(6)]
    before = global_state()
    first = [transform(photo(), generator(*key)) for key in keys]
    assert global_state() == before

    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    again = pickle.loads(pickle.dumps(transform))  # as another process has it
    for key, expected in reversed(list(zip(keys, first, strict=True))):
        torch.testing.assert_close(again(photo(), generator(*key)), expected, rtol=0, atol=0)
    assert len({image.numpy().tobytes() for image in first}) == len(keys)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("backend", ["opencv", "pillow"])
def test_any_image(policy: Policy, backend: Backend) -> None:
    transform = TrainTransform(Augment(policy=policy, backend=backend, erasing=1.0), PRESET, 32)
    shapes = [(1, 1, 3), (1, 1), (1, 700, 3), (900, 1, 3), (2, 3, 4), (5, 5, 1), (60, 80, 3)]
    for number, shape in enumerate(shapes):
        for epoch in range(4):
            image = transform(np.full(shape, 100, np.uint8), generator(0, epoch, number))
            assert image.shape == (3, 32, 32)
            assert image.dtype == torch.float32
            assert image.isfinite().all()


def test_unreadable_image() -> None:
    with pytest.raises(ImageError, match="not an image"):
        TrainTransform(Augment(), PRESET, 32)(b"hello", generator(0, 0, 0))


@pytest.mark.parametrize(("backend", "interpolation"), [("opencv", "bilinear"), ("pillow", "bicubic")])
def test_whole_image_is_resized_by_the_backend(backend: Backend, interpolation: Interpolation) -> None:
    """A crop of everything is the evaluation transform of a square image."""
    augment = Augment(interpolation=interpolation, backend=backend, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
    square = photo(64, 64)
    expected = Preprocess(Preset(32, (32, 32), interpolation, backend, PRESET.mean, PRESET.std))(square)
    torch.testing.assert_close(
        TrainTransform(augment, PRESET, 32)(square, generator(0, 0, 0)), expected, rtol=0, atol=0
    )


def test_center_crop_is_the_evaluation_transform() -> None:
    augment = Augment(crop="center", flip=0.0)
    image = TrainTransform(augment, PRESET, 32)(photo(), generator(0, 0, 0))
    torch.testing.assert_close(image, Preprocess(PRESET)(photo()), rtol=0, atol=0)
    larger = TrainTransform(augment, PRESET, 64)(photo(), generator(0, 0, 0))
    expected = Preprocess(Preset(72, (64, 64), "bilinear", "opencv", PRESET.mean, PRESET.std))(photo())
    torch.testing.assert_close(larger, expected, rtol=0, atol=0)


def test_flip() -> None:
    never, always = (TrainTransform(Augment(flip=flip), PRESET, 32) for flip in (0.0, 1.0))
    torch.testing.assert_close(never(photo(), generator(0, 0, 0)).flip(2), always(photo(), generator(0, 0, 0)))


def test_crops_have_the_published_distribution() -> None:
    """Shares of the area and aspect ratios are uniform between their bounds where any crop fits."""
    rng = np.random.default_rng(0)
    crops = [
        random_crop(np.zeros((400, 400, 3), np.uint8), rng, (0.08, 0.5), (3 / 4, 4 / 3)).shape for _ in range(2000)
    ]
    heights, widths, _ = np.array(crops, float).T
    shares, ratios = heights * widths / 400**2, widths / heights
    for values, low, high in ((shares, 0.08, 0.5), (ratios, 3 / 4, 4 / 3)):
        tenths = np.histogram(values, 10, (low * 0.99, high * 1.01))[0]
        assert tenths.sum() == len(crops)
        assert tenths.min() > 140  # of 200


def test_crop_that_cannot_fit_is_as_large_as_fits() -> None:
    crop = random_crop(np.zeros((10, 1000, 3), np.uint8), np.random.default_rng(0), (0.5, 1.0), (1.0, 1.0))
    assert crop.shape == (10, 10, 3)


def test_erasing() -> None:
    erased, shares = 0, []
    for seed in range(300):
        image = np.full((3, 40, 50), 9.0, np.float32)
        erase(image, np.random.default_rng(seed))
        rows, columns = np.nonzero((image != 9.0).all(0))
        if len(rows):
            erased += 1
            shares.append(len(rows) / 2000)
            assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)  # a rectangle
    assert erased == 300
    assert min(shares) > 0.01
    assert max(shares) < 0.35
    assert np.mean(shares) == pytest.approx((0.02 + 1 / 3) / 2, abs=0.02)


def test_erasing_as_older_recipes_have_it() -> None:
    settings, shares, wide = Augment(erasing_area=(0.1, 0.4), erasing_ratio="even", erasing_fill="mean"), [], 0
    for seed in range(200):
        image = np.full((3, 60, 60), 9.0, np.float32)
        erase(image, np.random.default_rng(seed), settings)
        rows, columns = np.nonzero((image == 0).all(0))
        shares.append(len(rows) / 3600)
        assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1) == (image != 9.0).all(0).sum()
        wide += bool(np.ptp(rows) < np.ptp(columns))
    assert min(shares) > 0.09
    assert max(shares) < 0.41
    assert wide < 70, "a ratio that is drawn evenly from 0.3 to 3.3 is mostly above 1: taller than wide"


def test_a_square_is_cut_out() -> None:
    sizes = set[tuple[int, int]]()
    for seed in range(100):
        image = np.full((3, 20, 30), 9.0, np.float32)
        cut_out(image, np.random.default_rng(seed), 8)
        rows, columns = np.nonzero((image == 0).all(0))
        sizes.add((int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1))
    assert max(sizes) == (8, 8)
    assert min(sizes)[0] < 8, "cut off at the border"
    transform = TrainTransform(Augment(cutout=8), PRESET, 32)
    white = np.full((32, 32, 3), 255, np.uint8)
    assert all(float(transform(white, generator(0, 0, draw)).min()) == 0 for draw in range(20))


def test_a_shift_is_a_crop_of_what_got_a_black_border() -> None:
    """PaddleClas's `Padv2` to the centre, then `RandomCropImage`."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 255, (6, 8, 3), np.uint8)
    padded = np.zeros((10, 10, 3), np.uint8)
    padded[2:8, 1:9] = pixels
    crops = [padded[top : top + 6, left : left + 8] for top in range(5) for left in range(3)]
    found = [shift(pixels, rng, (2, 1)) for _ in range(300)]
    counts = [sum(np.array_equal(each, crop) for each in found) for crop in crops]
    assert sum(counts) == 300
    assert min(counts) > 5, "each as often"
    transform = TrainTransform(Augment(crop="center", flip=0, shift=(3, 3)), PRESET, 32)
    plain = TrainTransform(Augment(crop="center", flip=0), PRESET, 32)(photo(), generator(0, 0, 0))
    assert any(not torch.equal(transform(photo(), generator(0, 0, draw)), plain) for draw in range(3))


def test_a_policy_changes_its_share_of_the_images() -> None:
    picture = photo()
    plain = TrainTransform(Augment(crop="center", flip=0), PRESET, 32)(picture, generator(0, 0, 0))
    for share, least, most in ((0.0, 0, 0), (0.3, 30, 90), (1.0, 150, 200)):
        transform = TrainTransform(Augment(crop="center", flip=0, policy="autoaugment", policy_prob=share), PRESET, 32)
        changed = sum(not torch.equal(transform(picture, generator(0, 0, draw)), plain) for draw in range(200))
        assert least <= changed <= most


def test_erasing_happens_as_often_as_asked() -> None:
    transform = TrainTransform(Augment(erasing=0.25), PRESET, 32)
    gray = np.full((32, 32, 3), 128, np.uint8)
    hits = sum(float(transform(gray, generator(0, 0, draw)).std(dim=(1, 2)).max()) > 0.01 for draw in range(400))
    assert 70 < hits < 130
