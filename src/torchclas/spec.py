"""From a name, or a file of one's own, to all that a command needs to know of a model; without importing torch."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torchclas import catalog
from torchclas.catalog import Entry, Preset
from torchclas.correspondence import LIBRARIES, lookalikes, namesakes
from torchclas.data.preprocess import Preprocess
from torchclas.errors import CheckpointError, DataError
from torchclas.labels import LabelSet, label_set, label_set_names, read_names
from torchclas.sizes import show_size
from torchclas.vocabulary import LANGUAGES, OUTPUTS, Activation, Output
from torchclas.weights.deploy_config import DeployConfig, deploy_config
from torchclas.weights.exported import SUFFIXES as EXPORTED_SUFFIXES
from torchclas.weights.inference_model import InferenceTensors, Program
from torchclas.weights.kinds import SUFFIXES as WEIGHTS_SUFFIXES
from torchclas.weights.location import BEST, checkpoint, quantized_path, without_suffix
from torchclas.weights.metadata import Metadata, find_metadata, read_metadata
from torchclas.weights.timm_config import TimmConfig, timm_config

if TYPE_CHECKING:
    from torchclas.layers.network import Network
    from torchclas.weights.identity import Identity

DEFAULT_MODEL = "EfficientNet_lite0"
_COMMON_NAMES = frozenset(
    ("best_model", "latest", "checkpoint", "model", "model_best", "pytorch_model", "weights", "inference")
)


@dataclass(frozen=True)
class ModelSpec:
    """All that a command needs to run a model.

    `path` holds its weights (None: the published ones), or, where `graph` is set, the whole network as `torchclas
    export` or `torchclas quantize` wrote it, in that precision; `outputs` are what it can give. `pixels` says that it
    prepares images itself: its input is uint8 [N, H, W, 3], RGB, of any size. `activation` and `thresholds` are those
    of `torchclas.weights.metadata.Metadata`.
    """

    name: str
    arch: str
    num_classes: int
    in_channels: int
    preset: Preset
    classes: LabelSet
    path: Path | None = None
    graph: Literal["fp32", "fp16", "int8"] | None = None
    pixels: bool = False
    outputs: tuple[Output, ...] = OUTPUTS
    activation: Activation = "softmax"
    thresholds: tuple[float, ...] = ()

    @property
    def multi_label(self) -> bool:
        """Whether an image has any number of classes, and not one."""
        return self.activation == "sigmoid"

    def needs_one_class(self, why: str) -> ModelSpec:
        """The model itself; raises DataError where an image has any number of classes, which does not go with `why`."""
        if self.multi_label:
            raise DataError(f"{self.name} gives an image any number of classes (sigmoid), and {why}")
        return self

    @property
    def file_name(self) -> str:
        """What files that are made of this model are called by default: after its own file, where it has one.

        The best weights of a run are called after the run's folder, and files with other names that say nothing
        (`best_model.pdparams`) after theirs, so that two checkpoints of one architecture differ.
        """
        if self.path is None:
            return self.name
        if self.path.name != BEST and self.path.stem.lower() not in _COMMON_NAMES:
            return self.path.stem
        folder = self.path.absolute().parent
        parent = f"{folder.parent.name}-" if folder.name == "finetune" else ""  # the second phase of distillation
        return f"{parent}{folder.name}" or self.path.stem

    @property
    def numbered(self) -> bool:
        """Whether the classes are called by their numbers, for want of names."""
        return self.classes.ids == tuple(map(str, range(self.num_classes)))

    def with_names(self, labels: str | Path | Sequence[str]) -> ModelSpec:
        """The same with other names of the classes, or a file of them; ids that are mere numbers become the names.

        Raises DataError: they are not as many as the classes, or the file cannot be read.
        """
        from_file = isinstance(labels, (str, Path))
        names = read_names(labels, self.num_classes) if from_file else tuple(labels)
        if len(names) != self.num_classes:
            raise DataError(f"{len(names)} names of classes, but {self.name} has {self.num_classes}")
        ids = names if self.numbered and len(set(names)) == len(names) else self.classes.ids
        name = Path(labels).stem if from_file else self.classes.name
        return replace(self, classes=LabelSet(name, ids, dict.fromkeys(LANGUAGES, names)))

    def prepared(self, preset: Preset) -> ModelSpec:
        """The same for images that are prepared in another way.

        Raises CheckpointError: an exported model, which prepares images itself or takes those of one size.
        """
        if self.graph is not None and (self.pixels or preset.size != self.preset.size):
            raise CheckpointError(f"{self.path}: an exported model takes images as it was made for them")
        return replace(self, preset=preset)

    def metadata(self, /, **origin: object) -> Metadata:
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
            activation=self.activation,
            thresholds=self.thresholds,
            origin=origin,
        )


def find_model(
    name_or_file: str | Path | None = None,
    *,
    weights: str | Path | None = None,
    labels: str | Path | Sequence[str] | None = None,
    preset: Preset | None = None,
    activation: Activation | None = None,
    headless: bool = False,
) -> ModelSpec:
    """What a published name, or a file of weights, stands for; by default `EfficientNet_lite0`.

    A file is one of our checkpoints or exported models (ONNX, OpenVINO), the folder of a run, or weights that anyone
    else wrote (`.pdparams`, `.pth`, `.safetensors`) where only one architecture has such tensors. `weights` takes the
    place of a name's published weights, with as many classes as are in it. `labels` are names of the classes, or a file
    of them (see `torchclas.labels.read_names`), `preset` is how images are prepared, `activation` whether they have one
    class or any number of them, in place of what the model says. Nothing is fetched; of our own files only the metadata
    is read.

    With `headless`, a file without a classifier will do; `num_classes` is then 0.

    Raises:
        UnknownNameError: no such model.
        CheckpointError: the file is not there, is of another kind, or fits no model, or not the one that was named.
        DataError: `labels` are not as many as there are classes, or cannot be read.
    """
    if name_or_file is None:
        spec = _find(DEFAULT_MODEL, None) if weights is None else _of_file(Path(weights))
    else:
        spec = _find(name_or_file, weights)
    if spec.num_classes == 0 and not headless:
        raise CheckpointError(
            f"{spec.path}: weights of {spec.arch} without its classifier: train one (`torchclas train --from`)"
        )
    if preset is not None:
        spec = spec.prepared(preset)
    if activation is not None and activation != spec.activation:
        if spec.graph is not None:
            raise CheckpointError(f"{spec.path}: an exported model keeps its activation, {spec.activation}")
        spec = replace(spec, activation=activation, thresholds=())
    return spec if labels is None else spec.with_names(labels)


def preprocess_for(model: str | Path | Network) -> Preprocess:
    """The evaluation preprocessing that belongs to a published name, to a file of weights, or to a network.

    A network made by `create_model` remembers which weights it was made for; where it was set to another image size, so
    is its preprocessing.

    Raises:
        What `find_model` does.
        DataError: the network takes neither RGB nor gray images.
    """
    if isinstance(model, (str, Path)):
        spec = find_model(model, headless=True)
        return Preprocess(spec.preset, channels=spec.in_channels)
    return Preprocess(preset_of(model), channels=model.in_channels)


def preset_of(network: Network) -> Preset:
    """How images are prepared for a network that `create_model`, or its architecture's table, made."""
    preset = network.preset if isinstance(network.preset, Preset) else catalog.find(network.arch).preset
    return preset if network.input_size is None else preset.at(network.input_size)


