"""The `predict` command: from what the user named to rows on the screen or in a file, in memory that does not grow."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from torchclas.data.decode import is_image
from torchclas.data.sources import at_least_one, expand, identity
from torchclas.errors import OutputError
from torchclas.inference.classifier import Classifier, Prediction
from torchclas.reporting.rows import Writer, format_of, open_output, open_stream
from torchclas.signals import held_back
from torchclas.vocabulary import RowFormat


@dataclass
class Summary:
    """How many inputs there were, and how many of them could not be classified."""

    images: int = 0
    errors: int = 0
    seconds: float = 0.0

    def add(self, rows: Sequence[Prediction]) -> None:
        """Count `rows`."""
        self.images += len(rows)
        self.errors += sum(row.status == "error" for row in rows)

    def __str__(self) -> str:
        failed = f", {self.errors:,} of them failed" if self.errors else ""
        return f"{self.images:,} images{failed}"


def classify(
    sources: Sequence[str],
    make_classifier: Callable[[], Classifier],
    *,
    output: Path | None = None,
    output_format: RowFormat | None = None,
    montage: Path | None = None,
    stdin: Iterable[str] | None = None,
) -> Summary:
    """Classify the images that `sources` name (see `torchclas.data.sources.expand`) and write one row for each.

    Without `output` rows go to standard output. `montage` is an image file for a contact sheet of the first pictures.
    On Ctrl-C and signals like it both files hold what was done by then.

    Raises:
        DataError: the sources name nothing.
        OutputError: a file cannot be written, or is an input; one that was there before is untouched.
    """
    chosen_format = format_of(output, output_format)
    _spare_inputs(sources, output, montage)
    images = at_least_one(sources, stdin)  # before the seconds that a model takes
    if montage is not None and (there := identity(montage)) is not None:
        images = _other_than(there, montage, images)  # of what standard input names, too
    classifier = make_classifier()
    summary, start = Summary(), time.perf_counter()
    with ExitStack() as stack:
        sheet = None
        if montage is not None:
            from torchclas.reporting.contact_sheet import open_montage  # what draws, which few runs need

            sheet = stack.enter_context(open_montage(montage, classifier))
        if output is None:
            writer: Writer = open_stream(sys.stdout, chosen_format, top_k=classifier.top_k, clip=_clip(sys.stdout))
        else:
            writer = stack.enter_context(open_output(output, chosen_format, top_k=classifier.top_k))
        interrupted: KeyboardInterrupt | None = None
        try:
            with _progress(shown=output is not None or not sys.stdout.isatty()) as advance:
                for batch in classifier.batches(images):
                    rows = list(classifier.rows(batch))
                    with held_back() if output is not None else nullcontext():
                        writer.write(rows)
                        summary.add(rows)
                        if sheet is not None:
                            sheet.add(batch, rows)
                    advance(len(rows))
        except KeyboardInterrupt as interrupt:
            interrupted = interrupt
        summary.seconds = time.perf_counter() - start
    if interrupted is not None:
        raise interrupted
    return summary


def _spare_inputs(sources: Sequence[str], output: Path | None, montage: Path | None) -> None:
    """Raise `OutputError` where rows or a sheet would take the place of something that is still needed."""
    if output is not None and montage is not None and output.resolve() == montage.resolve():
        raise OutputError(f"{output} cannot hold both the rows and the montage: choose another name for one of them")
    if output is not None and output.is_file():
        if "-" in sources and identity(output) == identity(sys.stdin):
            raise OutputError(f"{output} is read as the list of images: choose another name for the output")
        if any(identity(source) == identity(output) for source in sources):
            raise OutputError(f"{output} is one of the inputs: choose another name for the output")
        if _is_image(output):
            raise OutputError(f"{output} is an image: rows would take its place, choose another name for the output")
    if montage is not None and (there := identity(montage)) is not None and montage.is_file():
        for _ in _other_than(there, montage, expand(source for source in sources if source != "-")):
            pass


def _other_than(there: tuple[int, int], output: Path, images: Iterable[str]) -> Iterator[str]:
    for image in images:
        if identity(image) == there:
            raise OutputError(f"{output} is one of the images: choose another name for the montage")
        yield image


def _is_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_image(file.read(64))
    except OSError:
        return False


def _clip(stream: IO[str]) -> int | None:
    """On a terminal, sources may take half the width."""
    if not stream.isatty():
        return None
    from torchclas.reporting.console import Console

    return max(20, Console(file=stream).width // 2)


@contextmanager
def _progress(*, shown: bool) -> Generator[Callable[[int], None], None, None]:
    """Counts on standard error, where that is a terminal on which no rows appear."""
    if not shown or not sys.stderr.isatty():
        yield lambda images: None
        return
    from torchclas.reporting.progress import progress  # what draws takes longer to import than a picture to classify

    with progress("classifying", None) as advance:
        yield advance
