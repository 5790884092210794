"""Train a model: by its published recipe, or from published weights on a folder of pictures."""

from __future__ import annotations

import copy
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import nn

from torchclas import catalog, models
from torchclas.catalog import Preset
from torchclas.data.augment import TrainTransform
from torchclas.data.datasets import LabelledImages, Subset
from torchclas.data.shards import open_splits
from torchclas.data.training import TrainingBatches, split_by_hash
from torchclas.errors import DataError, DownloadError, Error, MissingDependencyError
from torchclas.labels import label_set
from torchclas.layers.drop_path import DropPath
from torchclas.layers.dropout import DownscalingDropout
from torchclas.layers.network import Network
from torchclas.recipes import Recipe, override, recipes
from torchclas.recipes import recipe as find_recipe
from torchclas.spec import ModelSpec, find_model
from torchclas.tasks.options import RunOptions, Strategy
from torchclas.tasks.options import TrainOptions as Options
from torchclas.tasks.train_report import write_report
from torchclas.training.cpu import keep_freed_memory
from torchclas.training.loop import Criterion, Epoch, Interrupted, Progress, Settings, Trainer
from torchclas.training.memory import StepMemory, free_memory, step_memory
from torchclas.training.run import RunFolder, stored
from torchclas.training.sharding import sharded_fabric
from torchclas.training.validation import Validation
from torchclas.weights.metadata import Metadata
from torchclas.zoo import load_model

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Here, as processes that Fabric starts import this first: it would tell of each of them.
logging.getLogger("lightning_fabric.utilities").setLevel(logging.WARNING)

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}

VALIDATION_SHARE = 0.2  # of the images, where none are named for validation
TUNING = ("finetune", "finetune_transformer")  # recipes that go on from weights
STEPS_PER_EPOCH = 16  # at least, when fine-tuning: few images come in smaller batches …
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
        return TrainingBatches(
            self.train,
            TrainTransform(self.settings.recipe.augment, self.preset, self.preset.crop_size),
            self.total_batch,
            seed=self.settings.seed,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            workers=self.workers,
            pin_memory=fabric.device.type == "cuda",
        )

    def criterion(self, fabric: Fabric) -> Criterion | None:
        """What is minimised; None stands for cross entropy with the labels, as the recipe has it."""
        return None


@dataclass(frozen=True)
class Summary:
    """What became of a run; `stopped` is the signal that stopped it (0: it is finished)."""

    output: Path
    best: Epoch | None
    epochs: int
    stopped: int = 0
    was_finished: bool = False
    unreadable: Mapping[str, str] = field(default_factory=dict[str, str])
    written: tuple[Path, ...] = ()


def train(options: Options, console: Console | None = None) -> Summary:
    """Train, or go on with the run that the output folder holds, and write what came out into it.

    Raises:
        DataError, UnknownNameError, CheckpointError, DownloadError, RecipeError: something given cannot be used.
        RunError: the output folder holds another run, or something else.
        TrainingError: the loss is not finite.
        MissingDependencyError: the packages for training are not installed.
    """
    if find_spec("lightning_fabric") is None:
        raise MissingDependencyError("lightning-fabric", "'torchclas[train]'")
    return run(make_plan(options), console or Console(stderr=True))


def run(plan: Plan, console: Console) -> Summary:
    """Carry a plan out; raises what `train` does."""
    leader = _leads()
    if not leader:
        return _run(plan, console, leader=False)
    plan.folder.begin(plan.identity, plan.settings.recipe)
    with plan.folder.owned():
        return _run(plan, console, leader=True)


def _leads() -> bool:
    """Whether this process writes and prints: torchrun starts the command once for each of them."""
    return int(os.environ.get("RANK", "0")) == 0


def _run(plan: Plan, console: Console, *, leader: bool) -> Summary:
    state = plan.folder.latest()
    if state is not None and state["progress"]["finished"]:
        return _summary(plan, Progress.from_dict(state["progress"]), was_finished=True)
    if leader:
        for note in plan.notes:
            console.print(f"[yellow]Note:[/] {escape(note)}", soft_wrap=True)
        console.print(_headline(plan, state), soft_wrap=True, highlight=False)
    outcome = _launch(plan)
    progress = outcome.progress
    if outcome.stopped or not leader:
        return _summary(plan, progress, stopped=outcome.stopped)
    written = write_report(plan.output, plan.validation, progress, progress.unreadable, _facts(plan))
    return _summary(plan, progress, written=tuple(written))


