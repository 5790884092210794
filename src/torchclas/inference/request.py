"""What decides the rows of a classifier: where two agree in this, so do their rows."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import PIL

from torchclas import catalog
from torchclas.digest import sha256_of
from torchclas.engines.engine import version
from torchclas.errors import CheckpointError
from torchclas.spec import ModelSpec
from torchclas.version import __version__
from torchclas.weights.exported import parts
from torchclas.weights.kinds import PARAMETERS, PROGRAMS, files_of
from torchclas.weights.location import converted_name

if TYPE_CHECKING:
    from torchclas.inference.classifier import Classifier


class WeightsFiles:
    """The files of a model's weights, as they were when this was made: right before the model was opened."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self._states = {} if spec.path is None else {path: _state(path) for path in _files(spec.path)}

    def identity(self) -> str:
        """What tells the weights from others: the name of published ones, or the SHA-256 of their files.

        Raises CheckpointError: they cannot be read, or have changed meanwhile.
        """
        if self.spec.path is None:
            return converted_name(catalog.find(self.spec.name)).removesuffix(".safetensors")
        try:
            identity = "sha256:" + "+".join(sha256_of(path) for path in self._states)
        except OSError as error:
            raise CheckpointError(f"{self.spec.path}: cannot be read ({error.strerror})") from error
        for path, state in self._states.items():
            if _state(path) != state:
                raise CheckpointError(f"{path} was written while it was read: run the same again")
        return identity


def request_of(classifier: Classifier) -> dict[str, object]:
    """What decides the predictions of a classifier, in values of JSON.

    Raises CheckpointError: its weights have changed since it was opened.
    """
    spec = classifier.spec
    thresholds = None if classifier.thresholds is None else _digest(*classifier.thresholds.tolist())
    return {
        "torchclas": __version__,
        "model": spec.name,
        "arch": spec.arch,
        "weights": classifier.weights_files.identity(),
        "classes": _digest(*spec.classes.ids, *classifier.names),
        "engine": f"{classifier.engine_name} ({version(classifier.engine.name)})",
        "threads": classifier.threads,
        "device": classifier.device,
        "decoders": {"opencv": cv2.__version__, "pillow": PIL.__version__},
        "preprocessing": None if spec.pixels else spec.preset.to_dict(),
        "channels": spec.in_channels,
        "tta": classifier.tta,
        "max_pixels": classifier.preprocess.max_pixels,
        "activation": spec.activation,
        "top_k": classifier.top_k,
        "thresholds": thresholds,
    }


def _files(path: Path) -> tuple[Path, ...]:
    """All files of a model, the one that names it first."""
    if path.suffix == ".xml":
        return path, path.with_suffix(".bin")
    if path.suffix in (PARAMETERS, *PROGRAMS):
        return files_of(path)
    if path.suffix == ".onnx" and (data := path.with_name(f"{path.name}.data")).is_file():
        return path, data
    return parts(path)


def _state(path: Path) -> tuple[int, int]:
    try:
        file = path.stat()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    return file.st_size, file.st_mtime_ns


def _digest(*values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
