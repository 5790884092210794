"""Putting a file's tensors into a network, completely or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from torchclas import models
from torchclas.errors import CheckpointError
from torchclas.layers.network import Network
from torchclas.weights import onnx, pdparams
from torchclas.weights.checkpoint import read_tensors
from torchclas.weights.renames import PublishedName, published_names
from torchclas.weights.torch_file import read_torch

Format = Literal["paddle", "paddle-onnx", "torch", "torchclas"]


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
    """Load a published `.pdparams`, a `.safetensors`, a torch `.pth` or an ONNX file exported from Paddle.

    `strict=False` loads what fits and leaves the rest of `model` as it was; the report says what that was.
    Raises `CheckpointError` when the file is unreadable or, with `strict`, does not cover the model exactly.
    Warns when weights hold NaN or infinity.
    """
    return load(model, path, strict=strict, new_head=False)


def load(model: nn.Module, path: str | Path, *, strict: bool, new_head: bool) -> LoadReport:
    """`load_weights`; `new_head` keeps the model's own last layer where the file's has other classes."""
    if not isinstance(model, Network) or not model.arch:
        raise CheckpointError("weights load only into a network made by torchclas.create_model")
    path = Path(path)
    file_format, tensors = read_checkpoint(path)
    layout, names = _best_layout(model, file_format, tensors)
    taken: dict[str, Tensor] = {}
    fate: dict[str, list[str]] = {kind: [] for kind in ("derived", "adapted", "skipped", "missing", "mismatched")}
    owners = dict(_owners(model))
    for name, target in model.state_dict().items():
        published = names[name]
        if published.name not in tensors:
            # Paddle keeps no count of batches; it matters only to batch norms without momentum, which we have none of.
            if not name.endswith("num_batches_tracked"):
                fate["missing"].append(f"{name} ({published.name})")
            continue
        tensor = _oriented(tensors[published.name], owners[name], target, published, file_format)
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
    buffers = {name for name, _ in model.named_buffers()} - set(model.state_dict())
    derived_names = {published.name for published in published_names(buffers, _rules(model, layout)).values()}
    used = {names[name].name for name in model.state_dict()}
    leftover = [name for name in tensors if name not in used]
    report = LoadReport(
        path,
        layout,
        loaded=tuple(taken),
        derived=tuple(name for name in leftover if name in derived_names),
        unexpected=tuple(name for name in leftover if name not in derived_names),
        nonfinite=tuple(name for name, tensor in taken.items() if not _finite(tensor)),
        **{kind: tuple(found) for kind, found in fate.items() if kind != "derived"},
    )
    if strict and not report.complete:
        raise CheckpointError(f"{path} does not fit {model.arch}: {report.summary()}")
    if report.nonfinite:
        warnings.warn(f"{path}: NaN or infinity in {', '.join(report.nonfinite[:3])}", stacklevel=3)
    _assign(model, taken)
    return report


def read_checkpoint(path: Path) -> tuple[Format, Mapping[str, np.ndarray[Any, Any] | Tensor]]:
    """Tensors as they stand in a file, and what kind of file it is (told by its content, not its name)."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if start[8:9] == b"{":
        return "torchclas", read_tensors(path)
    if start[:4] == b"PK\x03\x04":
        return "torch", read_torch(path)
    if path.suffix == ".onnx":
        return "paddle-onnx", onnx.read_onnx(path)
    try:
        return "paddle", pdparams.read_pdparams(path)
    except CheckpointError:
        if path.suffix in (".pth", ".pt"):  # torch's format before 1.6 is a row of pickles
            return "torch", read_torch(path)
        raise


def _rules(model: Network, layout: str) -> Any:
    return models.renames(model.arch).get(layout, ())


def _best_layout(
    model: Network, file_format: Format, tensors: Mapping[str, Any]
) -> tuple[str, dict[str, PublishedName]]:
    """The published layout whose names are in the file; raises when none is."""
    names = list(model.state_dict())
    if file_format == "torchclas":
        return "torchclas", {name: PublishedName(name) for name in names}
    if file_format == "paddle-onnx":
        return "paddle-onnx", onnx.parameter_names(model)
    candidates = {
        layout: published_names(names, rules, paddle=file_format == "paddle")
        for layout, rules in models.renames(model.arch).items()
    }
    found = {layout: sum(p.name in tensors for p in named.values()) for layout, named in candidates.items()}
    best = max(found, key=lambda layout: found[layout])
    if found[best] < len(names) / 4:
        examples = ", ".join(list(tensors)[:3])
        raise CheckpointError(f"not a {model.arch} checkpoint: its tensors are called {examples} …")
    return best, candidates[best]


def _owners(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for prefix, module in model.named_modules():
        for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            yield f"{prefix}.{name}" if prefix else name, module


def _oriented(
    tensor: np.ndarray[Any, Any] | Tensor,
    owner: nn.Module,
    target: Tensor,
    published: PublishedName,
    file_format: Format,
) -> Tensor:
    """A Paddle linear weight is [in, out]; ours is [out, in], or [out, in, 1, 1] where the layer is a convolution."""
    result = torch.from_numpy(tensor) if isinstance(tensor, np.ndarray) else tensor
    if published.conv and result.ndim == 4:
        return result[:, :, 0, 0]
    if file_format.startswith("paddle") and result.ndim == 2:
        if isinstance(owner, nn.Linear):
            return result.T
        if published.linear and target.ndim == 4:
            return result.T[:, :, None, None]
    return result


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
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor.sum()))


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
