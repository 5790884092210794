"""How a training run gets on, for people: a bar, a line for each epoch, what came out."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress as Bar
from rich.progress import TaskID, TextColumn

from torchclas.data.datasets import Subset
from torchclas.messages import say
from torchclas.reporting.console import Console, escape
from torchclas.reporting.progress import bar
from torchclas.reporting.training_report import write_report
from torchclas.sizes import show_size
from torchclas.text import many_images
from torchclas.training.launch import Summary, leads
from torchclas.training.loop import Progress
from torchclas.training.plan import Plan


class TrainingDisplay:
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


class TrainingObserver:
    """Says on a console what a run does, and writes its report."""

    display = TrainingDisplay

    def __init__(self, console: Console) -> None:
        self.console = console

    def begin(self, plan: Plan, state: Mapping[str, Any] | None) -> None:
        """Say what was chosen, and where it goes on."""
        for note in plan.notes:
            self.console.print(f"[yellow]Note:[/] {escape(note)}", soft_wrap=True)
        self.console.print(_headline(plan, state), soft_wrap=True, highlight=False)

    def report(self, plan: Plan, progress: Progress) -> Sequence[Path]:
        """Measure the best network, and write pictures and the page."""
        data = str(plan.identity["val"] or plan.identity["data"])
        return write_report(plan.output, plan.validation, progress, progress.unreadable, _facts(plan), data=data)


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
    if not leads():
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
        console.print(f"[bold red]{many_images(len(summary.unreadable))} could not be read[/] (see unreadable.csv)")
    for path in summary.written:
        console.print(f"wrote {escape(str(path))}", soft_wrap=True)
    console.print(
        f"use it: torchclas predict IMAGE -m {escape(shlex.quote(str(summary.output / 'best.safetensors')))}",
        soft_wrap=True,
    )
