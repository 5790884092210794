"""A model that gives vectors of images, and what tells whether two files hold vectors of the same kind."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from typing_extensions import Never

from torchclas.catalog import Preset
from torchclas.counterparts import refuse
from torchclas.data.datasets import Entry
from torchclas.data.decode import MAX_PIXELS, ImageLike, Pixels
from torchclas.data.loader import Batch
from torchclas.errors import DataError, Error, UnknownNameError
from torchclas.inference.classifier import Classifier, Embedding, several
from torchclas.spec import ModelSpec
from torchclas.tables import Table, mapping, numbers, one_of, positive_integer, text, truth
from torchclas.text import json_text
from torchclas.version import __version__
from torchclas.vocabulary import EngineChoice, Precision, TestTimeAugmentation, VectorType

KEY = "torchclas"  # of a file's metadata
LEAST_ALIKE = 0.99  # cosine of what two models give for the probe: bf16 has 0.998, weights changed by 1 % have 0.97
_PROBE_SIDE = 256  # pixels


@dataclass(frozen=True)
class Provenance:
    """What vectors come from: the model, its weights, how images were prepared, and what was done to the vectors.

    `weights` identifies the weights: the name of published ones, or the SHA-256 of a file; `path` is that file (empty:
    published). `probe` is the vector of a picture that is the same everywhere, of unit length, [dimension]: whether two
    models give vectors that may be compared shows in it, whatever their files and engines.
    """

    model: str
    arch: str
    weights: str
    path: str
    preset: Preset
    dimension: int
    engine: str
    normalized: bool
    dtype: VectorType
    tta: str
    probe: tuple[float, ...]

    def to_json(self) -> str:
        """One JSON object."""
        values = {"torchclas": __version__, **asdict(self), "preset": self.preset.to_dict()}
        return json_text(json.dumps(values, ensure_ascii=False))

    @classmethod
    def from_json(cls, content: str) -> Provenance:
        """Inverse of `to_json`; raises `DataError` for anything else, naming the entry."""
        try:
            values = mapping(json.loads(content))
        except (ValueError, RecursionError):
            raise DataError("the provenance of vectors is no object in JSON") from None
        table = Table("provenance", values, DataError)
        table.take("torchclas", text)
        found = cls(
            model=table.take("model", text),
            arch=table.take("arch", text),
            weights=table.take("weights", text),
            path=table.take("path", text),
            preset=Preset.from_dict(table.take("preset", mapping)),
            dimension=table.take("dimension", positive_integer),
            engine=table.take("engine", text),
            normalized=table.take("normalized", truth),
            dtype=table.take("dtype", one_of(VectorType)),
            tta=table.take("tta", text),
            probe=table.take("probe", numbers),
        )
        table.close()
        if len(found.probe) != found.dimension:
            raise table.error("probe", f"has {len(found.probe):,} numbers, not {found.dimension:,}")
        return found


class Embedder:
    """A model ready to give a vector for an image: what it knows of the image before it names a class.

    Images that look alike to the model have vectors that point the same way. The arguments are those of
    `torchclas.Classifier`; with `normalize` vectors have unit length (L2), so that their product is the cosine of the
    angle between them; `dtype` is that of their numbers, `fp32` or `fp16`.

    Raises:
        What `torchclas.Classifier` does.
        CheckpointError: an exported model without the output `embedding`.
    """

    def __init__(
        self,
        name_or_checkpoint: str | Path | None = None,
        *,
        weights: str | Path | None = None,
        device: str = "auto",
        batch_size: int = 16,
        workers: int | None = None,
        engine: EngineChoice = "auto",
        precision: Precision = "fp32",
        threads: int | None = None,
        max_pixels: int = MAX_PIXELS,
        preset: Preset | None = None,
        tta: TestTimeAugmentation | None = None,
        fast_decode: bool = False,
        normalize: bool = False,
        dtype: VectorType = "fp32",
        **others: Never,
    ) -> None:
        refuse("Embedder", others, inspect.signature(Embedder).parameters)
        if dtype not in (known := get_args(VectorType)):
            raise UnknownNameError("type of vectors", dtype, known, f"choose from {', '.join(known)}")
        self.classifier = Classifier(
            name_or_checkpoint,
            weights=weights,
            device=device,
            batch_size=batch_size,
            workers=workers,
            engine=engine,
            precision=precision,
            threads=threads,
            max_pixels=max_pixels,
            preset=preset,
            tta=tta,
            fast_decode=fast_decode,
            outputs=("embedding",),
        )
        self.spec: ModelSpec = self.classifier.spec
        self.engine_name = self.classifier.engine_name
        self.normalize = normalize
        self.dtype: VectorType = dtype

    def embed(self, sources: ImageLike | Iterable[ImageLike]) -> Iterator[Embedding]:
        """One embedding per source, in order; an image that cannot be read is one with `status="error"`.

        Vectors are float32 or float16 [dimension].
        """
        for batch in self.batches(several(sources)):
            yield from self.rows(batch)

    def batches(self, sources: Iterable[ImageLike | Entry]) -> Iterator[Batch]:
        """Decoded and preprocessed sources, `batch_size` at a time."""
        return self.classifier.batches(sources)

    def rows(self, batch: Batch) -> Iterator[Embedding]:
        """The embeddings of one batch."""
        return map(self._finished, self.classifier.embedding_rows(batch))

    @property
    def dimension(self) -> int:
        """How many numbers a vector has."""
        return len(self.probe)

    @cached_property
    def probe(self) -> NDArray[np.float32]:
        """The vector of the probe, of unit length, float32 [dimension]; see `Provenance`."""
        (row,) = self.classifier.embed(probe_picture())
        if row.vector is None:
            raise Error(f"{self.spec.name} gives no vector for a picture: {row.error}")
        return unit_length(row.vector)

    @cached_property
    def provenance(self) -> Provenance:
        """What is said of the vectors in a file of them."""
        return Provenance(
            model=self.spec.name,
            arch=self.spec.arch,
            weights=self.classifier.weights_files.identity(),
            path="" if self.spec.path is None else str(self.spec.path.absolute()),
            preset=self.spec.preset,
            dimension=self.dimension,
            engine=self.engine_name,
            normalized=self.normalize,
            dtype=self.dtype,
            tta=self.classifier.tta or "",
            probe=tuple(float(f"{value:.4g}") for value in self.probe),
        )

    def close(self) -> None:
        """Give the engine's memory back; nothing may be asked of the embedder after that."""
        self.classifier.close()

    def _finished(self, row: Embedding) -> Embedding:
        if row.vector is None:
            return row
        vector = unit_length(row.vector) if self.normalize else row.vector
        if self.dtype == "fp16":
            if np.abs(vector).max() > np.finfo(np.float16).max:
                problem = "its vector is too large for fp16: scale it to unit length, or take fp32"
                return Embedding(row.source, "error", error=problem)
            vector = vector.astype(np.float16)
        return replace(row, vector=vector)


def unit_length(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors [..., dimension] scaled to a length of 1 (L2); those of length 0 stay so."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.finfo(np.float32).tiny)


def probe_picture() -> Pixels:
    """A picture that is the same everywhere, uint8 [256, 256, 3]: coloured blots of three sizes."""
    rng = np.random.default_rng(0)
    side = _PROBE_SIDE
    layers = [
        cv2.resize(rng.random((cells, cells, 3), np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
        for cells in (4, 16, 64)
    ]
    return (255 * np.clip(np.mean(layers, axis=0), 0, 1)).astype(np.uint8)
