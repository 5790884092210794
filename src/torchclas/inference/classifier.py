"""A model with its engine, its preprocessing and the names of its classes."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import Never

from torchclas.catalog import Preset
from torchclas.counterparts import refuse
from torchclas.data.datasets import Entry
from torchclas.data.decode import MAX_PIXELS, ImageLike
from torchclas.data.loader import Batch, load, usual_workers
from torchclas.data.preprocess import NoPreprocess, Preprocess, SeveralViews
from torchclas.engines import Engine, open_engine
from torchclas.errors import Error, ImageError, UnknownNameError
from torchclas.inference.request import WeightsFiles
from torchclas.metrics.scores import DEFAULT_THRESHOLD, probabilities
from torchclas.spec import ModelSpec, find_model
from torchclas.vocabulary import (
    TEST_TIME_AUGMENTATIONS,
    Activation,
    EngineChoice,
    Language,
    Output,
    Precision,
    TestTimeAugmentation,
)
from torchclas.weights.hub import address_of
from torchclas.weights.location import BEST

log = logging.getLogger(__name__)

TOP_K = 5


@dataclass(frozen=True, slots=True)
class Prediction:
    """The result for one input: the likeliest classes, best first, or why there is none.

    Of a model with one class per image they are the `top_k` likeliest, with probabilities that add up to 1 over all; of
    one with several (`activation="sigmoid"`), all whose probability reaches their threshold, which may be none.
    `class_ids` are what tells classes apart (synsets for ImageNet; names may repeat), `engine` what computed them, such
    as `openvino fp32`.
    """

    source: str
    status: Literal["ok", "error"]
    labels: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    class_ids: tuple[str, ...] = ()
    error: str | None = None
    engine: str | None = None


@dataclass(frozen=True, slots=True)
class Embedding:
    """The vector for one input, float32 [features], or why there is none. `engine` is what computed it."""

    source: str
    status: Literal["ok", "error"]
    vector: NDArray[np.float32] | None = None
    error: str | None = None
    engine: str | None = None


class Classifier:
    """A model ready to classify images of any kind `torchclas.data.decode` reads.

    `name_or_checkpoint` is a published name, an architecture's, or the path of a checkpoint, of a run's folder or of an
    exported model (default: EfficientNet_lite0); `weights` takes the place of a name's published weights: one of our
    files, or `.pdparams`, `.pth` or `.safetensors` of anyone's, with any number of classes. For weights that do not
    say, `labels` are names of the classes, or a file of them, `preset` is how images are prepared, and `activation`
    whether they have one class (`softmax`) or any number of them (`sigmoid`). `device` is `auto` (CUDA, else Apple's
    MPS, else CPU) or any device of torch. `workers` threads decode and preprocess (default: one per core).

    `engine` runs the network with `threads` threads (default: one per core): `auto` takes the fastest for it on this
    machine, and `precision` is how exactly; see docs/engines.md. Threads may share a classifier, and so may processes:
    forked ones go on with it, and a copy, by `pickle` or `copy`, is opened again with the same arguments.

    `top_k` is how many classes a prediction has at most, by default 5, or any number where an image has several.
    Classes that score less than `threshold` are left out; by default none are, or of a model with several classes per
    image those below their own thresholds.

    `outputs` are what one run gives for each image, `logits`, `embedding` (the vector before the classifier) or both;
    None takes all that the model can give. What needs another one works as well, by a second engine that is opened when
    it is first asked.

    `tta` averages the scores (and embeddings) of several views of an image: `flip` takes its mirror image too,
    `five-crop` the corners beside the centre, in two and five times the time.

    `fast_decode` decodes large JPEG files to a part of their size: faster, with other pixels than were evaluated; see
    docs/engines.md for how often the class stays the same. Models whose images OpenCV resizes refuse it.

    An image of more than `max_pixels` is an error, before it is decoded. That bounds memory: decoding takes up to 16
    bytes per pixel in each worker, so a server wants less than the default.

    Raises:
        What `torchclas.spec.find_model` and `torchclas.engines.open_engine` do.
        UnknownArgumentError: a word of timm or PaddleClas; the message says what it is called here.
    """

    def __init__(
        self,
        name_or_checkpoint: str | Path | None = None,
        *,
        weights: str | Path | None = None,
        device: str = "auto",
        batch_size: int = 16,
        top_k: int | None = None,
        threshold: float | None = None,
        lang: Language = "en",
        workers: int | None = None,
        engine: EngineChoice = "auto",
        precision: Precision = "fp32",
        threads: int | None = None,
        max_pixels: int = MAX_PIXELS,
        labels: str | Path | Sequence[str] | None = None,
        preset: Preset | None = None,
        activation: Activation | None = None,
        outputs: Sequence[Output] | None = ("logits",),
        tta: TestTimeAugmentation | None = None,
        fast_decode: bool = False,
        **others: Never,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "others", "__class__")}
        refuse("Classifier", others, inspect.signature(Classifier).parameters)
        if batch_size < 1 or (top_k is not None and top_k < 1) or max_pixels < 1:
            given = f"{batch_size}, {top_k} and {max_pixels}"
            raise Error(f"batch_size, top_k and max_pixels must be at least 1, not {given}")
        if threshold is not None and not 0 <= threshold <= 1:
            raise Error(f"the threshold is a probability between 0 and 1, not {threshold:g}")
        self.spec: ModelSpec = find_model(
            name_or_checkpoint, weights=weights, labels=labels, preset=preset, activation=activation
        )
        self.weights_files = WeightsFiles(self.spec)
        self._arguments = {name: _lasting(value, self.spec) for name, value in arguments.items()}
        self.preprocess = _preprocess(self.spec, max_pixels, tta, fast_decode)
        self.tta: TestTimeAugmentation | None = tta
        self.batch_size = 1 if self.spec.pixels else batch_size  # images that nothing has resized differ in size
        self.top_k = min(top_k or (self.spec.num_classes if self.spec.multi_label else TOP_K), self.spec.num_classes)
        self.thresholds = _thresholds(self.spec, threshold)
        self.names = self.spec.classes.names(lang)
        self.workers = usual_workers() if workers is None else workers
        self.device, self.threads = device, threads
        self._open = partial(
            open_engine,
            self.spec,
            engine,
            precision=precision,
            threads=threads,
            batch_size=self.batch_size,
            device=device,
        )
        self.engine: Engine = self._open(outputs=self.spec.outputs if outputs is None else outputs)
        self._engines: dict[Output, Engine] = dict.fromkeys(self.engine.outputs, self.engine)
        self._opening = threading.Lock()
        self._fast_decode = fast_decode
        self.engine_name = self._named(self.engine)
        log.info("%s runs with %s", self.spec.name, self.engine_name)

    def __reduce__(self) -> tuple[Callable[[], Classifier], tuple[()]]:
        return partial(type(self), **self._arguments), ()

    def predict(self, sources: ImageLike | Iterable[ImageLike]) -> Iterator[Prediction]:
        """One prediction per source, in order; an image that cannot be read is one with `status="error"`."""
        for batch in self.batches(several(sources)):
            yield from self.rows(batch)

    def embed(self, sources: ImageLike | Iterable[ImageLike]) -> Iterator[Embedding]:
        """One embedding per source, in order; an image that cannot be read is one with `status="error"`.

        An embedding is what the network knows of an image before it names a class: images that look alike to it have
        vectors that point the same way. Raises `CheckpointError` for an exported model without that output.
        """
        for batch in self.batches(several(sources)):
            yield from self.embedding_rows(batch)

    def embedding_rows(self, batch: Batch, vectors: NDArray[np.float32] | None = None) -> Iterator[Embedding]:
        """The embeddings of one batch; `vectors` are what an engine gave for it, if one ran."""
        if vectors is None:
            vectors = (
                self._computed(batch, "embedding", np.asarray) if len(batch.images) else np.empty((0, 0), np.float32)
            )
        for source, result in batch.rows(list(vectors)):
            if isinstance(result, ImageError):
                yield Embedding(source, "error", error=str(result))
            else:
                yield self.embedding(source, result)

    def embedding(self, source: str, vector: NDArray[np.float32]) -> Embedding:
        """The embedding of one image, of which the engine gave `vector`, [features]."""
        if not np.isfinite(vector).all():
            return Embedding(source, "error", error=damaged(self.spec))
        return Embedding(source, "ok", vector=vector, engine=self._named(self.engine_for("embedding")))

    def engine_for(self, output: Output) -> Engine:
        """The engine that gives this output, opened at the first call unless `engine` does."""
        if output not in self._engines:  # else without the lock, which a fork may leave locked
            with self._opening:
                if output not in self._engines:
                    self._engines[output] = self._open(outputs=(output,))
        return self._engines[output]

    def close(self) -> None:
        """Give the engines' memory back; nothing may be asked of the classifier after that."""
        for engine in {id(engine): engine for engine in self._engines.values()}.values():
            engine.close()

    def batches(self, sources: Iterable[ImageLike | Entry]) -> Iterator[Batch]:
        """Decoded and preprocessed sources, `batch_size` at a time."""
        return load(sources, self.preprocess, batch_size=self.batch_size, workers=self.workers)

    def rows(self, batch: Batch, probabilities: NDArray[np.float32] | None = None) -> Iterator[Prediction]:
        """The predictions for one batch; `probabilities` are what the method of this name gave for it, if it ran."""
        if probabilities is None:
            probabilities = self.probabilities(batch)
        for source, result in batch.rows(list(probabilities)):
            yield _failed(source, result) if isinstance(result, ImageError) else self.prediction(source, result)

    def prediction(
        self,
        source: str,
        probabilities: NDArray[np.float32],
        *,
        top_k: int | None = None,
        threshold: float | None = None,
        lang: Language | None = None,
    ) -> Prediction:
        """The prediction for one image, of whose classes these are the probabilities, [num_classes].

        `top_k`, `threshold` and `lang` take the place of those that the classifier was made with. Raises `Error` for a
        language in which the classes have no names.
        """
        names = self.names if lang is None else self.spec.classes.names(lang)
        if np.isnan(probabilities).any():
            return Prediction(source, "error", error=damaged(self.spec))
        likeliest = _likeliest(probabilities, min(top_k or self.top_k, self.spec.num_classes))
        thresholds = self.thresholds if threshold is None else _thresholds(self.spec, threshold)
        classes = likeliest if thresholds is None else [i for i in likeliest if probabilities[i] >= thresholds[i]]
        return Prediction(
            source,
            "ok",
            labels=tuple(names[i] for i in classes),
            scores=tuple(float(probabilities[i]) for i in classes),
            class_ids=tuple(self.spec.classes.ids[i] for i in classes),
            engine=self._named(self.engine_for("logits")),
        )

    def probabilities(self, batch: Batch, *, only: Sequence[int] | None = None) -> NDArray[np.float32]:
        """[N, num_classes] for the N images of the batch that could be read; a row adds up to 1 under softmax.

        With `only` the classes but these have none, as if the network had no outputs for them.
        """
        if not len(batch.images):
            return np.empty((0, self.spec.num_classes), np.float32)

        def scores(logits: NDArray[np.float32]) -> NDArray[np.float32]:
            if only is not None:  # before softmax, after which all of these may have underflown
                kept, logits = logits, np.full_like(logits, -np.inf)
                logits[:, only] = kept[:, only]
            return probabilities(logits, self.spec.activation)

        return self._computed(batch, "logits", scores)

    def _computed(
        self, batch: Batch, output: Output, then: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """`then` of what the engine gives for a batch that has images, [N, …]; of several views their mean."""
        run = self.engine_for(output).run
        if batch.views is None:
            return then(run(batch.images)[output])
        count, views, *shape = batch.views.shape
        return then(run(batch.views.reshape(-1, *shape))[output]).reshape(count, views, -1).mean(axis=1)

    def _named(self, engine: Engine) -> str:
        """What a row says of what computed it."""
        return f"{engine.name} {engine.precision}{', fast decode' if self._fast_decode else ''}"


def _preprocess(
    spec: ModelSpec, max_pixels: int, tta: TestTimeAugmentation | None, fast_decode: bool
) -> Preprocess | NoPreprocess:
    if tta is not None and tta not in TEST_TIME_AUGMENTATIONS:
        known = TEST_TIME_AUGMENTATIONS
        raise UnknownNameError("test-time augmentation", tta, known, f"choose from {', '.join(known)}")
    if spec.pixels:
        if tta is not None:
            raise Error(f"{spec.name} prepares images inside its graph: several views need the model it came from")
        if fast_decode:
            raise Error(
                f"{spec.name} prepares images inside its graph, from all of their pixels: leave out fast_decode"
            )
        return NoPreprocess(max_pixels)
    if fast_decode and spec.preset.backend == "opencv":
        raise Error(
            f"{spec.name} is given pixels that OpenCV picks without smoothing, and smaller pictures have others: the "
            "class would change for one in five; leave out fast_decode"
        )
    if tta is None:
        return Preprocess(spec.preset, max_pixels, spec.in_channels, fast_decode)
    return SeveralViews(spec.preset, max_pixels, spec.in_channels, fast_decode, tta)


def _thresholds(spec: ModelSpec, chosen: float | None) -> NDArray[np.float32] | None:
    """The least score of each class, [num_classes]; None where any will do."""
    if chosen is not None:
        return np.full(spec.num_classes, chosen, np.float32) if chosen else None
    if not spec.multi_label:
        return None
    return np.array(spec.thresholds or [DEFAULT_THRESHOLD] * spec.num_classes, np.float32)


def several(sources: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike]:
    """The sources, of which one may stand for itself."""
    return [sources] if isinstance(sources, (str, Path, bytes, Image.Image, np.ndarray)) else sources


def damaged(spec: ModelSpec) -> str:
    """What is said of an image for which a model computes no number."""
    return f"{spec.name} computes NaN for it: are its weights damaged?"


def _lasting(value: Any, spec: ModelSpec) -> Any:
    """A copy may be opened where another folder is the current one, or when the Hub has other weights."""
    if spec.path is None or not isinstance(value, (str, Path)):
        return value
    if address_of(value) is not None:
        return str(spec.address)
    path = Path(value)
    return path.absolute() if path.is_file() or (path / BEST).is_file() else value


def _likeliest(probabilities: NDArray[np.float32], count: int) -> list[int]:
    """The classes with the highest probabilities, best first; of equal ones the first."""
    least = np.partition(probabilities, -count)[-count]  # sorting all of 21,841 classes takes twenty times as long
    candidates = np.flatnonzero(probabilities >= least)
    order = np.argsort(-probabilities[candidates], kind="stable")
    return candidates[order[:count]].tolist()


def _failed(source: str, error: ImageError) -> Prediction:
    return Prediction(source, "error", error=str(error))
