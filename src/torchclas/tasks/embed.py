"""The `embed` command: a vector for each image, in a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchclas.data.sources import at_least_one, identity
from torchclas.errors import OutputError
from torchclas.inference.embedder import Embedder
from torchclas.reporting.embedding_files import open_vectors, vector_format
from torchclas.reporting.progress import progress
from torchclas.signals import held_back
from torchclas.text import many_images


@dataclass
class Summary:
    """How many inputs there were, how many of them have no vector, and how many numbers a vector has."""

    images: int = 0
    errors: int = 0
    dimension: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        failed = f", {self.errors:,} of them failed" if self.errors else ""
        return f"{many_images(self.images)}{failed}, vectors of {self.dimension:,} numbers"


def embed(
    sources: Sequence[str],
    make_embedder: Callable[[], Embedder],
    output: Path,
    *,
    stdin: Iterable[str] | None = None,
) -> Summary:
    """Write the vectors of the images that `sources` name (see `torchclas.data.sources.expand`), one row for each.

    `output` ends in .parquet, .npz or .safetensors. On Ctrl-C and signals like it the file holds what was done by then.

    Raises:
        DataError: the sources name nothing.
        OutputError: the file cannot be written, has another suffix, or is the model or an input; one that was there is
            untouched.
    """
    vector_format(output)
    images = at_least_one(sources, stdin)
    there = identity(output)
    if there is not None:
        images = _other_than(there, output, images)
    embedder = make_embedder()
    if there is not None and embedder.spec.path is not None and identity(embedder.spec.path) == there:
        raise OutputError(f"{output} is the model: choose another name for the output")
    summary, start = Summary(dimension=embedder.dimension), time.perf_counter()
    interrupted: KeyboardInterrupt | None = None
    with open_vectors(output, embedder.provenance) as writer:
        try:
            with progress("embedding", None) as advance:
                for batch in embedder.batches(images):
                    rows = list(embedder.rows(batch))
                    with held_back():
                        writer.write(rows)
                        summary.images += len(rows)
                        summary.errors += sum(row.status == "error" for row in rows)
                    advance(len(rows))
        except KeyboardInterrupt as interrupt:
            interrupted = interrupt
        summary.seconds = time.perf_counter() - start
    if interrupted is not None:
        raise interrupted
    return summary


def _other_than(there: tuple[int, int], output: Path, images: Iterable[str]) -> Iterator[str]:
    for image in images:
        if identity(image) == there:
            raise OutputError(f"{output} is one of the inputs: choose another name for the output")
        yield image
