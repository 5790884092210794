"""What a model file says of itself, in safetensors as in exported formats; reading it costs no import of torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torchclas.catalog import Preset
from torchclas.errors import CheckpointError
from torchclas.weights import exported
from torchclas.weights.kinds import kind_of

KEY = "torchclas"  # of the file's own metadata
_FORMAT = 1


@dataclass(frozen=True)
class Metadata:
    """What a checkpoint says of itself.

    `labels` names a published label set, or `class_ids` and `class_names` list the model's own classes in order.
    `origin` tells where the weights came from: URL, sha256, training run.
    """

    arch: str
    num_classes: int
    preset: Preset
    in_channels: int = 3
    name: str = ""
    labels: str = ""
    class_ids: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps({"format": _FORMAT, **asdict(self), "preset": self.preset.to_dict()}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Metadata:
        """Inverse of `to_json`; raises ValueError, TypeError or KeyError for anything else."""
        values = json.loads(text)
        version = values.pop("format")
        if version != _FORMAT:
            raise ValueError(f"format {version} is not {_FORMAT}: it needs another version of torchclas")
        values["preset"] = Preset.from_dict(values["preset"])
        for key in ("class_ids", "class_names"):
            values[key] = tuple(values[key])
        return cls(**values)


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
            text = _of_safetensors(path)
        case "onnx" | "openvino":
            text = exported.read_note(path, KEY)
        case "torch" | "paddle":
            return None
    if text is None:
        return None
    try:
        return Metadata.from_json(text)
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: its torchclas metadata is damaged ({error})") from error


def origin_of(path: Path) -> Mapping[str, Any]:
    """Where the weights in a file come from, as far as it is known; others' files are their own origin."""
    metadata = find_metadata(path)
    return {"source": path.name} if metadata is None else metadata.origin


def _of_safetensors(path: Path) -> str | None:
    from safetensors import SafetensorError, safe_open  # its NumPy part costs what exported models need not pay

    try:
        with safe_open(path, framework="np") as file:
            return (file.metadata() or {}).get(KEY)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
