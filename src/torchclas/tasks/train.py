"""Train a model: by its published recipe, or from published weights on a folder of pictures."""

from __future__ import annotations

import inspect
import logging
import multiprocessing
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import torch
from rich.progress import Progress as Bar
from rich.progress import TaskID, TextColumn
from torch.multiprocessing.spawn import ProcessExitedException

from torchclas import messages, signals
from torchclas.counterparts import refuse
from torchclas.data.datasets import Subset
from torchclas.data.workers import is_shortage
from torchclas.errors import Error, MissingDependencyError
from torchclas.messages import say
from torchclas.reporting.console import Console, escape
from torchclas.reporting.progress import bar
from torchclas.reporting.training_report import write_report
from torchclas.sizes import show_size
from torchclas.tasks.train_plan import Plan, build_network, make_plan, processes
from torchclas.training.cpu import keep_freed_memory
from torchclas.training.loop import Epoch, Interrupted, Progress, Trainer, TrainingError
from torchclas.training.options import TrainOptions
from torchclas.training.run import check
from torchclas.training.sharding import sharded_fabric
from torchclas.training.validation import Validation

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Here, as processes that Fabric starts import this first: it would tell of each of them.
logging.getLogger("lightning_fabric.utilities").setLevel(logging.WARNING)
logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # what ended a process, we say


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
    return run(make_plan(options), console or Console(stderr=True))


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


def run(plan: Plan, console: Console) -> Summary:
    """Carry a plan out; raises what `train` does."""
    leader = _leads()
    if not leader:
        return _run(plan, console, leader=False)
    check(plan.output, plan.identity, plan.settings.recipe)
    with plan.folder.owned():
        plan.folder.begin(plan.identity, plan.settings.recipe)
        return _run(plan, console, leader=True)


def _leads() -> bool:
    """Whether this process writes and prints: torchrun starts the command once for each of them."""
    return int(os.environ.get("RANK", "0")) == 0


def _run(plan: Plan, console: Console, *, leader: bool) -> Summary:
    state = plan.folder.latest()
    if state is not None and state["progress"]["finished"]:
        progress = Progress.from_dict(state["progress"])
        missing = leader and not (plan.output / "report.html").exists()  # it was killed while this was being made
        return _summary(plan, progress, was_finished=True, written=_report(plan, progress) if missing else ())
    if leader:
        for note in plan.notes:
            console.print(f"[yellow]Note:[/] {escape(note)}", soft_wrap=True)
        console.print(_headline(plan, state), soft_wrap=True, highlight=False)
    outcome = _launch(plan)
    progress = outcome.progress
    if outcome.stopped or not leader:
        return _summary(plan, progress, stopped=outcome.stopped)
    return _summary(plan, progress, written=_report(plan, progress))


def _report(plan: Plan, progress: Progress) -> tuple[Path, ...]:
    return tuple(write_report(plan.output, plan.validation, progress, progress.unreadable, _facts(plan)))


def _summary(plan: Plan, progress: Progress, **more: Any) -> Summary:
    return Summary(plan.output, progress.best, progress.epoch, unreadable=progress.unreadable, **more)


class _Outcome:
    """What a process hands back. Not a dataclass: Fabric would take it apart in search of tensors."""

    def __init__(self, progress: Progress, stopped: int = 0) -> None:
        self.progress = progress
        self.stopped = stopped


