"""What a run will do: the plan that `train` and `distill` share, and the choices that both make alike."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from torchclas import models
from torchclas.catalog import Preset
from torchclas.data.augment import TrainTransform
from torchclas.data.datasets import LabelledImages, Subset
from torchclas.data.multi_label import is_multi_label
from torchclas.data.opening import fingerprint
from torchclas.data.stores import absolute
from torchclas.data.training import TrainingBatches, class_weights, exponential_weights, sampling_weights
from torchclas.errors import DownloadError, Error
from torchclas.labels import LabelSet
from torchclas.layers.drop_path import DropPath
from torchclas.layers.dropout import DownscalingDropout
from torchclas.layers.network import Network
from torchclas.recipes import Recipe, override, recipes
from torchclas.sizes import Size, parse_size
from torchclas.spec import ModelSpec
from torchclas.text import printable
from torchclas.training.loop import Criterion, Settings
from torchclas.training.losses import classification_loss
from torchclas.training.options import RunOptions, Start
from torchclas.training.run import FINGERPRINT, RunFolder
from torchclas.vocabulary import Strategy
from torchclas.weights.metadata import Metadata
from torchclas.zoo import load_model

if TYPE_CHECKING:
    from lightning_fabric import Fabric

from torchclas.training.machine import parts_of_a_step, processes

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
VALIDATION_SHARE = 0.2  # of the images, where none are named for validation
STEPS_PER_EPOCH = 16  # at least: few images come in smaller batches …
LEAST_BATCH = 8  # … but no smaller than that


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A training run as it will be, all choices made. Every process gets a copy."""

    model: ModelSpec
    pretrained: bool
    keep_head: bool
    settings: Settings
    preset: Preset
    train: LabelledImages
    validation: LabelledImages
    classes: tuple[str, ...]
    metadata: Metadata
    output: Path
    total_batch: int
    identity: Mapping[str, Any]
    device: str = "auto"
    devices: int = 1
    strategy: Strategy = "ddp"
    workers: int = 0
    notes: tuple[str, ...] = ()

    @property
    def folder(self) -> RunFolder:
        """Where it goes."""
        return RunFolder(self.output, self.metadata)

    def batches(self, fabric: Fabric) -> TrainingBatches:
        """What this process trains on."""
        recipe = self.settings.recipe
        return TrainingBatches(
            self.train,
            TrainTransform(recipe.augment, self.preset, recipe.size, self.model.in_channels),
            self.total_batch,
            seed=self.settings.seed,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            workers=self.workers,
            pin_memory=fabric.device.type == "cuda",
            drop_last=recipe.drop_last,
            weights=sampling_weights(self.train.labels, recipe.sampling),
        )

    def criterion(self, fabric: Fabric) -> Criterion:
        """What is minimised."""
        loss, weights = self.settings.recipe.loss, self.class_weights
        return lambda images, outputs, targets: classification_loss(outputs, targets, loss, weights)

    @property
    def class_weights(self) -> torch.Tensor | None:
        """How much an image of each class counts in the loss; None where all count alike."""
        chosen = self.settings.recipe.loss.class_weights
        if not chosen:
            return None
        if chosen == "exponential":
            return exponential_weights(self.train.labels)
        numbers = None if isinstance(chosen, str) else chosen
        return class_weights(self.train.labels, len(self.classes), numbers)


