"""Where the published weights of a model come from, and where they are kept; asking costs no import of torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

from torchclas.catalog import Entry, WeightsFile
from torchclas.errors import CheckpointError
from torchclas.weights import cache
from torchclas.weights.kinds import PARAMETERS, files_of

BEST = "best.safetensors"  # of a run's folder
PADDLE_BEST = "best_model.pdparams"  # of PaddleClas's
CONFIG = "config.json"  # of a folder that timm wrote
TIMM_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def checkpoint(path: str | Path) -> Path:
    """The file that `path` stands for: itself, or for the folder of a run its best weights.

    An inference model of Paddle, its folder or either file, is the file with its program. PaddleClas names files of
    weights without their suffix (`output/ResNet50/best_model`), which does here as well; of a folder that it writes,
    `best_model.pdparams` is taken, or the only `.pdparams`. A folder that timm or transformers wrote (`config.json`) is
    its file of weights.

    Raises CheckpointError: a folder without any, or half an inference model.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists() and (whole := without_suffix(path)) is not None:
            return whole
        return files_of(path)[0] if path.suffix.lower() == PARAMETERS and path.is_file() else path
    if (path / BEST).is_file():
        return path / BEST
    if (path / PADDLE_BEST).is_file():
        return path / PADDLE_BEST
    if (path / CONFIG).is_file() and (kept := [name for name in TIMM_WEIGHTS if (path / name).is_file()]):
        return path / kept[0]
    if len(exported := list(path.glob(f"*{PARAMETERS}"))) == 1:
        return files_of(exported[0])[0]
    if len(tensors := [file for file in path.glob("*.pdparams") if not file.name.endswith(".ema.pdparams")]) == 1:
        return tensors[0]
    if (path / "run.json").is_file():
        raise CheckpointError(f"{path}: the run has no {BEST} yet: its first epoch is not over")
    files = sorted(
        file.name
        for file in path.iterdir()
        if file.suffix in (".safetensors", ".pdparams", ".pth", ".onnx", PARAMETERS)
    )
    hint = f"name the file: {', '.join(files[:3])}" if files else "name a file of weights, or the folder of a run"
    raise CheckpointError(f"{path}: a folder without {BEST}: {hint}")


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
