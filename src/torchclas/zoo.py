"""From a name, or a checkpoint of one's own, to a network with its weights, preprocessing and classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from torchclas import catalog, models
from torchclas.catalog import Preset
from torchclas.data.preprocess import Preprocess
from torchclas.errors import CheckpointError
from torchclas.labels import LabelSet, label_set
from torchclas.layers.network import Network
from torchclas.weights.checkpoint import read_metadata
from torchclas.weights.load import load
from torchclas.weights.published import published_file

DEFAULT_MODEL = "EfficientNet_lite0"


@dataclass(frozen=True)
class ModelSpec:
    """All that a command needs to run a model. `path` holds its weights."""

    name: str
    arch: str
    num_classes: int
    in_channels: int
    preset: Preset
    classes: LabelSet
    path: Path | None = None


def create_model(
    name: str,
    pretrained: bool = False,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    in_channels: int = 3,
) -> Network:
    """Build the network behind a published or architecture name, in training mode.

    With `pretrained` it gets the published weights (fetched at first use), with `weights` those of a file: a published
    `.pdparams`, one of our checkpoints, a torch `.pth` or an ONNX file exported from Paddle. `num_classes` other than
    the weights' gives it a fresh last layer (0: none), `in_channels` other than 3 a first convolution made from theirs.

    Raises:
        UnknownNameError: no such model.
        CheckpointError, DownloadError: the weights cannot be had, or are not this model's.
    """
    entry = catalog.find(name)
    if pretrained and weights is not None:
        raise CheckpointError("give either pretrained=True or weights=FILE: they are two sets of weights")
    classes = entry.num_classes if num_classes is None else num_classes
    path = published_file(entry) if pretrained else weights
    if path is None:
        return models.build(entry.arch, num_classes=classes, in_channels=in_channels)
    return _loaded(entry.arch, Path(path), classes, in_channels, new_head=num_classes is not None)


def find_model(name_or_checkpoint: str | Path | None = None, *, weights: str | Path | None = None) -> ModelSpec:
    """What a published name, or the path of one of our checkpoints, stands for; by default `EfficientNet_lite0`.

    `weights` takes the place of a name's published weights. Nothing is fetched or read but a checkpoint's metadata.
    """
    if name_or_checkpoint is None:
        name_or_checkpoint = DEFAULT_MODEL if weights is None else weights
    if _is_file_name(name_or_checkpoint):
        return _of_checkpoint(Path(name_or_checkpoint))
    entry = catalog.find(str(name_or_checkpoint))
    if weights is not None and Path(weights).suffix == ".safetensors":
        try:  # our own checkpoint knows its classes and preprocessing better than the name does
            own = _of_checkpoint(Path(weights))
        except CheckpointError:
            own = None
        if own is not None:
            if own.arch != entry.arch:
                raise CheckpointError(f"{weights} is a {own.arch}, not a {entry.arch}: leave the name out")
            return own
    return ModelSpec(
        name=entry.name,
        arch=entry.arch,
        num_classes=entry.num_classes,
        in_channels=3,
        preset=entry.preset,
        classes=label_set(entry.labels),
        path=None if weights is None else Path(weights),
    )


def load_model(spec: ModelSpec) -> Network:
    """The network of `spec` with its weights, in evaluation mode; fetches published ones at first use."""
    path = published_file(catalog.find(spec.name)) if spec.path is None else spec.path
    return _loaded(spec.arch, path, spec.num_classes, spec.in_channels, input_size=spec.preset.crop_size).eval()


def preprocess_for(name_or_checkpoint: str | Path) -> Preprocess:
    """The evaluation preprocessing that belongs to a published name or to one of our checkpoints."""
    return Preprocess(find_model(name_or_checkpoint).preset)


def _loaded(
    arch: str, path: Path, num_classes: int, in_channels: int, *, new_head: bool = False, input_size: int | None = None
) -> Network:
    # On the meta device nothing is allocated or initialised, so loading needs no more memory than the file.
    with torch.device("meta"):
        # Without a head there is nothing to load into; it goes once the file has been read.
        network = models.build(arch, num_classes=num_classes or 1000, in_channels=in_channels)
        if network.input_size is not None and input_size not in (None, network.input_size):
            network.set_input_size(input_size)
    load(network, path, strict=True, new_head=new_head)
    if num_classes == 0:
        network.reset_classifier(0)
    return network


def _is_file_name(name: str | Path) -> bool:
    return isinstance(name, Path) or name.endswith(".safetensors") or Path(name).is_file()


def _of_checkpoint(path: Path) -> ModelSpec:
    metadata = read_metadata(path)
    if metadata.labels:
        classes = label_set(metadata.labels)
    else:  # own classes have one name, whatever the language
        classes = LabelSet(path.stem, metadata.class_ids, dict.fromkeys(("en", "zh"), metadata.class_names))
    return ModelSpec(
        name=metadata.name or path.stem,
        arch=metadata.arch,
        num_classes=metadata.num_classes,
        in_channels=metadata.in_channels,
        preset=metadata.preset,
        classes=classes,
        path=path,
    )
