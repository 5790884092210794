"""Weights out of an ONNX file that was exported from Paddle.

Paddle numbers its layers by kind, in the order in which the network makes them, and the exporter keeps these names:
`conv2d_3.w_0`, `batch_norm2d_3.b_0`, `linear_0.w_0` …, with `_deepcopy_17` behind them. A convolution's bias becomes
an addition of a reshaped constant, so it is found by following the graph.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import nn

from torchclas.errors import CheckpointError, MissingDependencyError
from torchclas.weights.pickles import listed
from torchclas.weights.renames import PublishedName

if TYPE_CHECKING:
    import onnx

_COPY = re.compile(r"_deepcopy_\d+$")
_PARAMETER = re.compile(r"(conv2d|batch_norm2d|linear)_\d{1,6}\.[wb]_\d\Z")
_KINDS: dict[type[nn.Module], tuple[str, dict[str, str]]] = {
    nn.Conv2d: ("conv2d", {"weight": "w_0", "bias": "b_0"}),
    nn.BatchNorm2d: (
        "batch_norm2d",
        {"weight": "w_0", "bias": "b_0", "running_mean": "w_1", "running_var": "w_2"},
    ),
    nn.Linear: ("linear", {"weight": "w_0", "bias": "b_0"}),
}


def read_onnx(path: str | Path) -> dict[str, np.ndarray[Any, Any]]:
    """Tensors of the file under Paddle's parameter names; constants of the graph are left out."""
    try:
        import onnx
    except ImportError:
        raise MissingDependencyError("onnx", "'torchclas[onnx]'") from None
    try:
        graph = onnx.load_model(str(path), format="protobuf", load_external_data=False).graph
    except Exception as error:  # protobuf's errors have no common base
        raise CheckpointError(f"{path}: not a readable ONNX file ({error})") from error
    # Names are bytes where they are no UTF-8, whatever protobuf's types promise.
    values = {cast("str | bytes", item.name): item for item in graph.initializer}
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    weight_of: dict[str, str] = {}
    for node in graph.node:
        match (node.op_type, [*node.input], [*node.output]):
            case "Conv", [_, str() as weight, *_], [str() as output]:
                weight_of[output] = _COPY.sub("", weight)
            case "Add", [str() as added, str() as constant], _ if added in weight_of and constant in values:
                name = weight_of[added].replace(".w_0", ".b_0")
                if _PARAMETER.match(name):
                    tensors[name] = _array(path, values[constant]).flatten()
            case _:
                pass
    for name, item in values.items():
        if isinstance(name, str) and _PARAMETER.match(plain := _COPY.sub("", name)):
            tensors[plain] = _array(path, item)
    if not tensors:
        raise CheckpointError(
            f"{path}: no parameter carries a name of Paddle's; only files exported from it can be read"
        )
    return tensors


def _array(path: str | Path, item: onnx.TensorProto) -> np.ndarray[Any, Any]:
    """The values of a constant; its own, as they may be changed and those of the file may not."""
    from onnx import TensorProto, numpy_helper

    if item.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
        raise CheckpointError(f"{path}: {listed([str(item.name)])} holds no floating-point numbers, as weights do")
    if item.data_location == TensorProto.EXTERNAL:
        raise CheckpointError(f"{path}: its weights are in another file: export it again as a single one")
    if any(size <= 0 for size in item.dims):
        raise CheckpointError(f"{path}: {listed([str(item.name)])} has an impossible shape: the file is damaged")
    try:
        return numpy_helper.to_array(item).copy()
    except Exception as error:  # the shape and the data contradict each other: errors of many kinds
        raise CheckpointError(f"{path}: {listed([str(item.name)])} is damaged: {error}") from None


def parameter_names(model: nn.Module) -> dict[str, PublishedName]:
    """Our name → Paddle's own parameter name, for a network whose layers are made in the published order."""
    names: dict[str, PublishedName] = {}
    made: Counter[str] = Counter()
    for prefix, module in model.named_modules():
        if type(module) not in _KINDS:
            continue
        kind, leaves = _KINDS[type(module)]
        for leaf in module.state_dict():
            names[f"{prefix}.{leaf}"] = PublishedName(f"{kind}_{made[kind]}.{leaves.get(leaf, leaf)}")
        made[kind] += 1
    return names
