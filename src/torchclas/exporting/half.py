"""ONNX graphs whose numbers have half precision, but where they would not fit."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchclas.exporting.onnx import OnnxFile, module_of

# Half precision ends at 65,504. Other pictures may bring larger values than those that were tried.
LARGEST = 65504 / 8

# Modules that stay in float32: a graph's own preprocessing counts pixels in it.
_EXACT = "preprocess"
# Operators that know no half precision in all runtimes, or take some inputs in float32 whatever the others are.
_FLOAT32_ONLY = frozenset({"Range", "Resize"})


def store_as_half(path: Path, cases: Iterable[NDArray[Any]]) -> None:
    """Rewrite a file of `torchclas.exporting.onnx.write_onnx` in half precision.

    Input and outputs remain float32. `cases` are images to run: an operation that takes or gives a value above
    `LARGEST` stays in float32, and so does one whose weights are larger. The file says under `float32` which.
    """
    import onnx

    file = OnnxFile(path)
    largest: dict[str, float] = {}
    for images in cases:
        for name, value in file.values(images):
            if value.dtype == np.float32:
                largest[name] = max(largest.get(name, 0.0), float(np.abs(value).max(initial=0.0)))
    model = onnx.load(str(path))
    halved = _Halved(model, largest)
    del model.graph.node[:]
    model.graph.node.extend(halved.nodes)
    del model.graph.initializer[:]
    model.graph.initializer.extend(halved.initializers.values())
    del model.graph.value_info[:]
    if halved.kept:
        model.metadata_props.add(key="float32", value="\n".join(halved.kept))
    beyond = path.with_name(f"{path.name}.data")
    onnx.save(model, str(path), save_as_external_data=beyond.is_file(), location=beyond.name)


class _Halved:
    """The nodes of a graph, with casts where half precision begins and ends; `largest` has all its float32 values."""

    def __init__(self, model: Any, largest: dict[str, float]) -> None:
        import onnx

        self._onnx = onnx
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        graph = model.graph
        # What is float32 whatever its size: a graph's own inputs and outputs, and what prepares images.
        self._outside = {value.name for value in (*graph.input, *graph.output)}
        self._outside |= {name for node in graph.node if _is_exact(node) for name in node.output}
        self._floats = set(largest) | {
            value.name
            for value in (*graph.input, *graph.output)
            if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        }
        self._wide = {name for name, size in largest.items() if not size <= LARGEST} - self._outside
        self._cast: set[str] = set()
        self.kept: list[str] = []
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        for node in graph.node:
            self._add(node)

    def _add(self, node: Any) -> None:
        onnx = self._onnx
        half = not self._stays(node)
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [self._taken(name, node, half=half) for name in node.input]
        casts: list[Any] = []
        for index, name in enumerate(node.output):
            stored_half = name not in self._outside | self._wide
            if name in self._floats and stored_half != half:
                copy.output[index] = f"{name}_computed"
                to = onnx.TensorProto.FLOAT16 if stored_half else onnx.TensorProto.FLOAT
                casts.append(self._cast_node(copy.output[index], name, node, to))
        if half and node.op_type == "Cast":
            for attribute in copy.attribute:
                if attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
                    attribute.i = onnx.TensorProto.FLOAT16
        self.nodes += [copy, *casts]

    def _stays(self, node: Any) -> bool:
        """Whether a node computes in float32; those without floats are as they were."""
        floats = [name for name in (*node.input, *node.output) if name in self._floats or self._is_float(name)]
        if not floats:
            return True
        exact = _is_exact(node) or node.op_type in _FLOAT32_ONLY
        too_large = any(name in self._wide or self._overflows(name) for name in floats)
        if too_large and not exact:
            self.kept.append(node.name)
        return exact or too_large

    def _is_float(self, name: str) -> bool:
        return name in self._weights and self._weights[name].data_type == self._onnx.TensorProto.FLOAT

    def _overflows(self, name: str) -> bool:
        if not self._is_float(name):
            return False
        values = self._onnx.numpy_helper.to_array(self._weights[name])
        return not float(np.abs(values).max(initial=0.0)) <= LARGEST

    def _taken(self, name: str, node: Any, *, half: bool) -> str:
        """What a node takes in place of `name`: the same in the precision that it computes in."""
        onnx = self._onnx
        if name in self._weights:
            taken = name
            tensor = self._weights[name]
            if half and self._is_float(name):
                taken = f"{name}_half"
                values = onnx.numpy_helper.to_array(tensor).astype(np.float16)
                tensor = onnx.numpy_helper.from_array(values, taken)
            self.initializers[taken] = tensor
            return taken
        stored_half = name in self._floats and name not in self._outside | self._wide
        if name not in self._floats or stored_half == half:
            return name
        taken = f"{name}_{'half' if half else 'float32'}"
        if taken not in self._cast:
            self._cast.add(taken)
            to = onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT
            self.nodes.append(self._cast_node(name, taken, node, to))
        return taken

    def _cast_node(self, source: str, target: str, beside: Any, to: int) -> Any:
        return self._onnx.helper.make_node(
            "Cast", [source], [target], name=f"{module_of(beside.name)}/Cast_of_{target.rpartition('/')[2]}", to=to
        )


def _is_exact(node: Any) -> bool:
    return module_of(node.name).partition(".")[0] == _EXACT
