"""From a name, or a file of one's own, to all that a command needs to know of a model; without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torchclas import catalog
from torchclas.catalog import Preset
from torchclas.data.preprocess import Preprocess
from torchclas.errors import CheckpointError
from torchclas.labels import LabelSet, label_set, label_set_names
from torchclas.weights.exported import SUFFIXES as EXPORTED_SUFFIXES
from torchclas.weights.location import quantized_path
from torchclas.weights.metadata import Metadata, read_metadata

DEFAULT_MODEL = "EfficientNet_lite0"
_OWN_SUFFIXES = (".safetensors", *EXPORTED_SUFFIXES)


@dataclass(frozen=True)
class ModelSpec:
    """All that a command needs to run a model.

    `path` holds its weights (None: the published ones), or, where `graph` is set, the whole network as `torchclas
    export` or `torchclas quantize` wrote it, in that precision. `pixels` says that it prepares images itself: its input
    is uint8 [N, H, W, 3], RGB, of any size.
    """

    name: str
    arch: str
    num_classes: int
    in_channels: int
    preset: Preset
    classes: LabelSet
    path: Path | None = None
    graph: Literal["fp32", "int8"] | None = None
    pixels: bool = False

    def metadata(self, **origin: object) -> Metadata:
        """What a file that is made from this model says of itself."""
        published = self.classes.name in label_set_names() and self.classes is label_set(self.classes.name)
        return Metadata(
            arch=self.arch,
            name=self.name,
            num_classes=self.num_classes,
            in_channels=self.in_channels,
            preset=self.preset,
            labels=self.classes.name if published else "",
            class_ids=() if published else self.classes.ids,
            class_names=() if published else self.classes.names(),
            origin=origin,
        )


def find_model(name_or_checkpoint: str | Path | None = None, *, weights: str | Path | None = None) -> ModelSpec:
    """What a published name, or the path of one of our files, stands for; by default `EfficientNet_lite0`.

    Our files are checkpoints and exported models (ONNX, OpenVINO). `weights` takes the place of a name's published
    weights. Nothing is fetched or read but a file's metadata.
    """
    if name_or_checkpoint is None:
        name_or_checkpoint = DEFAULT_MODEL if weights is None else weights
    if _is_file_name(name_or_checkpoint):
        return _of_file(Path(name_or_checkpoint))
    entry = catalog.find(str(name_or_checkpoint))
    if weights is not None and Path(weights).suffix in _OWN_SUFFIXES:
        try:  # a file of ours knows its classes and preprocessing better than the name does
            own = _of_file(Path(weights))
        except CheckpointError:
            own = None
        if own is not None:
            if own.arch != entry.arch:
                raise CheckpointError(f"{weights} is a {own.arch}, not a {entry.arch}: leave the name out")
            return own
    if weights is None and entry.quantized_from and (made := quantized_path(entry)).is_file():
        return _of_file(made)
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
    return isinstance(name, Path) or name.endswith(_OWN_SUFFIXES) or Path(name).is_file()


def _of_file(path: Path) -> ModelSpec:
    metadata = read_metadata(path)
    return ModelSpec(
        name=metadata.name or path.stem,
        arch=metadata.arch,
        num_classes=metadata.num_classes,
        in_channels=metadata.in_channels,
        preset=metadata.preset,
        classes=metadata.classes(path.stem),
        path=path,
        graph=_graph(metadata) if path.suffix in EXPORTED_SUFFIXES else None,
        pixels=metadata.origin.get("input") == "uint8",
    )


def _graph(metadata: Metadata) -> Literal["fp32", "int8"]:
    return "int8" if metadata.origin.get("precision") == "int8" else "fp32"
