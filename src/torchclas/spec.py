"""From a name, or a file of one's own, to all that a command needs to know of a model; without importing torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torchclas import catalog
from torchclas.catalog import Entry, Preset
from torchclas.data.preprocess import Preprocess
from torchclas.digest import sha256_of
from torchclas.errors import CheckpointError, DataError
from torchclas.labels import LabelSet, label_set, label_set_names, read_names
from torchclas.vocabulary import LANGUAGES, OUTPUTS, Activation, Output
from torchclas.weights import hub
from torchclas.weights.exported import SUFFIXES as EXPORTED_SUFFIXES
from torchclas.weights.exported import parts
from torchclas.weights.kinds import PARAMETERS, PROGRAMS, files_of
from torchclas.weights.kinds import SUFFIXES as WEIGHTS_SUFFIXES
from torchclas.weights.location import BEST, checkpoint, converted_name, quantized_path, without_suffix
from torchclas.weights.metadata import Metadata, find_metadata

if TYPE_CHECKING:
    from torchclas.layers.network import Network

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
    of `torchclas.weights.metadata.Metadata`. `address` is where the Hugging Face Hub has the weights, whatever becomes
    of the repository later.
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
    address: hub.Address | None = None

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
        (`best_model.pdparams`) after theirs, so that two checkpoints of one architecture differ. Those of the Hub are
        called after their repository.
        """
        if self.path is None:
            return self.name
        if self.path.name != BEST and self.path.stem.lower() not in _COMMON_NAMES:
            return self.path.stem
        if self.address is not None:
            return self.address.name
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

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the weights, first the one that names them; none of published ones.

        Raises CheckpointError: one of two is missing.
        """
        path = self.path
        if path is None:
            return ()
        if path.suffix == ".xml":
            return path, path.with_suffix(".bin")
        if path.suffix in (PARAMETERS, *PROGRAMS):
            return files_of(path)
        if path.suffix == ".onnx" and (data := path.with_name(f"{path.name}.data")).is_file():
            return path, data
        return parts(path)

    def content(self) -> list[str]:
        """What tells the weights from others: which published file they are, or the SHA-256 of each of `files`.

        Raises CheckpointError: never published, or a file cannot be read.
        """
        if self.path is None:
            return [converted_name(catalog.find(self.name)).removesuffix(".safetensors")]
        try:
            return [sha256_of(file) for file in self.files]
        except OSError as error:
            raise CheckpointError(f"{error.filename}: cannot be read ({error.strerror})") from error

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
            origin=origin if self.address is None else {**origin, "hub": str(self.address)},
        )


def named_models(
    names: Sequence[str], *, series: str | None = None, having: Callable[[Entry], bool] = lambda entry: True
) -> list[str]:
    """Published names in place of globs such as `PPLCNet_*`: in catalog order, of a series, for which `having` is true.

    Other names, and files, stay; each comes once.

    Raises UnknownNameError: no such model or series, or none that a glob fits.
    """
    found = dict[str, None]()
    for name in names:
        if any(character in name for character in "*?["):
            fitting = [each for each in catalog.names(name, series=series) if having(catalog.find(each))]
            if not fitting:
                catalog.find(name)  # says what is like it
            found |= dict.fromkeys(fitting)
        else:
            found[name if _is_file_name(name) else catalog.find(name).name] = None
    return [*found]


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
    class or any number of them, in place of what the model says. Of our own files only the metadata is read.

    A file may be one of the Hugging Face Hub: `hf://OWNER/NAME[@REVISION]` (see `torchclas.weights.hub`). Only such a
    file is fetched, unless it is here; published weights are when a network is made with them.

    With `headless`, a file without a classifier will do; `num_classes` is then 0.

    Raises:
        UnknownNameError: no such model.
        CheckpointError: the file is not there, is of another kind, or fits no model, or not the one that was named.
        DownloadError: the Hub does not have it, or cannot be asked.
        DataError: `labels` are not as many as there are classes, or cannot be read.
    """
    name_or_file, named = _here(name_or_file)
    weights, of_weights = _here(weights)
    if name_or_file is None:
        spec = _find(DEFAULT_MODEL, None) if weights is None else _of_file(Path(weights))
    else:
        spec = _find(name_or_file, weights)
    if (address := of_weights or named) is not None:
        spec = replace(spec, address=address)
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


def _here(name: str | Path | None) -> tuple[str | Path | None, hub.Address | None]:
    """What is named, or, of a model on the Hub, its file on this machine and its lasting address."""
    address = hub.address_of(name)
    return (name, None) if address is None else hub.fetch(address)


def _find(name: str | Path, weights: str | Path | None) -> ModelSpec:
    if _is_file_name(name):
        if isinstance(name, str) and not Path(name).exists():
            from torchclas.correspondence import namesakes

            if namesakes(name):
                catalog.find(name)  # raises: a name of timm's on the Hugging Face Hub
            if hub.is_repository(name) and not Path(name).parent.is_dir():
                raise CheckpointError(f"{name}: no such file; a model of the Hugging Face Hub is called hf://{name}")
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
        from torchclas.foreign_weights import recognised  # readers of others' files, which few runs need

        return recognised(path)
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
    if find_metadata(path) is None:
        from torchclas.foreign_weights import identified

        return identified(path, entry)
    spec = _of_file(path)  # a file of ours knows its classes and preprocessing better than the name does
    if spec.arch != entry.arch:
        raise CheckpointError(f"{path} is a {spec.arch}, not a {entry.arch}: leave the name out")
    return spec


def _graph(metadata: Metadata) -> Literal["fp32", "fp16", "int8"]:
    match metadata.origin.get("precision"):
        case "int8":
            return "int8"
        case "fp16":
            return "fp16"
        case _:
            return "fp32"
