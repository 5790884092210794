"""Carries a plan out: in this process, in several, or as one of those that torchrun started."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.multiprocessing.spawn import ProcessExitedException

from torchclas import messages, signals
from torchclas.allocator import keep_freed_memory
from torchclas.data.workers import is_shortage
from torchclas.errors import Error
from torchclas.training.loop import Display, Epoch, Interrupted, Progress, Trainer, TrainingError
from torchclas.training.run import check
from torchclas.training.sharding import sharded_fabric
from torchclas.training.validation import Validation

if TYPE_CHECKING:
    from lightning_fabric import Fabric

from torchclas.training.machine import processes
from torchclas.training.plan import Plan, build_network

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
    written: Sequence[Path] = ()


class Observer(Protocol):
    """Tells people of a run, and makes its report; used by the process that leads alone."""

    def begin(self, plan: Plan, state: Mapping[str, Any] | None) -> None:
        """Training begins or, from `state`, goes on."""
        ...

    def report(self, plan: Plan, progress: Progress) -> Sequence[Path]:
        """Write what is to be read of a finished run; returns the files."""
        ...

    @property
    def display(self) -> Callable[[Plan, int], ClosingDisplay]:
        """Makes what shows the steps, given how many an epoch has; it is handed to other processes, so picklable."""
        ...


class ClosingDisplay(Display, Protocol):
    """A display that ends."""

    def close(self) -> None:
        """Take away what it drew."""
        ...


def run(plan: Plan, observer: Observer) -> Summary:
    """Carry a plan out, or go on with it.

    Raises:
        RunError: the output folder holds another run, or something else.
        TrainingError: the loss is not finite, or a process ended.
        DataError: none of the validation images can be read.
    """
    if not leads():
        return _run(plan, observer, leader=False)
    check(plan.output, plan.identity, plan.settings.recipe)
    with plan.folder.owned():
        plan.folder.begin(plan.identity, plan.settings.recipe)
        return _run(plan, observer, leader=True)


def leads() -> bool:
    """Whether this process writes and prints: torchrun starts the command once for each of them."""
    return int(os.environ.get("RANK", "0")) == 0


def _run(plan: Plan, observer: Observer, *, leader: bool) -> Summary:
    state = plan.folder.latest()
    if state is not None and state["progress"]["finished"]:
        progress = Progress.from_dict(state["progress"])
        missing = leader and not (plan.output / "report.html").exists()  # it was killed while this was being made
        return _summary(plan, progress, was_finished=True, written=observer.report(plan, progress) if missing else ())
    if leader:
        observer.begin(plan, state)
    outcome = _launch(plan, observer.display)
    progress = outcome.progress
    if outcome.stopped or not leader:
        return _summary(plan, progress, stopped=outcome.stopped)
    return _summary(plan, progress, written=observer.report(plan, progress))


def _summary(plan: Plan, progress: Progress, **more: Any) -> Summary:
    return Summary(plan.output, progress.best, progress.epoch, unreadable=progress.unreadable, **more)


class _Outcome:
    """What a process hands back. Not a dataclass: Fabric would take it apart in search of tensors."""

    def __init__(self, progress: Progress, stopped: int = 0) -> None:
        self.progress = progress
        self.stopped = stopped


def _launch(plan: Plan, display: Callable[[Plan, int], ClosingDisplay]) -> _Outcome:
    """Train in this process, in `devices` new ones, or as one of those that torchrun started."""
    from lightning_fabric import Fabric

    settings: Any = {"accelerator": plan.device.partition(":")[0], "precision": plan.settings.recipe.precision}
    sharded = plan.strategy == "fsdp"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        world, local = processes(plan.devices)
        settings |= {"devices": local, "num_nodes": world // local}
        fabric = sharded_fabric(world, spawn=False, **settings) if sharded else Fabric(strategy="ddp", **settings)
        fabric.launch()
        return _work(fabric, plan, display)
    if plan.devices == 1:
        devices: Any = [int(plan.device.partition(":")[2])] if ":" in plan.device else 1
        return _work(Fabric(devices=devices, **settings), plan, display)
    settings |= {"devices": plan.devices}
    fabric = (
        sharded_fabric(plan.devices, spawn=True, **settings) if sharded else Fabric(strategy="ddp_spawn", **settings)
    )
    failures: SimpleQueue[str] = multiprocessing.get_context("spawn").SimpleQueue()
    with _forwarded_signals() as received:
        try:
            return fabric.launch(
                partial(_work, plan=plan, display=display, failures=failures, speaking=messages.language())
            )
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
    display: Callable[[Plan, int], ClosingDisplay],
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
        return _train(fabric, plan, display)
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


def _train(fabric: Fabric, plan: Plan, display: Callable[[Plan, int], ClosingDisplay]) -> _Outcome:
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
        shown = None
        if fabric.is_global_zero:
            shown = stack.enter_context(closing(display(plan, batches.steps_per_epoch)))
        trainer = Trainer(
            fabric,
            build_network(plan),
            plan.settings,
            batches,
            validation,
            plan.folder,
            shown,
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
