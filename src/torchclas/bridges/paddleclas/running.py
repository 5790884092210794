"""A project as what commands are asked for; options that are given beside its configuration come first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from torchclas import catalog
from torchclas.bridges.paddleclas.account import ConfigError, Finding, Stage
from torchclas.bridges.paddleclas.data import ImageList
from torchclas.bridges.paddleclas.project import Project, open_project
from torchclas.catalog import Preset
from torchclas.data.opening import names_beside
from torchclas.errors import DataError
from torchclas.labels import LabelSet, read_names
from torchclas.recipes import Recipe
from torchclas.sizes import Size
from torchclas.training.options import DistillOptions, RunOptions
from torchclas.vocabulary import Activation

Options = TypeVar("Options", bound=RunOptions)


@dataclass(frozen=True)
class Training:
    """What a configuration adds to the options of a run, which have what they can say of it.

    `recipe` and `preset` are None where the options choose themselves; `size` is that of training images.
    """

    project: Project
    recipe: Recipe | None
    preset: Preset | None
    size: Size | None
    val_root: str | Path | None
    notes: tuple[str, ...]

    def names(self, classes: LabelSet) -> tuple[str, ...] | None:
        """What the network's outputs are called, of a model whose classes begin as these."""
        network = self.project.network
        return None if network is None else class_names(self.project, network.classes, classes)


def training(options: Options) -> tuple[Options, Training | None]:
    """The options of a run with what its configuration says, where it has one.

    Raises:
        ConfigError: the configuration asks for what is not supported, and the options are not lenient.
        What `open_project` does.
    """
    if options.config is None:
        if options.config_overrides:
            raise ConfigError(
                f"--override {options.config_overrides[0]} changes a configuration of PaddleClas, and none is named: "
                "--config FILE does; our recipes are changed by --set"
            )
        return options, None
    project = open_project(options.config, options.config_overrides, devices=options.devices)
    network = project.require("train", lenient=options.lenient)
    distills = isinstance(options, DistillOptions)
    if project.distills != distills:
        command = "distill" if project.distills else "train"
        raise ConfigError(
            f"{options.config}: `torchclas {command} --config {options.config}` follows this configuration"
        )
    images = project.train
    if options.data is None and images is None:
        raise ConfigError(f"{options.config}: DataLoader.Train names no list of images: give the images as well")
    recipe = None if options.recipe else project.recipe
    weights = project.weights or network.weights
    changes: dict[str, object] = {
        "model": options.model or network.model,
        "seed": options.seed or project.seed,
        "device": project.device if options.device == "auto" else options.device,
        "output": options.output or project.output,
        "start": options.start or (str(weights) if weights else "pretrained" if network.pretrained else "scratch"),
    }
    if recipe is not None:
        changes["batch_size"] = options.batch_size or recipe.total_batch
        if project.accumulate > 1:
            changes["accumulate"] = options.accumulate or project.accumulate
    val_root = None
    if options.data is None and images is not None:
        changes |= {"data": images.path, "root": options.root or images.root, "relabel": images.relabel}
        changes["delimiter"] = images.delimiter if options.delimiter == " " else options.delimiter
        if options.val is None and project.evaluation is not None:
            changes["val"], val_root = project.evaluation.path, options.root or project.evaluation.root
    if isinstance(options, DistillOptions):
        changes["teacher_bn"] = "train"  # as PaddleClas's teachers are
    return replace(options, **changes), Training(
        project,
        recipe=recipe,
        preset=project.preset,
        size=None if recipe is None else recipe.size,
        val_root=val_root,
        notes=_notes(project, "train"),
    )


@dataclass(frozen=True)
class Use:
    """What a configuration says of measuring or using a model; `weights` is None for the published ones."""

    model: str
    weights: Path | None
    preset: Preset | None
    activation: Activation | None
    threshold: float | None
    max_fpr: float | None
    labels: tuple[str, ...] | None
    images: ImageList | None
    sources: tuple[str, ...]
    batch_size: int | None
    top_k: int | None
    device: str
    size: Size | None
    output: Path
    notes: tuple[str, ...]


def using(
    config: Path,
    overrides: Sequence[str],
    stage: Stage,
    *,
    model: str | None = None,
    weights: Path | None = None,
    lenient: bool = False,
) -> Use:
    """What a configuration says for `evaluate`, `predict` or `export`.

    A model, or weights, that are given take the place of its own.

    Raises:
        ConfigError: it asks for what is not supported and nobody is lenient, or it names no weights.
        What `open_project` does.
    """
    project = open_project(config, overrides)
    network = project.require(stage, lenient=lenient)
    if model is None:
        weights = weights or project.weights or network.weights
        model = network.arch if weights is not None else network.model
    published = network.pretrained and network.classes in (None, catalog.find(network.model).num_classes)
    if weights is None and not published and model == network.model:
        raise ConfigError(
            f"{config}: it names no weights of a trained {network.arch}: give them by --weights FILE, -m FOLDER of a "
            "run, or --override Global.pretrained_model=FILE"
        )
    images = project.evaluation if stage == "evaluate" else None
    return Use(
        model=model,
        weights=weights,
        preset=project.infer_preset if stage == "predict" else project.preset,
        activation="sigmoid" if project.multi_label else None,
        threshold=project.infer.threshold,
        max_fpr=project.max_fpr,
        labels=_given_names(project, network.classes),
        images=images,
        sources=project.infer.images,
        batch_size=project.infer.batch_size if stage == "predict" else None if images is None else images.batch_size,
        top_k=project.infer.top_k,
        device=project.device,
        size=project.export_size,
        output=project.export_folder,
        notes=_notes(project, stage),
    )


def class_names(project: Project, count: int | None, model: LabelSet) -> tuple[str, ...] | None:
    """What the outputs of a network with `count` classes are called; None where the data decides how many there are.

    The file that the configuration names, one beside the training list, the model's own classes where they are as many,
    or else numbers.
    """
    if count is None:
        return None
    if (given := _given_names(project, count)) is not None:
        return given
    if project.train is not None and project.train.path.is_file():
        for file in names_beside(project.train.path):
            try:
                return read_names(file, count)
            except DataError:
                continue
    if project.train is not None and project.train.relabel:
        return None  # the list's own numbers
    return model.ids if len(model) == count else tuple(map(str, range(count)))


def _given_names(project: Project, count: int | None) -> tuple[str, ...] | None:
    """The names that the configuration gives, or the file that it names, where that is here and has as many."""
    infer = project.infer
    if infer.labels is not None and infer.labels.is_file():
        names = read_names(infer.labels)
        return names if count in (None, len(names)) else None
    return infer.pair if infer.pair is not None and count in (None, 2) else None


def _notes(project: Project, stage: Stage) -> tuple[str, ...]:
    """What to say of the keys that are left out."""
    left_out = project.unsupported(stage)
    idle: list[Finding] = [each for each in project.findings if each.effect == "none" and stage in each.stages]
    notes = [f"left out: {each.key}: {each.why}" for each in left_out]
    if idle:
        some = ", ".join(each.key for each in idle[:3])
        more = " …" if len(idle) > 3 else ""
        notes.append(f"of no effect here: {some}{more} (`torchclas migrate {project.path}` says why)")
    return tuple(notes)
