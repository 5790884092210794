"""From a name to a network with weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torchclas
from tests.parity.golden import golden
from torchclas.catalog import find
from torchclas.errors import CheckpointError, DownloadError, Error, UnknownNameError
from torchclas.spec import DEFAULT_MODEL, find_model
from torchclas.weights import location
from torchclas.weights.checkpoint import save_checkpoint
from torchclas.weights.metadata import Metadata
from torchclas.zoo import load_model


def test_the_default_model_needs_no_network() -> None:
    spec = find_model()
    assert spec.name == DEFAULT_MODEL
    model = load_model(spec)
    assert not model.training
    assert location.is_converted(find(DEFAULT_MODEL))
    assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)


def test_pretrained_for_another_task() -> None:
    model = torchclas.create_model(DEFAULT_MODEL, pretrained=True, num_classes=3, in_channels=1)
    assert model.training
    assert model(torch.zeros(2, 1, 224, 224)).shape == (2, 3)


def test_pretrained_without_a_head() -> None:
    vectors = torchclas.create_model(DEFAULT_MODEL, pretrained=True, num_classes=0)
    assert vectors(torch.zeros(2, 3, 64, 64)).shape == (2, vectors.num_features)


def test_names_in_any_case_and_names_that_are_weights() -> None:
    assert torchclas.create_model("resnet18_VD").arch == "ResNet18_vd"
    assert torchclas.create_model("PPLCNet_x0_5_ssld").arch == "PPLCNet_x0_5"
    with pytest.raises(UnknownNameError, match="did you mean PPLCNet_x0_5"):
        torchclas.create_model("PPLCNet_x0_55")


def test_weights_that_cannot_be_had() -> None:
    with pytest.raises(DownloadError, match="TORCHCLAS_OFFLINE"):
        torchclas.create_model("ResNet18", pretrained=True)
    with pytest.raises(CheckpointError, match="never published"):
        torchclas.create_model("MobileNetV3_large_x1_0_ssld_int8", pretrained=True)
    with pytest.raises(CheckpointError, match="two sets of weights"):
        torchclas.create_model("ResNet18", pretrained=True, weights="mine.pth")


@pytest.mark.parametrize(
    ("argument", "value"),
    [("num_classes", value) for value in (-1, "3", 3.0, True)] + [("in_channels", value) for value in (0, -3, "3")],
)
def test_what_is_no_number_of_classes_or_channels(argument: str, value: Any) -> None:
    with pytest.raises(Error, match=f"{argument} is a whole number from . on, not {value!r}"):
        torchclas.create_model("PPLCNet_x0_25", **{argument: value})


def test_a_classifier_that_cannot_be_made_leaves_the_network_as_it_was() -> None:
    model = torchclas.create_model("PPLCNet_x0_25", num_classes=2)
    with pytest.raises(Error, match="num_classes is a whole number"):
        model.reset_classifier(-1)
    assert model.num_classes == 2
    number: Any = np.int64(3)
    model.reset_classifier(number)
    assert type(model.num_classes) is int


def test_a_checkpoint_contradicts_the_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    model = torchclas.create_model("PPLCNet_x0_25", num_classes=2)
    preset = find("PPLCNet_x0_25").preset
    save_checkpoint(model, path, Metadata("PPLCNet_x0_25", 2, preset, class_ids=("a", "b"), class_names=("a", "b")))
    assert find_model("PPLCNet_x0_25", weights=path).num_classes == 2
    assert find_model(weights=path).arch == "PPLCNet_x0_25"
    with pytest.raises(CheckpointError, match="is a PPLCNet_x0_25, not a ResNet18"):
        find_model("ResNet18", weights=path)


def test_a_published_file_for_a_name(tmp_path: Path) -> None:
    path = tmp_path / "x.pdparams"
    golden("PPLCNet_x0_25").write(path)
    spec = find_model("PPLCNet_x0_25", weights=path)
    assert (spec.path, spec.classes.name) == (path, "imagenet1k")
    assert torch.isfinite(load_model(spec)(torch.zeros(1, 3, 64, 64))).all()


def test_preprocessing_belongs_to_the_weights() -> None:
    assert torchclas.preprocess_for("ResNet50").preset.backend == "opencv"
    assert torchclas.preprocess_for("EfficientNet_lite0").preset.backend == "pillow"
    assert torchclas.preprocess_for("Fix_ResNet50_vd_ssld_v2").preset.size == (320, 320)
