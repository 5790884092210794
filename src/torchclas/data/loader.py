"""Read, decode and preprocess many images on threads, in order, one row per input.

Threads suffice: OpenCV and Pillow release Python's lock while they work.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from torchclas.data.datasets import Entry
from torchclas.data.decode import ImageLike
from torchclas.data.preprocess import NoPreprocess, Preprocess
from torchclas.errors import Error, ImageError

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Batch:
    """Consecutive inputs: the images of those that could be read, an error for each of the others."""

    sources: tuple[str, ...]
    errors: tuple[ImageError | None, ...]  # one per source
    # [N, 3, H, W] of the N sources without an error; N may be 0. Without preprocessing uint8 [N, H, W, 3].
    images: npt.NDArray[Any]
    views: npt.NDArray[Any] | None = None  # [N, views, 3, H, W] where several are taken; `images` are the first ones

    def rows(self, results: Sequence[T]) -> Iterator[tuple[str, T | ImageError]]:
        """Put the results for `images` back among the errors: one (source, result or error) per source, in order."""
        if len(results) != len(self.images):
            raise ValueError(f"{len(results)} results for {len(self.images)} images")
        remaining = iter(results)
        for source, error in zip(self.sources, self.errors, strict=True):
            yield source, next(remaining) if error is None else error


def load(
    sources: Iterable[ImageLike | Entry], preprocess: Preprocess | NoPreprocess, *, batch_size: int, workers: int
) -> Iterator[Batch]:
    """Yield the inputs in order, in batches of `batch_size` inputs (the last may be smaller).

    An input that fails, for whatever reason, becomes an ImageError in its place and leaves the others alone. Inputs
    in memory are called `array[3]`, `bytes[3]` or `image[3]` by their position among all inputs, from 0.

    No more than one batch plus two images per worker is read ahead, so memory does not grow with the number of inputs.
    `workers=0` does the work in the calling thread. Closing the iterator stops the threads after the image that each
    of them is at.
    """
    if batch_size < 1 or workers < 0:
        raise ValueError(f"batch_size must be at least 1 and workers at least 0, not {batch_size} and {workers}")

    def load_named(item: tuple[int, ImageLike | Entry]) -> tuple[str, npt.NDArray[Any] | ImageError]:
        name = _name(*item)
        return name, load_one(name, item[1], preprocess)

    with closing(_in_order(load_named, enumerate(sources), workers, ahead=batch_size + 2 * workers)) as loaded:
        while (batch := _collate(islice(loaded, batch_size), preprocess.shape)).sources:
            yield batch


def usual_workers() -> int:
    """How many threads read images where nobody says how many: one per core."""
    return os.cpu_count() or 1


def load_one(
    name: str, source: ImageLike | Entry, preprocess: Preprocess | NoPreprocess
) -> npt.NDArray[Any] | ImageError:
    """What a network takes of one input, or why there is nothing."""
    try:
        return preprocess.array(source.read() if isinstance(source, Entry) else source)
    except ImageError as error:
        return ImageError(str(error).removeprefix(f"{name}: "))  # the row says which image already
    except Exception as error:  # a bug or a lack of memory must not take the other images down
        return ImageError(f"unexpected {type(error).__name__}: {error}")


def _collate(loaded: Iterable[tuple[str, npt.NDArray[Any] | ImageError]], shape: tuple[int, ...]) -> Batch:
    sources: list[str] = []
    errors: list[ImageError | None] = []
    images: list[npt.NDArray[Any]] = []
    for source, result in loaded:
        sources.append(source)
        if isinstance(result, ImageError):
            errors.append(result)
        else:
            errors.append(None)
            images.append(result)
    stacked = np.stack(images) if images else np.empty((0, *shape), np.float32)
    views = stacked if stacked.ndim > 1 + len(shape) else None
    return Batch(tuple(sources), tuple(errors), stacked if views is None else views[:, 0], views)


def _in_order(function: Callable[[T], R], items: Iterable[T], workers: int, ahead: int) -> Generator[R, None, None]:
    """Map on threads, at most `ahead` items before the one that is asked for."""
    if workers == 0:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="torchclas-loader")
    pending: deque[Future[R]] = deque()
    process = os.getpid()

    def first() -> R:
        if os.getpid() != process:
            raise Error("this iteration began in another process, whose threads are not here: begin a new one")
        return pending.popleft().result()

    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield first()
        while pending:
            yield first()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _name(index: int, source: ImageLike | Entry) -> str:
    if isinstance(source, Entry):
        return source.name
    if isinstance(source, (str, Path)):
        return str(source)
    if isinstance(source, np.ndarray):
        return f"array[{index}]"
    if isinstance(source, Image.Image):
        return f"image[{index}]"
    return f"{type(source).__name__}[{index}]"
