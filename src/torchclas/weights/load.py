"""Putting a file's tensors into a network, completely or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchclas.errors import CheckpointError
from torchclas.layers.network import Network
from torchclas.weights import onnx, pdparams
from torchclas.weights.checkpoint import read_tensors
from torchclas.weights.inference_model import read_inference_model
from torchclas.weights.kinds import kind_of
from torchclas.weights.naming import Format, derived_names, naming, oriented, owners
from torchclas.weights.torch_file import read_torch


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor of a file and of a network. Names are ours, published ones in `unexpected`."""

    path: Path
    layout: str
    loaded: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = field(default=())
    nonfinite: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, left over or of another shape."""
        return not (self.missing or self.unexpected or self.mismatched)

    def summary(self) -> str:
        """One line; lists at most three names of each kind."""
        parts = [f"{len(self.loaded)} tensors loaded ({self.layout} layout)"]
        for kind in ("adapted", "skipped", "missing", "unexpected", "mismatched", "nonfinite"):
            names: tuple[str, ...] = getattr(self, kind)
            if names:
                shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
                parts.append(f"{len(names)} {kind}: {shown}")
        return "; ".join(parts)


def load_weights(model: nn.Module, path: str | Path, *, strict: bool = True) -> LoadReport:
    """Load a published `.pdparams`, a `.safetensors`, a torch `.pth`, an ONNX file or an inference model of Paddle.

    `strict=False` loads what fits and leaves the rest of `model` as it was; the report says what that was.
    Raises `CheckpointError` when the file is unreadable or, with `strict`, does not cover the model exactly.
    Warns when weights hold NaN or infinity.
    """
    return load(model, path, strict=strict, new_head=False)


def load(model: nn.Module, path: str | Path, *, strict: bool, new_head: bool) -> LoadReport:
    """`load_weights`; `new_head` keeps the model's own last layer where the file has none, or one of other classes."""
    if not isinstance(model, Network) or not model.arch:
        raise CheckpointError("weights load only into a network made by torchclas.create_model")
    path = Path(path)
    file_format, tensors = read_checkpoint(path)
    found = naming(model, file_format, tensors, path)
    names, tensors = found.names, found.tensors
    taken: dict[str, Tensor] = {}
    fate: dict[str, list[str]] = {kind: [] for kind in ("derived", "adapted", "skipped", "missing", "mismatched")}
    modules = dict(owners(model))
    for name, target in model.state_dict().items():
        published = names[name]
        if published.name not in tensors:
            if new_head and name.startswith("classifier"):
                fate["skipped"].append(name)
                continue
            # Paddle keeps no count of batches; it matters only to batch norms without momentum, which we have none of.
            if not name.endswith("num_batches_tracked"):
                fate["missing"].append(f"{name} ({published.name})")
            continue
        tensor = oriented(tensors[published.name], modules[name], target, published, file_format)
        if tensor.shape != target.shape:
            if new_head and name.startswith("classifier"):
                fate["skipped"].append(name)
                continue
            tensor_for_channels = _adapted(tensor, target, model.in_channels)
            if tensor_for_channels is None:
                shapes = f"{tuple(tensor.shape)} in the file, {tuple(target.shape)} in the model"
                fate["mismatched"].append(f"{name}: {shapes}")
                continue
            fate["adapted"].append(name)
            tensor = tensor_for_channels
        taken[name] = tensor
    # Tables that follow from the architecture may stand in a file; the network computes its own.
    derived = derived_names(model, found)
    used = {names[name].name for name in model.state_dict()}
    leftover = [name for name in tensors if name not in used]
    report = LoadReport(
        path,
        found.layout,
        loaded=tuple(taken),
        derived=tuple(name for name in leftover if name in derived),
        unexpected=tuple(name for name in leftover if name not in derived),
        nonfinite=tuple(name for name, tensor in taken.items() if not _finite(tensor)),
        **{kind: tuple(names) for kind, names in fate.items() if kind != "derived"},
    )
    if strict and not report.complete:
        raise CheckpointError(f"{path} does not fit {model.arch}: {report.summary()}")
    if report.nonfinite:
        warnings.warn(f"{path}: NaN or infinity in {', '.join(report.nonfinite[:3])}", stacklevel=3)
    _assign(model, taken)
    return report


def read_checkpoint(path: Path) -> tuple[Format, Mapping[str, np.ndarray[Any, Any] | Tensor]]:
    """Tensors as they stand in a file, and what kind of file it is (told by its content, not its name)."""
    match kind_of(path):
        case "safetensors":
            return "torchclas", read_tensors(path)
        case "torch":
            return "torch", read_torch(path)
        case "onnx":
            return "paddle-onnx", onnx.read_onnx(path)
        case "inference":
            return "paddle-inference", read_inference_model(path)
        case "openvino" | "runtime":
            raise CheckpointError(f"{path}: is a whole model, not weights: give it alone (-m {path})")
        case "paddle":
            return "paddle", pdparams.read_pdparams(path)


def _adapted(tensor: Tensor, target: Tensor, in_channels: int) -> Tensor | None:
    """First convolution for another number of input channels: the RGB filters repeated, at the same total gain."""
    fits = tensor.ndim == 4 and tensor.shape[1] == 3 and target.shape[1] == in_channels != 3
    if not fits or tensor.shape[0] != target.shape[0] or tensor.shape[2:] != target.shape[2:]:
        return None
    if in_channels == 1:
        return tensor.sum(1, keepdim=True)
    repeats = -(-in_channels // 3)
    return tensor.repeat(1, repeats, 1, 1)[:, :in_channels] * (3 / in_channels)


def _finite(tensor: Tensor) -> bool:
    # In float32: the sum of a large tensor of halves would be infinite.
    dtype = torch.promote_types(tensor.dtype, torch.float32)
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor.sum(dtype=dtype)))


def _assign(model: Network, tensors: Mapping[str, Tensor]) -> None:
    state = model.state_dict()
    if not any(tensor.is_meta for tensor in state.values()):
        model.load_state_dict(dict(tensors), strict=False)
        return
    # Into a network on the meta device tensors are put as they are, so no second copy of the weights ever exists.
    counts = {name: torch.zeros((), dtype=torch.long) for name in state if name.endswith("num_batches_tracked")}
    ready = {name: tensor.to(state[name].dtype).contiguous() for name, tensor in tensors.items()}
    model.load_state_dict(counts | ready, strict=False, assign=True)
    for module in model.modules():
        if callable(derive := getattr(module, "derive_buffers", None)):
            derive()
    if any(parameter.is_meta for parameter in model.parameters()):  # the head that the file had for other classes
        model.reset_classifier(model.num_classes)
