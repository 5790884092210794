"""A model states whether an image has one class or any number of them, and everything that runs it keeps to that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from torchclas import Classifier, models
from torchclas.catalog import find
from torchclas.errors import CheckpointError, Error
from torchclas.metrics.scores import probabilities
from torchclas.spec import ModelSpec, find_model
from torchclas.weights.checkpoint import save_checkpoint
from torchclas.weights.metadata import Metadata

NAMES = ("person", "hat", "coat", "bag")
METADATA = Metadata(
    "PPLCNet_x0_25",
    4,
    find("PPLCNet_x0_25").preset.at(32),
    class_ids=NAMES,
    class_names=NAMES,
    activation="sigmoid",
    thresholds=(0.5, 0.25, 0.5, 0.9),
)
SCORES = (0.6, 0.3, 0.4, 0.8)  # of any image


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A model whose answer is its bias."""
    network = models.build("PPLCNet_x0_25", num_classes=4).eval()
    with torch.no_grad():
        for parameter in network.classifier.parameters():
            parameter.zero_()
        scores = torch.tensor(SCORES)
        bias = dict(network.classifier.named_parameters())["bias"]
        bias.copy_(scores.logit())
    path = tmp_path / "wear.safetensors"
    save_checkpoint(network, path, METADATA)
    return path


@pytest.fixture
def picture() -> Image.Image:
    return Image.new("RGB", (48, 40), (200, 30, 30))


def test_any_number_of_classes_best_first(weights: Path, picture: Image.Image) -> None:
    (row,) = Classifier(weights, engine="torch").predict(picture)
    assert row.labels == ("person", "hat")
    assert row.scores == pytest.approx((0.6, 0.3))


@pytest.mark.parametrize(
    ("threshold", "top_k", "expected"),
    [(0.35, None, ("bag", "person", "coat")), (0.0, None, ("bag", "person", "coat", "hat")), (0.0, 1, ("bag",))],
)
def test_a_threshold_takes_the_place_of_the_classes(
    weights: Path, picture: Image.Image, threshold: float, top_k: int | None, expected: tuple[str, ...]
) -> None:
    (row,) = Classifier(weights, engine="torch", threshold=threshold, top_k=top_k).predict(picture)
    assert row.labels == expected


def test_none_reaches_its_threshold(weights: Path, picture: Image.Image) -> None:
    (row,) = Classifier(weights, engine="torch", threshold=0.95).predict(picture)
    assert (row.status, row.labels, row.scores) == ("ok", (), ())


def test_without_thresholds_a_half_counts(weights: Path, picture: Image.Image) -> None:
    network = models.build("PPLCNet_x0_25", num_classes=4)
    save_checkpoint(network, weights, replace(METADATA, thresholds=()))
    spec = find_model(weights)
    assert spec.multi_label
    assert spec.thresholds == ()
    (row,) = Classifier(weights, engine="torch", top_k=4).predict(picture)
    (every,) = Classifier(weights, engine="torch", threshold=0.0).predict(picture)
    assert row.scores == tuple(score for score in every.scores if score >= 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"thresholds": (0.5, 0.5)}, "2 thresholds for 4 classes"),
        ({"thresholds": (0.5, 0.5, 0.5, 1.5)}, "a score in 0..1"),
        ({"thresholds": (0.5, 0.5, 0.5, float("nan"))}, "a score in 0..1"),
        ({"activation": "softmax"}, "one class"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        replace(METADATA, **changes)  # pyright: ignore[reportArgumentType] - wrong on purpose


def test_metadata_round_trip_and_older_files() -> None:
    assert Metadata.from_json(METADATA.to_json()) == METADATA
    older = replace(METADATA, activation="softmax", thresholds=()).to_json()
    older = older.replace('"activation": "softmax", "thresholds": [], ', "")
    assert "activation" not in older
    assert Metadata.from_json(older).activation == "softmax"
    with pytest.raises(Error, match="activation"):
        Metadata.from_json(METADATA.to_json().replace('"sigmoid"', '"relu"'))


def test_a_spec_hands_it_on(weights: Path) -> None:
    spec: ModelSpec = find_model(weights)
    made = spec.metadata(source="a test")
    assert (made.activation, made.thresholds) == ("sigmoid", METADATA.thresholds)


def test_sigmoid_of_large_logits_is_exact() -> None:
    logits = np.array([[-200.0, -2.0, 0.0, 2.0, 200.0]], np.float32)
    expected = torch.from_numpy(logits).double().sigmoid().numpy()
    assert np.abs(probabilities(logits, "sigmoid") - expected).max() < 1e-7
    damaged = probabilities(np.array([[np.nan, 1.0]], np.float32), "sigmoid")
    assert np.isnan(damaged[0, 0])


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_is_a_probability(weights: Path, threshold: float) -> None:
    with pytest.raises(Error, match="between 0 and 1"):
        Classifier(weights, threshold=threshold)
