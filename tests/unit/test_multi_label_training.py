"""Training on images with any number of classes: losses, what validation measures, and a whole run."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics as sklearn
from timm.loss.asymmetric_loss import AsymmetricLossMultiLabel
from torch.nn import functional as F

from torchclas import Classifier
from torchclas.data.training import exponential_weights
from torchclas.errors import Error
from torchclas.recipes import Loss, RecipeError
from torchclas.reporting.console import Console
from torchclas.reporting.evaluation_report import print_report
from torchclas.tasks.evaluate import evaluate
from torchclas.tasks.train import train
from torchclas.training.losses import classification_loss
from torchclas.training.options import TrainOptions
from torchclas.weights.metadata import read_metadata

SK: Any = sklearn
CLASSES = ("red", "green", "blue")
LOGITS = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)) * 3
TARGETS = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 0]])


def test_binary_cross_entropy_is_torchs() -> None:
    found = classification_loss(LOGITS, TARGETS, Loss(name="bce"))
    expected = F.binary_cross_entropy_with_logits(LOGITS, TARGETS.float(), reduction="sum") / 5
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    weights = torch.tensor([2.0, 1.0, 0.5])
    found = classification_loss(LOGITS, TARGETS, Loss(name="bce"), weights)
    expected = F.binary_cross_entropy_with_logits(LOGITS, TARGETS.float(), pos_weight=weights, reduction="sum") / 5
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_exponential_weights_are_paddleclass() -> None:
    """Its `ratio2weight`: exp(1 - share) for what an image is of, exp(share) for what it is not."""
    weights = exponential_weights(TARGETS.numpy())
    shares = TARGETS.float().mean(0)
    by_hand = torch.zeros(())
    for logits, targets in zip(LOGITS, TARGETS, strict=True):
        for logit, target, share in zip(logits, targets, shares, strict=True):
            weight = torch.exp(target * (1 - share) + (1 - target) * share)
            by_hand = by_hand + weight * F.binary_cross_entropy_with_logits(logit, target.float())
    found = classification_loss(LOGITS, TARGETS, Loss(name="bce", class_weights="exponential"), weights)
    assert float(found) == pytest.approx(float(by_hand) / 5, rel=1e-6)


@pytest.mark.parametrize(("positive", "negative", "margin"), [(1, 4, 0.05), (0, 2, 0.2), (0, 0, 0.0)])
def test_asymmetric_loss_is_timms(positive: int, negative: int, margin: float) -> None:
    settings = Loss(name="asymmetric", gamma_positive=positive, gamma_negative=negative, margin=margin)
    logits = LOGITS.clone().requires_grad_()
    theirs = LOGITS.clone().requires_grad_()
    # Its third argument turns the gradient of the weights off, as here.
    oracle = AsymmetricLossMultiLabel(negative, positive, margin, disable_torch_grad_focal_loss=True)
    found, expected = classification_loss(logits, TARGETS, settings), oracle(theirs, TARGETS)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    found.backward()
    expected.backward()
    assert logits.grad is not None
    assert theirs.grad is not None
    assert torch.allclose(logits.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_far_logits_stay_finite() -> None:
    for name in ("bce", "asymmetric"):
        logits = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
        loss = classification_loss(logits, torch.tensor([[0, 1, 1]]), Loss(name=name, margin=0.0))
        loss.backward()
        assert loss.isfinite()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


def test_soft_targets_and_smoothing() -> None:
    smoothed = classification_loss(LOGITS, TARGETS, Loss(0.2, name="bce"))
    by_hand = classification_loss(LOGITS, TARGETS * 0.8 + 0.1, Loss(name="bce"))
    assert float(smoothed) == pytest.approx(float(by_hand), rel=1e-6)


def test_what_goes_with_exponential_weights_is_checked() -> None:
    with pytest.raises(RecipeError, match="class_weights"):
        Loss(name="asymmetric", class_weights="exponential")


def test_a_margin_is_checked() -> None:
    with pytest.raises(RecipeError, match="margin"):
        Loss(name="asymmetric", margin=1.0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Squares of a class each on gray."""
    rng = np.random.default_rng(0)
    rows: list[list[object]] = []
    for number in range(32):
        pixels = np.full((32, 32, 3), 90, np.uint8)
        labels = (rng.random(3) < 0.5).astype(int).tolist()
        for channel in np.flatnonzero(labels):
            pixels[8 * channel : 8 * channel + 8, :, channel] = 255
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append([f"{number}.png", *labels])
    path = tmp_path / "train.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", *CLASSES], *rows])
    return path