def _summary(plan: Plan, progress: Progress, **more: Any) -> Summary:
    return Summary(plan.output, progress.best, progress.epoch, unreadable=progress.unreadable, **more)


def make_plan(options: Options) -> Plan:
    """Make every choice that the options leave open; nothing is written."""
    weights = None if options.start in (None, "pretrained", "scratch") else Path(str(options.start))
    spec = find_model(options.model, weights=weights)
    start, notes = _start(options, spec)
    tunes = start != "scratch" and options.recipe in (None, *TUNING)
    images, held_out, classes = read_data(options, spec)
    same_classes = classes == spec.classes.ids
    if options.fixres is not None and not same_classes:
        raise DataError(f"{options.data}: FixRes keeps the classifier, so the data must have {spec.name}'s classes")

    output = Path("runs", f"{Path(spec.name).stem}-{options.data.resolve().name}")
    output = output if options.output is None else options.output
    # A run goes on with its batches, however many devices there are now.
    batch_size = options.batch_size or stored(output).get("total_batch")
    recipe = _recipe(options, spec, tunes, batch_size, len(images))
    total = min(batch_size or (recipe.total_batch if tunes else recipe.batch_size * options.devices), len(images))
    head_epochs = options.head_epochs
    if head_epochs is None:
        head_epochs = int(tunes and not options.fixres and not same_classes and recipe.epochs > 1)
    preset = preset_at(spec.preset, recipe.input_size, whole=options.fixres is not None)
    accumulate, why = parts_of_a_step(options, output, spec, len(classes), recipe, total)
    identity: dict[str, Any] = {
        "command": "train",
        "data": str(options.data.resolve()),
        "val": None if options.val is None else str(options.val.resolve()),
        "model": spec.name if spec.path is None else str(spec.path),
        "from": start,
        "classes": len(classes),
        "images": len(images),
        "seed": options.seed,
        "total_batch": total,
        "accumulate": accumulate,
        "head_epochs": head_epochs,
        "early_stop": options.early_stop,
    }
    metadata = Metadata(
        arch=spec.arch,
        num_classes=len(classes),
        preset=preset,
        name=spec.arch if spec.path is not None else spec.name,
        labels=catalog.find(spec.name).labels if same_classes and spec.path is None else "",
        class_ids=classes,
        class_names=_names(spec, classes),
        origin={
            "trained_by": "torchclas train",
            "recipe": recipe.name,
            "from": start,
            "data": options.data.resolve().name,
        },
    )
    return Plan(
        model=spec,
        pretrained=start != "scratch",
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
        notes=(*notes, *why),
    )


def _start(options: Options, spec: ModelSpec) -> tuple[str, list[str]]:
    """Where the weights come from, and what to say about it."""
    if options.fixres is not None and (options.recipe is not None or options.start == "scratch"):
        raise Error("--fixres adapts a trained model to larger images, by a recipe of its own: leave that option out")
    if options.start is not None:
        return options.start, []
    if spec.path is not None:
        return "pretrained", []
    if options.recipe not in (None, *TUNING):
        return "scratch", []
    if catalog.find(spec.name).weights is None:
        if options.fixres is not None:
            raise Error(f"no weights of {spec.name} were published that --fixres could adapt: name yours (--from FILE)")
        return "scratch", [f"no weights of {spec.name} were published, so it is trained from scratch"]
    return "pretrained", []


