"""ONNX files in half precision: half as large, right, and in float32 where numbers would not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tests.unit.test_export_formats import CHANGED, METADATA, tiny
from torchclas import Classifier
from torchclas.exporting import gate
from torchclas.layers.network import Network
from torchclas.spec import find_model
from torchclas.tasks import export as task
from torchclas.vocabulary import EngineName, ExportInput
from torchclas.weights.checkpoint import save_checkpoint
from torchclas.zoo import load_model


def notes(path: Path) -> dict[str, str]:
    return {note.key: note.value for note in onnx.load(str(path)).metadata_props}


def written(folder: Path, network: Network, input: ExportInput = "float32") -> tuple[Path, Path]:  # noqa: A002
    checkpoint = folder / "pets.safetensors"
    save_checkpoint(network, checkpoint, METADATA)
    path = folder / "half.onnx"
    task.export(checkpoint, to="onnx", precision="fp16", input=input, output=path)
    return checkpoint, path


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_engines_run_it(engine: EngineName, half: tuple[Path, Path]) -> None:
    checkpoint, path = half
    classifier = Classifier(path, engine=engine)
    assert classifier.engine_name == f"{engine} fp16"
    images = np.random.default_rng(0).standard_normal((3, 3, 64, 64), np.float32)
    want = gate.compute(load_model(find_model(checkpoint)), METADATA.preset, images)["logits"]
    assert 1e-5 < gate.relative_error(classifier.engine(images), want) < 5e-3


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return written(tmp_path_factory.mktemp("half"), tiny())


def test_it_is_half_as_large(half: tuple[Path, Path]) -> None:
    checkpoint, path = half
    assert path.stat().st_size < 0.6 * checkpoint.stat().st_size
    model = onnx.load(str(path))
    assert {tensor.data_type for tensor in model.graph.initializer} <= {
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.INT64,
    }
    assert [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)] == [
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT,
    ]
    assert "float32" not in notes(path)


def test_what_would_overflow_stays_in_float32(tmp_path: Path) -> None:
    """A layer whose values are far too large for half precision, and the next one makes them small again."""
    network = tiny()
    norm = next(part for part in network.get_submodule(CHANGED).modules() if isinstance(part, nn.BatchNorm2d))
    following = network.get_submodule("stages.4.0.depthwise")
    conv = next(part for part in following.modules() if isinstance(part, nn.Conv2d))
    with torch.no_grad():
        norm.weight.mul_(1e5)
        norm.bias.mul_(1e5)
        conv.weight.mul_(1e-5)
    checkpoint, path = written(tmp_path, network)
    kept = notes(path)["float32"].split("\n")
    assert f"{CHANGED}.conv/Conv" in kept
    assert len(kept) < 8
    images = np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)
    want = gate.compute(load_model(find_model(checkpoint)), METADATA.preset, images)["logits"]
    assert gate.relative_error(Classifier(path, engine="onnxruntime").engine(images), want) < 1e-2


def test_pixels_are_prepared_in_float32(tmp_path: Path) -> None:
    _, path = written(tmp_path, tiny(), "uint8")
    model = onnx.load(str(path))
    (first,) = [node for node in model.graph.node if node.op_type == "Cast" and "half" in node.output[0]]
    assert first.input[0].startswith("preprocess/")