def _launch(plan: Plan) -> _Outcome:
    """Train in this process, in `devices` new ones, or as one of those that torchrun started."""
    from lightning_fabric import Fabric

    settings: Any = {"accelerator": plan.device.partition(":")[0], "precision": plan.settings.recipe.precision}
    sharded = plan.strategy == "fsdp"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        world, local = processes(plan.devices)
        settings |= {"devices": local, "num_nodes": world // local}
        fabric = sharded_fabric(world, spawn=False, **settings) if sharded else Fabric(strategy="ddp", **settings)
        fabric.launch()
        return _work(fabric, plan)
    if plan.devices == 1:
        devices: Any = [int(plan.device.partition(":")[2])] if ":" in plan.device else 1
        return _work(Fabric(devices=devices, **settings), plan)
    settings |= {"devices": plan.devices}
    fabric = (
        sharded_fabric(plan.devices, spawn=True, **settings) if sharded else Fabric(strategy="ddp_spawn", **settings)
    )
    failures: SimpleQueue[str] = multiprocessing.get_context("spawn").SimpleQueue()
    with _forwarded_signals() as received:
        try:
            return fabric.launch(partial(_work, plan=plan, failures=failures, speaking=messages.language()))
        except Exception as error:
            if not failures.empty():
                raise TrainingError(failures.get()) from error
            if received:  # too early for the others to have anything to save
                return _Outcome(Progress(), received[0])
            if isinstance(error, ProcessExitedException):
                how = f"was ended by {error.signal_name}" if error.signal_name else f"ended with {error.exit_code}"
                raise TrainingError(
                    f"one of the processes that train {how}; {plan.folder.where()}: the same command goes on"
                ) from error
            raise


def _work(
    fabric: Fabric,
    plan: Plan,
    failures: SimpleQueue[str] | None = None,
    speaking: messages.Language | None = None,
) -> _Outcome:
    """What each process does.

    One that was started for it puts its error into `failures`, and fails: the others wait for it, and must be ended.
    """
    if speaking is not None:
        messages.use(speaking)
    _end_with_parent()
    keep_freed_memory()
    try:
        return _train(fabric, plan)
    except Exception as error:
        if not isinstance(error, Error):
            if not is_shortage(error):
                raise
            shortage = TrainingError(
                f"there is not enough memory to train ({str(error).splitlines()[0]}); {plan.folder.where()}: compute "
                "each step in more parts (--accumulate), or use a smaller --batch-size"
            )
            shortage.__cause__ = error
            error = shortage
        if failures is not None:
            failures.put(str(error))
        raise error
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _train(fabric: Fabric, plan: Plan) -> _Outcome:
    # Each process that torchrun started looked at the memory itself, at another moment or on another machine.
    plan = replace(plan, settings=replace(plan.settings, accumulate=fabric.broadcast(plan.settings.accumulate)))
    with ExitStack() as stack:
        batches = stack.enter_context(closing(plan.batches(fabric)))
        validation = Validation(
            fabric,
            plan.validation,
            plan.preset,
            channels=plan.model.in_channels,
            batch_size=max(1, plan.total_batch // fabric.world_size // plan.settings.accumulate),
            workers=plan.workers,
            skipped=batches.skipped,
        )
        stack.enter_context(closing(validation))
        display = _Display(plan, batches.steps_per_epoch) if fabric.is_global_zero else None
        if display is not None:
            stack.enter_context(closing(display))
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
        try:
            trainer.fit()
        except Interrupted as interrupted:
            return _Outcome(trainer.progress, interrupted.number)
        return _Outcome(trainer.progress)


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

    def forward(number: int) -> None:
        received.append(number)
        for child in multiprocessing.active_children():
            child.terminate()

    with signals.handled(forward):
        yield received


class _Display:
    """A bar on a terminal's stderr; a line per epoch everywhere."""

    def __init__(self, plan: Plan, steps_per_epoch: int) -> None:
        self.console = Console(stderr=True)
        self.epochs = plan.settings.recipe.epochs
        self.steps = 0
        self.loss = 0.0
        self.bar: Bar | None = None
        self.task: TaskID | None = None
        self.total = steps_per_epoch
        if sys.stderr.isatty():
            self.bar = bar(
                TextColumn(say("loss {task.fields[loss]:.4f}  lr {task.fields[lr]:.2e}")),
                TextColumn(say("{task.fields[speed]:,.0f} images/s")),
                console=self.console,
            )

    def step(self, progress: Progress, loss: float, lr: float) -> None:
        """Move the bar."""
        self.loss = loss if not self.steps else 0.95 * self.loss + 0.05 * loss
        self.steps += 1
        if self.bar is None:
            return
        speed = progress.images / max(progress.seconds, 1e-9)
        title = say(f"epoch {progress.epoch + 1}/{self.epochs}")
        values: dict[str, Any] = dict(loss=self.loss, lr=lr, speed=speed)
        done = progress.epoch * self.total + progress.step
        if self.task is None:
            self.task = self.bar.add_task(title, total=self.epochs * self.total, **values)
            self.bar.start()
        self.bar.update(self.task, completed=done, description=title, **values)

    def epoch(self, progress: Progress) -> None:
        """Print the newest row."""
        row = progress.history[-1]
        star = " ★" if progress.best is row else ""
        self.console.print(
            f"epoch {row.epoch}/{self.epochs}  loss {row.train_loss:.4f}  val loss {row.val_loss:.4f}  "
            f"{row.score_name} {100 * row.score:.2f} %  lr {row.lr:.2e}  {row.images_per_second:,.0f} images/s  "
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
    epochs = "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs} epochs"
    return escape(
        f"{plan.model.name}, {what} {recipe.name}, {'from weights' if plan.pretrained else 'from scratch'}: "
        f"{len(plan.train):,} images of {len(plan.classes)} classes, {len(plan.validation):,} to validate, "
        f"{_pixels(plan)}, batches of {plan.total_batch}{parts}, "
        f"{epochs} → {plan.output}{begun}"
    )


def _pixels(plan: Plan) -> str:
    seen = f"{show_size(plan.settings.recipe.size)} px"
    if plan.settings.recipe.size == plan.preset.size:
        return seen
    return f"{seen}, validated at {show_size(plan.preset.size)} px"


def _facts(plan: Plan) -> list[tuple[str, str]]:
    """What the report says of the run."""
    recipe = plan.settings.recipe
    held_out = " (held out)" if isinstance(plan.validation, Subset) else ""
    return [
        ("model", plan.model.name if plan.model.name == plan.model.arch else f"{plan.model.name} ({plan.model.arch})"),
        ("start", str(plan.identity["from"])),
        ("recipe", f"{recipe.name} ({recipe.source})"),
        ("data", f"{plan.identity['data']}: {len(plan.train):,} images, {len(plan.classes)} classes"),
        ("validation", f"{plan.identity['val'] or plan.identity['data']}: {len(plan.validation):,} images{held_out}"),
        ("image size", _pixels(plan)),
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
            f"best: epoch {best.epoch} of {summary.epochs}, {best.score_name} {100 * best.score:.2f} %, "
            f"validation loss {best.val_loss:.4f}",
            highlight=False,
        )
    if summary.unreadable:
        console.print(f"[bold red]{len(summary.unreadable):,} images could not be read[/] (see unreadable.csv)")
    for path in summary.written:
        console.print(f"wrote {escape(str(path))}", soft_wrap=True)
    console.print(
        f"use it: torchclas predict IMAGE -m {escape(shlex.quote(str(summary.output / 'best.safetensors')))}",
        soft_wrap=True,
    )
