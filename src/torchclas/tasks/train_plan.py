"""What a training run will do: every choice that its options leave open."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from torchclas import catalog, models
from torchclas.bridges.paddleclas import training
from torchclas.catalog import Preset
from torchclas.compat import BatchNorm
from torchclas.data.augment import TrainTransform
from torchclas.data.datasets import LabelledImages
from torchclas.data.multi_label import is_multi_label
from torchclas.data.opening import fingerprint, open_training
from torchclas.data.training import TrainingBatches, class_weights, sampling_weights, split_by_hash
from torchclas.errors import DataError, DownloadError, Error
from torchclas.labels import label_set, read_names
from torchclas.layers.drop_path import DropPath
from torchclas.layers.dropout import DownscalingDropout
from torchclas.layers.network import Network
from torchclas.recipes import Recipe, override, recipes
from torchclas.recipes import recipe as find_recipe
from torchclas.sizes import parse_size
from torchclas.spec import ModelSpec, find_model
from torchclas.text import printable
from torchclas.training.loop import Criterion, Settings
from torchclas.training.losses import classification_loss
from torchclas.training.memory import StepMemory, free_memory, step_memory
from torchclas.training.options import RunOptions, Start, TrainOptions
from torchclas.training.run import FINGERPRINT, RunFolder, stored
from torchclas.vocabulary import Strategy
from torchclas.weights.metadata import Metadata
from torchclas.zoo import load_model

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}

VALIDATION_SHARE = 0.2  # of the images, where none are named for validation
TUNING = ("finetune", "finetune_transformer")  # recipes that go on from weights
STEPS_PER_EPOCH = 16  # at least: few images come in smaller batches …
LEAST_BATCH = 8  # … but no smaller than that
LARGEST_SEED = 2**63 - 1  # of PyTorch's generators
LARGEST_PROCESSES = 1024


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
        numbers = None if isinstance(chosen, str) else chosen
        return class_weights(self.train.labels, len(self.classes), numbers)


def make_plan(options: TrainOptions) -> Plan:
    """Make every choice that the options leave open; nothing is written."""
    check_machine(options)
    options, given = training(options)
    asked = None if options.start is None else Start.of(options.start)
    spec = find_model(options.model, weights=asked and asked.path, headless=True)
    if options.in_channels is not None:
        spec = replace(spec, in_channels=options.in_channels)
    if given is not None and given.preset is not None:
        spec = replace(spec, preset=given.preset)
    start, notes = _start(options, asked, spec)
    labels = options.labels
    if given is not None:
        notes += given.notes
        labels = labels or given.names(spec.classes)
    if labels is not None and spec.path is not None and spec.numbered:
        named = isinstance(labels, Path)
        names = read_names(labels) if named else labels
        if len(names) == spec.num_classes and tuple(names) != spec.classes.ids:
            spec = spec.with_names(names)
            whose = labels if named else f"those of {options.config}"
            notes.append(f"{spec.path} does not name its {len(names)} classes: they are taken to be {whose}")
    recipe_given = None if given is None else given.recipe
    tunes = start.kind != "scratch" and options.recipe in (None, *TUNING) and recipe_given is None
    images, held_out, classes, taken = read_data(options, spec, labels, None if given is None else given.val_root)
    same_classes = classes == spec.classes.ids
    if start.kind != "scratch" and spec.path is not None and not same_classes:
        notes.append(_new_head(spec, classes))
    if options.fixres is not None and not same_classes:
        raise DataError(
            f"{source_of(options)}: FixRes keeps the classifier, so the data must have {spec.name}'s classes"
        )

    output = Path("runs", f"{Path(spec.name).stem}-{source_of(options).resolve().name}")
    output = output if options.output is None else options.output
    # A run goes on with its batches, however many devices there are now.
    batch_size = options.batch_size or stored(output).get("total_batch")
    recipe = with_loss(_recipe(options, spec, tunes, batch_size, len(images), recipe_given), images)
    check_balance(recipe, images, classes)
    if tunes:
        total, few = min(batch_size or recipe.total_batch, len(images)), ()
    else:
        total, few = total_batch(options, recipe, batch_size, len(images))
    head_epochs = options.head_epochs
    if head_epochs is None:
        head_epochs = int(tunes and not options.fixres and not same_classes and recipe.epochs > 1)
    preset = preset_at(spec.preset, recipe, whole=options.fixres is not None)
    if given is not None and given.preset is not None and given.size == recipe.size:
        preset = given.preset  # at the size that it has, which need not be that of training
    accumulate, why = parts_of_a_step(options, output, spec, len(classes), recipe, total)
    identity: dict[str, Any] = {
        "command": "train",
        "data": str(source_of(options).resolve()),
        "val": None if options.val is None else str(options.val.resolve()),
        "model": spec.name if spec.path is None else str(spec.path),
        "from": str(start),
        "classes": len(classes),
        "images": len(images),
        FINGERPRINT: f"{fingerprint(images)} {fingerprint(held_out)}",
        "seed": options.seed,
        "total_batch": total,
        "accumulate": accumulate,
        "head_epochs": head_epochs,
        "early_stop": options.early_stop,
    }
    if spec.in_channels != 3:
        identity["in_channels"] = spec.in_channels
    metadata = Metadata(
        arch=spec.arch,
        num_classes=len(classes),
        in_channels=spec.in_channels,
        preset=preset,
        name=spec.arch if spec.path is not None else spec.name,
        labels=catalog.find(spec.name).labels if same_classes and spec.path is None else "",
        class_ids=classes,
        class_names=_names(spec, classes),
        activation="sigmoid" if is_multi_label(images) else "softmax",
        origin={
            "trained_by": "torchclas train",
            "recipe": recipe.name,
            "from": str(start),
            "data": printable(source_of(options).resolve().name),
        },
    )
    return Plan(
        model=spec,
        pretrained=start.kind != "scratch",
        keep_head=same_classes,
        settings=Settings(
            recipe=recipe,
            lr=recipe.optimizer.lr * total / recipe.total_batch,
            seed=options.seed,
            accumulate=accumulate,
            head_epochs=head_epochs,
            early_stop=options.early_stop,
            checkpoint_steps=options.checkpoint_steps,
            compile=options.compile,
        ),
        preset=preset,
        train=images,
        validation=held_out,
        classes=classes,
        metadata=metadata,
        output=output,
        total_batch=total,
        identity=identity,
        device=options.device,
        devices=options.devices,
        strategy=options.strategy,
        workers=max(0, min(8, os.cpu_count() or 1) - 1) if options.workers is None else options.workers,
        notes=(*taken, *notes, *few, *why),
    )


def source_of(options: RunOptions) -> Path:
    """The images to train on; raises `Error` where nobody named any."""
    if options.data is None:
        raise Error(
            "which images? Name a folder of class folders or a list file, or a configuration of PaddleClas that does "
            "(--config FILE)"
        )
    return options.data


def check_machine(options: RunOptions) -> None:
    """Raise `Error` where the options ask for what this machine, or any, does not have."""
    for name, value, most in (
        ("seed", options.seed, LARGEST_SEED),
        ("workers", options.workers or 0, LARGEST_PROCESSES),
        ("devices", options.devices, LARGEST_PROCESSES),
    ):
        if value > most:
            raise Error(f"--{name} is {most} at most")
    kind, colon, index = options.device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (colon and not (kind == "cuda" and index.isdecimal())):
        hint = "did you mean cuda?" if kind == "gpu" else "there are auto, cpu, cuda, cuda:1 (the second GPU) …, mps"
        raise Error(f"--device {options.device} is not known: {hint}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise Error("--device mps: PyTorch finds no GPU of Apple's here: try --device cpu")
    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and not here:
        raise Error(f"--device {options.device}: PyTorch finds no CUDA GPU here: try --device cpu, or auto")
    if colon and options.devices > 1:
        raise Error(
            f"--device {options.device} is one GPU, and --devices asks for {options.devices}: use --device cuda"
        )
    wanted = int(index) + 1 if colon else processes(options.devices)[1]
    if wanted > here and (kind == "cuda" or (kind == "auto" and here)):
        raise Error(f"--device {options.device} --devices {options.devices}: this machine has {here} GPUs")


def with_loss(recipe: Recipe, images: LabelledImages) -> Recipe:
    """The recipe with a loss that goes with the labels; raises `Error` where another was asked for."""
    if not is_multi_label(images):
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


def _start(options: TrainOptions, asked: Start | None, spec: ModelSpec) -> tuple[Start, list[str]]:
    """Where the weights come from, and what to say about it."""
    if options.fixres is not None and (options.recipe is not None or asked == Start("scratch")):
        raise Error("--fixres adapts a trained model to larger images, by a recipe of its own: leave that option out")
    if asked is not None:
        return asked, []
    if spec.path is not None:
        return Start("published"), []  # of `-m FILE`
    if options.recipe not in (None, *TUNING):
        return Start("scratch"), []
    if catalog.find(spec.name).weights is None:
        if options.fixres is not None:
            raise Error(f"no weights of {spec.name} were published that --fixres could adapt: name yours (--from FILE)")
        return Start("scratch"), [f"no weights of {spec.name} were published, so it is trained from scratch"]
    return Start("published"), []


def _new_head(spec: ModelSpec, classes: tuple[str, ...]) -> str:
    """Why the last layer of a file's weights is not kept."""
    if not spec.num_classes:
        return f"{spec.path} has no classifier: the last layer starts anew"
    if spec.num_classes != len(classes):
        return f"{spec.path} has {spec.num_classes} classes, the data {len(classes)}: the last layer starts anew"
    theirs, ours = next(pair for pair in zip(spec.classes.ids, classes, strict=True) if pair[0] != pair[1])
    return (
        f"the data's classes are not those of {spec.path} ({ours!r} stands for {theirs!r}): the last layer starts anew"
    )


