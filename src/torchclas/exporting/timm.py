"""Networks as folders that timm opens: `timm.create_model("local-dir:FOLDER", pretrained=True)`.

The folder is the one that timm itself writes and that the Hugging Face Hub holds: weights under timm's names, and a
`config.json` with the architecture, the classes and the preprocessing. transformers' image classification reads it too.
Our own metadata stands in the file of weights, so that the folder is one of our models as well.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from torchclas.catalog import Preset
from torchclas.correspondence import Counterpart, counterparts
from torchclas.data.preprocess import Preprocess
from torchclas.errors import Error, MissingDependencyError
from torchclas.exporting.files import CARD, WEIGHTS
from torchclas.exporting.gate import pictures, relative_error
from torchclas.exporting.timm_page import Difference, OnTimm, card, said
from torchclas.labels import LabelSet
from torchclas.layers.network import Network
from torchclas.weights import libraries
from torchclas.weights.checkpoint import write_tensors
from torchclas.weights.location import CONFIG
from torchclas.weights.metadata import Metadata

_CROP_MODES = {"crop": "center", "squeeze": "squash", "pad": "border"}


def write_timm(network: Network, path: str | Path, metadata: Metadata) -> OnTimm:
    """Write a network in evaluation mode as a folder: `model.safetensors`, `config.json`, and a page about it.

    Raises:
        CheckpointError: timm has no network that computes the same.
        MissingDependencyError: timm is not installed.
    """
    path = Path(path)
    counterpart = counterparts("timm").get(network.arch)
    arguments = {} if counterpart is None else _arguments(counterpart, network)
    model: Any = None if counterpart is None else build(counterpart.name, network, arguments)
    tensors = libraries.theirs(network, "timm", {} if model is None else model.state_dict())
    assert counterpart is not None  # or `theirs` has said so
    path.mkdir(parents=True)
    write_tensors(tensors, path / WEIGHTS, metadata)
    config = _config(counterpart, model, metadata, arguments)
    (path / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    there = OnTimm(counterpart.name, said(_difference(network, config, metadata.preset), metadata))
    (path / CARD).write_text(card(there, metadata), encoding="utf-8")
    (path / WEIGHTS).chmod((path / CARD).stat().st_mode)  # safetensors' writer makes a file that nobody else can read
    return there


def build(name: str, network: Network, arguments: dict[str, Any]) -> Any:
    """timm's network `name` for the classes and channels of ours, with fresh weights."""
    try:
        import timm
    except ImportError:
        raise MissingDependencyError("timm", "'torchclas[timm]'") from None
    try:
        return timm.create_model(name, num_classes=network.num_classes, **arguments).eval()
    except (RuntimeError, TypeError) as error:  # an older timm has no such network, or no such argument
        raise Error(f"timm {timm.__version__} cannot make {name}: use a newer one ({error})") from error


class TimmFolder:
    """A folder as timm opens it."""

    def __init__(self, path: Path) -> None:
        import timm

        self._model: Any = timm.create_model(f"local-dir:{path}", pretrained=True).eval()

    @torch.no_grad()
    def __call__(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Logits [N, classes]."""
        return {"logits": self._model(torch.from_numpy(images)).numpy()}

    def layers(self, images: NDArray[Any]) -> Iterable[tuple[str, NDArray[Any]]]:
        """None: timm's modules are others than ours."""
        return ()


def _arguments(counterpart: Counterpart, network: Network) -> dict[str, Any]:
    arguments = dict(counterpart.arguments)
    if network.in_channels != 3:
        arguments["in_chans"] = network.in_channels
    if network.input_size is not None:
        arguments["img_size"] = list(network.input_size)
    return arguments


# config.json


def _config(counterpart: Counterpart, model: Any, metadata: Metadata, arguments: dict[str, Any]) -> dict[str, Any]:
    """What timm and transformers look up; `pretrained_cfg` has timm's words for a preset."""
    preset = metadata.preset
    known: dict[str, Any] = dict(model.pretrained_cfg)
    config: dict[str, Any] = {
        "architecture": counterpart.name,
        "num_classes": metadata.num_classes,
        "num_features": model.num_features,
        "label_names": label_names(metadata.classes("")),
        "pretrained_cfg": {
            "tag": "torchclas",
            "custom_load": False,
            **pretrained_config(preset, metadata.in_channels),
            "fixed_input_size": "img_size" in arguments,
            "num_classes": metadata.num_classes,
            "pool_size": None,
            "first_conv": known.get("first_conv"),
            "classifier": known.get("classifier"),
        },
    }
    if arguments:
        config["model_args"] = arguments
    if metadata.activation == "sigmoid":
        config["problem_type"] = "multi_label_classification"  # transformers' word for sigmoid
    return config


def pretrained_config(preset: Preset, channels: int) -> dict[str, Any]:
    """A preset in timm's words: those of its `pretrained_cfg` that say how images are prepared."""
    mean, std = (
        list(values) if channels == 3 else [sum(values) / 3] * channels for values in (preset.mean, preset.std)
    )
    return {
        "input_size": [channels, *preset.size],
        "interpolation": preset.interpolation,
        "crop_pct": crop_share(preset),
        "crop_mode": _CROP_MODES[preset.fit],
        "mean": mean,
        "std": std,
    }


def label_names(classes: LabelSet) -> list[str]:
    """One name per class; those that several classes share are told apart by their ids."""
    names = classes.names()
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} ({key})" for key, name in zip(classes.ids, names, strict=True)]


def crop_share(preset: Preset) -> float:
    """timm's `crop_pct`: divided by it and rounded down, the size is that to which images are resized."""
    side = min(preset.size)
    if preset.fit != "crop" or preset.resize_short == side:
        return 1.0
    shares = [round(side / preset.resize_short, digits) for digits in range(3, 8)]
    return next(
        (share for share in shares if floor(side / share) == preset.resize_short), side / (preset.resize_short + 0.25)
    )


def _difference(network: Network, config: dict[str, Any], preset: Preset) -> Difference | None:
    """None for networks that take no RGB images."""
    from timm.data.config import resolve_data_config
    from timm.data.transforms_factory import create_transform

    if network.in_channels != 3:
        return None
    transform: Any = create_transform(**resolve_data_config(pretrained_cfg=config["pretrained_cfg"]))
    shown = pictures()
    ours = np.stack([Preprocess(preset).array(picture) for picture in shown])
    theirs = np.stack([transform(Image.fromarray(picture)).numpy() for picture in shown])
    with torch.no_grad():
        want, got = (network(torch.from_numpy(images)).numpy() for images in (ours, theirs))
    std = np.array(preset.std, np.float32)[:, None, None]
    levels = float((np.abs(ours - theirs) * std * 255).mean())
    return Difference(levels, relative_error(got, want), int((got.argmax(1) == want.argmax(1)).sum()), len(shown))
