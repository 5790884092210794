"""Networks with their weights."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from typing_extensions import Never

from torchclas import catalog, models
from torchclas.catalog import Preset
from torchclas.counterparts import refuse
from torchclas.data.preprocess import Preprocess
from torchclas.errors import CheckpointError, OutputError
from torchclas.labels import LabelSet, label_set
from torchclas.layers.network import Network
from torchclas.spec import ModelSpec, find_model, preset_of
from torchclas.weights import checkpoint
from torchclas.weights.load import load
from torchclas.weights.published import published_file

_TORCHVISION = ("DEFAULT", "IMAGENET1K_V1", "IMAGENET1K_V2")  # its words for its weights


def create_model(
    name: str | Path,
    pretrained: bool = False,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    **others: Never,
) -> Network:
    """Build the network behind a published or architecture name, or a file of weights, in training mode.

    With `pretrained` it gets the published weights (fetched at first use), with `weights` those of a file: a published
    `.pdparams` or one of your own, one of our checkpoints or the folder of a run, a torch `.pth`, or an ONNX file
    exported from Paddle. It has the classes and channels of these. `num_classes` other than the weights' gives it a
    fresh last layer (0: none), `in_channels` other than 3 a first convolution made from theirs.

    Raises:
        UnknownNameError: no such model.
        CheckpointError, DownloadError: the weights cannot be had, or are not this model's.
        UnknownArgumentError: a word of timm or torchvision; the message says what it is called here.
    """
    refuse("create_model", others, inspect.signature(create_model).parameters)
    if not isinstance(pretrained, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise CheckpointError(f"pretrained is True or False, not {pretrained!r}: a file of weights is weights=FILE")
    if str(weights).rpartition(".")[2].upper() in _TORCHVISION and not Path(str(weights)).exists():
        raise CheckpointError(f"weights={weights} is torchvision's: published weights are pretrained=True here")
    if pretrained and weights is not None:
        raise CheckpointError("give either pretrained=True or weights=FILE: they are two sets of weights")
    spec = find_model(name, weights=weights, headless=True)
    if spec.graph is not None:
        raise CheckpointError(
            f"{spec.path} is an exported model, which a Classifier runs; its weights are not separate"
        )
    classes = spec.num_classes if num_classes is None else num_classes
    channels = spec.in_channels if in_channels is None else in_channels
    path = published_file(catalog.find(spec.name)) if pretrained and spec.path is None else spec.path
    if path is None:
        network = models.build(spec.arch, num_classes=classes, in_channels=channels)
    else:
        network = _loaded(spec, path, classes, channels, new_head=num_classes is not None or spec.num_classes == 0)
    network.preset = spec.preset
    return network


def load_model(spec: ModelSpec) -> Network:
    """The network of `spec` with its weights, in evaluation mode; fetches published ones at first use."""
    network = _loaded(spec, weights_of(spec), spec.num_classes, spec.in_channels, new_head=spec.num_classes == 0)
    network.preset = spec.preset
    return network.eval()


def weights_of(spec: ModelSpec) -> Path:
    """The file with the weights of `spec`; fetches published ones at first use."""
    return published_file(catalog.find(spec.name)) if spec.path is None else spec.path


def save_checkpoint(
    model: nn.Module,
    path: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    class_ids: Sequence[str] | None = None,
    preset: Preset | Preprocess | None = None,
    name: str = "",
    origin: Mapping[str, object] | None = None,
) -> Path:
    """Write a network as one file that every command, `Classifier` and `create_model` take: weights and their meaning.

    `model` was made by `create_model`; what DistributedDataParallel or `torch.compile` made of it will do.
    `class_names` say what its outputs mean, in order; without them it is the published classes where their number is
    the published one, and numbers otherwise. `class_ids` tell classes apart where names do not (synsets; default: the
    names). `preset` is how images are prepared (default: as for the weights it was created with, at the image size that
    it is set to). `name` is what to call it (default: its architecture), `origin` what else to say of it, as JSON can.
    The file appears whole or not at all. Returns its path.

    Raises:
        CheckpointError: not such a network, without a classifier, changed by `fuse()`; or as many names as it has no
            classes.
        OutputError: the file cannot be written.
    """
    network = _unwrapped(model)
    path = Path(path)
    if path.suffix != ".safetensors":
        raise OutputError(f"{path}: the name of a checkpoint must end in .safetensors")
    with torch.device("meta"):
        plain = models.build(network.arch, num_classes=network.num_classes, in_channels=network.in_channels)
    if changed := network.state_dict().keys() ^ plain.state_dict().keys():
        raise CheckpointError(
            f"this {network.arch} differs from the architecture in {len(changed)} tensors, such as {min(changed)}: "
            "save the network as it was before fuse() or other changes"
        )
    if network.num_classes == 0:
        raise CheckpointError(f"this {network.arch} has no classifier: nothing could be predicted with it")
    if isinstance(preset, Preprocess):
        preset = preset.preset
    spec = ModelSpec(
        name=name or network.arch,
        arch=network.arch,
        num_classes=network.num_classes,
        in_channels=network.in_channels,
        preset=preset or preset_of(network),
        classes=_classes(network, class_names, class_ids),
    )
    checkpoint.save_checkpoint(network, path, spec.metadata(**(origin or {})))
    return path


def _classes(network: Network, names: Sequence[str] | None, ids: Sequence[str] | None) -> LabelSet:
    entry = catalog.find(network.arch)
    if names is None and ids is None and network.num_classes == entry.num_classes:
        return label_set(entry.labels)
    names = names or ids or tuple(map(str, range(network.num_classes)))
    ids = ids or (names if len(set(names)) == len(names) else tuple(map(str, range(len(names)))))
    for what, values in (("names", names), ("ids", ids)):
        if isinstance(values, str) or len(values) != network.num_classes:
            raise CheckpointError(f"{len(values)} class_{what} were given for {network.num_classes} classes")
    if len(set(ids)) != len(ids):
        raise CheckpointError("class_ids must differ: they tell classes apart")
    return LabelSet("", tuple(ids), {"en": tuple(names)})


def _unwrapped(model: nn.Module) -> Network:
    """The network itself, of what DistributedDataParallel, torch.compile or an average of weights made of it."""
    while not isinstance(model, Network):
        inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if not isinstance(inner, nn.Module):
            raise CheckpointError(f"{type(model).__name__} is no network made by torchclas.create_model")
        model = inner
    if not model.arch:
        raise CheckpointError(f"this {type(model).__name__} has no architecture's name: make it with create_model")
    return model


def _loaded(spec: ModelSpec, path: Path, num_classes: int, in_channels: int, *, new_head: bool) -> Network:
    # On the meta device nothing is allocated or initialised, so loading needs no more memory than the file.
    with torch.device("meta"):
        # Without a head there is nothing to load into; it goes once the file has been read.
        network = models.build(spec.arch, num_classes=num_classes or 1000, in_channels=in_channels)
        network.set_input_size(spec.preset.size)
    load(network, path, strict=True, new_head=new_head)
    if num_classes == 0:
        network.reset_classifier(0)
    return network
