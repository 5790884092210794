"""Show where in pictures a model sees its classes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchclas.data.sources import at_least_one, identity
from torchclas.errors import OutputError
from torchclas.explanation.explainer import Explainer
from torchclas.reporting.explanation_files import check_suffix, open_file
from torchclas.reporting.progress import progress
from torchclas.text import many_images


@dataclass
class Summary:
    """How many inputs there were, how many of them could not be explained, and how many of them the file shows."""

    images: int = 0
    errors: int = 0
    shown: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        failed = f", {self.errors:,} of them failed" if self.errors else ""
        left_out = f", the first {self.shown:,} of them are shown" if self.shown < self.images else ""
        return f"{many_images(self.images)}{failed}{left_out}"


def explain(
    sources: Sequence[str],
    make_explainer: Callable[[], Explainer],
    output: Path,
    *,
    classes: Sequence[str] = (),
    stdin: Iterable[str] | None = None,
) -> Summary:
    """Draw heat maps over the images that `sources` name (see `torchclas.data.sources.expand`).

    `output` is a sheet (.png, .jpg …), a page (.html) or arrays (.npz). `classes` are ids, names or numbers, by default
    the likeliest; the likeliest of the others is always shown, too. On Ctrl-C and signals like it the file holds what
    was done by then.

    Raises:
        DataError: the sources name nothing.
        UnknownNameError: a class that the model does not have.
        OutputError: the file cannot be written, has another suffix, or is an input.
    """
    check_suffix(output)
    images = list(at_least_one(sources, stdin))
    if (there := identity(output)) is not None and any(identity(image) == there for image in images):
        raise OutputError(f"{output} is one of the inputs: choose another name for the output")
    explainer = make_explainer()
    explanations = explainer.explain(images, classes)
    summary, start = Summary(), time.perf_counter()
    interrupted: KeyboardInterrupt | None = None
    with open_file(output, explainer.spec.name) as file:
        try:
            with progress("explaining", len(images)) as advance:
                for explanation in explanations:
                    file.add(explanation)
                    summary.images += 1
                    summary.errors += explanation.status == "error"
                    advance(1)
        except KeyboardInterrupt as interrupt:
            interrupted = interrupt
    summary.shown = min(summary.images, file.room or summary.images)
    summary.seconds = time.perf_counter() - start
    if interrupted is not None:
        raise interrupted
    return summary
