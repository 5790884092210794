"""From weights that others wrote, which name no model, to all that is known of one; of Paddle, timm and torchvision."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torchclas import catalog
from torchclas.catalog import Entry
from torchclas.correspondence import LIBRARIES, lookalikes, namesakes
from torchclas.errors import CheckpointError, DataError
from torchclas.labels import LabelSet, label_set
from torchclas.sizes import show_size
from torchclas.spec import ModelSpec
from torchclas.vocabulary import LANGUAGES
from torchclas.weights.deploy_config import DeployConfig, deploy_config
from torchclas.weights.exported import SUFFIXES as EXPORTED_SUFFIXES
from torchclas.weights.identity import Identity, identify, recognise
from torchclas.weights.inference_model import InferenceTensors, Program
from torchclas.weights.load import read_checkpoint
from torchclas.weights.metadata import read_metadata
from torchclas.weights.timm_config import TimmConfig, timm_config


def identified(path: Path, entry: Entry) -> ModelSpec:
    """The model in a file that is named as `entry`; raises `CheckpointError` where the weights are not its own."""
    kind, tensors = read_checkpoint(path)
    described = timm_config(path)
    if described is not None and described.arch != entry.arch:
        raise CheckpointError(f"{described.path}: the weights are of a {described.arch}, not a {entry.arch}")
    identity = identify(path, entry.arch, kind, tensors)
    return _foreign(path, entry, identity, tensors, described or _config(path, tensors))


def recognised(path: Path) -> ModelSpec:
    """The model in a file that does not say which; raises `CheckpointError` where none, or several, fit its tensors."""
    if path.suffix in EXPORTED_SUFFIXES:
        read_metadata(path)  # raises: a graph has no preprocessing that tensors could tell
    kind, tensors = read_checkpoint(path)
    if (described := timm_config(path)) is not None:
        identity = identify(path, described.arch, kind, tensors)
        return _foreign(path, catalog.find(described.arch), identity, tensors, described)
    config = _config(path, tensors)
    found = recognise(path, kind, tensors, hint="" if config is None else config.model_name)
    if len(found) != 1:
        what = f"fit {', '.join(identity.arch for identity in found)}" if found else "are those of no model here"
        raise CheckpointError(
            f"{path} does not say which model it is, and its tensors {what}: name it (`-m NAME --weights {path}`)"
        )
    warnings.warn(f"{path} does not say which model it is; its tensors are those of {found[0]}", stacklevel=2)
    return _foreign(path, catalog.find(found[0].arch), found[0], tensors, config)


def _config(path: Path, tensors: Mapping[str, object]) -> DeployConfig | None:
    return deploy_config(path) if isinstance(tensors, InferenceTensors) else None


def _foreign(
    path: Path,
    entry: Entry,
    identity: Identity,
    tensors: Mapping[str, object],
    config: DeployConfig | TimmConfig | None,
) -> ModelSpec:
    """Weights that others wrote: they say how many classes there are, and not what they mean."""
    published = identity.num_classes == entry.num_classes
    ids = tuple(map(str, range(identity.num_classes)))
    spec = ModelSpec(
        name=entry.name,
        arch=entry.arch,
        num_classes=identity.num_classes,
        in_channels=identity.in_channels,
        preset=entry.preset,
        classes=label_set(entry.labels) if published else LabelSet(path.stem, ids, dict.fromkeys(LANGUAGES, ids)),
        path=path,
    )
    if isinstance(config, TimmConfig):
        return _described(spec, config)
    if identity.layout in LIBRARIES:
        return _unsaid(spec, path, identity.layout)
    return _deployed(spec, path, tensors.program, config) if isinstance(tensors, InferenceTensors) else spec


def _described(spec: ModelSpec, config: TimmConfig) -> ModelSpec:
    """A folder of timm or transformers: its configuration says how images are prepared, and what classes mean."""
    spec = replace(spec, preset=config.preset, activation=config.activation)
    if config.ids is None or config.names is None or config.ids == spec.classes.ids:
        return spec
    if len(config.ids) != spec.num_classes:
        raise CheckpointError(
            f"{config.path}: names {len(config.ids)} classes, but the weights have {spec.num_classes}"
        )
    ids = config.ids if len(set(config.ids)) == len(config.ids) else tuple(map(str, range(spec.num_classes)))
    return replace(spec, classes=LabelSet(config.path.parent.name, ids, dict.fromkeys(LANGUAGES, config.names)))


def _unsaid(spec: ModelSpec, path: Path, library: str) -> ModelSpec:
    """Weights of timm or torchvision alone: how images are prepared for them is a guess, and so may be the graph."""
    others = lookalikes(spec.arch)
    for name in others:
        if re.match(rf"{name}(?![a-z0-9])", path.stem.lower()) and name not in (each.name for each in namesakes(name)):
            raise CheckpointError(
                f"{path}: is called after {name} of timm, which computes something else than {spec.arch} with the same "
                "tensors, and is not here; rename the file if it is another network"
            )
    side = show_size(spec.preset.size)
    said = (
        f"{path} does not say how images are prepared: they are resized as {library} does it, to {side} px of "
        f"{spec.preset.resize_short} ({spec.preset.interpolation})"
    )
    warnings.warn(said, stacklevel=2)
    if others:
        warnings.warn(f"{others[0]} of timm has the same tensors and computes something else", stacklevel=2)
    return replace(spec, preset=replace(spec.preset, backend="torchvision"))


def _deployed(spec: ModelSpec, path: Path, program: Program, config: DeployConfig | None) -> ModelSpec:
    """An inference model: its program says for which images it is, the file beside it how they are prepared."""
    if program.last == "sigmoid":
        spec = replace(spec, activation="sigmoid")
    size = program.size or spec.preset.size
    if config is None:
        return replace(spec, preset=spec.preset.at(size))
    preset = config.preset or spec.preset.at(size)
    if program.size not in (None, preset.size):
        raise CheckpointError(
            f"{config.path} prepares images of {show_size(preset.size)} px, but the model takes {show_size(size)} px: "
            "the file is not its own"
        )
    spec = replace(spec, preset=preset)
    if spec.multi_label and config.threshold is not None:
        spec = replace(spec, thresholds=(config.threshold,) * spec.num_classes)
    published = spec.classes.names()
    if config.names is None or published == tuple(
        name.removesuffix(f" ({number})") for number, name in enumerate(config.names)
    ):
        return spec
    try:
        return spec.with_names(config.names)
    except DataError as error:
        raise CheckpointError(f"{config.path}: {error}") from None
