"""Labelled images as training batches that follow from (seed, epoch, step) alone.

Which images make up a step, and how each is augmented, depends neither on the number of processes and workers nor on
what happened before. So a run goes on at any step exactly as if it had never stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, default_collate
from torch.utils.data import Dataset as TorchDataset

from torchclas.data.augment import TrainTransform, generator
from torchclas.data.datasets import Indices, LabelledImages, Subset
from torchclas.data.multi_label import is_multi_label, rarest
from torchclas.data.preprocess import Preprocess
from torchclas.data.workers import Failure, Workers, is_shortage, noted
from torchclas.errors import DataError, ImageError
from torchclas.recipes import Sampling
from torchclas.text import many_images

Weights: TypeAlias = npt.NDArray[np.float64]

PREFETCHED = 2  # batches that each worker has ready


@dataclass(frozen=True, slots=True)
class Draw:
    """One place of an epoch, `position` counted from 0, and the image that takes it."""

    epoch: int
    position: int
    index: int


@dataclass(frozen=True, slots=True)
class Example:
    """An image [3, H, W], its class or its row of 0 and 1, and its place in the data set."""

    image: Tensor
    label: Tensor
    index: int


class Skipped(NamedTuple):
    """An image that could not be read."""

    name: str
    reason: str


class Batch(NamedTuple):
    """Images float32 [N, 3, H, W], labels int64 and places in the data set int64 [N], without the `skipped` ones.

    Labels are classes [N], or 0 and 1 [N, classes] where an image has any number of them. N is 0 where no image of the
    batch could be read.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    skipped: Sequence[Skipped]


class ImageData(TorchDataset["Example | Skipped | Failure"]):
    """Reads, decodes and transforms the image of a draw. A bad file gives `Skipped`; no other image takes its place.

    Whatever else goes wrong gives a `Failure`. `places` is where a worker notes what it is at.

    Raises DataError: there are images without a class.
    """

    def __init__(
        self,
        images: LabelledImages,
        transform: TrainTransform | Preprocess,
        *,
        seed: int = 0,
        places: Tensor | None = None,
    ) -> None:
        self.images = images
        self.transform = transform
        self.seed = seed
        self._places = places
        self._labels = torch.from_numpy(images.labels)
        if images.labels.ndim == 1 and len(unlabelled := np.flatnonzero(images.labels < 0)):
            raise DataError(
                f"{many_images(len(unlabelled))} without a class, the first is {images.name(int(unlabelled[0]))}: "
                "`torchclas data check` lists them"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Draw) -> Example | Skipped | Failure:
        draw = index
        with noted(self._places, draw.index):
            try:
                return Example(self._image(draw), self._labels[draw.index], draw.index)
            except Exception as error:
                name = self.images.name(draw.index)
                if isinstance(error, ImageError) and not is_shortage(error):
                    return Skipped(name, str(error))
                where = f"epoch {draw.epoch + 1}, position {draw.position}, seed {self.seed}"
                return Failure.of(error, name, where)

    def _image(self, draw: Draw) -> Tensor:
        file = self.images.read(draw.index)
        if isinstance(self.transform, TrainTransform):
            # Keyed by the place, not the image: class-balanced sampling may draw an image twice in an epoch.
            return self.transform(file, generator(self.seed, draw.epoch, draw.position))
        return self.transform(file)


def collate(items: Sequence[Example | Skipped | Failure]) -> Batch | Failure:
    """Stack what could be read; the first failure takes the place of all."""
    if failures := [item for item in items if isinstance(item, Failure)]:
        return failures[0]
    examples = [item for item in items if isinstance(item, Example)]
    try:
        # In a worker, torch's own function stacks straight into the memory that the batch is sent in.
        images = default_collate([example.image for example in examples]) if examples else torch.empty(0, 3, 1, 1)
    except Exception as error:  # too little shared memory, above all
        return Failure.of(error, "a batch", f"{len(examples)} images of {tuple(examples[0].image.shape)}")
    labels = torch.stack([example.label for example in examples]) if examples else torch.empty(0, dtype=torch.int64)
    indices = torch.tensor([example.index for example in examples], dtype=torch.int64)
    return Batch(images, labels, indices, tuple(item for item in items if isinstance(item, Skipped)))