def _find(name: str | Path, weights: str | Path | None) -> ModelSpec:
    if _is_file_name(name):
        if isinstance(name, str) and not Path(name).exists() and namesakes(name):
            catalog.find(name)  # raises: a name of timm's on the Hugging Face Hub
        if weights is not None:
            raise CheckpointError(f"{name} and {weights} are both files of weights: with one of them name the model")
        return _of_file(Path(name))
    entry = catalog.find(str(name))
    if weights is not None:
        return _of_weights(entry, checkpoint(weights))
    if entry.quantized_from and (made := quantized_path(entry)).is_file():
        return _of_file(made)
    return ModelSpec(
        name=entry.name,
        arch=entry.arch,
        num_classes=entry.num_classes,
        in_channels=3,
        preset=entry.preset,
        classes=label_set(entry.labels),
    )


def _is_file_name(name: str | Path) -> bool:
    if isinstance(name, Path) or name.endswith(WEIGHTS_SUFFIXES) or Path(name).is_file():
        return True
    known = name.lower() in catalog.catalog().index
    if known:
        return False
    return "/" in name or os.sep in name or Path(name).is_dir() or without_suffix(Path(name)) is not None


def _of_file(path: Path) -> ModelSpec:
    path = checkpoint(path)
    metadata = find_metadata(path)
    if metadata is None:
        return _recognised(path)
    return ModelSpec(
        name=metadata.name or path.stem,
        arch=metadata.arch,
        num_classes=metadata.num_classes,
        in_channels=metadata.in_channels,
        preset=metadata.preset,
        classes=metadata.classes(path.stem),
        path=path,
        graph=_graph(metadata) if path.suffix in EXPORTED_SUFFIXES else None,
        outputs=metadata.outputs if path.suffix in EXPORTED_SUFFIXES else OUTPUTS,
        pixels=metadata.origin.get("input") == "uint8",
        activation=metadata.activation,
        thresholds=metadata.thresholds,
    )


def _of_weights(entry: Entry, path: Path) -> ModelSpec:
    """A file of weights of which the model was named."""
    if find_metadata(path) is not None:  # a file of ours knows its classes and preprocessing better than the name does
        spec = _of_file(path)
        if spec.arch != entry.arch:
            raise CheckpointError(f"{path} is a {spec.arch}, not a {entry.arch}: leave the name out")
        return spec
    from torchclas.weights.identity import identify
    from torchclas.weights.load import read_checkpoint

    kind, tensors = read_checkpoint(path)
    described = timm_config(path)
    if described is not None and described.arch != entry.arch:
        raise CheckpointError(f"{described.path}: the weights are of a {described.arch}, not a {entry.arch}")
    identity = identify(path, entry.arch, kind, tensors)
    return _foreign(path, entry, identity, tensors, described or _config(path, tensors))


def _recognised(path: Path) -> ModelSpec:
    """A file of weights that does not say whose they are."""
    from torchclas.weights.identity import identify, recognise
    from torchclas.weights.load import read_checkpoint

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


def _graph(metadata: Metadata) -> Literal["fp32", "fp16", "int8"]:
    match metadata.origin.get("precision"):
        case "int8":
            return "int8"
        case "fp16":
            return "fp16"
        case _:
            return "fp32"
