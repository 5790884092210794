"""Graphs in older sets of ONNX's operators compute the same, or it is said what is in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.unit.test_export_formats import METADATA, tiny
from torchclas import cli
from torchclas.errors import Error
from torchclas.exporting.onnx import OnnxFile
from torchclas.exporting.opset import LOWEST, NEWEST, lower_opset
from torchclas.tasks import export as task
from torchclas.weights.checkpoint import save_checkpoint
from torchclas.weights.metadata import read_metadata

SHAPE = [2, 3, 4, 8]


def graph_of(path: Path, *nodes: Any, **constants: Any) -> Path:
    """A file with the last node's output as `logits`; `images` is its input."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes),
        "small",
        [value("images", TensorProto.FLOAT, SHAPE)],
        [value("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", NEWEST)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return path


def node(operator: str, inputs: str, output: str = "logits", **attributes: Any) -> Any:
    return helper.make_node(operator, inputs.split(), output.split(), name=f"layer/{operator}", **attributes)


SCALE = np.linspace(0.5, 2, 8, dtype=np.float32)
GRAPHS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "Gelu": ([node("Gelu", "images")], {}),
    "LayerNormalization": (
        [node("LayerNormalization", "images scale bias", axis=-1, epsilon=1e-3)],
        {"scale": SCALE, "bias": SCALE[::-1].copy()},
    ),
    "LayerNormalization without bias": ([node("LayerNormalization", "images scale", axis=-1)], {"scale": SCALE}),
    "HardSwish": ([node("HardSwish", "images")], {}),
    "ReduceMean": ([node("ReduceMean", "images axes", keepdims=0)], {"axes": np.array([2, 3])}),
    "ReduceSum": ([node("ReduceSum", "images axes", keepdims=1)], {"axes": np.array([1])}),
    "Split": ([node("Split", "images", "one logits", axis=3, num_outputs=2)], {}),
    "Split into sizes": ([node("Split", "images sizes", "one logits", axis=3)], {"sizes": np.array([3, 5])}),
    "Squeeze": (
        [node("Unsqueeze", "images axes", "longer"), node("Squeeze", "longer axes")],
        {"axes": np.array([2])},
    ),
    "Softmax": ([node("Softmax", "images", axis=-1)], {}),
    "Shape": (
        [node("Shape", "images", "lengths", start=1, end=3), node("Cast", "lengths", to=TensorProto.FLOAT)],
        {},
    ),
    "CastLike": ([node("Shape", "images", "lengths"), node("CastLike", "lengths images")], {}),
    "Constant": ([node("Constant", "", "two", value_float=2.0), node("Mul", "images two")], {}),
}


@pytest.mark.parametrize("opset", [11, 13, 17])
@pytest.mark.parametrize("name", GRAPHS)
def test_an_operator_in_older_words(name: str, opset: int, tmp_path: Path) -> None:
    nodes, constants = GRAPHS[name]
    path = graph_of(tmp_path / "graph.onnx", *nodes, **constants)
    images = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    want = OnnxFile(path)(images)["logits"]
    lower_opset(path, opset)
    model = onnx.load(str(path))
    assert model.opset_import[0].version == opset
    assert {entry.name.partition("/")[0] for entry in model.graph.node} == {"layer"}
    got = OnnxFile(path)(images)["logits"]
    assert got.shape == want.shape
    assert got == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (node("Gelu", "images", approximate="tanh"), "Gelu by tanh"),
        (node("Softmax", "images", axis=1), "Softmax over an axis in the middle"),
        (node("LayerNormalization", "images scale", axis=2), "over several axes"),
        (node("Mish", "images"), "Mish came with operator set 18: operator set 11 has no words"),
    ],
)
def test_what_has_no_form_in_older_sets(refused: Any, reason: str, tmp_path: Path) -> None:
    path = graph_of(tmp_path / "graph.onnx", refused, scale=np.ones((4, 8), np.float32))
    before = path.read_bytes()
    with pytest.raises(Error, match=reason):
        lower_opset(path, LOWEST)
    assert path.read_bytes() == before


def test_the_command_writes_older_sets(tmp_path: Path) -> None:
    checkpoint, path = tmp_path / "pets.safetensors", tmp_path / "old.onnx"
    save_checkpoint(tiny(), checkpoint, METADATA)
    assert cli.run(["export", str(checkpoint), "--to", "onnx", "--opset", "11", "-o", str(path)]) == 0
    model = onnx.load(str(path))
    assert (model.opset_import[0].version, model.ir_version) == (11, 6)
    assert read_metadata(path) is not None
    with pytest.raises(Error, match="11 to 20, not in 10"):
        task.export(checkpoint, to="onnx", opset=10)
    with pytest.raises(Error, match="only ONNX files"):
        task.export(checkpoint, to="openvino", opset=11)
