"""The training loop. What it does next follows from its checkpoint and its settings alone.

So a run that was killed goes on as if nothing had happened: batches are keyed by (seed, epoch), augmentation by (seed,
epoch, image), dropout by (seed, step, process), and a checkpoint holds all the rest.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from torchclas import signals
from torchclas.compat import BatchNorm
from torchclas.errors import Error
from torchclas.layers.network import Network
from torchclas.recipes import Recipe
from torchclas.training.cpu import FastBf16
from torchclas.training.losses import classification_loss
from torchclas.training.mixing import mix
from torchclas.training.optimizer import build_optimizer, clip_each
from torchclas.training.schedule import learning_rate
from torchclas.training.sharding import data_mesh, distribute, distribute_optimizer, gather, shard
from torchclas.training.validation import Scores

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class TrainingError(Error):
    """A training run that cannot go on."""


class Interrupted(Exception):  # noqa: N818 - it is none: the run was asked to stop, and can go on
    """The run was stopped by a signal, after saving."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass(frozen=True, slots=True)
class Settings:
    """What the loop follows beside the data.

    `lr` is the recipe's, scaled to the batch that is used. `accumulate` splits each step's images to save memory.
    During the first `head_epochs` only the classifier learns. Training ends after `early_stop` epochs without a new
    best (0: never). A checkpoint is due at every epoch's end, every `checkpoint_steps` (0: never) and
    `checkpoint_seconds`.
    """

    recipe: Recipe
    lr: float
    seed: int = 0
    accumulate: int = 1
    head_epochs: int = 0
    early_stop: int = 0
    checkpoint_steps: int = 0
    checkpoint_seconds: float = 300.0
    compile: bool = False


@dataclass(frozen=True, slots=True)
class Epoch:
    """One row of the log. `train_loss` is the mean over the images of the loss that was minimised.

    Where an image has one class, `val_top1` and `val_top5` tell how good the network is; where it has any number of
    them, `val_map` does (mean average precision). The others are None.
    """

    epoch: int
    steps: int
    lr: float
    train_loss: float
    val_loss: float
    val_top1: float | None
    val_top5: float | None
    images_per_second: float
    seconds: float
    val_map: float | None = None

    @property
    def score(self) -> float:
        """What the best network is chosen by, in 0..1."""
        score = self.val_top1 if self.val_map is None else self.val_map
        assert score is not None
        return score

    @property
    def score_name(self) -> str:
        """What that is."""
        return "top-1" if self.val_map is None else "mAP"


@dataclass
class Progress:
    """Where a run is. `step` counts the steps done in `epoch`, both from 0; sums are over that epoch.

    `unreadable` are the bad files that any process met, with the reasons, as of the last checkpoint.
    """

    epoch: int = 0
    step: int = 0
    images: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    best_epoch: int = -1
    finished: bool = False
    unreadable: dict[str, str] = field(default_factory=dict[str, str])
    history: list[Epoch] = field(default_factory=list[Epoch])

    @property
    def best(self) -> Epoch | None:
        """The row of the best epoch so far."""
        return self.history[self.best_epoch] if self.best_epoch >= 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        """Inverse of `to_dict`."""
        history = [Epoch(**row) for row in values["history"]]
        return cls(**{key: value for key, value in values.items() if key != "history"}, history=history)


