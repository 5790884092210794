"""The `predict` command: from what the user named to rows on the screen or in a file, in memory that does not grow."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import IO

from torchclas.data.sources import expand
from torchclas.errors import DataError, Error
from torchclas.inference.classifier import Classifier, Prediction
from torchclas.tasks.output import Format, Writer, format_of, interrupt_after, open_output, open_stream

Advance = Callable[[Sequence[Prediction]], None]


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
    output_format: Format | None = None,
    threshold: float = 0.0,
    montage: Path | None = None,
    stdin: Iterable[str] | None = None,
) -> Summary:
    """Classify the images that `sources` name (see `torchclas.data.sources.expand`) and write one row for each.

    Without `output` rows go to standard output. Classes that score below `threshold` are left out of their row.
    `montage` is an image file for a contact sheet of the first pictures. On Ctrl-C both files hold what was done by
    then.

    Raises:
        DataError: the sources name nothing.
        OutputError: a file cannot be written; one that was there before is untouched.
    """
    if not 0 <= threshold <= 1:
        raise Error(f"the threshold is a probability between 0 and 1, not {threshold:g}")
    chosen_format = format_of(output, output_format)
    images = _at_least_one(sources, stdin)  # before the seconds that a model takes
    classifier = make_classifier()
    summary, start = Summary(), time.perf_counter()
    with ExitStack() as stack:
        sheet = None
        if montage is not None:
            from torchclas.tasks.montage import open_montage  # what draws, which few runs need

            sheet = stack.enter_context(open_montage(montage, classifier))
        if output is None:
            writer: Writer = open_stream(sys.stdout, chosen_format, top_k=classifier.top_k, clip=_clip(sys.stdout))
        else:
            writer = stack.enter_context(open_output(output, chosen_format, top_k=classifier.top_k))
        interrupted = False
        try:
            with _progress(summary, shown=output is not None or not sys.stdout.isatty()) as advance:
                for batch in classifier.batches(images):
                    rows = [_above(threshold, row) for row in classifier.rows(batch)]
                    with interrupt_after() if output is not None else nullcontext():
                        writer.write(rows)
                        summary.add(rows)
                        if sheet is not None:
                            sheet.add(batch, rows)
                    advance(rows)
        except KeyboardInterrupt:
            interrupted = True
        summary.seconds = time.perf_counter() - start
    if interrupted:
        raise KeyboardInterrupt
    return summary


def _at_least_one(sources: Sequence[str], stdin: Iterable[str] | None) -> Iterator[str]:
    if not sources:
        raise DataError(
            "no images were named: give files, folders, globs or URLs, or - to read their names from standard input"
        )
    images = expand(sources, stdin=stdin)
    first = next(images, None)
    if first is None:
        raise DataError("standard input named no images: it should have one file, folder, glob or URL per line")
    return chain((first,), images)


def _above(threshold: float, row: Prediction) -> Prediction:
    kept = sum(score >= threshold for score in row.scores)  # best first
    if kept == len(row.scores):
        return row
    return replace(row, labels=row.labels[:kept], scores=row.scores[:kept], class_ids=row.class_ids[:kept])


def _clip(stream: IO[str]) -> int | None:
    """On a terminal, sources may take half the width."""
    if not stream.isatty():
        return None
    from rich.console import Console

    return max(20, Console(file=stream).width // 2)


@contextmanager
def _progress(summary: Summary, *, shown: bool) -> Generator[Advance, None, None]:
    """Counts on standard error, where that is a terminal on which no rows appear."""
    if not shown or not sys.stderr.isatty():
        yield lambda rows: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task, start = bar.add_task("0 images", total=None), time.perf_counter()

        def advance(rows: Sequence[Prediction]) -> None:
            rate = summary.images / (time.perf_counter() - start)
            bar.update(task, description=f"{summary}, {rate:,.0f} images/s")

        yield advance
