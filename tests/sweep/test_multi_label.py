"""A model of any number of classes per image, from training to int8."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.sweep.test_paddle_peer import PYTHON
from tests.unit.test_activation import METADATA, picture, weights
from tests.unit.test_multi_label_training import data, options
from torchclas import Classifier
from torchclas.metrics.multi_label import figures
from torchclas.tasks.evaluate import evaluate
from torchclas.tasks.export import export
from torchclas.tasks.quantize import quantize
from torchclas.tasks.train import train
from torchclas.weights.metadata import read_metadata

pytestmark = pytest.mark.sweep
__all__ = ["data", "picture", "weights"]


def test_int8_is_judged_by_mean_average_precision(data: Path, tmp_path: Path) -> None:
    train(options(data, tmp_path / "run"))
    made = quantize(
        tmp_path / "run", calibration=data, val=data, images=16, max_drop=100, output=tmp_path / "int8.onnx"
    )
    assert made.fp32 is not None
    assert made.fp32.top1 is None
    assert made.fp32.mean_average_precision is not None
    metadata = read_metadata(tmp_path / "int8.onnx")
    assert metadata.activation == "sigmoid"
    assert len(metadata.thresholds) == 3
    report = evaluate(data, model=tmp_path / "int8.onnx")
    assert report.multi_label is not None
    assert made.int8.agreement > 80


def test_an_export_keeps_it(weights: Path, picture: Image.Image, tmp_path: Path) -> None:
    export(weights, to="onnx", output=tmp_path / "wear.onnx")
    metadata = read_metadata(tmp_path / "wear.onnx")
    assert (metadata.activation, metadata.thresholds) == ("sigmoid", METADATA.thresholds)
    (row,) = Classifier(tmp_path / "wear.onnx").predict(picture)
    assert row.labels == ("person", "hat")
    assert row.scores == pytest.approx((0.6, 0.3), abs=1e-5)


@pytest.mark.skipif(not PYTHON.is_file(), reason="PaddlePaddle is not here: make peers")
def test_paddleclas_measures_the_same_of_the_same_scores(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((300, 9)).astype(np.float32)
    labels = (rng.random((300, 9)) < np.linspace(0.05, 0.7, 9)).astype(np.int64)
    np.savez(tmp_path / "scores.npz", scores=scores, labels=labels)
    peer = [PYTHON, Path(__file__).with_name("paddle_metrics_peer.py"), tmp_path / "scores.npz"]
    ran = subprocess.run(peer, capture_output=True, text=True, check=True, timeout=300)
    theirs = json.loads(ran.stdout.splitlines()[-1])
    ours = figures(scores, labels)
    assert theirs["map"] == pytest.approx(ours.mean_average_precision, abs=1e-9)
    assert theirs["exact"] == pytest.approx(ours.exact, abs=1e-9)
    assert theirs["label_accuracy"] == pytest.approx(ours.label_accuracy, abs=1e-9)
    assert theirs["hamming"] == pytest.approx(1 - ours.label_accuracy, abs=1e-9)
    assert theirs["ma"] == pytest.approx(ours.mean_accuracy, abs=1e-9)
    for name in ("precision", "recall", "f1"):
        assert theirs[name] == pytest.approx([getattr(row, name) for row in ours.classes], abs=1e-9)
