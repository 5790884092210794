"""Images that are no squares: sizes, fitting, networks, and a model of its own from training to int8."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
import torch

import torchclas
from torchclas import models
from torchclas.catalog import Preset, find
from torchclas.data.augment import TrainTransform
from torchclas.data.preprocess import Preprocess
from torchclas.errors import Error, ImageSizeError
from torchclas.recipes import Augment
from torchclas.sizes import parse_size, show_size, to_size
from torchclas.vocabulary import Fit

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RECTANGLE = Preset(80, (80, 160), "bilinear", "opencv", MEAN, STD)
GROUND = np.array([round(255 * value) for value in MEAN])


def picture(height: int, width: int) -> np.ndarray:
    """Columns of growing red, rows of growing green."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :, 0] = np.linspace(0, 255, width)
    pixels[:, :, 1] = np.linspace(0, 255, height)[:, None]
    return pixels


def test_sizes_are_written_and_read() -> None:
    assert parse_size("224") == to_size(224) == (224, 224)
    assert parse_size("80x160") == parse_size("80×160") == parse_size("80,160") == to_size([80, 160]) == (80, 160)
    assert (show_size((80, 160)), show_size((7, 7))) == ("80×160", "7")
    for wrong in ("", "x", "80x", "-1", "80x160x3", "1.5", "0"):
        with pytest.raises(ImageSizeError):
            parse_size(wrong)
    for pair in ((80,), (80, 160, 3), (80, -1), (True, 3)):
        with pytest.raises(ImageSizeError):
            to_size(pair)


def test_a_squeezed_image_is_what_opencv_resizes_to() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 333, 3), np.uint8)
    preprocess = Preprocess(RECTANGLE.fitted("squeeze"))
    np.testing.assert_array_equal(preprocess.fit(pixels), cv2.resize(pixels, (160, 80)))
    assert preprocess.array(pixels).shape == preprocess.shape == (3, 80, 160)


@pytest.mark.parametrize("shape", [(300, 300), (40, 500), (500, 40), (80, 160), (1, 9000), (9000, 1), (1, 1)])
@pytest.mark.parametrize("backend", ["opencv", "pillow"])
def test_padding_shows_the_whole_image_on_bars_of_the_mean(shape: tuple[int, int], backend: str) -> None:
    preset = replace(RECTANGLE, fit="pad", backend=backend)
    fitted = Preprocess(preset).fit(np.full((*shape, 3), 255, np.uint8))
    white = (fitted == 255).all(2)
    rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
    assert white[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert (fitted[~white] == GROUND).all()
    scale = min(80 / shape[0], 160 / shape[1])
    assert (len(rows), len(columns)) == tuple(max(1, round(side * scale)) for side in shape)
    assert abs(rows[0] - (79 - rows[-1])) <= 1
    assert abs(columns[0] - (159 - columns[-1])) <= 1


@pytest.mark.parametrize("shape", [(300, 300), (120, 160), (50, 900), (900, 50)])
def test_a_crop_is_the_centre_of_what_covers_it(shape: tuple[int, int]) -> None:
    fitted = Preprocess(replace(RECTANGLE, resize_short=100)).fit(picture(*shape)).astype(int)
    scale = max(100 / shape[0], 200 / shape[1])
    seen = 80 / scale / shape[0], 160 / scale / shape[1]  # shares of height and width
    assert abs(np.ptp(fitted[:, :, 1]) / 255 - seen[0]) < 0.03
    assert abs(np.ptp(fitted[:, :, 0]) / 255 - seen[1]) < 0.03
    assert abs(fitted[:, :, :2].mean((0, 1)) - 127.5).max() < 4


def test_other_sizes_keep_the_share_that_is_cut_off() -> None:
    square = find("ResNet50").preset
    assert (square.at(112).resize_short, square.at((112, 224)).resize_short) == (128, 128)
    assert square.at(224) is square
    assert square.fitted("squeeze").resize_short == 224
    for fit in get_args(Fit):
        preset = square.fitted(fit).at((80, 160))
        assert Preset.from_dict(preset.to_dict()) == preset
    before = {**{key: value for key, value in square.to_dict().items() if key not in ("size", "fit")}, "crop_size": 224}
    assert Preset.from_dict(before) == square, "files that were written before"


@pytest.mark.parametrize("fit", get_args(Fit))
def test_training_images_have_the_size(fit: Fit) -> None:
    pixels = picture(50, 300)
    for crop in ("random", "center"):
        transform = TrainTransform(Augment(crop=crop, flip=0), RECTANGLE.fitted(fit), (80, 160))
        assert transform(pixels, np.random.default_rng(0)).shape == (3, 80, 160)
        if crop == "center":
            image = transform(pixels, np.random.default_rng(0)).numpy()
            np.testing.assert_array_equal(image, Preprocess(RECTANGLE.fitted(fit)).array(pixels))


@pytest.mark.parametrize("arch", ["ViT_small_patch16_224", "DeiT_tiny_distilled_patch16_224", "TNT_small"])
def test_position_embeddings_become_rectangular(arch: str) -> None:
    network = models.build(arch, num_classes=3).eval()
    position = network.get_parameter("stem.position").detach().clone()
    network.set_input_size((80, 160))
    assert network.input_size == (80, 160)
    assert network(torch.randn(1, 3, 80, 160)).shape == (1, 3)
    with pytest.raises(ImageSizeError, match="set to 80×160"):
        network(torch.randn(1, 3, 160, 80))
    with pytest.raises(ImageSizeError, match="multiples of 16"):
        network.set_input_size((80, 150))
    network.set_input_size((80, 160))
    prefix = position.shape[1] - 14 * 14
    torch.testing.assert_close(network.get_parameter("stem.position")[0, :prefix], position[0, :prefix])
    across = network.get_parameter("stem.position")[0, prefix:].unflatten(0, (5, 10))
    whole = position[0, prefix:].unflatten(0, (14, 14))
    # What is left is left: the first rows of both embeddings are alike, and not the first columns of one of the other.
    assert torch.dist(across.mean(0)[0], whole.mean(0)[0]) < torch.dist(across.mean(0)[0], whole.mean(0)[-1])


@pytest.mark.parametrize("arch", ["SwinTransformer_tiny_patch4_window7_224", "LeViT_128S"])
def test_networks_of_square_windows_say_so(arch: str) -> None:
    with torch.device("meta"):
        network = models.build(arch)
    with pytest.raises(ImageSizeError, match="takes square images, not 96×192"):
        network.set_input_size((96, 192))


def test_graphs_refuse_what_they_cannot_prepare(tmp_path: Path) -> None:
    reasons: dict[Fit, str] = {"pad": "pads images", "crop": "crops a rectangle"}
    for fit, why in reasons.items():
        path = tmp_path / f"{fit}.safetensors"
        network = torchclas.create_model("PPLCNet_x0_25", num_classes=2)
        preset = find("PPLCNet_x0_25").preset.fitted(fit).at((80, 160))
        torchclas.save_checkpoint(network, path, class_names=["left", "right"], preset=preset)
        with pytest.raises(Error, match=why):
            torchclas.export(path, to="onnx", input="uint8", output=tmp_path / "x.onnx")
