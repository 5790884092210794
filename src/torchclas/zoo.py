"""Networks with their weights."""

from __future__ import annotations

from pathlib import Path

import torch

from torchclas import catalog, models
from torchclas.errors import CheckpointError
from torchclas.layers.network import Network
from torchclas.spec import ModelSpec
from torchclas.weights.load import load
from torchclas.weights.published import published_file


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


def load_model(spec: ModelSpec) -> Network:
    """The network of `spec` with its weights, in evaluation mode; fetches published ones at first use."""
    path = published_file(catalog.find(spec.name)) if spec.path is None else spec.path
    return _loaded(spec.arch, path, spec.num_classes, spec.in_channels, input_size=spec.preset.crop_size).eval()


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
