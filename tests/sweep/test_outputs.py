"""Logits and embeddings are the same in every engine, file and precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import torchclas
from tests.unit.test_outputs import ENGINES, checkpoint, images, relative
from torchclas.engines import open_engine
from torchclas.errors import CheckpointError, Error, UnknownNameError
from torchclas.spec import find_model
from torchclas.vocabulary import OUTPUTS, ExportFormat
from torchclas.weights.metadata import read_metadata

pytestmark = [pytest.mark.sweep, pytest.mark.usefixtures("one_thread")]
__all__ = ["checkpoint", "images"]


def test_all_engines_give_the_same(checkpoint: Path, images: np.ndarray) -> None:
    spec = find_model(checkpoint)
    want = open_engine(spec, "torch", outputs=OUTPUTS).run(images)
    assert [*want] == ["logits", "embedding"]
    assert want["embedding"].shape[0] == 5
    for name in ENGINES:
        for batch_size in (1, 4):
            both = open_engine(spec, name, outputs=OUTPUTS, batch_size=batch_size).run(images)
            assert [*both] == ["logits", "embedding"]
            for output, values in both.items():
                assert relative(values, want[output]) <= 1e-4
        alone = open_engine(spec, name, outputs=["embedding"]).run(images)
        assert [*alone] == ["embedding"]
        assert relative(alone["embedding"], want["embedding"]) <= 1e-4
        plain = open_engine(spec, name)
        assert relative(plain(images), want["logits"]) <= 1e-4
        assert plain.outputs == ("logits",)
    low = open_engine(spec, "openvino", precision="bf16", outputs=OUTPUTS).run(images)
    assert relative(low["embedding"], want["embedding"]) < 0.1


def test_files_have_the_outputs_that_were_asked_for(checkpoint: Path, images: np.ndarray, tmp_path: Path) -> None:
    want = open_engine(find_model(checkpoint), "torch", outputs=OUTPUTS).run(images)
    formats: dict[ExportFormat, str] = {"onnx": "both.onnx", "openvino": "both.xml"}
    for to, name in formats.items():
        done = torchclas.export(checkpoint, to=to, outputs=["embedding", "logits"], output=tmp_path / name)
        assert read_metadata(done.path).outputs == OUTPUTS
        spec = find_model(done.path)
        both = open_engine(spec, outputs=OUTPUTS).run(images)
        for output, values in both.items():
            assert relative(values, want[output]) <= 1e-4
        assert relative(open_engine(spec)(images), want["logits"]) <= 1e-4
    plain = torchclas.export(checkpoint, to="onnx", output=tmp_path / "plain.onnx")
    with pytest.raises(CheckpointError, match="gives logits, and no embedding: export it again"):
        open_engine(find_model(plain.path), outputs=["embedding"])
    done = torchclas.export(checkpoint, to="onnx", outputs=["embedding"], output=tmp_path / "vectors.onnx")
    with pytest.raises(CheckpointError, match="gives embedding, and no logits"):
        open_engine(find_model(done.path))
    with pytest.raises(UnknownNameError, match="features"):
        open_engine(find_model(checkpoint), outputs=["features"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(Error, match="no output"):
        open_engine(find_model(checkpoint), outputs=[])


def test_quantized_graphs_give_both(checkpoint: Path, images: np.ndarray, photographs: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    quantized = torchclas.quantize(checkpoint, calibration=photographs, output=tmp_path / "int8.onnx")
    assert read_metadata(quantized.path).outputs == OUTPUTS
    want = open_engine(find_model(checkpoint), "torch", outputs=OUTPUTS).run(images)
    for name in ("onnxruntime", "openvino"):
        got = open_engine(find_model(quantized.path), name, outputs=OUTPUTS).run(images)
        for output, values in got.items():
            assert np.corrcoef(values.ravel(), want[output].ravel())[0, 1] > 0.9
