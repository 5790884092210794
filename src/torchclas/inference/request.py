"""What decides the rows of a classifier: where two agree in this, so do their rows."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import PIL

from torchclas.engines.engine import version
from torchclas.errors import CheckpointError
from torchclas.spec import ModelSpec
from torchclas.version import __version__

if TYPE_CHECKING:
    from torchclas.inference.classifier import Classifier


class WeightsFiles:
    """The files of a model's weights, as they were when this was made: right before the model was opened."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self._states = {path: _state(path) for path in spec.files}

    def identity(self) -> str:
        """What tells the weights from others: the name of published ones, or the SHA-256 of their files.

        Raises CheckpointError: they cannot be read, or have changed meanwhile.
        """
        content = "+".join(self.spec.content())
        for path, state in self._states.items():
            if _state(path) != state:
                raise CheckpointError(f"{path} was written while it was read: run the same again")
        return f"sha256:{content}" if self._states else content


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


def _state(path: Path) -> tuple[int, int]:
    try:
        file = path.stat()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    return file.st_size, file.st_mtime_ns


def _digest(*values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
