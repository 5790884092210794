"""Where the published weights of a model come from, and where they are kept; asking costs no import of torch."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from torchclas.catalog import Entry, WeightsFile
from torchclas.errors import CheckpointError
from torchclas.weights import cache
from torchclas.weights.kinds import PARAMETERS, files_of

BEST = "best.safetensors"  # of a run's folder
PADDLE_BEST = "best_model.pdparams"  # of PaddleClas's
CARD = "README.md"  # of a repository of the Hugging Face Hub, and of such a folder
CONFIG = "config.json"  # of a folder that timm wrote
TIMM_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # of such a folder, and of those of transformers


def checkpoint(path: str | Path) -> Path:
    """The file that `path` stands for: itself, or for the folder of a run its best weights.

    An inference model of Paddle, its folder or either file, is the file with its program. PaddleClas names files of
    weights without their suffix (`output/ResNet50/best_model`), which does here as well; of a folder that it writes,
    `best_model.pdparams` is taken, or the only `.pdparams`. A folder that timm or transformers wrote is its file of
    weights.

    Raises CheckpointError: a folder without any, or half an inference model.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists() and (whole := without_suffix(path)) is not None:
            return whole
        return files_of(path)[0] if path.suffix.lower() == PARAMETERS and path.is_file() else path
    if (found := weights_in([file.name for file in path.iterdir() if file.is_file()])) is not None:
        return files_of(path / found)[0] if found.endswith(PARAMETERS) else path / found
    if (path / "run.json").is_file():
        raise CheckpointError(f"{path}: the run has no {BEST} yet: its first epoch is not over")
    files = sorted(
        file.name
        for file in path.iterdir()
        if file.suffix in (".safetensors", ".pdparams", ".pth", ".onnx", PARAMETERS)
    )
    hint = f"name the file: {', '.join(files[:3])}" if files else "name a file of weights, or the folder of a run"
    raise CheckpointError(f"{path}: a folder without {BEST}: {hint}")


def weights_in(names: Collection[str]) -> str | None:
    """Which of the files of a folder are its weights, by their names; None where none are, or it could be several."""
    for name in (BEST, PADDLE_BEST, *TIMM_WEIGHTS):
        if name in names:
            return name
    for ending in (PARAMETERS, ".pdparams"):
        found = [name for name in names if name.endswith(ending) and not name.endswith(".ema.pdparams")]
        if len(found) == 1:
            return found[0]
    return None


def without_suffix(path: Path) -> Path | None:
    """The file of weights, or the program of an inference model, whose name without its suffix `path` is."""
    if (weights := path.with_name(f"{path.name}.pdparams")).is_file():
        return weights
    parameters = path.with_name(f"{path.name}{PARAMETERS}")
    return files_of(parameters)[0] if parameters.is_file() else None


def weights_file(entry: Entry) -> WeightsFile:
    """The published file of `entry`; raises `CheckpointError` where there never was one."""
    if entry.weights is None:
        hint = f"`torchclas info {entry.name}` says more"
        if entry.quantized_from is not None:
            hint = (
                f"make them from {entry.quantized_from}'s with `torchclas quantize {entry.name} --calibration FOLDER` "
                "and some hundred of your images"
            )
        raise CheckpointError(f"{entry.name}: its weights were never published; {hint}")
    return entry.weights


def converted_name(entry: Entry) -> str:
    """The file name in the cache of `entry`'s weights in our own format."""
    weights = weights_file(entry)
    origin = weights.url or f"{weights.package}/{weights.path}"
    return f"{entry.name}-{hashlib.sha256(origin.encode()).hexdigest()[:8]}.safetensors"


def converted_path(entry: Entry) -> Path:
    """Where the weights of `entry` are once they have been fetched."""
    return cache.converted_path(converted_name(entry))


def quantized_path(entry: Entry) -> Path:
    """Where `torchclas quantize` puts a model that was never published as a file."""
    return cache.converted_path(f"{entry.name}.onnx")


def is_converted(entry: Entry) -> bool:
    """Whether the weights of `entry` are on this machine, ready to load."""
    return entry.weights is not None and converted_path(entry).is_file()