class Given(Protocol):
    """What a project of another library adds to the options of a run; None where the options choose themselves."""

    @property
    def recipe(self) -> Recipe | None:
        """How to train."""
        ...

    @property
    def preset(self) -> Preset | None:
        """How images are prepared to be measured."""
        ...

    @property
    def size(self) -> Size | None:
        """The size of training images."""
        ...

    @property
    def val_root(self) -> str | Path | None:
        """The folder of the validation list's paths."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What to say of it."""
        ...

    def names(self, classes: LabelSet) -> tuple[str, ...] | None:
        """What the outputs are called, of a model whose classes begin as these."""
        ...


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What `train` and `distill` each decide in their own way; `result` is the model that comes out."""

    model: ModelSpec
    start: Start
    keep_head: bool
    recipe: Recipe
    preset: Preset
    train: LabelledImages
    validation: LabelledImages
    result: ModelSpec
    output: Path
    total_batch: int
    head_epochs: int = 0
    notes: tuple[str, ...] = ()


def base_plan(
    options: RunOptions, chosen: Choices, *, command: str, identity: Mapping[str, Any], **origin: object
) -> Plan:
    """The plan of a run, in which all runs are alike.

    `identity` is what, beside the common settings, must be the same for a run to go on; `origin` what the checkpoint
    says of its making beside the common facts.
    """
    recipe, total = chosen.recipe, chosen.total_batch
    hub = None if chosen.start.kind == "scratch" else chosen.model.address
    start = str(chosen.start if hub is None else hub)
    data = absolute(source_of(options))
    accumulate, why = parts_of_a_step(options, chosen.output, chosen.model, chosen.result.num_classes, recipe, total)
    return Plan(
        model=chosen.model,
        pretrained=chosen.start.kind != "scratch",
        keep_head=chosen.keep_head,
        settings=Settings(
            recipe=recipe,
            lr=recipe.optimizer.lr * total / recipe.total_batch,
            seed=options.seed,
            accumulate=accumulate,
            head_epochs=chosen.head_epochs,
            early_stop=options.early_stop,
            checkpoint_steps=options.checkpoint_steps,
            compile=options.compile,
        ),
        preset=chosen.preset,
        train=chosen.train,
        validation=chosen.validation,
        classes=chosen.result.classes.ids,
        metadata=chosen.result.metadata(
            trained_by=f"torchclas {command}",
            recipe=recipe.name,
            **origin,
            **{"from": start},
            model=chosen.model.name if chosen.model.path is None else chosen.model.file_name,
            data=printable(Path(data).name),
            train_images=len(chosen.train),
            val_images=len(chosen.validation),
            held_out=options.val is None and isinstance(chosen.validation, Subset),
        ),
        output=chosen.output,
        total_batch=total,
        identity={
            "command": command,
            "data": str(data),
            "val": None if options.val is None else str(absolute(options.val)),
            "from": start,
            "images": len(chosen.train),
            FINGERPRINT: f"{fingerprint(chosen.train)} {fingerprint(chosen.validation)}",
            "seed": options.seed,
            "total_batch": total,
            "accumulate": accumulate,
            "early_stop": options.early_stop,
            **identity,
        },
        device=options.device,
        devices=options.devices,
        strategy=options.strategy,
        workers=max(0, min(8, os.cpu_count() or 1) - 1) if options.workers is None else options.workers,
        notes=(*chosen.notes, *why),
    )


def source_of(options: RunOptions) -> str | Path:
    """The images to train on; raises `Error` where nobody named any."""
    if options.data is None:
        raise Error(
            "which images? Name a folder of class folders or a list file, or a configuration of PaddleClas that does "
            "(--config FILE)"
        )
    return options.data


def with_loss(recipe: Recipe, images: LabelledImages) -> Recipe:
    """The recipe with a loss that goes with the labels; raises `Error` where another was asked for."""
    if not is_multi_label(images):
        if recipe.loss.class_weights == "exponential":
            raise Error(
                "loss.class_weights=exponential is for images with any number of classes: balanced is for these"
            )
        if recipe.loss.name == "cross_entropy":
            return recipe
        raise Error(f"loss.name={recipe.loss.name} is for images with any number of classes, and these have one each")
    if recipe.loss.name != "cross_entropy":
        return recipe
    return replace(recipe, loss=replace(recipe.loss, name="bce"))


def check_balance(recipe: Recipe, images: LabelledImages, classes: Sequence[str]) -> None:
    """Raise `Error` where the recipe's weights of classes are not those of the data."""
    weights = recipe.loss.class_weights
    if isinstance(weights, tuple) and len(weights) != len(classes):
        raise Error(
            f"loss.class_weights has {len(weights)} numbers, the data {len(classes)} classes: give one for each, "
            f"in the order {', '.join(classes[:5])}{', …' if len(classes) > 5 else ''}"
        )
    if isinstance(weights, tuple):
        class_weights(images.labels, len(classes), weights)