class EpochBatches(Sampler[list[Draw]]):
    """This process's share of every batch of an epoch.

    Step t holds places t·B … (t+1)·B - 1 of the epoch's order, where B is `batch_size` over all processes; process
    `rank` takes a contiguous share of them (of near equal size where B does not divide). The order is a permutation
    that follows from (seed, epoch); with `weights` it is as many draws with replacement in proportion to them; without
    `shuffle` it is that of the data. `drop_last` leaves a smaller last batch out, unless it is the only one.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        *,
        seed: int = 0,
        epoch: int = 0,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        drop_last: bool = False,
        weights: Weights | None = None,
    ) -> None:
        if images < 1 or batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(f"{images} images, batches of {batch_size}, process {rank} of {world_size}")
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.shuffle = shuffle
        self.weights = None if weights is None else weights / weights.sum()
        complete, rest = divmod(images, batch_size)
        self.steps_per_epoch = complete + (rest > 0 and (not drop_last or complete == 0))
        self.go_to(epoch, start_step)

    def go_to(self, epoch: int, step: int = 0) -> None:
        """Let the next iteration be over this epoch, from this step on."""
        self.epoch = epoch
        self.start_step = step

    def __len__(self) -> int:
        return max(0, self.steps_per_epoch - self.start_step)

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, order = self.epoch, self._order()
        for step in range(self.start_step, self.steps_per_epoch):
            first = step * self.batch_size
            size = min(self.batch_size, self.images - first)
            start, stop = (first + size * rank // self.world_size for rank in (self.rank, self.rank + 1))
            yield [Draw(epoch, position, int(order[position])) for position in range(start, stop)]

    def _order(self) -> Indices:
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(0, self.epoch)))
        if self.weights is not None:
            return rng.choice(self.images, self.images, p=self.weights)
        return rng.permutation(self.images) if self.shuffle else np.arange(self.images)


class Loader:
    """Reads images in batches, in `workers` processes that last as long as it does (0: the calling one reads).

    Iterating raises LoadingError: a bug, a lack of memory or a killed process kept an image from being read.
    """

    def __init__(
        self,
        images: LabelledImages,
        transform: TrainTransform | Preprocess,
        batches: Sampler[list[Draw]],
        *,
        seed: int = 0,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self._images = images
        self._workers = Workers(workers) if workers else None
        places = self._workers.places if self._workers else None
        self._loader: DataLoader[Batch | Failure] = DataLoader(  # pyright: ignore[reportAttributeAccessIssue] - typed by what it reads
            ImageData(images, transform, seed=seed, places=places),
            batch_sampler=batches,  # pyright: ignore[reportArgumentType] - its keys need not be integers
            collate_fn=collate,
            num_workers=workers,
            # A fork of a process whose threads hold locks (torch's, OpenCV's) may wait for them forever.
            multiprocessing_context="forkserver" if workers else None,
            prefetch_factor=PREFETCHED if workers else None,
            persistent_workers=workers > 0,
            worker_init_fn=self._workers.start if self._workers else None,
            pin_memory=pin_memory,
        )

    def __iter__(self) -> Iterator[Batch]:
        with self._telling(), self._workers.adopted() if self._workers else nullcontext():
            batches = iter(self._loader)  # which waits for the workers, where there were any before
        while True:
            with self._telling():
                batch = next(batches, None)
            if batch is None:
                return
            if isinstance(batch, Failure):
                self.close()
                raise batch.error()
            yield batch

    @contextmanager
    def _telling(self) -> Generator[None]:
        """Say which image a worker died of, where torch only says that one did."""
        try:
            yield
        except RuntimeError as error:
            if self._workers is None or "DataLoader worker" not in str(error):
                raise
            failure = self._workers.death(self._images.name)
            self.close()
            raise failure from error

    def close(self) -> None:
        """End the workers at once; nothing can be read afterwards."""
        if self._workers is not None:
            self._workers.close()


class TrainingBatches:
    """The batches of a whole run, epoch by epoch; `skipped` collects the files that could not be read, with reasons."""

    def __init__(
        self,
        images: LabelledImages,
        transform: TrainTransform,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        pin_memory: bool = False,
        drop_last: bool = False,
        weights: Weights | None = None,
    ) -> None:
        self.skipped: dict[str, str] = {}
        self._order = EpochBatches(
            len(images),
            batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            drop_last=drop_last,
            weights=weights,
        )
        self._loader = Loader(images, transform, self._order, seed=seed, workers=workers, pin_memory=pin_memory)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of every epoch."""
        return self._order.steps_per_epoch

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images [N, 3, H, W] and labels, as in `Batch`, of each step from `start_step` on; N may be 0."""
        self._order.go_to(epoch, start_step)
        for batch in self._loader:
            self.skipped.update(batch.skipped)
            yield batch.images, batch.labels

    def close(self) -> None:
        """End the workers; nothing can be read afterwards."""
        self._loader.close()


def sampling_weights(labels: Indices, sampling: Sampling) -> Weights | None:
    """Weights [N] to draw images by, as a recipe's `sampling` says; None stands for every image once.

    Of several classes, an image's rarest one counts.
    """
    if not sampling:
        return None
    if labels.ndim == 2:
        labels = rarest(labels) + 1
    counts = np.bincount(labels)[labels]
    return 1 / (counts if sampling == "balanced" else np.sqrt(counts))


def class_weights(labels: Indices, num_classes: int, chosen: Sequence[float] | None = None) -> Tensor:
    """Weights [num_classes] for the loss, 1 on average over the images: `chosen`, or inverse to the classes' frequency.

    A class without images then has weight 0. Of labels [N, classes] it weighs what is of a class: `chosen`, or as many
    times as images are not of it for each that is. Raises DataError where no class that is `chosen` has images.
    """
    if labels.ndim == 2:
        positive = labels.sum(0)
        times = (len(labels) - positive) / np.maximum(positive, 1) if chosen is None else np.array(chosen)
        return torch.from_numpy(times).float()  # pyright: ignore[reportUnknownMemberType]
    counts = np.bincount(labels, minlength=num_classes)
    weights = np.divide(1, counts, where=counts > 0, out=np.zeros(len(counts))) if chosen is None else np.array(chosen)
    if not (mean := float((weights * counts).sum() / len(labels))):
        raise DataError("loss.class_weights: no class with a weight above 0 has images")
    return torch.from_numpy(weights / mean).float()  # pyright: ignore[reportUnknownMemberType]


def exponential_weights(labels: Indices) -> Tensor:
    """Weights [2, classes] for the loss of what an image is not of, exp(s), and is of, exp(1 - s); s is the share of
    the images that are of the class, and `labels` are [N, classes].
    """
    shares = torch.from_numpy(labels.mean(0)).float()  # pyright: ignore[reportUnknownMemberType]
    return torch.stack([shares, 1 - shares]).exp()


def split_by_hash(images: LabelledImages, fraction: float, *, stratified: bool = True) -> tuple[Subset, Subset]:
    """Divide a data set into (training, validation); `fraction` of it is for validation.

    A hash of an image's key decides, so the same images are chosen on every machine. With `stratified` every class
    gives its share, at least one image where it has two or more; of several classes, an image's rarest one counts.
    Without, images that are added later never move
    others from one side to the other.

    Raises DataError: nothing would be left for one of the sides.
    """
    if not 0 < fraction < 1:
        raise DataError(f"the share of images for validation must lie between 0 and 1, not {fraction:g}")
    labels = rarest(images.labels) if is_multi_label(images) else images.labels
    hashes = np.fromiter((_hash(images.key(index)) for index in range(len(images))), np.uint64, len(images))
    if stratified:
        chosen = np.zeros(len(images), bool)
        by_class = np.lexsort((hashes, labels))
        starts = np.flatnonzero(np.diff(labels[by_class], prepend=-2))
        for members in np.split(by_class, starts[1:]):
            share = min(max(round(fraction * len(members)), 1), len(members) - 1)
            chosen[members[:share]] = True
    else:
        chosen = hashes < np.uint64(fraction * 2**64)
    if chosen.all() or not chosen.any():
        raise DataError(
            f"{len(images)} images cannot be divided into {1 - fraction:.0%} for training and {fraction:.0%} for "
            "validation: add images, or name a folder of others for validation"
        )
    return Subset(images, np.flatnonzero(~chosen)), Subset(images, np.flatnonzero(chosen))


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
