"""From a name, or a file of one's own, to all that a command needs to know of a model; without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torchclas import catalog
from torchclas.catalog import Preset
from torchclas.data.preprocess import Preprocess
from torchclas.errors import CheckpointError
from torchclas.labels import LabelSet, label_set
from torchclas.weights.metadata import read_metadata

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


def preprocess_for(name_or_checkpoint: str | Path) -> Preprocess:
    """The evaluation preprocessing that belongs to a published name or to one of our checkpoints."""
    return Preprocess(find_model(name_or_checkpoint).preset)


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
