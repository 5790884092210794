"""Galleries on the command line: built, changed, searched."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from torchclas.atomic import locked
from torchclas.data.sources import at_least_one, expand, identity
from torchclas.errors import DataError, Error, OutputError
from torchclas.inference.embedder import Embedder, Provenance
from torchclas.reporting.match_rows import MatchWriter, match_stream, open_matches
from torchclas.reporting.progress import progress
from torchclas.reporting.rows import format_of
from torchclas.retrieval.building import Pictures, by_class, embed_pictures, empty_gallery, open_labelled
from torchclas.retrieval.gallery import Gallery
from torchclas.retrieval.searcher import Match, Searcher
from torchclas.signals import held_back
from torchclas.vocabulary import RowFormat

MakeEmbedder = Callable[[Provenance | None], Embedder]  # of the model that a gallery was made with


@dataclass(frozen=True)
class Changed:
    """A gallery after a change, how many pictures came, went, or could not be read."""

    gallery: Gallery
    added: int = 0
    removed: int = 0
    unreadable: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class Summary:
    """How many inputs there were, how many were unknown or near-ties, and how many could not be read."""

    images: int = 0
    unknown: int = 0
    ties: int = 0
    errors: int = 0
    seconds: float = field(default=0.0)

    def add(self, rows: Sequence[Match]) -> None:
        """Count `rows`."""
        self.images += len(rows)
        self.unknown += sum(row.status == "unknown" for row in rows)
        self.ties += sum(row.near_tie for row in rows)
        self.errors += sum(row.status == "error" for row in rows)

    def __str__(self) -> str:
        failed = f", {self.errors:,} of them failed" if self.errors else ""
        unknown = f", {self.unknown:,} unknown" if self.unknown else ""
        ties = f", {self.ties:,} near-ties" if self.ties else ""
        return f"{self.images:,} images{failed}{unknown}{ties}"


def pictures_named(
    sources: Sequence[str],
    *,
    one_class: str | None = None,
    unlabelled: bool = False,
    labels: Path | None = None,
    root: Path | None = None,
    delimiter: str = " ",
    relabel: bool = False,
) -> Pictures:
    """What the user named: labelled data in one place, or any pictures, all of one class or of none.

    Raises DataError: nothing is named, or what is named cannot be used.
    """
    if one_class is not None or unlabelled:
        if one_class is not None and unlabelled:
            raise DataError("pictures are of a class (--class) or of none (--unlabelled): choose one of the two")
        return by_class(at_least_one(sources), one_class or "")
    if len(sources) != 1:
        raise DataError(
            "name one folder of class folders or one list of `path label` lines; pictures of one class are named with "
            "--class NAME, those without classes with --unlabelled"
        )
    return open_labelled(sources[0], labels=labels, root=root, delimiter=delimiter, relabel=relabel)


def build(pictures: Pictures, make_embedder: MakeEmbedder, output: Path) -> Changed:
    """Make a gallery of pictures, in a file.

    Raises:
        DataError: no picture can be read.
        OutputError: `output` cannot be written, or is something else than a gallery.
    """
    _spare(output)
    embedder = make_embedder(None)
    return _extend(empty_gallery(embedder), embedder, pictures, output)


def add(pictures: Pictures, make_embedder: MakeEmbedder, path: Path) -> Changed:
    """Put pictures into a gallery; those that it has are replaced.

    Raises:
        DataError: no gallery, another model than the one that made it, or no picture can be read.
        OutputError: the file cannot be written.
    """
    with locked(path):
        gallery = Gallery.read(path)
        embedder = make_embedder(gallery.provenance)
        gallery.check_maker(embedder.provenance, str(path))
        return _extend(gallery, embedder, pictures, path)


def remove(path: Path, *, classes: Sequence[str] = (), sources: Sequence[str] = ()) -> Changed:
    """Take classes and pictures out of a gallery; a folder stands for the pictures below it.

    Raises:
        UnknownNameError, DataError: it has no such class or picture, none is named, or none would be left.
        OutputError: the file cannot be written.
    """
    if not classes and not sources:
        raise DataError("what is to be removed? Name pictures, or classes with --class NAME")
    with locked(path):
        before = Gallery.read(path)
        after = before.without(classes, [*expand(sources)]).calibrated()
        after.write(path)
    return Changed(after, removed=len(before) - len(after))


def search(
    sources: Sequence[str],
    path: Path,
    make_embedder: MakeEmbedder,
    *,
    count: int = 5,
    recognize: bool = False,
    threshold: float | None = None,
    output: Path | None = None,
    output_format: RowFormat | None = None,
    montage: Path | None = None,
    stdin: Iterable[str] | None = None,
) -> Summary:
    """Find the most similar pictures of a gallery for each source or, with `recognize`, the most similar classes.

    Without `output` rows go to standard output. `montage` is a picture or a page of the neighbours.

    Raises:
        DataError: no gallery, another model than the one that made it, or the sources name nothing.
        OutputError: a file cannot be written, or is an input.
    """
    chosen = format_of(output, output_format)
    images = list(at_least_one(sources, stdin))
    for file in filter(None, (output, montage)):
        there = identity(file)
        if there is not None and any(identity(image) == there for image in (*images, path)):
            raise OutputError(f"{file} is one of the inputs: choose another name for the output")
    if output is not None and montage is not None and output.resolve() == montage.resolve():
        raise OutputError(f"{output} cannot hold both the rows and the montage: choose another name for one of them")
    gallery = Gallery.read(path)
    searcher = Searcher(gallery, make_embedder(gallery.provenance), name=str(path))
    rows = searcher.recognize(images, count, threshold=threshold) if recognize else searcher.search(images, count)
    summary, start = Summary(), time.perf_counter()
    interrupted: KeyboardInterrupt | None = None
    with ExitStack() as stack:
        drawn = None
        if montage is not None:
            from torchclas.reporting.neighbours import open_neighbours  # what draws, which few runs need

            drawn = stack.enter_context(open_neighbours(montage, path.name))
        if output is None:
            writer: MatchWriter = match_stream(sys.stdout, chosen, count)
        else:
            writer = stack.enter_context(open_matches(output, chosen, count))
        try:
            with progress("searching", len(images)) as advance:
                for row in rows:
                    with held_back():
                        writer.write([row])
                        summary.add([row])
                        if drawn is not None:
                            drawn.add(row)
                    advance(1)
        except KeyboardInterrupt as interrupt:
            interrupted = interrupt
        summary.seconds = time.perf_counter() - start
    if interrupted is not None:
        raise interrupted
    return summary


def _extend(gallery: Gallery, embedder: Embedder, pictures: Pictures, path: Path) -> Changed:
    with progress("embedding", len(pictures.images)) as advance:
        embedded = embed_pictures(embedder, pictures, advance)
    after = embedded.into(gallery)
    after.write(path)
    replaced = len(gallery) + len(embedded.sources) - len(after)
    notes = list(embedded.notes)
    if replaced:
        notes.append(f"{replaced:,} pictures were in the gallery before, and replaced")
    return Changed(after, len(embedded.sources), 0, embedded.unreadable, tuple(notes))


def _spare(output: Path) -> None:
    """Raise `OutputError` where a gallery would take the place of something else."""
    if output.is_dir():
        raise OutputError(f"{output} is a folder: name a file in it")
    if output.is_file():
        try:
            Gallery.read(output)
        except Error:
            raise OutputError(f"{output} is there, and no gallery: choose another name for the gallery") from None
