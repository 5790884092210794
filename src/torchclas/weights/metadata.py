"""What a model file says of itself, in safetensors as in exported formats; reading it costs no import of torch."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from torchclas.catalog import Entry, Preset
from torchclas.errors import CheckpointError, Error
from torchclas.labels import LabelSet, label_set
from torchclas.tables import Table, integer_within, mapping, numbers, one_of, positive_integer, sequence, text, texts
from torchclas.text import json_text
from torchclas.vocabulary import LANGUAGES, OUTPUTS, Activation, Output
from torchclas.weights import exported
from torchclas.weights.kinds import kind_of
from torchclas.weights.links import utf8_path

KEY = "torchclas"  # of the file's own metadata
MAX_CLASSES = 1_000_000
MAX_CHANNELS = 1024
_FORMAT = 1
_MAX_CHARACTERS = 16 * 2**20  # of the whole; 100,000 classes take some 4 million
_MAX_NAME = 1024  # characters
_MAX_DEPTH = 8  # of what `origin` holds


@dataclass(frozen=True)
class Metadata:
    """What a checkpoint says of itself.

    `labels` names a published label set, or `class_ids` and `class_names` list the model's own classes in order; where
    neither is given, classes are called by their numbers. `activation` makes scores of logits: `softmax` where an image
    has one class, `sigmoid` where it has any number of them; it then has those whose score reaches the class's
    `thresholds`, [num_classes] in 0..1 (none given: 0.5). `outputs` are those of an exported graph. `origin` tells
    where the weights came from: URL, sha256, training run; it is what JSON can hold.

    Raises:
        CheckpointError: the classes are not as many as the outputs, or as the thresholds; a threshold is none; a name
            holds line breaks, other control characters or what is no text (folders whose names are not UTF-8).
    """

    arch: str
    num_classes: int
    preset: Preset
    in_channels: int = 3
    name: str = ""
    labels: str = ""
    class_ids: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    activation: Activation = "softmax"
    thresholds: tuple[float, ...] = ()
    outputs: tuple[Output, ...] = ("logits",)
    origin: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        for kind, names in (
            ("architecture", (self.arch,)),
            ("model name", (self.name,)),
            ("class", self.class_ids),
            ("class name", self.class_names),
        ):
            for name in names:
                if problem := _problem(name):
                    raise CheckpointError(f"the {kind} {name[:80]!a} {problem}")
        if len(self.class_ids) != len(self.class_names):
            raise CheckpointError(f"{len(self.class_ids)} classes have {len(self.class_names)} names")
        named = {len(label_set(self.labels))} if self.labels else set[int]()
        if self.class_ids:
            named.add(len(self.class_ids))
        if named - {self.num_classes}:
            raise CheckpointError(f"{max(named)} classes are named, but the network has {self.num_classes}")
        check_thresholds(self.thresholds, self.num_classes, self.activation)

    @classmethod
    def published(cls, entry: Entry, **origin: object) -> Metadata:
        """What a file with the network of a catalog row says of itself."""
        return cls(
            arch=entry.arch,
            name=entry.name,
            num_classes=entry.num_classes,
            preset=entry.preset,
            labels=entry.labels,
            origin=origin,
        )

    def classes(self, name: str) -> LabelSet:
        """The classes in the order of the outputs; `name` is what a set of the model's own is called."""
        if self.labels:
            return label_set(self.labels)
        ids = self.class_ids or tuple(map(str, range(self.num_classes)))
        # Own classes have one name, whatever the language.
        return LabelSet(name, ids, dict.fromkeys(LANGUAGES, self.class_names or ids))

    def to_json(self) -> str:
        """One JSON object; what is no text in `origin`, such as the name of a folder, is escaped."""
        values = {"format": _FORMAT, **asdict(self), "preset": self.preset.to_dict()}
        return json_text(json.dumps(values, ensure_ascii=False))

    @classmethod
    def from_json(cls, content: str) -> Metadata:
        """Inverse of `to_json`; raises `Error` for anything else, naming the entry."""
        table = Table("metadata", _parsed(content), CheckpointError)
        version = table.take("format", positive_integer)
        if version != _FORMAT:
            raise table.error("format", f"{version} is not {_FORMAT}: it needs another version of torchclas")
        metadata = cls(
            arch=table.take("arch", text),
            num_classes=table.take("num_classes", integer_within(1, MAX_CLASSES)),
            preset=Preset.from_dict(table.take("preset", mapping)),
            in_channels=table.take("in_channels", integer_within(1, MAX_CHANNELS), 3),
            name=table.take("name", text, ""),
            labels=table.take("labels", text, ""),
            class_ids=table.take("class_ids", texts, ()),
            class_names=table.take("class_names", texts, ()),
            activation=cast("Activation", table.take("activation", one_of(Activation), cls.activation)),
            thresholds=table.take("thresholds", numbers, ()),
            outputs=table.take("outputs", _outputs, ("logits",)),
            origin=table.take("origin", _origin, dict[str, object]()),
        )
        table.close()
        return metadata


