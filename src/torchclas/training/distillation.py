"""What distillation adds to training: a frozen teacher, batches that need no labels, and a cache of what it said.

The teacher sees the very pixels that the student sees. So its logits can be kept only for views (crop, flip, …) that
come back: with a cache every image has a fixed number of them, each following from (view, image) alone, and epoch e
shows view e modulo their number.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from torchclas.atomic import atomic_path
from torchclas.catalog import Preset
from torchclas.compat import BatchNorm
from torchclas.data.augment import TrainTransform
from torchclas.data.datasets import Indices, LabelledImages
from torchclas.data.preprocess import Preprocess
from torchclas.data.training import Draw, EpochBatches, Loader, TrainingBatches, Weights
from torchclas.errors import Error, OutputError
from torchclas.layers.network import Network
from torchclas.recipes import Augment, Distill, Loss
from torchclas.sizes import Size, show_size
from torchclas.training.losses import distillation_loss
from torchclas.vocabulary import BatchNormMode

if TYPE_CHECKING:
    from lightning_fabric import Fabric


VIEWS_SEED = 0  # not the run's: runs with other seeds share a cache
SHARD = 4096  # rows that count as written together
_FORMAT = 1


class DistillationError(Error):
    """A teacher, a cache and a student that do not go together."""


class Source(Protocol):
    """Where the teacher's logits come from."""

    def __call__(self, images: Tensor, rows: Tensor) -> Tensor:
        """Logits [N, classes] for images as the student sees them, and for their rows [N] of the cache."""
        ...


