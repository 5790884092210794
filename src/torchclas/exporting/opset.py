"""ONNX graphs of an older operator set, for runtimes that read no newer one.

An operator is the same in most versions. Where it is not, a rule here says the same in the older words; an operator
without a rule, whose form changed between the two versions, is an error that says how far down the graph can go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from torchclas.errors import Error

LOWEST = 11  # in older ones Clip, Pad and Resize are others
NEWEST = 20  # the first with Gelu; ONNX Runtime 1.17, OpenVINO 2024 and TensorRT 10 read it


def lower_opset(path: Path, opset: int) -> None:
    """Rewrite a file of `torchclas.exporting.onnx.write_onnx` in operator set `opset`.

    Raises:
        Error: some operator of the graph cannot be said in it.
    """
    import onnx

    model = onnx.load(str(path))
    beyond = path.with_name(f"{path.name}.data")
    graph = _Lowered(model, opset)
    del model.graph.node[:]
    model.graph.node.extend(graph.nodes)
    del model.graph.initializer[:]
    model.graph.initializer.extend(graph.initializers())
    del model.graph.value_info[:]
    model.opset_import[0].version = opset
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)  # old runtimes look at this one, too
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        words = str(error).strip().splitlines()
        raise Error(f"the graph has no form in operator set {opset}: choose a newer one ({words[-1]})") from error
    onnx.save(model, str(path), save_as_external_data=beyond.is_file(), location=beyond.name)


class _Lowered:
    """The nodes of a graph, each in the words of an operator set."""

    def __init__(self, model: Any, opset: int) -> None:
        import onnx

        self.opset = opset
        self._onnx = onnx
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._types = {
            value.name: value.type.tensor_type.elem_type
            for value in (*onnx.shape_inference.infer_shapes(model).graph.value_info, *model.graph.input)
        }
        self.nodes: list[Any] = []
        for node in model.graph.node:
            rule_from, rule = _RULES.get(node.op_type, (0, None))
            if rule is not None and opset < rule_from:
                rule(self, node)
                continue
            self._plain(node)
        taken = {name for node in self.nodes for name in node.input}
        self._taken = taken | {output.name for output in model.graph.output}

    def initializers(self) -> list[Any]:
        """Those that some node takes."""
        return [tensor for name, tensor in self._constants.items() if name in self._taken]

    def add(self, operator: str, inputs: Sequence[str], like: Any, part: str = "", **attributes: Any) -> str:
        """Add a node in place of `like`, or as a `part` on the way there; return the name of its output."""
        name = f"{like.name}_{part}" if part else like.name
        output = name if part else like.output[0]
        self.nodes.append(self._onnx.helper.make_node(operator, list(inputs), [output], name=name, **attributes))
        return output

    def constant(self, name: str, values: Any, dtype: type[np.generic]) -> str:
        """A tensor under a name of its own."""
        self._constants[name] = self._onnx.numpy_helper.from_array(np.asarray(values, dtype), name)
        return name

    def values(self, name: str) -> Any:
        """The values of a constant; raises `Error` where it is none."""
        if name not in self._constants:
            raise Error(f"the graph computes {name}, which operator set {self.opset} wants as a constant")
        return self._onnx.numpy_helper.to_array(self._constants[name])

    def type_of(self, name: str) -> int:
        """The type of a value's elements, as ONNX numbers them."""
        return self._constants[name].data_type if name in self._constants else self._types[name]

    def _plain(self, node: Any) -> None:
        """A node of the same operator, without attributes that older sets do not know and that say nothing here."""
        onnx = self._onnx
        try:
            schema = onnx.defs.get_schema(node.op_type, self.opset, node.domain)
        except onnx.defs.SchemaError:
            history = onnx.defs.get_all_schemas_with_history()
            since = min(schema.since_version for schema in history if schema.name == node.op_type)
            raise Error(
                f"{node.op_type} came with operator set {since}: operator set {self.opset} has no words for it"
            ) from None
        kept = [attribute for attribute in node.attribute if attribute.name in schema.attributes]
        for attribute in node.attribute:
            if attribute.name not in schema.attributes and not self._is_default(node, attribute):
                raise Error(
                    f"the {attribute.name} of {node.op_type} has no words in operator set {self.opset}: "
                    "choose a newer one"
                )
        if len(node.input) > schema.max_input:
            raise Error(f"{node.op_type} takes less in operator set {self.opset}: choose a newer one")
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.attribute[:]
        copy.attribute.extend(kept)
        self.nodes.append(copy)

    def _is_default(self, node: Any, attribute: Any) -> bool:
        helper = self._onnx.helper
        value = helper.get_attribute_value(attribute)
        if (node.op_type, attribute.name) in _HARMLESS:
            return True
        default = self._onnx.defs.get_schema(node.op_type, NEWEST, node.domain).attributes[attribute.name].default_value
        if default.ByteSize():
            return bool(value == helper.get_attribute_value(default))
        return isinstance(value, list) and all(element == 1 for element in value)  # dilations


# Attributes that older sets do not need: Split divides evenly, no axis has length 0, and nothing is trained.
_HARMLESS = {("Split", "num_outputs"), ("Reshape", "allowzero"), ("BatchNormalization", "training_mode")}


def _attribute(node: Any, name: str, default: Any) -> Any:
    import onnx

    return next((onnx.helper.get_attribute_value(given) for given in node.attribute if given.name == name), default)


