"""Train a model: by its published recipe, or from published weights on a folder of pictures."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.util import find_spec
from typing import ParamSpec

from torchclas.bridges.paddleclas import training
from torchclas.counterparts import refuse
from torchclas.errors import MissingDependencyError
from torchclas.reporting.console import Console
from torchclas.reporting.training_display import TrainingObserver
from torchclas.training.launch import Summary, run
from torchclas.training.options import TrainOptions
from torchclas.training.train_plan import make_plan


def train(options: TrainOptions, console: Console | None = None) -> Summary:
    """Train, or go on with the run that the output folder holds, and write what came out into it.

    Raises:
        DataError, UnknownNameError, CheckpointError, DownloadError, RecipeError: something given cannot be used.
        RunError: the output folder holds another run, or something else.
        TrainingError: the loss is not finite.
        MissingDependencyError: the packages for training are not installed.
    """
    if find_spec("lightning_fabric") is None:
        raise MissingDependencyError("lightning-fabric", "'torchclas[train]'")
    return run(make_plan(*training(options)), TrainingObserver(console or Console(stderr=True)))


_Keywords = ParamSpec("_Keywords")


def _by_keywords(options: Callable[_Keywords, TrainOptions]) -> Callable[_Keywords, Summary]:
    """`train` with the fields of its options as arguments, so that these stand in one place alone."""

    def train_by_options(*args: _Keywords.args, **kwargs: _Keywords.kwargs) -> Summary:
        """Train a model, or fine-tune it on your images, as `torchclas train` does.

        ```python
        torchclas.train("photos", model="PPLCNet_x1_0", epochs=20, output="runs/mine")
        torchclas.Classifier("runs/mine").predict("cat.jpg")
        ```

        The arguments are those of the command: `data` (class folders, a list file, shards, or a folder with train and
        val), `model`, `val`, `recipe`, `start` (`--from`: `pretrained`, `scratch`, a weights file, or a run's folder),
        `epochs`, `batch_size`, `overrides` (`--set`: `["optimizer.lr=0.05"]`), `in_channels`, `output` …;
        `help(torchclas.training.options.TrainOptions)` lists all. The same call again goes on where a run was stopped.
        Progress is told on standard error. Returns what became of the run; `output / "best.safetensors"` has the
        weights, and top-1 there is in 0..1.

        Raises:
            DataError, UnknownNameError, CheckpointError, DownloadError, RecipeError: something given cannot be used.
            RunError: the output folder holds another run, or something else.
            TrainingError: the loss is not finite.
            MissingDependencyError: the packages for training are not installed.
            UnknownArgumentError: there is no such argument.
        """
        refuse("train", {name: None for name in kwargs if name not in known}, known)
        return train(options(*args, **kwargs))

    signature = inspect.signature(options)
    known = tuple(signature.parameters)
    train_by_options.__signature__ = signature.replace(return_annotation="Summary")  # pyright: ignore
    train_by_options.__name__ = train_by_options.__qualname__ = "train"
    return train_by_options


train_by_options = _by_keywords(TrainOptions)
