"""Weights out of an ONNX file that was exported from Paddle.

Paddle numbers its layers by kind, in the order in which the network makes them, and the exporter keeps these names:
`conv2d_3.w_0`, `batch_norm2d_3.b_0`, `linear_0.w_0` …, with `_deepcopy_17` behind them. A convolution's bias becomes
an addition of a reshaped constant, so it is found by following the graph.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from torchclas.errors import CheckpointError, MissingDependencyError
from torchclas.weights.renames import PublishedName

_COPY = re.compile(r"_deepcopy_\d+$")
_PARAMETER = re.compile(r"^(conv2d|batch_norm2d|linear)_\d+\.[wb]_\d$")
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
        from onnx import numpy_helper
    except ImportError:
        raise MissingDependencyError("onnx", "'torchclas[onnx]'") from None
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # protobuf's errors have no common base
        raise CheckpointError(f"{path}: not a readable ONNX file ({error})") from error
    values = {item.name: item for item in graph.initializer}
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    weight_of: dict[str, str] = {}
    for node in graph.node:
        if node.op_type == "Conv":
            weight_of[node.output[0]] = _COPY.sub("", node.input[1])
        elif node.op_type == "Add":
            added, constant = node.input
            if added in weight_of and constant in values:
                name = weight_of[added].replace(".w_0", ".b_0")
                tensors[name] = numpy_helper.to_array(values[constant]).flatten()
    for name, item in values.items():
        plain = _COPY.sub("", name)
        if _PARAMETER.match(plain):
            tensors[plain] = numpy_helper.to_array(item).copy()  # its memory is the file's, and read-only
    if not tensors:
        raise CheckpointError(
            f"{path}: no parameter carries a name of Paddle's; only files exported from it can be read"
        )
    return tensors


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