def total_batch(
    options: RunOptions, recipe: Recipe, batch_size: int | None, images: int
) -> tuple[int, tuple[str, ...]]:
    """Images of each step where a recipe for large data is followed, and what to say about it.

    Few images come in smaller batches than the recipe's, or there would be hardly any steps. `batch_size` is what was
    asked for.
    """
    world, _ = processes(options.devices)
    usual = recipe.batch_size * options.devices
    chosen = batch_size or (usual if any(change.startswith("batch_size") for change in options.overrides) else None)
    if chosen is not None:
        return min(chosen, images), ()
    fitting = max(batch_for(images), 2 * world)
    if usual <= fitting:
        return min(usual, images), ()
    total = min(fitting, images)
    return total, (
        f"{images:,} images are few for {recipe.name}, a recipe with batches of {usual}: they come in batches of "
        f"{total}, with the learning rate in proportion (--batch-size chooses otherwise). Of so few, a network that "
        "starts from published weights learns far more",
    )


def batch_for(images: int) -> int:
    """How many images of few should come at once."""
    share = max(1, images // STEPS_PER_EPOCH)
    return max(LEAST_BATCH, 2 ** (share.bit_length() - 1))


def adjust(chosen: Recipe, options: RunOptions, arch: str) -> Recipe:
    """The recipe with the epochs, precision and settings that the options ask for, for this architecture's heads."""
    if options.epochs is not None:
        warmup = min(chosen.schedule.warmup_epochs, options.epochs / 4)
        chosen = replace(chosen, epochs=options.epochs, schedule=replace(chosen.schedule, warmup_epochs=warmup))
    if options.precision is not None:
        chosen = override(chosen, [f"precision={PRECISIONS[options.precision]}"])
    if arch in recipes():  # which knows how many heads there are
        heads = recipes()[arch].loss.head_weights
        if len(heads) != len(chosen.loss.head_weights):
            chosen = replace(chosen, loss=replace(chosen.loss, head_weights=heads))
    if options.size is not None:
        chosen = chosen.at(parse_size(options.size))
    if options.fit is not None:
        chosen = chosen.fitted(options.fit)
    chosen = override(chosen, options.overrides)
    if options.strategy == "fsdp" and chosen.precision == "16-mixed":
        raise Error("--strategy fsdp does not scale gradients as fp16 needs it: use --precision bf16")
    if chosen.optimizer.clip_each and (options.strategy == "fsdp" or chosen.precision == "16-mixed"):
        raise Error(
            "optimizer.clip_each goes neither with --strategy fsdp nor with fp16: use --precision bf16, or clip"
        )
    return chosen


def preset_at(preset: Preset, recipe: Recipe, *, whole: bool = False) -> Preset:
    """Evaluation at the recipe's size, of the same share of the image, or as FixRes does of its whole short side."""
    preset = preset.fitted(recipe.fit or preset.fit)
    return replace(preset, size=recipe.size, resize_short=min(recipe.size)) if whole else preset.at(recipe.size)


def build_network(plan: Plan) -> Network:
    """The network as the run starts: its weights, a fresh classifier for other classes, its size and regularisation."""
    torch.manual_seed(plan.settings.seed)
    recipe, spec = plan.settings.recipe, plan.model
    if plan.pretrained:
        try:
            # Loaded tensors may be views of a file; training writes to its own.
            network = copy.deepcopy(load_model(spec)).train()
        except DownloadError as error:
            raise DownloadError(f"{error}; or train without them: --from scratch") from error
        if not plan.keep_head:
            network.reset_classifier(len(plan.classes))
    else:
        network = models.build(spec.arch, num_classes=len(plan.classes), in_channels=spec.in_channels)
    network.set_input_size(plan.preset.size)
    set_regularisation(network, recipe)
    return network


def set_regularisation(network: nn.Module, recipe: Recipe) -> None:
    """Give the network the recipe's dropout and stochastic depth, which rises from 0 to `drop_path` over the blocks."""
    if recipe.dropout is not None:
        for module in network.modules():
            if isinstance(module, (nn.Dropout, DownscalingDropout)):
                module.p = recipe.dropout
    if recipe.drop_path is not None:
        blocks = [module for module in network.modules() if isinstance(module, DropPath)]
        for index, module in enumerate(blocks):
            module.p = recipe.drop_path * index / max(1, len(blocks) - 1)
