"""Weights out of ONNX files that were exported from Paddle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchclas.errors import CheckpointError
from torchclas.weights.onnx import read_onnx

onnx = pytest.importorskip("onnx")

WEIGHT = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
BIAS = np.array([[[1.5]], [[-2.0]]], np.float32)


def exported() -> Any:
    """A convolution whose bias is an addition, as Paddle's exporter writes it."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Conv", ["x", "conv2d_0.w_0_deepcopy_3"], ["y"]),
        helper.make_node("Add", ["y", "reshaped"], ["z"]),
    ]
    constants = [
        numpy_helper.from_array(WEIGHT, "conv2d_0.w_0_deepcopy_3"),
        numpy_helper.from_array(BIAS, "reshaped"),
        numpy_helper.from_array(np.zeros(3, np.int64), "shape"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xz"]
    return helper.make_model(helper.make_graph(nodes, "network", ends[:1], ends[1:], constants))


def test_parameters_under_paddles_names(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(exported().SerializeToString())
    tensors = read_onnx(path)
    assert sorted(tensors) == ["conv2d_0.b_0", "conv2d_0.w_0"]
    np.testing.assert_array_equal(tensors["conv2d_0.w_0"], WEIGHT)
    np.testing.assert_array_equal(tensors["conv2d_0.b_0"], [1.5, -2.0])
    assert tensors["conv2d_0.w_0"].flags.writeable


def longer(model: Any) -> None:
    model.graph.initializer[0].dims[0] = 2**40


def negative(model: Any) -> None:
    model.graph.initializer[0].dims[0] = -1


def integers(model: Any) -> None:
    model.graph.initializer[0].data_type = onnx.TensorProto.INT4


def unknown(model: Any) -> None:
    model.graph.initializer[1].data_type = 77


def elsewhere(model: Any) -> None:
    item = model.graph.initializer[0]
    item.ClearField("raw_data")
    item.data_location = onnx.TensorProto.EXTERNAL
    item.external_data.add(key="location", value="/etc/passwd")


def no_data(model: Any) -> None:
    model.graph.initializer[0].ClearField("raw_data")


def segments(model: Any) -> None:
    model.graph.initializer[0].segment.end = 3


@pytest.mark.parametrize("change", [longer, negative, integers, unknown, elsewhere, no_data, segments])
def test_constants_that_contradict_themselves(tmp_path: Path, change: Callable[[Any], None]) -> None:
    model = exported()
    change(model)
    path = tmp_path / "a.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match=r"a\.onnx: "):
        read_onnx(path)


def test_graphs_of_another_form(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    for node, field in ((0, "output"), (0, "input"), (1, "input"), (1, "output")):
        model = exported()
        del getattr(model.graph.node[node], field)[:]
        path.write_bytes(model.SerializeToString())
        assert "conv2d_0.w_0" in read_onnx(path)
    whole = exported().SerializeToString()
    path.write_bytes(whole.replace(b"conv2d_0.w_0_deepcopy_3", b"\xff\xfe_____0.w_0_deepcopy_3"[:23]))
    with pytest.raises(CheckpointError, match=r"no parameter carries a name of Paddle's|not a readable"):
        read_onnx(path)
    path.write_bytes(whole[:50])
    with pytest.raises(CheckpointError, match="not a readable ONNX file"):
        read_onnx(path)
