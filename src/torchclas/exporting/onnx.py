"""Networks as ONNX files that other runtimes run fast: constants and batch norms folded, names that say the layer.

A node is called `<module>/<operator>` after the module of the network it came from, such as `stages.0.1.attention/Add`;
so is the value it makes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from torchclas.errors import MissingDependencyError
from torchclas.exporting.opset import NEWEST, lower_opset
from torchclas.exporting.trace import example, export_mode, out_of_place, traceable
from torchclas.labels import label_set
from torchclas.layers.network import Network
from torchclas.onnxruntime_guest import open_session
from torchclas.text import printable
from torchclas.version import __version__
from torchclas.vocabulary import INPUT
from torchclas.weights.metadata import KEY, Metadata


def write_onnx(
    network: Network,
    path: str | Path,
    metadata: Metadata,
    *,
    batch: int | None = None,
    pixels: bool = False,
    opset: int = NEWEST,
) -> None:
    """Write a network in evaluation mode: `images` float32 [N, channels, height, width] → `logits` [N, classes],
    `embedding` [N, features], or both, as the metadata has it.

    N is free unless `batch` gives it. With `pixels` the graph prepares the images itself, as the metadata's preset has
    it: `images` uint8 [N, H, W, 3]. A file beyond 2 GB, which ONNX does not allow, has its weights in `path` + .data.
    A network whose `fuse` was called makes a better graph. `opset` is the version of ONNX's operators, as
    `torchclas.exporting.opset` knows them.

    Raises:
        MissingDependencyError: onnx or onnxscript is not installed.
        Error: the graph cannot be said in `opset`.
    """
    try:
        import onnxscript  # pyright: ignore[reportUnusedImport] # noqa: F401 - what torch.onnx needs
    except ImportError:
        raise MissingDependencyError("onnxscript", "'torchclas[onnx]'") from None
    images, free = example(metadata, batch=batch, pixels=pixels)
    with export_mode(), out_of_place(network):
        program = torch.onnx.export(
            traceable(network, metadata, pixels=pixels),
            (images,),
            input_names=[INPUT],
            output_names=[*metadata.outputs],
            dynamic_shapes=free,
            opset_version=NEWEST,
            custom_translation_table={
                torch.ops.aten.scaled_dot_product_attention.default: _attention,
                torch.ops.aten.div.Tensor_mode: _whole_division,
            },
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    assert program is not None  # it is for the exporter that dynamo=True replaced
    _name_after_modules(program.model)
    _describe(program.model, metadata)
    program.save(str(path))
    if opset < NEWEST:
        lower_opset(Path(path), opset)


class OnnxFile:
    """An ONNX file, run by ONNX Runtime."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._session = open_session(path)
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """What the file gives, by name."""
        return dict(zip(self._outputs, self._session.run(self._outputs, {INPUT: images}), strict=True))

    def layers(self, images: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
        """Module and value of every node, in the order in which they run."""
        for name, value in self.values(images):
            yield module_of(name), value

    def values(self, images: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
        """Name and value of everything that nodes give, in the order in which they run."""
        import onnx

        model = onnx.load(str(self.path), load_external_data=False)
        names = [output for node in model.graph.node for output in node.output if output not in self._outputs]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        talkative = self.path.with_name(f"layers-{self.path.name}")  # weights of their own file are beside it
        onnx.save(model, str(talkative))
        try:
            values = open_session(talkative).run([*names, *self._outputs], {INPUT: images})
        finally:
            talkative.unlink()
        yield from zip([*names, *self._outputs], values, strict=True)


def class_lines(metadata: Metadata) -> dict[str, str]:
    """`labels` and `class_ids`, a line for each class, which any runtime can read beside our own metadata."""
    classes = label_set(metadata.labels) if metadata.labels else None
    columns = {
        "labels": classes.names() if classes else metadata.class_names,
        "class_ids": classes.ids if classes else metadata.class_ids,
    }
    return {key: "\n".join(map(printable, values)) for key, values in columns.items() if values}


def module_of(node_name: str) -> str:
    """The module that a node came from; empty for the network itself."""
    return node_name.rpartition("/")[0]


def _describe(model: Any, metadata: Metadata) -> None:
    model.producer_name, model.producer_version = "torchclas", __version__
    model.graph.name = metadata.name or metadata.arch
    model.metadata_props.clear()
    model.metadata_props.update({KEY: metadata.to_json(), **class_lines(metadata)})


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """softmax(QKᵀ · scale + mask) V without the arithmetic on shapes that torch's own translation brings."""
    op = _operators()
    assert not is_causal
    assert not enable_gqa
    if scale is None:
        scale = int(query.shape[-1]) ** -0.5
    # Scaling the queries rather than their products with the keys is less work.
    scores = op.MatMul(
        op.Mul(query, op.Constant(value_float=scale)),
        op.Transpose(key, perm=[*range(len(key.shape) - 2), len(key.shape) - 1, len(key.shape) - 2]),
    )
    if attn_mask is not None:
        scores = op.Add(scores, attn_mask)
    return op.MatMul(op.Softmax(scores, axis=-1), value)


def _whole_division(dividend: Any, divisor: Any, rounding_mode: str | None = None) -> Any:
    """Division of integers; torch's own translation takes a detour over floating point."""
    op = _operators()
    assert rounding_mode == "trunc"
    return op.Div(dividend, op.CastLike(divisor, dividend))


def _operators() -> Any:
    from onnxscript import opset20

    return opset20


def _name_after_modules(model: Any) -> None:
    """Rename nodes and their values; drop the exporter's notes, which hold the paths of this machine."""
    outputs = set(model.graph.outputs)
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    seen: Counter[str] = Counter()
    for node in model.graph:
        scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes", "['']")
        node.metadata_props.clear()
        name = f"{_innermost_module(scopes)}/{node.op_type}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"
        for index, value in enumerate(node.outputs):
            value.metadata_props.clear()
            if value not in outputs:
                value.name = node.name if len(node.outputs) == 1 else f"{node.name}:{index}"


def _innermost_module(scopes: str) -> str:
    """Of the exporter's "['', 'stages', 'stages.0', …, operator]" the last but one."""
    modules = [scope.strip(" '\"") for scope in scopes.strip("[]").split(",")]
    return modules[-2] if len(modules) > 1 else ""
