"""A quantized ONNX graph, and the same with some of its operations put back into float.

Quantized values are marked in the standard way, by a QuantizeLinear and a DequantizeLinear in a row; weights are
stored as int8 before a DequantizeLinear alone. What runs such a file computes in integers between the marks. Taking an
operation's inputs from before the marks is therefore all that it needs to be in float again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from functools import cached_property

import numpy as np

from torchclas.errors import MissingDependencyError

try:
    import onnx
    from onnx import numpy_helper
except ImportError:
    raise MissingDependencyError("onnx", "'torchclas[int8]'") from None

_MARKS = ("QuantizeLinear", "DequantizeLinear")
_FLOAT = "/float"  # what is put behind the name of a constant's float value


class QuantizedGraph:
    """What a quantizer made of `source`; nodes and values that both have are called the same."""

    def __init__(self, source: onnx.ModelProto, quantized: onnx.ModelProto) -> None:
        self._source_nodes = {node.name: node for node in source.graph.node}
        self._source_values = {value.name: value for value in source.graph.initializer}
        self._quantized = copy_of(quantized)
        _count_axes_from_the_front(self._quantized.graph)

    @cached_property
    def operations(self) -> tuple[str, ...]:
        """The nodes that take quantized values, in the order of the graph."""
        graph = self._quantized.graph
        dequantized = {output for node in graph.node if node.op_type == _MARKS[1] for output in node.output}
        return tuple(
            node.name
            for node in graph.node
            if node.op_type not in _MARKS and node.name in self._source_nodes and dequantized.intersection(node.input)
        )

    def with_float(self, operations: Collection[str]) -> onnx.ModelProto:
        """The graph with these of its operations in float, as they were in the source."""
        model = copy_of(self._quantized)
        graph = model.graph
        values = {value.name: value for value in graph.initializer}
        for node in graph.node:
            if node.name in operations:
                inputs = [self._source_value(name, graph, values) for name in self._source_nodes[node.name].input]
                node.input[:] = inputs
        _drop_unused(graph)
        return model

    def _source_value(self, name: str, graph: onnx.GraphProto, values: dict[str, onnx.TensorProto]) -> str:
        """The name under which `graph` has what `name` is in the source; a constant is put in where need be."""
        original = self._source_values.get(name)
        if original is None or (name in values and _equal(values[name], original)):
            return name
        new = name + _FLOAT  # biases are corrected for the rounding of weights, so there may be another `name`
        if new not in values:
            values[new] = graph.initializer.add()
            values[new].CopyFrom(original)
            values[new].name = new
        return new


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same, to be changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def is_transformer(model: onnx.ModelProto) -> bool:
    """Whether it has attention: products of two computed matrices."""
    constants = {value.name for value in model.graph.initializer}
    return any(node.op_type == "MatMul" and not constants.intersection(node.input) for node in model.graph.node)


def _equal(one: onnx.TensorProto, other: onnx.TensorProto) -> bool:
    return np.array_equal(numpy_helper.to_array(one), numpy_helper.to_array(other))


def _count_axes_from_the_front(graph: onnx.GraphProto) -> None:
    """OpenVINO takes the -2 of a matrix for another axis than ONNX does."""
    ranks = {value.name: len(value.dims) for value in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute if node.op_type in _MARKS else ():
            if attribute.name == "axis" and attribute.i < 0 and node.input[0] in ranks:
                attribute.i += ranks[node.input[0]]


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes that nothing takes from, then constants."""
    uses: Counter[str] = Counter(name for node in graph.node for name in node.input)
    uses.update(value.name for value in graph.output)
    for index in reversed(range(len(graph.node))):  # whatever takes from a node stands behind it
        node = graph.node[index]
        if not any(uses[name] for name in node.output):
            uses.subtract(node.input)
            del graph.node[index]
    for index in reversed(range(len(graph.initializer))):
        if not uses[graph.initializer[index].name]:
            del graph.initializer[index]
    del graph.value_info[:]  # shapes and types of values, some of which are gone
