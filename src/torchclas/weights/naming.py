"""What a network's parameters are called in a file, whichever of the known ways its writer named them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from torchclas import models
from torchclas.correspondence import LIBRARIES
from torchclas.errors import CheckpointError, Error
from torchclas.layers.network import Network
from torchclas.weights import dataflow, libraries, onnx
from torchclas.weights.inference_model import InferenceTensors
from torchclas.weights.renames import PublishedName, published_names

Format = Literal["paddle", "paddle-onnx", "paddle-inference", "torch", "torchclas"]

OWN = "torchclas"  # the layout of who writes a network's state_dict() as it is

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Naming:
    """Our names → those in a file, in one `layout`, and the tensors under these names.

    `prefix` is what was taken away from the names in the file, such as `Student.`.
    """

    layout: str
    names: Mapping[str, PublishedName]
    tensors: Mapping[str, Any]
    prefix: str = ""

    @property
    def matches(self) -> int:
        """How many of the network's tensors are in the file."""
        return sum(published.name in self.tensors for published in self.names.values())


def naming(model: Network, file_format: Format, tensors: Mapping[str, Any], path: Path) -> Naming:
    """The layout whose names are in the file, read with or without what stands before all of them.

    Raises CheckpointError: less than a quarter of the network is in the file, so it is another's.
    """
    if isinstance(tensors, InferenceTensors):
        try:
            return Naming("inference model", *dataflow.names_in(model.arch, tensors))
        except Error as error:
            raise CheckpointError(f"{path}: {error}") from None
    best = max(_namings(model, file_format, tensors), key=lambda candidate: candidate.matches)  # the first of equals
    if best.matches < len(best.names) / 4:
        examples = ", ".join(list(tensors)[:3])
        raise CheckpointError(
            f"{path}: not a {model.arch} checkpoint: its tensors are called {examples} … "
            f"(`torchclas weights inspect {path}` says which model they fit)"
        )
    if best.prefix and any(not name.startswith(best.prefix) for name in tensors):
        warnings.warn(f"{path}: of several networks in it, {best.prefix.rstrip('.')} is taken", stacklevel=4)
    if best.layout in LIBRARIES:
        return replace(best, tensors=libraries.ours(model, best.names, best.tensors))
    return best


def derived_names(model: Network, found: Naming) -> set[str]:
    """What tables that follow from the architecture are called in the file; the network computes its own."""
    buffers = {name for name, _ in model.named_buffers()} - set(model.state_dict())
    rules = models.renames(model.arch).get(found.layout, ())
    names = published_names([*model.state_dict(), *buffers], rules)  # blocks are counted over all of them
    return {names[buffer].name for buffer in buffers}


def owners(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every parameter and buffer by name, with the module that it belongs to."""
    for prefix, module in model.named_modules():
        for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            yield f"{prefix}.{name}" if prefix else name, module


def oriented(
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


def _namings(model: Network, file_format: Format, tensors: Mapping[str, Any]) -> Iterator[Naming]:
    ours = list(model.state_dict())
    if file_format == "paddle-onnx":
        yield Naming("paddle-onnx", onnx.parameter_names(model), tensors)
        return
    layouts: dict[str, Mapping[str, PublishedName]] = {}
    if file_format != "paddle":
        layouts[OWN] = {name: PublishedName(name) for name in ours}
    known = libraries.published(model.arch)
    if file_format != "paddle":  # where names are the same, they are the library's
        known = {**{name: rules for name, rules in models.renames(model.arch).items() if name in LIBRARIES}, **known}
    for layout, rules in known.items():
        layouts[layout] = published_names(ours, rules, paddle=file_format == "paddle")
    for prefix, rest in _without_prefixes(tensors):
        for layout, names in layouts.items():
            yield Naming(layout, names, rest, prefix)


def _without_prefixes(tensors: Mapping[str, _Value]) -> Iterator[tuple[str, Mapping[str, _Value]]]:
    """The tensors as they are called, and again without what stands before all names, or before the student's."""
    yield "", tensors
    prefix, rest = "", tensors
    while len(shared := {name.partition(".")[0] for name in rest}) == 1 and all("." in name for name in rest):
        prefix += f"{shared.pop()}."
        rest = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        yield prefix, rest
    student = "Student."  # PaddleClas's distillation keeps both networks in one file
    if taken := {name.removeprefix(student): tensor for name, tensor in tensors.items() if name.startswith(student)}:
        yield student, taken
