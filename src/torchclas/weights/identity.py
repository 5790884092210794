"""What a file of tensors says of the network it belongs to: classes, channels, and, asked for, the architecture."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchclas import catalog, models
from torchclas.errors import CheckpointError
from torchclas.layers.network import Network
from torchclas.weights import dataflow
from torchclas.weights.inference_model import InferenceTensors
from torchclas.weights.naming import OWN, Format, Naming, derived_names, naming, oriented, owners

# Numbers of classes and channels that no network has for another reason: wherever they stand in the shapes of a
# network, classes or channels are counted.
_CLASSES, _CHANNELS = 1009, 1013
_BY_FILE_SIZE = 0.15  # published numbers of parameters are rounded, and some are doubtful


@dataclass(frozen=True)
class Identity:
    """An architecture that a file fits, in which layout; `num_classes` is 0 where the file has no classifier."""

    arch: str
    layout: str
    num_classes: int
    in_channels: int

    def __str__(self) -> str:
        layout = "torchclas's own names" if self.layout == OWN else f"{self.layout} layout"
        classes = f"{self.num_classes} classes" if self.num_classes else "no classifier"
        channels = "" if self.in_channels == 3 else f", input channels: {self.in_channels}"
        return f"{self.arch} ({layout}, {classes}{channels})"


def identify(path: Path, arch: str, file_format: Format, tensors: Mapping[str, Any]) -> Identity:
    """How many classes and channels an `arch` has whose tensors these are.

    Raises CheckpointError: they are another network's, or contradict each other.
    """
    network = _template(arch)
    found = naming(network, file_format, tensors, path)
    classes, channels = _counts(network, found, file_format)
    if len(classes) > 1:
        numbers = " and ".join(map(str, sorted(classes)))
        raise CheckpointError(f"{path}: its classifiers have different numbers of classes: {numbers}")
    return Identity(arch, found.layout, min(classes, default=0), min(channels) if len(channels) == 1 else 3)


def recognise(path: Path, file_format: Format, tensors: Mapping[str, Any], *, hint: str = "") -> list[Identity]:
    """Every architecture that has exactly these tensors, with any number of classes and channels.

    Where the path names one of them (`PPLCNet_x1_0_pretrained.pdparams`, `output/PPLCNet_x1_0/best_model.pdparams`), or
    `hint` does, what a file beside it calls the model (`PP-LCNet_x1_0`), it is that one. Those of about the file's size
    are tried, which takes a second or two.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if not isinstance(tensors, InferenceTensors):
        tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    for named in (_named_in(Path("/", re.sub(r"[-/\\]", "", hint))), _named_in(path)):
        if named is not None and (found := _exact(named, file_format, tensors)) is not None:
            return [found]
    candidates = _of_this_size(shapes)
    if isinstance(tensors, InferenceTensors):
        candidates = [arch for arch in candidates if dataflow.has_weights(arch, tensors.program)]
    fits = (_exact(arch, file_format, tensors) for arch in candidates)
    return [found for found in fits if found is not None]


def _template(arch: str) -> Network:
    with torch.device("meta"):
        return models.build(arch, num_classes=_CLASSES, in_channels=_CHANNELS)


def _counts(network: Network, found: Naming, file_format: Format) -> tuple[set[int], set[int]]:
    """The numbers of classes, and of channels, that the file's shapes have in the places for them."""
    counts: dict[int, set[int]] = {_CLASSES: set(), _CHANNELS: set()}
    for name, target, tensor in _pairs(network, found, file_format):
        for place, length in enumerate(target.shape):
            if length in counts and name and tensor.ndim == target.ndim:
                counts[length].add(tensor.shape[place])
    return counts[_CLASSES], counts[_CHANNELS]


def _pairs(network: Network, found: Naming, file_format: Format) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Our name, our tensor, and the file's as ours stands: shapes alone count."""
    modules = dict(owners(network))
    for name, target in network.state_dict().items():
        published = found.names[name]
        if published.name in found.tensors:
            shape = tuple(found.tensors[published.name].shape)
            tensor = torch.empty(shape, device="meta")
            yield name, target, oriented(tensor, modules[name], target, published, file_format)


def _exact(arch: str, file_format: Format, tensors: Mapping[str, Any]) -> Identity | None:
    network = _template(arch)
    needed = [name for name in network.state_dict() if not name.endswith("num_batches_tracked")]
    if len(needed) > len(tensors) + _HEAD_TENSORS and not isinstance(tensors, InferenceTensors):
        return None
    try:
        found = naming(network, file_format, tensors, Path())
    except CheckpointError:
        return None
    classes, channels = _counts(network, found, file_format)
    if len(classes) > 1 or len(channels) != 1:
        return None
    known = {_CLASSES: min(classes, default=0), _CHANNELS: min(channels)}
    present = dict[str, None]()
    for name, target, tensor in _pairs(network, found, file_format):
        if tuple(tensor.shape) != tuple(known.get(length, length) for length in target.shape):
            return None
        present[name] = None
    missing = [name for name in needed if name not in present]
    if any(_CLASSES not in network.state_dict()[name].shape for name in missing) or (missing and classes):
        return None
    used = {found.names[name].name for name in present}
    if set(found.tensors) - used - derived_names(network, found):
        return None
    return Identity(arch, found.layout, known[_CLASSES], known[_CHANNELS])


_HEAD_TENSORS = 6  # of GoogLeNet's three classifiers; none has more


def _named_in(path: Path) -> str | None:
    """The architecture that the file's name begins with, or that its folder is called after."""
    path = path.absolute()
    known = {entry.name.lower(): entry.arch for entry in catalog.entries()}
    known |= {arch.lower(): arch for arch in models.architectures()}
    if (arch := known.get(path.parent.name.lower().removesuffix("_infer"))) is not None:
        return arch
    words = re.split(r"(?=[_.-])", path.name.lower())
    return next((known[name] for end in range(len(words), 0, -1) if (name := "".join(words[:end])) in known), None)


def _of_this_size(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Architectures with about as many parameters, whatever their classifier has."""
    sizes = [math.prod(shape) for shape in shapes.values()]
    matrices = [shape for shape in shapes.values() if len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1))]
    width = max((max(shape[:2]) for shape in matrices), default=4096)
    largest = max((math.prod(shape) for shape in matrices), default=0)
    least = (sum(sizes) - largest) / 1e6 * (1 - _BY_FILE_SIZE)
    built = set(models.architectures())
    near: dict[str, None] = {}
    for entry in catalog.entries():
        most = (sum(sizes) + entry.num_classes * (width + 1)) / 1e6 * (1 + _BY_FILE_SIZE)
        if entry.arch in built and (entry.params_m is None or least <= entry.params_m <= most):
            near[entry.arch] = None
    return list(near)
