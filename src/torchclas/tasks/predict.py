"""Classify images."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from torchclas.data.decode import ImageLike
from torchclas.data.loader import Batch, load
from torchclas.data.preprocess import Preprocess
from torchclas.errors import Error, ImageError
from torchclas.spec import ModelSpec, find_model
from torchclas.zoo import load_model

Language = Literal["en", "zh"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The result for one input: the likeliest classes, best first, or why there is none.

    `scores` are probabilities, `class_ids` what tells classes apart (synsets for ImageNet; names may repeat).
    """

    source: str
    status: Literal["ok", "error"]
    labels: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    class_ids: tuple[str, ...] = ()
    error: str | None = None


class Classifier:
    """A model ready to classify images of any kind `torchclas.data.decode` reads.

    `name_or_checkpoint` is a published name, an architecture's, or the path of one of our checkpoints (default:
    EfficientNet_lite0); `weights` takes the place of a name's published weights. `device` is `auto` (CUDA, else Apple's
    MPS, else CPU) or any device of torch. `workers` threads decode and preprocess (default: one per core).
    """

    def __init__(
        self,
        name_or_checkpoint: str | Path | None = None,
        *,
        weights: str | Path | None = None,
        device: str = "auto",
        batch_size: int = 16,
        top_k: int = 5,
        lang: Language = "en",
        workers: int | None = None,
    ) -> None:
        if batch_size < 1 or top_k < 1:
            raise Error(f"batch_size and top_k must be at least 1, not {batch_size} and {top_k}")
        self.spec: ModelSpec = find_model(name_or_checkpoint, weights=weights)
        self.preprocess = Preprocess(self.spec.preset)
        self.device = find_device(device)
        self.batch_size = batch_size
        self.top_k = min(top_k, self.spec.num_classes)
        self.names = self.spec.classes.names(lang)
        self.workers = (os.cpu_count() or 1) if workers is None else workers
        # Convolutions of a batch in channels_last are up to twice as fast on CPUs, and never slower on GPUs.
        self.model = load_model(self.spec).fuse().to(self.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def predict(self, sources: ImageLike | Iterable[ImageLike]) -> Iterator[Prediction]:
        """One prediction per source, in order; an image that cannot be read is one with `status="error"`."""
        one = isinstance(sources, (str, Path, bytes, Image.Image, np.ndarray))
        for batch in self.batches([sources] if one else sources):
            yield from self.rows(batch)

    def batches(self, sources: Iterable[ImageLike]) -> Iterator[Batch]:
        """Decoded and preprocessed sources, `batch_size` at a time."""
        return load(sources, self.preprocess, batch_size=self.batch_size, workers=self.workers)

    def rows(self, batch: Batch) -> Iterator[Prediction]:
        """The predictions for one batch."""
        scores, indices = self.probabilities(batch).topk(self.top_k)
        results = list(zip(scores.tolist(), indices.tolist(), strict=True))
        for source, result in batch.rows(results):
            yield _failed(source, result) if isinstance(result, ImageError) else self._row(source, *result)

    @torch.inference_mode()
    def probabilities(self, batch: Batch) -> Tensor:
        """float32 [N, num_classes] on the CPU for the N images of the batch that could be read."""
        if not len(batch.images):
            return torch.empty(0, self.spec.num_classes)
        images = torch.from_numpy(batch.images).to(self.device, memory_format=torch.channels_last)
        try:
            return self.model(images).float().softmax(-1).cpu()
        except torch.OutOfMemoryError as error:
            raise Error(
                f"{self.device} has not enough memory for {self.spec.name} on {len(images)} images at once: "
                "try a smaller batch size"
            ) from error

    def _row(self, source: str, scores: Sequence[float], indices: Sequence[int]) -> Prediction:
        if math.isnan(scores[0]):
            return Prediction(source, "error", error=f"{self.spec.name} computes NaN for it: are its weights damaged?")
        return Prediction(
            source,
            "ok",
            labels=tuple(self.names[i] for i in indices),
            scores=tuple(scores),
            class_ids=tuple(self.spec.classes.ids[i] for i in indices),
        )


def find_device(name: str) -> torch.device:
    """`auto` → the best device of this machine; raises `Error` for one it does not have."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise Error(f"device {name!r} cannot be used here ({str(error).splitlines()[0]}): try --device cpu") from error
    return device


def _failed(source: str, error: ImageError) -> Prediction:
    return Prediction(source, "error", error=str(error))