def options(data: Path, output: Path, *overrides: str) -> TrainOptions:
    return TrainOptions(
        data,
        val=data,
        model="ResNet18_vd",
        start="scratch",
        recipe="finetune",
        size="32",
        epochs=3,
        batch_size=8,
        workers=0,
        output=output,
        overrides=("ema=0", "optimizer.lr=0.002", *overrides),
    )


def test_a_run_from_data_to_prediction(data: Path, tmp_path: Path) -> None:
    summary = train(options(data, tmp_path / "run", "sampling=sqrt", "loss.class_weights=balanced"))
    best = summary.best
    assert best is not None
    assert best.score_name == "mAP"
    metadata = read_metadata(tmp_path / "run" / "best.safetensors")
    assert metadata.activation == "sigmoid"
    assert metadata.class_names == CLASSES
    assert len(metadata.thresholds) == 3
    assert metadata.origin["val_map"] == best.val_map
    assert "val_top1" not in metadata.origin
    assert 'name = "bce"' in (tmp_path / "run" / "recipe.toml").read_text()
    log = list(csv.DictReader((tmp_path / "run" / "log.csv").open()))[best.epoch - 1]
    assert float(log["val_map"]) == best.val_map
    assert log["val_top1"] == ""
    report = evaluate(data, model=tmp_path / "run", output=tmp_path / "report", engine="torch")
    assert report.multi_label is not None
    assert report.multi_label.mean_average_precision == pytest.approx(best.val_map, abs=1e-6)
    assert report.multi_label.mean_f1 == pytest.approx(macro_f1(tmp_path / "report", data), abs=1e-9)
    assert report.to_dict()["exact"] == report.multi_label.exact
    wrong = list(csv.DictReader((tmp_path / "report" / "wrong.csv").open()))
    assert len(wrong) == round(32 * (1 - report.multi_label.exact))
    assert all(row["missed"] or row["added"] for row in wrong)
    console = Console(width=100, file=io.StringIO())
    print_report(report, console)
    assert "all classes right" in console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "mean average precision" in page
    assert "mAP %" in page
    assert json.loads((tmp_path / "run" / "run.json").read_text())["classes"] == 3


def macro_f1(folder: Path, data: Path) -> float:
    """From the rows of each image that `evaluate` writes, by scikit-learn."""
    rows = list(csv.DictReader((folder / "predictions.csv").open()))
    said = np.array([[name in row["predicted"].split("|") for name in CLASSES] for row in rows])
    true = np.array([row[1:] for row in list(csv.reader(data.open()))[1:]], int)
    assert [row["true"] for row in rows] == ["|".join(np.array(CLASSES)[one > 0]) for one in true]
    return float(SK.f1_score(true, said, average="macro", zero_division=0))


def summary_map(run: Path, data: Path) -> float:
    """The mean average precision of what `predict` says, by scikit-learn."""
    rows = list(csv.reader(data.open()))[1:]
    classifier = Classifier(run, engine="torch", threshold=0.0)
    labels = np.array([row[1:] for row in rows], int)
    scores = np.zeros(labels.shape)
    for place, row in enumerate(classifier.predict([data.parent / row[0] for row in rows])):
        scores[place, [CLASSES.index(name) for name in row.labels]] = row.scores
    return float(SK.average_precision_score(labels, scores, average="macro"))


def test_what_is_logged_is_what_the_file_gives(data: Path, tmp_path: Path) -> None:
    best = train(options(data, tmp_path / "run", "loss.name=asymmetric")).best
    assert best is not None
    assert best.val_map == pytest.approx(summary_map(tmp_path / "run", data), abs=1e-6)


def test_mixed_images_have_mixed_labels(data: Path, tmp_path: Path) -> None:
    summary = train(options(data, tmp_path / "run", "augment.mixup=0.2", "augment.mixup_prob=1"))
    assert summary.best is not None


def test_a_loss_for_several_classes_needs_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (32, 32)).save(tmp_path / "data" / name / f"{number}.png")
    with pytest.raises(Error, match="any number of classes, and these have one each"):
        train(options(tmp_path / "data", tmp_path / "run", "loss.name=bce"))
