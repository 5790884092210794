"""A model of any number of classes per image, from training to int8."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.test_multi_label_training import data, options
from torchclas.tasks.evaluate import evaluate
from torchclas.tasks.quantize import quantize
from torchclas.tasks.train import train
from torchclas.weights.metadata import read_metadata

pytestmark = pytest.mark.sweep
__all__ = ["data"]


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