def _recipe(
    options: TrainOptions, spec: ModelSpec, tunes: bool, batch_size: int | None, images: int, given: Recipe | None
) -> Recipe:
    """The recipe with all that the options change; `given` is a configuration's, whose rates are for its own batch."""
    if given is not None:
        return adjust(given, options, spec.arch)
    if tunes:
        transformer = catalog.find(spec.arch).series.group.kind == "transformer"
        usual = "fixres" if options.fixres else "finetune_transformer" if transformer else "finetune"
        chosen = find_recipe(options.recipe or usual).for_preset(spec.preset)
        if batch_size is None:
            batch_size = min(chosen.batch_size, batch_for(images))
    else:
        chosen = find_recipe(options.recipe or spec.arch)
    if options.fixres is not None:
        chosen = replace(chosen, input_size=options.fixres)
    if chosen.distill is not None:
        raise Error(f"{chosen.name} is a recipe for distillation: `torchclas distill` follows it")
    ours = not chosen.published and chosen.name in recipes()
    if batch_size is not None and ours:  # AdamW at our rates does not mind the size of the batch
        chosen = replace(chosen, batch_size=batch_size, devices=1)
    return adjust(chosen, options, spec.arch)


def adjust(chosen: Recipe, options: RunOptions, arch: str) -> Recipe:
    """The recipe with the epochs, precision and settings that the options ask for, for this architecture's heads."""
    if options.epochs is not None:
        warmup = min(chosen.schedule.warmup_epochs, options.epochs / 4)
        chosen = replace(chosen, epochs=options.epochs, schedule=replace(chosen.schedule, warmup_epochs=warmup))
    if options.precision is not None:
        chosen = override(chosen, [f"precision={PRECISIONS[options.precision]}"])
    if arch in recipes():  # which knows how many heads there are
        heads = recipes()[arch].loss.head_weights
        chosen = replace(chosen, loss=replace(chosen.loss, head_weights=heads))
    if options.size is not None:
        chosen = chosen.at(parse_size(options.size))
    if options.fit is not None:
        chosen = chosen.fitted(options.fit)
    chosen = override(chosen, options.overrides)
    if options.strategy == "fsdp" and chosen.precision == "16-mixed":
        raise Error("--strategy fsdp does not scale gradients as fp16 needs it: use --precision bf16")
    return chosen