def check_thresholds(thresholds: tuple[float, ...], num_classes: int, activation: Activation) -> None:
    """Raise `CheckpointError` unless there is one in 0..1 for each class of a sigmoid, or none at all."""
    if not thresholds:
        return
    if activation == "softmax":
        raise CheckpointError("thresholds of classes go with sigmoid; with softmax an image has one class")
    if len(thresholds) != num_classes:
        raise CheckpointError(f"{len(thresholds)} thresholds for {num_classes} classes")
    if not all(0 <= threshold <= 1 for threshold in thresholds):
        raise CheckpointError("a threshold is a score in 0..1")


def read_metadata(path: str | Path) -> Metadata:
    """The metadata of a checkpoint or of an exported model; raises `CheckpointError` for a file without."""
    path = Path(path)
    metadata = find_metadata(path)
    if metadata is None:
        hint = f"say which model it is (`-m NAME --weights {path}`)"
        if path.suffix in exported.SUFFIXES:
            hint = "its classes and preprocessing are unknown: write it with `torchclas export`"
        raise CheckpointError(f"{path}: a file without torchclas metadata: {hint}")
    return metadata


def find_metadata(path: Path) -> Metadata | None:
    """`read_metadata`, but None for weights and models that others wrote; still raises for what is no model at all."""
    match kind_of(path):
        case "safetensors":
            content = _of_safetensors(path)
        case "onnx" | "openvino" | "runtime":
            content = exported.read_note(path, KEY)
        case "torch" | "paddle" | "inference":
            return None
    if content is None:
        return None
    try:
        return Metadata.from_json(content)
    except Error as error:
        raise CheckpointError(f"{path}: its torchclas metadata is damaged ({error})") from error


def origin_of(path: Path) -> Mapping[str, Any]:
    """Where the weights in a file come from, as far as it is known; others' files are their own origin."""
    metadata = find_metadata(path)
    return {"source": path.name} if metadata is None else metadata.origin


def _parsed(content: str) -> Mapping[str, object]:
    if len(content) > _MAX_CHARACTERS:
        raise CheckpointError(f"it has {len(content):,} characters")
    try:
        values: object = json.loads(content)
    except RecursionError:
        raise CheckpointError("it is nested without end") from None
    except ValueError as error:
        raise CheckpointError(f"it is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError("it is not an object in JSON")
    return cast("Mapping[str, object]", values)


def _outputs(value: object) -> tuple[Output, ...]:
    given = sequence(value)
    outputs: tuple[Output, ...] = tuple(name for name in OUTPUTS if name in given)
    if len(outputs) != len(given) or not outputs:
        raise ValueError(f"a list of some of {', '.join(OUTPUTS)}")
    return outputs


def _origin(value: object) -> Mapping[str, object]:
    """A table of plain values."""
    _check_depth(value, _MAX_DEPTH)
    return mapping(value)


def _check_depth(value: object, levels: int) -> None:
    parts = cast("Mapping[str, object]", value).values() if isinstance(value, Mapping) else value
    if isinstance(parts, str | int | float | None):
        return
    if levels == 0:
        raise ValueError(f"a table nested at most {_MAX_DEPTH} levels deep")
    for part in cast("Iterable[object]", parts):
        _check_depth(part, levels - 1)


def _problem(name: str) -> str | None:
    """What keeps a name from being written into a line of UTF-8."""
    if len(name) > _MAX_NAME:
        return f"has {len(name):,} characters"
    if name.isprintable():
        return None
    kinds = set(map(unicodedata.category, name))
    if "Cs" in kinds:
        return "holds bytes that are no text: rename it in UTF-8"
    return "holds a line break or another control character: rename it" if kinds & {"Cc", "Zl", "Zp"} else None


def _of_safetensors(path: Path) -> str | None:
    from safetensors import SafetensorError, safe_open  # its NumPy part costs what exported models need not pay

    try:
        with utf8_path(path) as opened, safe_open(opened, framework="np") as file:
            return (file.metadata() or {}).get(KEY)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