def _gelu(graph: _Lowered, node: Any) -> None:
    """x · (1 + erf(x / √2)) / 2."""
    if _attribute(node, "approximate", b"none") != b"none":
        raise Error(f"Gelu by tanh has no words in operator set {graph.opset}: choose a newer one")
    (x,) = node.input
    root, one, half = (
        graph.constant(f"lowered_{name}", value, np.float32)
        for name, value in (("root", math.sqrt(0.5)), ("one", 1.0), ("half", 0.5))
    )
    scaled = graph.add("Mul", (x, root), node, "scaled")
    risen = graph.add("Add", (graph.add("Erf", (scaled,), node, "erf"), one), node, "risen")
    graph.add("Mul", (graph.add("Mul", (x, risen), node, "doubled"), half), node)


def _layer_normalization(graph: _Lowered, node: Any) -> None:
    """(x - mean) / √(variance + ε) · scale + bias over the last axis."""
    x, scale, *bias = node.input
    if _attribute(node, "axis", -1) != -1:
        raise Error(f"LayerNormalization over several axes has no words in operator set {graph.opset}")
    epsilon = graph.constant(f"{node.name}_epsilon", _attribute(node, "epsilon", 1e-5), np.float32)
    mean = graph.add("ReduceMean", (x,), node, "mean", axes=[-1], keepdims=1)
    centred = graph.add("Sub", (x, mean), node, "centred")
    squares = graph.add("Mul", (centred, centred), node, "squares")
    variance = graph.add("ReduceMean", (squares,), node, "variance", axes=[-1], keepdims=1)
    deviation = graph.add("Sqrt", (graph.add("Add", (variance, epsilon), node, "sum"),), node, "deviation")
    normal = graph.add("Div", (centred, deviation), node, "normal")
    if not bias:
        graph.add("Mul", (normal, scale), node)
        return
    graph.add("Add", (graph.add("Mul", (normal, scale), node, "scaled"), bias[0]), node)


def _hard_swish(graph: _Lowered, node: Any) -> None:
    (x,) = node.input
    gate = graph.add("HardSigmoid", (x,), node, "gate", alpha=1 / 6, beta=0.5)
    graph.add("Mul", (x, gate), node)


def _axes_as_attribute(graph: _Lowered, node: Any) -> None:
    """ReduceMean, Squeeze and their like, which took their axes as an attribute."""
    x, *axes = node.input
    attributes: dict[str, Any] = {"axes": [int(axis) for axis in graph.values(axes[0])]} if axes else {}
    if node.op_type.startswith("Reduce"):
        attributes["keepdims"] = _attribute(node, "keepdims", 1)
    graph.add(node.op_type, (x,), node, **attributes)


def _split(graph: _Lowered, node: Any) -> None:
    """Before 13 the sizes of parts were an attribute."""
    x, *sizes = node.input
    given: dict[str, Any] = {"split": [int(size) for size in graph.values(sizes[0])]} if sizes else {}
    made = graph._onnx.helper.make_node(  # pyright: ignore[reportPrivateUsage]
        "Split", [x], list(node.output), name=node.name, axis=_attribute(node, "axis", 0), **given
    )
    graph.nodes.append(made)


def _softmax(graph: _Lowered, node: Any) -> None:
    """Before 13 it was over all axes from one on."""
    if (axis := _attribute(node, "axis", -1)) != -1:
        raise Error(
            f"Softmax over an axis in the middle has no words in operator set {graph.opset}: choose a newer one"
        )
    graph.add("Softmax", node.input, node, axis=axis)


def _shape(graph: _Lowered, node: Any) -> None:
    """Before 15 Shape gave all lengths."""
    start, end = _attribute(node, "start", 0), _attribute(node, "end", None)
    if start == 0 and end is None:
        graph.add("Shape", node.input, node)
        return
    whole = graph.add("Shape", node.input, node, "whole")
    bounds = (
        graph.constant(f"{node.name}_{name}", [value], np.int64)
        for name, value in (("start", start), ("end", np.iinfo(np.int64).max if end is None else end))
    )
    graph.add("Slice", (whole, *bounds), node)


def _cast_like(graph: _Lowered, node: Any) -> None:
    x, like = node.input
    graph.add("Cast", (x,), node, to=graph.type_of(like))


def _constant(graph: _Lowered, node: Any) -> None:
    """Before 12 a constant was a tensor."""
    (given,) = node.attribute
    value = graph._onnx.helper.get_attribute_value(given)  # pyright: ignore[reportPrivateUsage]
    if given.name == "value":
        graph.add("Constant", (), node, value=value)
        return
    dtype = np.float32 if "float" in given.name else np.int64
    graph.constant(node.output[0], value, dtype)


# The operator set with which an operator got its present form, and what it is in older ones.
_RULES: dict[str, tuple[int, Callable[[_Lowered, Any], None]]] = {
    "Gelu": (20, _gelu),
    "ReduceMean": (18, _axes_as_attribute),
    "ReduceMax": (18, _axes_as_attribute),
    "LayerNormalization": (17, _layer_normalization),
    "Shape": (15, _shape),
    "CastLike": (15, _cast_like),
    "HardSwish": (14, _hard_swish),
    "ReduceSum": (13, _axes_as_attribute),
    "Squeeze": (13, _axes_as_attribute),
    "Unsqueeze": (13, _axes_as_attribute),
    "Split": (13, _split),
    "Softmax": (13, _softmax),
    "Constant": (12, _constant),
}
