"""The `predict` command: from what the user named to rows on the screen or in a file, in memory that does not grow."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

from torchclas.data.decode import is_image
from torchclas.data.loader import Batch
from torchclas.data.sources import at_least_one, expand, identity
from torchclas.errors import Error, OutputError
from torchclas.inference.classifier import Classifier, Prediction
from torchclas.inference.parts import Parts, open_parts
from torchclas.inference.request import request_of
from torchclas.reporting.rows import PredictionFiles, Writer, format_of, open_device, open_stream
from torchclas.signals import held_back
from torchclas.vocabulary import RowFormat

if TYPE_CHECKING:
    from torchclas.reporting.contact_sheet import Montage


@dataclass
class Summary:
    """How many inputs there are, and how many of them could not be classified.

    `before` of them were classified by an earlier command, which this one went on with.
    """

    images: int = 0
    errors: int = 0
    before: int = 0
    seconds: float = 0.0

    def add(self, rows: Sequence[Prediction]) -> None:
        """Count `rows`."""
        self.images += len(rows)
        self.errors += _errors(rows)

    def __str__(self) -> str:
        failed = f", {self.errors:,} of them failed" if self.errors else ""
        before = f", {self.before:,} of them done before" if self.before else ""
        return f"{self.images:,} images{failed}{before}"


def classify(
    sources: Sequence[str],
    make_classifier: Callable[[], Classifier],
    *,
    output: Path | None = None,
    output_format: RowFormat | None = None,
    folder: bool = False,
    restart: bool = False,
    montage: Path | None = None,
    stdin: Iterable[str] | None = None,
    note: Callable[[str], None] = lambda remark: None,
) -> Summary:
    """Classify the images that `sources` name (see `torchclas.data.sources.expand`) and write one row for each.

    Without `output` rows go to standard output. A file appears when all rows are there; whatever stops the command
    before that, the same one goes on (see `torchclas.inference.parts`), unless it is to `restart`. The same holds for a
    `folder` of Parquet files. `montage` is an image file for a contact sheet of the first pictures; on Ctrl-C and
    signals like it, of those done by then. `note` is told what becomes of rows done before, or until a command stops.

    Raises:
        DataError: the sources name nothing.
        OutputError: a file cannot be written, or is an input, or has rows of another command. What was there before is
            untouched.
    """
    folder = folder or (output is not None and output.is_dir())
    resumable = output is not None and (folder or output.is_file() or not output.exists())
    chosen_format = _folder_format(output_format) if folder else format_of(output, output_format)
    if restart and not resumable:
        raise Error("--restart drops the rows kept for an output file: name it with --output FILE")
    _spare_inputs(sources, output, montage)
    images = at_least_one(sources, stdin)  # before the seconds that a model takes
    if montage is not None and (there := identity(montage)) is not None:
        images = _other_than(there, montage, images)  # of what standard input names, too
    if output is None or not resumable:
        return _stream(images, make_classifier, output, chosen_format, montage)
    with open_parts(output, images, folder=folder, restart=restart) as parts:
        if "-" not in sources:  # else names may be long in coming, and are not waited for
            parts.listing.read_all()
        classifier = make_classifier()
        files = PredictionFiles(chosen_format, classifier.top_k, classifier.batch_size)
        request = {"command": "predict", "format": chosen_format, **request_of(classifier)}
        parts.begin(request, files, batch_size=classifier.batch_size)
        return _fill(parts, classifier, montage, note)


def _fill(
    parts: Parts[Prediction], classifier: Classifier, montage: Path | None, note: Callable[[str], None]
) -> Summary:
    """Classify what has no rows yet, and make the output of all."""
    summary, start = Summary(parts.rows, parts.errors, before=parts.rows), time.perf_counter()
    total = parts.listing.count if parts.listing.complete else None
    if parts.rows:
        note(f"{parts.name}: {parts.rows:,} images were done before, and are not done again")
    try:
        with _sheet(montage, classifier) as sheet, _progress(shown=True, total=total, done=parts.rows) as advance:
            if sheet is not None and parts.rows:  # pictures are not kept
                for batch in classifier.batches(islice(parts.listing.names(), sheet.room)):
                    sheet.add(batch, [*classifier.rows(batch)])
                sheet = None

            def done(batch: Batch, rows: Sequence[Prediction]) -> None:
                summary.add(rows)
                if sheet is not None:
                    sheet.add(batch, rows)
                advance(len(rows))

            for first, end in parts.gaps():
                names = parts.listing.names(first)
                _add(parts, first, classifier, names if end is None else islice(names, end - first), done)
            parts.finish()
    except BaseException:
        if parts.rows:
            note(f"stopped: {parts.rows:,} images are done, and the same command goes on with the others")
        raise
    summary.seconds = time.perf_counter() - start
    return summary


def _add(
    parts: Parts[Prediction],
    start: int,
    classifier: Classifier,
    names: Iterable[str],
    done: Callable[[Batch, Sequence[Prediction]], None],
) -> None:
    """Add parts with the rows of consecutive inputs, of which the first has the number `start`."""
    batches = classifier.batches(names)
    for first in batches:
        with parts.add(start) as part:
            for batch in chain((first,), batches):
                rows = list(classifier.rows(batch))
                with held_back():
                    part.write(rows, _errors(rows))
                    done(batch, rows)
                if part.full:
                    break
        start = part.stop


def _stream(
    images: Iterable[str],
    make_classifier: Callable[[], Classifier],
    output: Path | None,
    output_format: RowFormat,
    montage: Path | None,
) -> Summary:
    """Write rows to standard output, a pipe or a device, on which they cannot be taken up again."""
    classifier = make_classifier()
    summary, start = Summary(), time.perf_counter()
    with _sheet(montage, classifier) as sheet, ExitStack() as stack:
        if output is None:
            writer: Writer = open_stream(sys.stdout, output_format, top_k=classifier.top_k, clip=_clip(sys.stdout))
        else:
            writer = stack.enter_context(open_device(output, output_format, top_k=classifier.top_k))
        with _progress(shown=output is not None or not sys.stdout.isatty()) as advance:
            for batch in classifier.batches(images):
                rows = list(classifier.rows(batch))
                with held_back() if output is not None else nullcontext():
                    writer.write(rows)
                    summary.add(rows)
                    if sheet is not None:
                        sheet.add(batch, rows)
                advance(len(rows))
    summary.seconds = time.perf_counter() - start
    return summary


@contextmanager
def _sheet(path: Path | None, classifier: Classifier) -> Generator[Montage | None, None, None]:
    """A contact sheet where one is asked for; an interrupted one is drawn, too."""
    if path is None:
        yield None
        return
    from torchclas.reporting.contact_sheet import open_montage  # what draws, which few runs need

    interrupt: KeyboardInterrupt | None = None
    with open_montage(path, classifier) as sheet:
        try:
            yield sheet
        except KeyboardInterrupt as asked:
            interrupt = asked
    if interrupt is not None:
        raise interrupt


def _folder_format(chosen: RowFormat | None) -> RowFormat:
    if chosen not in (None, "parquet"):
        raise Error(f"a folder is filled with Parquet files, not with {chosen}: name a file, or leave --format out")
    return "parquet"


def _errors(rows: Sequence[Prediction]) -> int:
    return sum(row.status == "error" for row in rows)


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
def _progress(*, shown: bool, total: int | None = None, done: int = 0) -> Generator[Callable[[int], None], None, None]:
    """Counts on standard error, where that is a terminal on which no rows appear."""
    if not shown or not sys.stderr.isatty():
        yield lambda images: None
        return
    from torchclas.reporting.progress import progress  # what draws takes longer to import than a picture to classify

    with progress("classifying", total, done=done) as advance:
        yield advance