def _recipe(options: Options, spec: ModelSpec, tunes: bool, batch_size: int | None, images: int) -> Recipe:
    """The recipe with all that the options change."""
    if tunes:
        transformer = catalog.find(spec.arch).series.group.kind == "transformer"
        usual = "fixres" if options.fixres else "finetune_transformer" if transformer else "finetune"
        chosen = find_recipe(options.recipe or usual).fit(spec.preset)
        if batch_size is None:
            share = max(1, images // STEPS_PER_EPOCH)
            batch_size = max(LEAST_BATCH, min(chosen.batch_size, 2 ** (share.bit_length() - 1)))
    else:
        chosen = find_recipe(options.recipe or spec.arch)
    if options.fixres is not None:
        chosen = replace(chosen, input_size=options.fixres)
    if chosen.distill is not None:
        raise Error(f"{chosen.name} is a recipe for distillation: `torchclas distill` follows it")
    if batch_size is not None and not chosen.published:  # AdamW at our rates does not mind the size of the batch
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
    chosen = override(chosen, options.overrides)
    if options.strategy == "fsdp" and chosen.precision == "16-mixed":
        raise Error("--strategy fsdp does not scale gradients as fp16 needs it: use --precision bf16")
    return chosen


def parts_of_a_step(
    options: RunOptions, output: Path, spec: ModelSpec, classes: int, recipe: Recipe, total: int
) -> tuple[int, list[str]]:
    """How many parts a step of `total` images is computed in, and what to say about it.

    Those that were asked for, those that the run began with, or as few as the memory that is free allows for. Raises
    `Error` where the network cannot take images of the recipe's size.
    """
    step = _step_memory(spec, classes, recipe)
    if chosen := options.accumulate or stored(output).get("accumulate"):
        return chosen, []
    world, here = _processes(options.devices)
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


def _processes(devices: int) -> tuple[int, int]:
    """How many train, and how many of them on this machine: `devices`, unless torchrun started them."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    return devices, devices


def _step_memory(spec: ModelSpec, classes: int, recipe: Recipe) -> StepMemory:
    size = recipe.input_size
    with torch.device("meta"):
        network = models.build(spec.arch, num_classes=classes, in_channels=spec.in_channels)
    if size < network.min_size:
        raise Error(f"{spec.arch} needs images of at least {network.min_size} px, not {size}: set a larger input_size")
    try:
        _fit(network, size)
        return step_memory(network, size, recipe.precision)
    except ValueError as error:
        raise Error(f"input_size: {error}") from error


def _fit(network: Network, size: int) -> None:
    """Prepare a network that takes images of one size for another."""
    if network.input_size not in (None, size):
        network.set_input_size(size)


def read_data(options: Options, spec: ModelSpec) -> tuple[LabelledImages, LabelledImages, tuple[str, ...]]:
    """Images to train on, images to validate on, and the ids of the classes."""
    images, held_out = open_splits(options.data, options.val, delimiter=options.delimiter)
    classes = images.classes
    if classes is None:
        count = max(2, int(images.labels.max()) + 1)
        classes = spec.classes.ids if count == len(spec.classes.ids) else tuple(map(str, range(count)))
    if len(classes) == 1:
        raise DataError(f"{options.data}: one class alone leaves nothing to tell apart: add images of others")
    if held_out is None:
        images, held_out = split_by_hash(images, VALIDATION_SHARE)
    elif int(held_out.labels.max()) >= len(classes):
        raise DataError(
            f"the validation images have the label {held_out.labels.max()}, those for training none so high"
        )
    return images, held_out, classes


def _names(spec: ModelSpec, classes: tuple[str, ...]) -> tuple[str, ...]:
    """The English names of classes that the model, or ImageNet, knows by their ids; ids stand for the others."""
    known: dict[str, str] = {}
    for labels in (label_set("imagenet1k"), spec.classes):
        known |= zip(labels.ids, labels.names("en"), strict=True)
    return tuple(known.get(name, name) for name in classes)


def preset_at(preset: Preset, size: int, *, whole: bool = False) -> Preset:
    """Evaluation at `size` pixels, of the same share of the image, or as FixRes does of its whole short side."""
    if size == preset.crop_size and not whole:
        return preset
    short = size if whole else max(size, round(preset.resize_short * size / preset.crop_size))
    return replace(preset, crop_size=size, resize_short=short)


class _Outcome:
    """What a process hands back. Not a dataclass: Fabric would take it apart in search of tensors."""

    def __init__(self, progress: Progress, stopped: int = 0, error: Error | None = None) -> None:
        self.progress = progress
        self.stopped = stopped
        self.error = error


def _launch(plan: Plan) -> _Outcome:
    """Train in this process, in `devices` new ones, or as one of those that torchrun started."""
    from lightning_fabric import Fabric

    settings: Any = {"accelerator": plan.device.partition(":")[0], "precision": plan.settings.recipe.precision}
    sharded = plan.strategy == "fsdp"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        world, local = _processes(plan.devices)
        settings |= {"devices": local, "num_nodes": world // local}
        fabric = sharded_fabric(world, spawn=False, **settings) if sharded else Fabric(strategy="ddp", **settings)
        fabric.launch()
        outcome = _work(fabric, plan)
    elif plan.devices == 1:
        devices: Any = [int(plan.device.partition(":")[2])] if ":" in plan.device else 1
        outcome = _work(Fabric(devices=devices, **settings), plan)
    else:
        settings |= {"devices": plan.devices}
        fabric = (
            sharded_fabric(plan.devices, spawn=True, **settings)
            if sharded
            else Fabric(strategy="ddp_spawn", **settings)
        )
        with _forwarded_signals() as received:
            try:
                outcome = fabric.launch(partial(_work, plan=plan))
            except Exception:
                if not received:
                    raise
                outcome = _Outcome(Progress(), received[0])  # too early for the others to have anything to save
    if outcome.error is not None:
        raise outcome.error
    return outcome


def _work(fabric: Fabric, plan: Plan) -> _Outcome:
    """What each process does."""
    _end_with_parent()
    keep_freed_memory()
    # Each process that torchrun started looked at the memory itself, at another moment or on another machine.
    plan = replace(plan, settings=replace(plan.settings, accumulate=fabric.broadcast(plan.settings.accumulate)))
    display = _Display(plan) if fabric.is_global_zero else None
    try:
        batches = plan.batches(fabric)
        validation = Validation(
            fabric,
            plan.validation,
            plan.preset,
            batch_size=max(1, plan.total_batch // fabric.world_size // plan.settings.accumulate),
            workers=plan.workers,
            skipped=batches.skipped,
        )
        trainer = Trainer(
            fabric,
            build_network(plan),
            plan.settings,
            batches,
            validation,
            plan.folder,
            display,
            criterion=plan.criterion(fabric),
        )
        stopped = 0
        try:
            trainer.fit()
        except Interrupted as interrupted:
            stopped = interrupted.number
        return _Outcome(trainer.progress, stopped)
    except Error as error:
        return _Outcome(Progress(), error=error)
    finally:
        if display is not None:
            display.close()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


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
    _fit(network, plan.preset.crop_size)
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


def _end_with_parent() -> None:
    """Let a process that was started for training end when the one that started it is killed."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _forwarded_signals() -> Generator[list[int]]:
    """Let the processes that train save and end when this one, which waits for them, is asked to stop.

    They are sent SIGTERM even for Ctrl-C: a terminal sends that to all of them itself, and twice means at once.
    """

    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for child in multiprocessing.active_children():
            child.terminate()

    previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Display:
    """A bar on a terminal's stderr; a line per epoch everywhere."""

    def __init__(self, plan: Plan) -> None:
        self.console = Console(stderr=True)
        self.epochs = plan.settings.recipe.epochs
        self.steps = 0
        self.loss = 0.0
        self.bar: Bar | None = None
        self.task: TaskID | None = None
        self.total = len(plan.train) // plan.total_batch or 1
        if sys.stderr.isatty():
            columns = (
                TextColumn("epoch {task.fields[epoch]}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]:.4f}  lr {task.fields[lr]:.2e}"),
                TextColumn("{task.fields[speed]:,.0f} images/s"),
                TimeRemainingColumn(),
            )  # fmt: skip
            self.bar = Bar(*columns, console=self.console, transient=True)

    def step(self, progress: Progress, loss: float, lr: float) -> None:
        """Move the bar."""
        self.loss = loss if not self.steps else 0.95 * self.loss + 0.05 * loss
        self.steps += 1
        if self.bar is None:
            return
        speed = progress.images / max(progress.seconds, 1e-9)
        values: dict[str, Any] = dict(epoch=f"{progress.epoch + 1}/{self.epochs}", loss=self.loss, lr=lr, speed=speed)
        done = progress.epoch * self.total + progress.step
        if self.task is None:
            self.task = self.bar.add_task("", total=self.epochs * self.total, **values)
            self.bar.start()
        self.bar.update(self.task, completed=done, **values)

    def epoch(self, progress: Progress) -> None:
        """Print the newest row."""
        row = progress.history[-1]
        star = " ★" if progress.best is row else ""
        self.console.print(
            f"epoch {row.epoch}/{self.epochs}  loss {row.train_loss:.4f}  val loss {row.val_loss:.4f}  "
            f"top-1 {100 * row.val_top1:.2f} %  lr {row.lr:.2e}  {row.images_per_second:,.0f} images/s  "
            f"{row.seconds:.0f} s{star}",
            highlight=False,
            soft_wrap=True,
        )

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()


def _headline(plan: Plan, state: Mapping[str, Any] | None) -> str:
    recipe = plan.settings.recipe
    what = "published recipe" if recipe.published else "recipe"
    begun = ""
    if state is not None:
        begun = f", going on at epoch {state['progress']['epoch'] + 1}, step {state['progress']['step'] + 1}"
    parts = f" in {plan.settings.accumulate} parts" if plan.settings.accumulate > 1 else ""
    return escape(
        f"{plan.model.name}, {what} {recipe.name}, {'from weights' if plan.pretrained else 'from scratch'}: "
        f"{len(plan.train):,} images of {len(plan.classes)} classes, {len(plan.validation):,} to validate, "
        f"{plan.preset.crop_size} px, batches of {plan.total_batch}{parts}, "
        f"{recipe.epochs} epoch{'s' * (recipe.epochs > 1)} → {plan.output}{begun}"
    )


def _facts(plan: Plan) -> list[tuple[str, str]]:
    """What the report says of the run."""
    recipe = plan.settings.recipe
    held_out = " (held out)" if isinstance(plan.validation, Subset) else ""
    return [
        ("model", plan.model.name if plan.model.name == plan.model.arch else f"{plan.model.name} ({plan.model.arch})"),
        ("start", str(plan.identity["from"])),
        ("recipe", f"{recipe.name} ({recipe.source})"),
        ("data", f"{plan.identity['data']}: {len(plan.train):,} images, {len(plan.classes)} classes"),
        ("validation", f"{len(plan.validation):,} images{held_out}"),
        ("image size", f"{plan.preset.crop_size} px"),
        ("batch", f"{plan.total_batch} images"),
        ("optimizer", f"{recipe.optimizer.name}, learning rate {plan.settings.lr:.3g}, {recipe.schedule.name}"),
        ("seed", str(plan.settings.seed)),
        *(("note", note) for note in plan.notes),
    ]


def print_summary(summary: Summary, console: Console) -> None:
    """Say how it went and where things are."""
    if not _leads():
        return
    if summary.stopped:
        name = signal.Signals(summary.stopped).name
        console.print(f"stopped by {name}; everything is saved in {escape(str(summary.output))}: "
                      "the same command goes on from here", soft_wrap=True)  # fmt: skip
        return
    best = summary.best
    if summary.was_finished:
        console.print(f"{escape(str(summary.output))} is finished: there is nothing left to train", soft_wrap=True)
    if best is not None:
        console.print(
            f"best: epoch {best.epoch} of {summary.epochs}, top-1 {100 * best.val_top1:.2f} %, "
            f"validation loss {best.val_loss:.4f}",
            highlight=False,
        )
    if summary.unreadable:
        console.print(f"[bold red]{len(summary.unreadable):,} images could not be read[/] (see unreadable.csv)")
    for path in summary.written:
        console.print(f"wrote {escape(str(path))}", soft_wrap=True)
    console.print(
        f"use it: torchclas predict IMAGE -m {escape(str(summary.output / 'best.safetensors'))}", soft_wrap=True
    )
