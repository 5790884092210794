"""Distil a model: a student learns what a teacher says of images that need no labels."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from torchclas.allocator import keep_freed_memory
from torchclas.atomic import locked
from torchclas.bridges.paddleclas import training
from torchclas.data.datasets import Relabelled
from torchclas.errors import MissingDependencyError
from torchclas.reporting.console import Console
from torchclas.reporting.progress import progress
from torchclas.reporting.training_display import TrainingObserver
from torchclas.training.distill_plan import DistillPlan, make_plan, second_phase
from torchclas.training.distillation import (
    LogitCache,
    predicted_classes,
)
from torchclas.training.launch import Summary, run
from torchclas.training.options import DistillOptions
from torchclas.training.run import check

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def distill(options: DistillOptions, console: Console | None = None) -> list[Summary]:
    """Train a student by a teacher, or go on with it; then, with `finetune`, the second phase in OUTPUT/finetune.

    Raises:
        DistillationError: teacher, student, data and cache do not go together.
        OutputError: the disk has no room for the cache.
        What `torchclas.training.launch.run` and the plan do.
    """
    if find_spec("lightning_fabric") is None:
        raise MissingDependencyError("lightning-fabric", "'torchclas[train]'")
    console = console or Console(stderr=True)
    plan = make_plan(*training(options))
    summaries = [_run(plan, console)]
    if options.finetune is not None and not summaries[0].stopped:
        summaries.append(_run(make_plan(second_phase(options, plan)), console))
    return summaries


def _run(plan: DistillPlan, console: Console) -> Summary:
    """Prepare what needs the teacher beforehand, and train."""
    check(plan.output, plan.identity, plan.settings.recipe)  # before hours are spent on a cache
    fabric = _fabric(plan)
    batch_norm = ", in training mode" if plan.teacher_bn == "train" else ""
    label = f", labels weigh {plan.distill.label_weight:g}" if plan.distill.label_weight else ""
    notes = [f"{plan.teacher.name} teaches by {plan.distill.method}{label}{batch_norm}"]
    if plan.validates_agreement:
        classes = predicted_classes(
            plan.load_teacher(fabric), plan.validation, plan.preset, batch_size=plan.total_batch, workers=plan.workers
        )
        metadata = replace(plan.metadata, origin={**plan.metadata.origin, "labels_by": plan.teacher.name})
        plan = replace(plan, validation=Relabelled(plan.validation, classes), metadata=metadata)
        notes.append(
            "no labelled images to validate on (--val): top-1 is how often the student agrees with the teacher"
        )
    if plan.cache is not None:
        _fill(plan, plan.cache, fabric, console)
    return run(replace(plan, notes=(*notes, *plan.notes)), TrainingObserver(console))


def _fill(plan: DistillPlan, cache: LogitCache, fabric: Fabric, console: Console) -> None:
    """Complete the cache; one process does it and the others wait."""
    with locked(cache.index):
        if (done := cache.done()) == cache.rows:
            return
        keep_freed_memory()
        console.print(
            f"cache of logits: {cache.images:,} images × {cache.views} views × {cache.k} of {cache.classes} logits "
            f"take {cache.bytes / 2**20:,.1f} MiB in {cache.folder}",
            soft_wrap=True,
            highlight=False,
        )
        filled = cache.fill(
            plan.load_teacher(fabric), plan.train, plan.transform, batch_size=plan.total_batch, workers=plan.workers
        )
        with progress("asking the teacher", cache.rows, done=done, console=console) as advance:
            for position in filled:
                advance(position - done)
                done = position


def _fabric(plan: DistillPlan) -> Fabric:
    """One device of those that training will use."""
    from lightning_fabric import Fabric

    accelerator, _, index = plan.device.partition(":")
    devices: Any = [int(index)] if index else 1
    precision: Any = plan.settings.recipe.precision
    return Fabric(accelerator=accelerator, devices=devices, precision=precision)
