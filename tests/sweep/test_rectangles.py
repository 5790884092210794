"""A model of images that are no squares, from training to int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import torchclas
from torchclas.data.preprocess import Preprocess
from torchclas.engines import open_engine
from torchclas.spec import find_model
from torchclas.vocabulary import ExportFormat
from torchclas.weights.metadata import read_metadata

pytestmark = pytest.mark.sweep


@pytest.fixture(scope="module")
def strips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines of text-like strokes: those that grow to the right, and those that grow to the left."""
    root = tmp_path_factory.mktemp("strips")
    rng = np.random.default_rng(0)
    for name in ("left", "right"):
        (root / name).mkdir()
        for number in range(12):
            width = int(rng.integers(180, 400))
            pixels = rng.integers(180, 256, (40, width, 3)).astype(np.uint8)
            for x in range(10, width - 12, 14):
                share = x / width if name == "right" else 1 - x / width
                pixels[38 - int(34 * share) : 38, x : x + 8] = rng.integers(0, 60, 3)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_a_model_of_rectangles_from_training_to_int8(strips: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    run = torchclas.train(
        strips,
        model="PPLCNet_x0_25",
        start="scratch",
        recipe="finetune",
        size="80x160",
        fit="squeeze",
        epochs=2,
        workers=0,
        device="cpu",
        output=tmp_path / "run",
    )
    best = run.output / "best.safetensors"
    preset = read_metadata(best).preset
    assert (preset.size, preset.fit) == ((80, 160), "squeeze")
    report = torchclas.evaluate(strips, model=best, workers=0)
    assert report.images == 24

    images = np.stack([Preprocess(preset).array(path) for path in sorted(strips.glob("*/*.png"))[:5]])
    spec = find_model(best)
    want = open_engine(spec, "torch")(images)
    formats: dict[ExportFormat, str] = {"onnx": "strips.onnx", "openvino": "strips.xml"}
    for to, name in formats.items():
        done = torchclas.export(best, to=to, output=tmp_path / name)
        exported = find_model(done.path)
        assert exported.preset == preset
        got = open_engine(exported, "auto")(images)
        assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()
    done = torchclas.export(best, to="onnx", input="uint8", output=tmp_path / "pixels.onnx")
    for source in sorted(strips.glob("*/*.png"))[:2]:
        (row,), (same,) = (torchclas.Classifier(path, workers=0).predict(source) for path in (done.path, best))
        assert row.labels == same.labels
        assert row.scores == pytest.approx(same.scores, abs=1e-4)
    quantized = torchclas.quantize(best, calibration=strips, output=tmp_path / "int8.onnx")
    assert find_model(quantized.path).preset == preset