def parts_of_a_step(
    options: RunOptions, output: Path, spec: ModelSpec, classes: int, recipe: Recipe, total: int
) -> tuple[int, list[str]]:
    """How many parts a step of `total` images is computed in, and what to say about it.

    Those that were asked for, those that the run began with, or as few as the memory that is free allows for. Raises
    `Error` where the network cannot take images of the recipe's size, or so few of them.
    """
    with torch.device("meta"):
        network = models.build(spec.arch, num_classes=classes, in_channels=spec.in_channels)
    world, here = processes(options.devices)
    least = 2 if any(isinstance(module, BatchNorm) for module in network.modules()) else 1
    if total // world < least:
        why = "batch norm needs at least 2 images at once" if least == 2 else "each process needs an image"
        where = f" in each of {world} processes" if world > 1 and least == 2 else ""
        raise Error(f"{why}{where}, and a batch has {total}: use --batch-size {least * world} or more")
    step = _step_memory(network, recipe)
    if chosen := options.accumulate or stored(output).get("accumulate"):
        return chosen, []
    free = free_memory(options.device, here)
    if free is None:
        return 1, []
    if options.strategy == "fsdp":
        step = replace(step, fixed=step.fixed // world)
    images, fitting = -(-total // world), step.images(free)
    if images <= fitting:
        return 1, []
    parts = -(-images // max(1, fitting))
    doubt = "" if fitting else "; even so it may run out of memory"
    return parts, [
        f"{images} images at once would take about {step.of(images) / 2**30:.1f} GiB, and {free / 2**30:.1f} are free: "
        f"each step is computed in {parts} parts (--accumulate chooses otherwise){doubt}"
    ]


def processes(devices: int) -> tuple[int, int]:
    """How many train, and how many of them on this machine: `devices`, unless torchrun started them."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    return devices, devices


def _step_memory(network: Network, recipe: Recipe) -> StepMemory:
    try:
        network.set_input_size(recipe.size)
        return step_memory(network, recipe.size, recipe.precision)
    except ValueError as error:
        raise Error(f"input_size: {error}") from error


def read_data(
    options: TrainOptions,
    spec: ModelSpec,
    labels: Path | Sequence[str] | None = None,
    val_root: Path | None = None,
) -> tuple[LabelledImages, LabelledImages, tuple[str, ...], tuple[str, ...]]:
    """Images to train on, images to validate on, the ids of the classes, and what was taken for what."""
    data = open_training(
        source_of(options),
        options.val,
        model=spec.classes,
        labels=options.labels if labels is None else labels,
        root=options.root,
        val_root=val_root,
        delimiter=options.delimiter,
        relabel=options.relabel,
    )
    if data.validation is not None:
        return data.train, data.validation, data.classes, data.notes
    return *split_by_hash(data.train, VALIDATION_SHARE), data.classes, data.notes


def _names(spec: ModelSpec, classes: tuple[str, ...]) -> tuple[str, ...]:
    """The English names of classes that the model, or ImageNet, knows by their ids; ids stand for the others."""
    known: dict[str, str] = {}
    for labels in (label_set("imagenet1k"), spec.classes):
        known |= zip(labels.ids, labels.names("en"), strict=True)
    return tuple(known.get(name, name) for name in classes)


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
