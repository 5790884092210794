"""The `predict` command: from what the user named to rows on the screen or in a file, in memory that does not grow."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

from torchclas.data.decode import is_image
from torchclas.data.loader import Batch
from torchclas.data.sources import at_least_one, expand, identity
from torchclas.data.stores import in_store
from torchclas.errors import Error, OutputError
from torchclas.inference.classifier import Classifier, Prediction
from torchclas.inference.parts import Parts, open_parts, write_parts
from torchclas.inference.request import request_of
from torchclas.reporting.rows import PredictionFiles, Writer, format_of, open_device, open_stream
from torchclas.signals import held_back
from torchclas.text import many_images
from torchclas.vocabulary import RowFormat

if TYPE_CHECKING:
    from torchclas.distributed.workers import Cluster, Workers
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
        return f"{many_images(self.images)}{failed}{before}"


def classify(
    sources: Sequence[str],
    make_classifier: Callable[[], Classifier],
    *,
    output: Path | None = None,
    output_format: RowFormat | None = None,
    folder: bool = False,
    restart: bool = False,
    montage: Path | None = None,
    cluster: Cluster | None = None,
    stdin: Iterable[str] | None = None,
    note: Callable[[str], None] = lambda remark: None,
) -> Summary:
    """Classify the images that `sources` name (see `torchclas.data.sources.expand`) and write one row for each.

    Without `output` rows go to standard output. A file appears when all rows are there; whatever stops the command
    before that, the same one goes on (see `torchclas.inference.parts`), unless it is to `restart`. The same holds for a
    `folder` of Parquet files, and where workers of a `cluster` do it. `montage` is an image file for a contact sheet of
    the first pictures; on Ctrl-C and signals like it, of those done by then. `note` is told what becomes of rows done
    before, or until a command stops.

    Raises:
        DataError: the sources name nothing.
        OutputError: a file cannot be written, or is an input, or has rows of another command. What was there before is
            untouched.
        ClusterError: the cluster cannot be reached, or does not work.
    """
    folder = folder or (output is not None and output.is_dir())
    resumable = output is not None and (folder or output.is_file() or not output.exists())
    chosen_format = _folder_format(output_format) if folder else format_of(output, output_format)
    if restart and not resumable:
        raise Error("--restart drops the rows kept for an output file: name it with --output FILE")
    if cluster is not None and (not resumable or montage is not None):
        raise Error("--cluster writes rows to a file or a folder alone: name it with --output, and leave --montage out")
    _spare_inputs(sources, output, montage)
    images = at_least_one(sources, stdin)  # before the seconds that a model takes
    if montage is not None and (there := identity(montage)) is not None:
        images = _other_than(there, montage, images)  # of what standard input names, too
    if output is None or not resumable:
        return _stream(images, make_classifier, output, chosen_format, montage)
    with open_parts(output, images, folder=folder, restart=restart) as parts:
        # Else names may be long in coming, and are not waited for.
        if not any(source == "-" or in_store(source) for source in sources):
            parts.listing.read_all()
        if cluster is not None:
            from torchclas.distributed.workers import open_workers

            with open_workers(cluster, make_classifier, parts.work) as workers:
                return _gather(parts, workers, chosen_format, note)
        classifier = make_classifier()
        _begin(parts, chosen_format, request_of(classifier), classifier.top_k, classifier.batch_size)
        return _fill(parts, classifier, montage, note)


def _begin(
    parts: Parts[Prediction], row_format: RowFormat, request: Mapping[str, object], top_k: int, batch_size: int
) -> PredictionFiles:
    files = PredictionFiles(row_format, top_k, batch_size)
    parts.begin({"command": "predict", "format": row_format, **request}, files, batch_size=batch_size)
    return files


def _gather(parts: Parts[Prediction], workers: Workers, row_format: RowFormat, note: Callable[[str], None]) -> Summary:
    """Have workers classify what has no rows yet, and make the output of all."""
    first, start = workers.opened(), time.perf_counter()
    files = _begin(parts, row_format, first.request, first.top_k, first.batch_size)
    before, total = parts.rows, parts.listing.count if parts.listing.complete else None
    with _kept(parts, note), _progress(shown=True, total=total, done=before) as advance:
        units = parts.units(workers.unit(None if total is None else total - before, first.batch_size))
        for part in workers.run(files, units):
            parts.keep(part)
            advance(part.stop - part.start)
        parts.finish()
    return Summary(parts.rows, parts.errors, before, time.perf_counter() - start)


@contextmanager
def _kept(parts: Parts[Prediction], note: Callable[[str], None]) -> Generator[None, None, None]:
    """Say what was done before, and where the block is stopped, what is kept."""
    if parts.rows:
        note(f"{parts.name}: {parts.rows:,} images were done before, and are not done again")
    try:
        yield
    except BaseException:
        if parts.rows:
            note(f"stopped: {parts.rows:,} images are done, and the same command goes on with the others")
        raise


def _fill(
    parts: Parts[Prediction], classifier: Classifier, montage: Path | None, note: Callable[[str], None]
) -> Summary:
    """Classify what has no rows yet, and make the output of all."""
    summary, start = Summary(parts.rows, parts.errors, before=parts.rows), time.perf_counter()
    total = parts.listing.count if parts.listing.complete else None
    with (
        _kept(parts, note),
        _sheet(montage, classifier) as sheet,
        _progress(shown=True, total=total, done=parts.rows) as advance,
    ):
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
            batches = classifier.batches(names if end is None else islice(names, end - first))
            write_parts(parts.add, first, batches, lambda batch: [*classifier.rows(batch)], done)
        parts.finish()
    summary.seconds = time.perf_counter() - start
    return summary


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