class Teacher:
    """A frozen network.

    With `batch_norm="train"` it is in training mode, as upstream's teachers are: batch norm normalises by the
    statistics of the batch instead of those it has learnt, and dropout drops. `preset` tells how its input is
    normalised, `student` how the images it will get are.
    """

    def __init__(
        self, fabric: Fabric, network: Network, preset: Preset, student: Preset, batch_norm: BatchNormMode = "eval"
    ) -> None:
        self._fabric = fabric
        self._network = network.to(fabric.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._network.requires_grad_(False).eval()
        if batch_norm == "train":
            network.train()
            for module in network.modules():
                if isinstance(module, BatchNorm):  # without statistics of its own it takes the batch's
                    module.running_mean = module.running_var = None
        _resize(network, student.size)
        mean, std, own_mean, own_std = (
            torch.tensor(values, device=fabric.device)[:, None, None]
            for values in (student.mean, student.std, preset.mean, preset.std)
        )
        same = (preset.mean, preset.std) == (student.mean, student.std)
        self._renormalize = None if same else (std / own_std, (mean - own_mean) / own_std)

    @torch.no_grad()
    def __call__(self, images: Tensor, rows: Tensor | None = None) -> Tensor:
        """Logits [N, classes], float32."""
        images = images.to(self._fabric.device, memory_format=torch.channels_last)
        if self._renormalize is not None:
            scale, shift = self._renormalize
            images = images * scale + shift
        with self._fabric.autocast():
            return self._network(images).float()


def _resize(network: Network, size: Size) -> None:
    try:
        network.set_input_size(size)
    except ValueError as error:
        raise DistillationError(
            f"the teacher does not take the student's images of {show_size(size)} px ({error})"
        ) from error


class DistillationLoss:
    """The loop's criterion: each head of the student learns from the teacher, weighed as the recipe says."""

    def __init__(self, source: Source, settings: Distill, loss: Loss, class_weights: Tensor | None = None) -> None:
        self.source = source
        self.settings = settings
        self.loss = loss
        self.class_weights = class_weights

    def __call__(self, images: Tensor, outputs: Sequence[Tensor], targets: Tensor) -> Tensor:
        """`targets` are [N, 2]: class, and row of the cache."""
        labels, rows = targets.unbind(-1)
        taught = self.source(images, rows)
        losses = [
            distillation_loss(output, taught, labels, self.settings, self.loss, self.class_weights)
            for output in outputs
        ]
        weighed = [weight * loss for weight, loss in zip(self.loss.head_weights, losses, strict=True)]
        return torch.stack(weighed).sum()


class DistillationBatches(TrainingBatches):
    """Training batches whose targets are [N, 2]: class, and row of the cache.

    With `views`, each image has so many and no more, as a cache needs it; 0 stands for new ones in every epoch.
    """

    def __init__(
        self,
        images: LabelledImages,
        transform: TrainTransform,
        batch_size: int,
        *,
        views: int = 0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        pin_memory: bool = False,
        drop_last: bool = False,
        weights: Weights | None = None,
    ) -> None:
        super().__init__(
            images,
            transform,
            batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            workers=workers,
            pin_memory=pin_memory,
            drop_last=drop_last,
            weights=weights,
        )
        self._views = views
        self._images = len(images)
        if views:
            order = FixedViews(self._order, views)
            self._loader = Loader(images, transform, order, seed=VIEWS_SEED, workers=workers, pin_memory=pin_memory)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images [N, 3, H, W] and targets [N, 2] of each step from `start_step` on; N may be 0."""
        self._order.go_to(epoch, start_step)
        view = epoch % self._views if self._views else 0
        for batch in self._loader:
            self.skipped.update(batch.skipped)
            yield batch.images, torch.stack([batch.labels, view * self._images + batch.indices], -1)


class FixedViews(Sampler[list[Draw]]):
    """The draws of `order`, each of them a view that follows from the epoch modulo `views` and the image."""

    def __init__(self, order: EpochBatches, views: int) -> None:
        self._order = order
        self._views = views

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[list[Draw]]:
        for draws in self._order:
            yield [Draw(draw.epoch % self._views, draw.index, draw.index) for draw in draws]


class _RowBatches(Sampler[list[Draw]]):
    """All views of all images, in the order of the cache's rows from `start` on; a batch is of one view."""

    def __init__(self, images: int, views: int, batch_size: int, start: int) -> None:
        self._images = images
        self._views = views
        self._batch_size = batch_size
        self._start = start

    def __iter__(self) -> Iterator[list[Draw]]:
        start = self._start
        while start < self._images * self._views:
            view, first = divmod(start, self._images)
            last = min(first + self._batch_size, self._images)
            yield [Draw(view, index, index) for index in range(first, last)]
            start = view * self._images + last


@dataclass(frozen=True)
class LogitCache:
    """The teacher's `k` largest logits for `views` views of `images` images, in one file that is mapped into memory.

    `logits.bin` has a row per view and image: float16 log-probabilities of the k best classes, the log of what is left
    for all others together (which share it evenly), and the classes as int32. `logits.json` says for what it was made
    (`key`) and how many rows count; it is replaced after each shard, so that filling goes on where it was stopped.
    """

    folder: Path
    key: Mapping[str, Any]
    images: int
    views: int
    classes: int
    k: int

    def __post_init__(self) -> None:
        if not 0 < self.k <= self.classes:
            raise DistillationError(f"the cache cannot hold {self.k} logits of {self.classes}: give 1..{self.classes}")

    @property
    def rows(self) -> int:
        """One for each view of each image."""
        return self.images * self.views

    @property
    def bytes(self) -> int:
        """What the whole file takes on disk."""
        return self.rows * self._row.itemsize

    @property
    def file(self) -> Path:
        """The logits."""
        return self.folder / "logits.bin"

    @property
    def index(self) -> Path:
        """What they are, and how many."""
        return self.folder / "logits.json"

    @property
    def _row(self) -> np.dtype[np.void]:
        return np.dtype([("values", "<f2", (self.k + 1,)), ("classes", "<i4", (self.k,))])

    def done(self) -> int:
        """How many rows count; raises `DistillationError` where the files were made for something else."""
        if not self.index.exists():
            return 0
        try:
            found: dict[str, Any] = json.loads(self.index.read_text(encoding="utf-8"))
            done, key = int(found["done"]), dict(found["key"])
        except (ValueError, KeyError, TypeError) as error:
            raise DistillationError(f"{self.index}: damaged ({error}): delete {self.folder}") from error
        wanted = self._full_key()
        if differences := [name for name in {**key, **wanted} if key.get(name) != wanted.get(name)]:
            raise DistillationError(
                f"{self.folder} holds logits for another {', '.join(differences)}: delete it, or choose another folder "
                "(--cache-folder)"
            )
        if not self.file.exists() or self.file.stat().st_size != self.bytes:
            raise DistillationError(f"{self.file}: missing or not of {self.bytes:,} bytes: delete {self.folder}")
        return done

    def fill(
        self, teacher: Teacher, images: LabelledImages, transform: TrainTransform, *, batch_size: int, workers: int = 0
    ) -> Iterator[int]:
        """Ask the teacher for the rows that are missing; yield how many there are, after each batch.

        Images that cannot be read get no logits. Raises OutputError: the disk has no room.
        """
        done = self.done()
        if done == self.rows:
            return
        records = self._map(new=done == 0)
        loader = Loader(
            images,
            transform,
            _RowBatches(self.images, self.views, batch_size, done),
            seed=VIEWS_SEED,
            workers=workers,
        )
        position = saved = done
        for batch in loader:
            view = position // self.images
            size = len(batch.indices) + len(batch.skipped)
            records["classes"][position : position + size] = -1
            if len(batch.indices):
                logits = teacher(batch.images).cpu()
                values, classes = _pack(logits, self.k)
                rows = (view * self.images + batch.indices).numpy()
                records["values"][rows] = values.numpy()
                records["classes"][rows] = classes.numpy()
            position += size
            if position - saved >= SHARD or position == self.rows:
                records.flush()
                self._commit(position)
                saved = position
            yield position

    def source(self) -> CachedLogits:
        """The logits, to be looked up; raises `DistillationError` where some are missing."""
        if (done := self.done()) < self.rows:
            raise DistillationError(f"{self.folder} has {done:,} of {self.rows:,} rows: it must be filled first")
        return CachedLogits(np.memmap(self.file, self._row, mode="r", shape=(self.rows,)), self.classes)

    def _map(self, *, new: bool) -> np.memmap[Any, np.dtype[np.void]]:
        if not new:
            return np.memmap(self.file, self._row, mode="r+", shape=(self.rows,))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if (free := shutil.disk_usage(self.folder).free) < self.bytes:  # the file is sparse: it would fail midway
                raise OutputError(
                    f"{self.folder}: the cache takes {self.bytes:,} bytes, the disk has {free:,}: keep fewer logits "
                    "(--cache-logits) or views (--cache-views), or choose another folder (--cache-folder)"
                )
            records = np.memmap(self.file, self._row, mode="w+", shape=(self.rows,))
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written: {error.strerror}") from error
        self._commit(0)
        return records

    def _commit(self, done: int) -> None:
        with atomic_path(self.index) as path:
            path.write_text(json.dumps({"done": done, "key": self._full_key()}, indent=2) + "\n", encoding="utf-8")

    def _full_key(self) -> dict[str, Any]:
        sizes = {name: getattr(self, name) for name in ("images", "views", "classes", "k")}
        return json.loads(json.dumps({"format": _FORMAT, **self.key, **sizes}))


class CachedLogits:
    """Looks the teacher's logits up instead of computing them."""

    def __init__(self, records: np.memmap[Any, np.dtype[np.void]], classes: int) -> None:
        self._records = records
        self._classes = classes

    def __call__(self, images: Tensor, rows: Tensor) -> Tensor:
        """Log-probabilities [N, classes]: as logits, up to a constant."""
        found = self._records[rows.cpu().numpy()]
        classes = torch.from_numpy(found["classes"].astype(np.int64))
        if (classes < 0).any():
            raise DistillationError(
                "the cache lacks an image that could not be read when it was made, and now can: delete the cache"
            )
        return _unpack(torch.from_numpy(found["values"]).float(), classes, self._classes).to(images.device)


def _pack(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities float16 [N, k + 1], the last of all other classes together, and the k classes int32 [N, k]."""
    scores = logits.log_softmax(-1).sort(descending=True)
    others = scores.values[:, k:].logsumexp(-1, keepdim=True)
    values = torch.cat([scores.values[:, :k], others], -1).clamp(min=torch.finfo(torch.float16).min)
    return values.half(), scores.indices[:, :k].int()


def _unpack(values: Tensor, classes: Tensor, count: int) -> Tensor:
    """Inverse of `_pack`, but that the other classes have equal shares: [N, count]."""
    others = values[:, -1:] - np.log(max(1, count - classes.shape[1]))
    return others.repeat(1, count).scatter(1, classes, values[:, :-1])


def describe(images: LabelledImages, augment: Augment, student: Preset, teacher: str) -> dict[str, Any]:
    """What the logits of a cache follow from; `teacher` identifies its weights."""
    digest = hashlib.sha256()
    for index in range(len(images)):
        digest.update(images.key(index).encode("utf-8", "surrogateescape") + b"\0")
    return {
        "teacher": teacher,
        "files": digest.hexdigest(),
        "preprocessing": student.to_dict(),
        "augmentation": asdict(augment),
    }


def predicted_classes(
    teacher: Teacher, images: LabelledImages, preset: Preset, *, batch_size: int, workers: int = 0
) -> Indices:
    """The teacher's best class for every image [N], prepared for evaluation; 0 where it cannot be read."""
    batches = EpochBatches(len(images), batch_size, shuffle=False, drop_last=False)
    classes = np.zeros(len(images), np.int64)
    for batch in Loader(images, Preprocess(preset), batches, workers=workers):
        if len(batch.images):
            classes[batch.indices.numpy()] = teacher(batch.images).argmax(-1).cpu().numpy()
    return classes