class Batches(Protocol):
    """The training images, this process's share of them. `skipped` fills with the bad files among them."""

    skipped: dict[str, str]

    @property
    def steps_per_epoch(self) -> int:
        """Steps of every epoch."""
        ...

    def epoch(self, epoch: int, start_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images [N, 3, H, W] and classes [N] of each step from `start_step` on; N may be 0 where files are bad."""
        ...


class Criterion(Protocol):
    """What is minimised."""

    def __call__(self, images: Tensor, outputs: Sequence[Tensor], targets: Tensor) -> Tensor:
        """Mean loss of a part of a batch, given the logits of every head; `targets` are as the batches have them."""
        ...


class Run(Protocol):
    """Where checkpoints and figures go; see torchclas.training.run."""

    def latest(self) -> dict[str, Any] | None:
        """The newest state that can be read."""
        ...

    def save(self, state: dict[str, Any]) -> None:
        """Keep a state."""
        ...

    def save_best(self, network: Network, row: Epoch, thresholds: tuple[float, ...]) -> None:
        """Keep the best network so far, with the thresholds of its classes where images have several."""
        ...

    def record(self, progress: Progress) -> None:
        """Write what is to be read: the log, curves' data."""
        ...

    def where(self) -> str:
        """What to go back to, for a message."""
        ...


class Display(Protocol):
    """Shows how a run gets on."""

    def step(self, progress: Progress, loss: float, lr: float) -> None:
        """A step was done; its loss is 0 where it had too few images."""
        ...

    def epoch(self, progress: Progress) -> None:
        """An epoch was done and measured."""
        ...


class Trainer:
    """Trains a network; everything that changes is in `network`, `averaged`, `optimizer` and `progress`.

    With a Fabric from `sharded_fabric` the processes share network and optimizer; checkpoints hold whole tensors all
    the same, so that any number of processes of either kind can go on from them.
    """

    def __init__(
        self,
        fabric: Fabric,
        network: Network,
        settings: Settings,
        batches: Batches,
        validate: Callable[[Network], Scores],
        run: Run,
        display: Display | None = None,
        criterion: Criterion | None = None,
    ) -> None:
        self.fabric = fabric
        self.settings = settings
        self.batches = batches
        self.validate = validate
        self.run = run
        self.display = display
        self.progress = Progress()
        recipe = settings.recipe
        self.criterion = criterion or (lambda _, outputs, targets: classification_loss(outputs, targets, recipe.loss))
        mesh = data_mesh(fabric)
        self._whole = None if mesh is None else copy.deepcopy(network).to("meta")  # to be filled, and kept as the best
        # Convolutions of a batch in channels_last are faster nearly everywhere; sharding wants plain weights.
        self.network = (
            network.to(fabric.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            if mesh is None
            else network
        )
        if recipe.freeze == "body":
            freeze_body(self.network, last_norm=True)
        self.averaged = (
            AveragedModel(self.network, multi_avg_fn=_moving_average(recipe.ema), use_buffers=True)
            if recipe.ema
            else None
        )
        if mesh is not None:
            shard(self.network, mesh)
            if self.averaged is not None:
                shard(cast(Network, self.averaged.module), mesh)
        self.optimizer = build_optimizer(self.network, recipe.optimizer)
        self._step_optimizer = cast(Any, fabric.setup_optimizers(self.optimizer))
        self._least = 2 if any(isinstance(module, BatchNorm) for module in network.modules()) else 1
        self._prepared: tuple[bool, nn.Module] | None = None
        self._fast_bf16 = fabric.device.type == "cpu" and "bf16" in recipe.precision and not settings.compile
        self._saved_at = time.monotonic()

    @property
    def result(self) -> Network:
        """The network that is measured and kept: the averaged one where there is one."""
        return self.network if self.averaged is None else cast(Network, self.averaged.module)

    def fit(self) -> Progress:
        """Train to the end from wherever the run is.

        Raises:
            TrainingError: the loss is not finite.
            Interrupted: a signal asked for it (see `torchclas.signals`); the state has been saved.
        """
        state = self.run.latest()
        if state is not None:
            self.restore(state)
        with signals.collected() as received:
            while not self.progress.finished:
                self._train(received)
                self._end_epoch()
                _, stop, _ = self._agree(0, received)
                if stop and not self.progress.finished:
                    raise Interrupted(stop)
        return self.progress

    def state(self) -> dict[str, Any]:
        """Everything that a run needs to go on: tensors and plain values, in process 0 at least.

        Where processes share the network, all of them must call this together.
        """
        state = {
            "network": self.network.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),  # the scale of fp16's gradients
            "progress": self.progress.to_dict(),
        }
        return state if self._whole is None else gather(state, keep=self.fabric.is_global_zero)

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.network.load_state_dict(distribute(state["network"], self.network.state_dict()))
        if self.averaged is not None:
            self.averaged.load_state_dict(distribute(state["averaged"], self.averaged.state_dict()))
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.optimizer.load_state_dict(distribute_optimizer(state["optimizer"], parameters))
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.progress = Progress.from_dict(state["progress"])

    def _train(self, received: list[int]) -> None:
        """The rest of the current epoch."""
        progress, steps = self.progress, self.batches.steps_per_epoch
        model = self._prepare()
        last = time.monotonic()
        for images, labels in self.batches.epoch(progress.epoch, progress.step):
            number = progress.epoch * steps + progress.step
            torch.manual_seed(_key(self.settings.seed, number, self.fabric.global_rank))
            lr = learning_rate(
                self.settings.recipe.schedule, self.settings.lr, number, steps, self.settings.recipe.epochs
            )
            counts, stop, late = self._agree(len(images), received)
            loss = 0.0
            if min(counts) >= self._least:
                loss = self._step(model, images, labels, lr, counts)
                progress.images += sum(counts)
                progress.loss += loss * sum(counts)
            progress.step += 1
            now = time.monotonic()
            progress.seconds, last = progress.seconds + now - last, now
            if self.display is not None:
                self.display.step(progress, loss, lr)
            every = self.settings.checkpoint_steps
            if stop or late or (every and progress.step % every == 0):
                self._checkpoint()
            if stop:
                raise Interrupted(stop)

    def _prepare(self) -> nn.Module:
        """The network as this epoch trains it."""
        recipe = self.settings.recipe
        asleep = recipe.freeze == "body" or self.progress.epoch < self.settings.head_epochs
        self.network.requires_grad_(True).train()
        if asleep:
            freeze_body(self.network, last_norm=recipe.freeze == "body")
        if self._prepared is None or self._prepared[0] != asleep:  # DDP must be told anew when what learns changes
            heads: nn.Module = _Heads(self.network, len(recipe.loss.head_weights))
            if self.settings.compile:
                heads = cast(nn.Module, torch.compile(heads))
            self._prepared = asleep, self.fabric.setup_module(heads)
        return self._prepared[1]

    def _step(self, model: nn.Module, images: Tensor, labels: Tensor, lr: float, counts: list[int]) -> float:
        """One step of the optimizer; returns the mean loss over the images of all processes, `counts` of each."""
        recipe, fabric = self.settings.recipe, self.fabric
        images = images.to(fabric.device, memory_format=torch.channels_last, non_blocking=True)
        targets = labels.to(fabric.device, non_blocking=True)
        if recipe.augment.mixup_prob or recipe.augment.cutmix_prob:
            number = self.progress.epoch * self.batches.steps_per_epoch + self.progress.step
            targets = targets if targets.ndim == 2 else F.one_hot(targets, self.network.num_classes)
            targets = targets.float()
            images, targets = mix(images, targets, recipe.augment, seed=self.settings.seed, step=number)
        # As many in each process, whatever its share of a smaller batch: those that share a network compute in step.
        count = min(self.settings.accumulate, min(counts) // self._least)
        parts = list(zip(images.tensor_split(count), targets.tensor_split(count), strict=True))
        loss = torch.zeros((), device=fabric.device)
        for index, (part, target) in enumerate(parts):
            with fabric.no_backward_sync(cast(Any, model), enabled=index < len(parts) - 1):
                # DDP averages over the processes; with this weight the sum is the mean over all images.
                with FastBf16() if self._fast_bf16 else contextlib.nullcontext():
                    outputs = model(part)
                share = self.criterion(part, outputs, target) * (len(part) / sum(counts))
                fabric.backward(share * fabric.world_size)
            loss += share.detach()
        mean = cast(Tensor, fabric.all_reduce(loss, reduce_op="sum")).item()
        if not math.isfinite(mean):
            raise self._diverged(
                f"the loss is {mean} at epoch {self.progress.epoch + 1}, step {self.progress.step + 1}, learning rate "
                f"{lr:.3g}, so training stopped before it could spoil the weights"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if recipe.optimizer.clip_each:
            clip_each(self.network.parameters(), recipe.optimizer.clip_each)
        if recipe.clip:
            fabric.clip_gradients(model, self._step_optimizer, max_norm=recipe.clip)
        self._step_optimizer.step()
        self._step_optimizer.zero_grad()
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)
        return mean

    def _diverged(self, what: str) -> TrainingError:
        return TrainingError(
            f"{what}; {self.run.where()}: begin a new run with a lower learning rate (--set optimizer.lr=…) or, if it "
            "was not, with --precision fp32"
        )

    def _agree(self, images: int, received: list[int]) -> tuple[list[int], int, bool]:
        """What all processes must know.

        How many images each has for this step, the signal that any of them received (0: none), whether a checkpoint is
        due by the clock.
        """
        rank, world = self.fabric.global_rank, self.fabric.world_size
        stop = received[0] if received else 0
        late = time.monotonic() - self._saved_at > self.settings.checkpoint_seconds
        if world == 1:
            return [images], stop, late
        mine = torch.zeros(3, world, dtype=torch.long, device=self.fabric.device)
        mine[0, rank], mine[1, rank], mine[2, rank] = images, stop, late
        counts, stops, lates = cast(Tensor, self.fabric.all_reduce(mine, reduce_op="sum")).tolist()
        return counts, max(stops), any(lates)

    def _checkpoint(self) -> None:
        """Save; all processes do it together."""
        skipped = [self.batches.skipped]
        if self.fabric.world_size > 1:
            skipped = [{}] * self.fabric.world_size
            torch.distributed.all_gather_object(skipped, self.batches.skipped)
        for found in skipped:
            self.progress.unreadable |= found
        self.progress.unreadable = dict(sorted(self.progress.unreadable.items()))
        if self.fabric.is_global_zero or self._whole is not None:
            state = self.state()
            if self.fabric.is_global_zero:
                self.run.save(state)
        self._saved_at = time.monotonic()

    def _end_epoch(self) -> None:
        """Measure, log, keep the network if it is the best, and save."""
        progress, settings, steps = self.progress, self.settings, self.batches.steps_per_epoch
        if not progress.images:
            raise TrainingError(f"epoch {progress.epoch + 1} trained on no image: none of the files could be read")
        if self.fabric.world_size > 1:  # statistics of batch norm are those of process 0's images, as they will be kept
            for buffer in self.result.buffers():
                torch.distributed.broadcast(buffer, 0)
        scores = self.validate(self.result)
        if not math.isfinite(scores.loss):
            raise self._diverged(f"the validation loss is {scores.loss} after epoch {progress.epoch + 1}")
        last_step = (progress.epoch + 1) * steps - 1
        row = Epoch(
            epoch=progress.epoch + 1,
            steps=last_step + 1,
            lr=learning_rate(settings.recipe.schedule, settings.lr, last_step, steps, settings.recipe.epochs),
            train_loss=progress.loss / progress.images,
            val_loss=scores.loss,
            val_top1=scores.top1,
            val_top5=scores.top5,
            val_map=scores.mean_average_precision,
            images_per_second=progress.images / max(progress.seconds, 1e-9),
            seconds=progress.seconds,
        )
        best = progress.best
        progress.history.append(row)
        if best is None or (row.score, -row.val_loss) > (best.score, -best.val_loss):
            progress.best_epoch = progress.epoch
        waited = progress.epoch - progress.best_epoch
        progress.epoch += 1
        progress.step = progress.images = 0
        progress.loss = progress.seconds = 0.0
        progress.finished = progress.epoch >= settings.recipe.epochs or 0 < settings.early_stop <= waited
        if waited == 0:
            self._save_best(row, scores.thresholds)
        if self.fabric.is_global_zero:
            self.run.record(progress)
            if self.display is not None:
                self.display.epoch(progress)
        self._checkpoint()

    def _save_best(self, row: Epoch, thresholds: tuple[float, ...]) -> None:
        zero = self.fabric.is_global_zero
        if self._whole is None:
            if zero:
                self.run.save_best(self.result, row, thresholds)
            return
        tensors = gather(self.result.state_dict(), keep=zero)
        if zero:
            self._whole.load_state_dict(tensors, assign=True)
            self.run.save_best(self._whole, row, thresholds)
            self._whole.to("meta")


class _Heads(nn.Module):
    """A network as training calls it: one output for each head that the recipe weighs."""

    def __init__(self, network: Network, heads: int) -> None:
        super().__init__()
        self.network = network
        self.heads = heads

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.network(x),) if self.heads == 1 else self.network.forward_heads(x)


def freeze_body(network: Network, *, last_norm: bool = False) -> None:
    """Let only the classifier learn (with `last_norm`, the last batch norm too); what sleeps is in evaluation mode.

    A batch norm of the body must keep its statistics, or a sleeping body would still change.
    """
    network.requires_grad_(False).eval()
    awake = [module for name, module in network.named_children() if name.startswith("classifier")]
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    for module in [*awake, *(norms[-1:] if last_norm else [])]:
        module.requires_grad_(True).train()


def _moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Exponential moving average that forgets the first steps sooner, or short runs would keep their start."""

    @torch.no_grad()
    def average(averaged: list[Tensor], current: list[Tensor], updates: int | Tensor) -> None:
        count = int(updates)
        rate = 1 - min(decay, (1 + count) / (10 + count))
        for target, value in zip(averaged, current, strict=True):
            if target.is_floating_point():
                target.lerp_(value, rate)
            else:  # a batch norm's count of batches
                target.copy_(value)

    return average


def _key(*parts: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1
