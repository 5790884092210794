"""Rows of a long run, kept in parts: whatever stops it, the same command goes on. No row twice, none lost, in order.

Inputs are numbered. The rows of inputs [start, stop) are a part: a file of a work folder that appears complete, once
its rows have taken some seconds. Parts begin and end where batches do, since what is computed of an image may depend,
in its last digit, on what else is in its batch. A manifest says what decides the rows; what would mix those of two
commands is refused. When all inputs have their rows, the parts are joined to the file that was asked for, and the work
folder goes. What comes out is the same, byte for byte, wherever it was stopped.

A folder that was asked for has files of `ROWS` rows each, joined from parts as soon as these are there, and at last a
manifest: where that is, the folder is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import uuid
from bisect import insort
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

from torchclas.atomic import alone, atomic_path, disk_is_full
from torchclas.data.listing import Listing, ListingChangedError
from torchclas.data.loader import Batch
from torchclas.errors import OutputError
from torchclas.signals import held_back
from torchclas.text import ANY_NAME


class _Result(Protocol):
    @property
    def status(self) -> str: ...


Row = TypeVar("Row")
Result = TypeVar("Result", bound=_Result)
Row_contra = TypeVar("Row_contra", contravariant=True)

SECONDS = 5.0  # of work that a part holds, and that a kill costs at most
ROWS = 65_536  # of each file of a folder
MANIFEST = "_manifest.json"  # which readers of folders of Parquet pass over
_INPUTS = "inputs.jsonl"
_PART = re.compile(r"rows-(\d+)-(\d+)-(\d+)\.\w+")
_SEALED = "part-*.parquet"
_LAYOUT = 1  # of a work folder; counts up when older ones cannot be taken up any more
_LONGEST = 200  # bytes of a file's name, of which most systems allow 255
_SHOWN = 40  # characters of a value


class Writer(Protocol[Row_contra]):
    """Takes rows."""

    def write(self, rows: Sequence[Row_contra]) -> None:
        """Write all of `rows`."""
        ...


class RowFiles(Protocol[Row_contra]):
    """How rows are files: parts, and what is asked for."""

    @property
    def suffix(self) -> str:
        """The suffix of parts."""
        ...

    def open(self, path: Path) -> AbstractContextManager[Writer[Row_contra]]:
        """Write the rows of a part."""
        ...

    def join(self, parts: Iterable[Path], output: Path) -> None:
        """Make one file of parts that follow each other."""
        ...

    def count(self, path: Path) -> tuple[int, int]:
        """How many rows a file of a folder has, and how many of them are errors."""
        ...


class Part(NamedTuple):
    """Where the rows of inputs [start, stop) are, and how many of them are errors."""

    start: int
    stop: int
    errors: int
    path: Path


class OpenPart(Generic[Row]):
    """A part that is being written."""

    def __init__(self, writer: Writer[Row], start: int, end: int | None) -> None:
        self._writer = writer
        self.start = self.stop = start
        self.errors = 0
        self.kept: Part | None = None  # at the end
        self._end = end
        self._until = time.monotonic() + SECONDS

    @property
    def full(self) -> bool:
        """Whether the rows that follow belong to another part."""
        return self.stop == self._end or time.monotonic() >= self._until

    def write(self, rows: Sequence[Row], errors: int) -> None:
        """Write the rows of a batch, of which so many are errors."""
        self._writer.write(rows)
        self.stop += len(rows)
        self.errors += errors


@contextmanager
def open_part(
    work: Path, files: RowFiles[Row], start: int, end: int | None = None
) -> Generator[OpenPart[Row], None, None]:
    """Yield a part of the work folder `work` that begins with input `start`, and does not reach beyond `end`.

    It appears at the end of the block, or where that is interrupted, with the rows written so far; on an error not at
    all. Whoever writes to it does so under `torchclas.signals.held_back`.
    """
    temporary = work / f".rows-{uuid.uuid4().hex}{files.suffix}"
    interrupt: KeyboardInterrupt | None = None
    try:
        with ExitStack() as stack:
            part = OpenPart(stack.enter_context(files.open(temporary)), start, end)
            try:
                yield part
            except KeyboardInterrupt as asked:
                interrupt = asked
            with held_back():
                stack.close()
                if part.stop > start:
                    with temporary.open("rb+") as file:
                        os.fsync(file.fileno())
                    path = work / f"rows-{start:012}-{part.stop:012}-{part.errors}{files.suffix}"
                    temporary.replace(path)
                    part.kept = Part(start, part.stop, part.errors, path)
        if interrupt is not None:
            raise interrupt
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_parts(
    open_at: Callable[[int], AbstractContextManager[OpenPart[Result]]],
    start: int,
    batches: Iterator[Batch],
    rows_of: Callable[[Batch], Sequence[Result]],
    done: Callable[[Batch, Sequence[Result]], None] = lambda batch, rows: None,
) -> list[Part]:
    """Write the rows of consecutive batches, of which the first begins with input `start`; returns where they are.

    `open_at` opens the part that begins with an input; `done` is told of each batch.
    """
    parts: list[Part] = []
    for first in batches:
        with open_at(start) as part:
            for batch in chain((first,), batches):
                rows = rows_of(batch)
                with held_back():
                    part.write(rows, sum(row.status == "error" for row in rows))
                    done(batch, rows)
                if part.full:
                    break
        start = part.stop
        if part.kept is not None:
            parts.append(part.kept)
    return parts


def parts_of(work: Path) -> list[Part]:
    """The parts that are in a work folder, in order; some may have rows of others, too."""
    found: list[Part] = []
    for path in work.glob("rows-*"):
        if (match := _PART.fullmatch(path.name)) is not None:
            found.append(Part(int(match[1]), int(match[2]), int(match[3]), path))
    return sorted(found)


class Parts(Generic[Row]):
    """The parts of one output, which this process alone writes; made by `open_parts`.

    `listing` are the inputs, `name` is what the output was called by. `begin` comes first, then `add` for each of the
    `gaps`, and `finish` last.
    """

    def __init__(self, name: Path, output: Path, work: Path, listing: Listing, *, folder: bool) -> None:
        self.name, self.output, self.work, self.listing, self.folder = name, output, work, listing, folder
        self.finished = False
        self._parts: list[Part] = []

    def begin(self, request: Mapping[str, object], files: RowFiles[Row], *, batch_size: int) -> None:
        """Take up what an earlier command left; `request` is all that decides the rows, in values of JSON.

        Raises:
            OutputError: that was another request.
        """
        self._files = files
        self._rows = -(-ROWS // batch_size) * batch_size if self.folder else None
        self._request = json.loads(json.dumps({"layout": _LAYOUT, **request, "batch_size": batch_size}))
        if _any(self.output, self.work, self.folder):
            self._compare(_read(self.work / MANIFEST) or _read(self.output / MANIFEST) or {"request": {}})
        self._parts = self._found()
        _write(self.work / MANIFEST, {"request": self._request})

    def _compare(self, before: Mapping[str, Any]) -> None:
        """Raise `OutputError` where the rows of an earlier command are not some of those that are asked for."""
        then = before["request"]
        for key in {**then, **self._request}:
            if then.get(key) != self._request.get(key):
                difference = f"{key}: {_short(then.get(key))}, now {_short(self._request.get(key))}"
                raise OutputError(_refusal(self.name, difference))
        if "names" in before and (self.listing.read_all(), self.listing.sha256()) != (
            before["inputs"],
            before["names"],
        ):
            raise OutputError(_refusal(self.name, f"of {before['inputs']:,} inputs, now others"))

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(part.stop - part.start for part in self._parts)

    @property
    def errors(self) -> int:
        """How many of them are errors."""
        return sum(part.errors for part in self._parts)

    def gaps(self) -> list[tuple[int, int | None]]:
        """The inputs [start, stop) without rows, in order; None where nobody knows yet how many there are."""
        total = self.listing.count if self.listing.complete else None
        gaps: list[tuple[int, int | None]] = []
        end = 0
        for part in self._parts:
            if part.start > end:
                gaps.append((end, part.start))
            end = part.stop
        return gaps if end == total else [*gaps, (end, total)]

    def units(self, size: int) -> Iterator[tuple[int, list[str]]]:
        """The names of inputs without rows, at most `size` at a time, each time with the number of the first.

        None of them reaches into two files of a folder.
        """
        for start, end in self.gaps():
            names = self.listing.names(start)
            while start != end:
                left = size if end is None else min(size, end - start)
                unit = [*islice(names, min(left, (self._end(start) or start + left) - start))]
                if not unit:
                    break
                self.listing.sync()  # a name must not be lost before its row
                yield start, unit
                start += len(unit)

    def _end(self, start: int) -> int | None:
        """Where the file of a folder ends that has the row of this input."""
        return None if self._rows is None else (start // self._rows + 1) * self._rows

    @contextmanager
    def add(self, start: int) -> Generator[OpenPart[Row], None, None]:
        """`open_part` for rows from input `start` on."""
        part = None
        try:
            with open_part(self.work, self._files, start, self._end(start)) as part:
                try:
                    yield part
                finally:
                    self.listing.sync()  # a name must not be lost before its row
        finally:
            if part is not None and part.kept is not None:
                self.keep(part.kept)

    def keep(self, part: Part) -> None:
        """Take account of a part that is there, now."""
        insort(self._parts, part)
        if self._rows is not None:
            self._seal(part.start // self._rows)

    def finish(self) -> None:
        """Make what was asked for of the parts, of which none must be missing.

        Raises:
            OutputError: it cannot be written; the parts stay.
        """
        total = self.listing.read_all()
        assert not self.gaps(), self.gaps()
        if self._rows is None:
            with atomic_path(self.output) as temporary:
                self._files.join([part.path for part in self._parts], temporary)
        else:
            self._seal(total // self._rows)
            counts = {"inputs": total, "errors": self.errors, "names": self.listing.sha256()}
            _write(self.output / MANIFEST, {**counts, "request": self._request})
        self.finished = True

    def _seal(self, number: int) -> None:
        """Make a file of a folder, where all of its rows are there."""
        assert self._rows is not None
        start, end = number * self._rows, (number + 1) * self._rows
        if self.listing.complete:
            end = min(end, self.listing.count)
        parts = [part for part in self._parts if start <= part.start < end]
        path = self.output / f"part-{number:05}.parquet"
        if sum(part.stop - part.start for part in parts) < end - start or not parts or parts[0].path == path:
            return
        with atomic_path(path) as temporary:
            self._files.join([part.path for part in parts], temporary)
        sealed = Part(start, end, sum(part.errors for part in parts), path)
        self._parts = sorted([sealed, *(part for part in self._parts if not start <= part.start < end)])
        for part in parts:
            part.path.unlink()

    def _found(self) -> list[Part]:
        """The parts on disk, in order."""
        found = parts_of(self.work)
        for path in self.output.glob(_SEALED) if self._rows is not None else ():
            start = int(path.stem.removeprefix("part-")) * (self._rows or 0)
            count, errors = self._files.count(path)
            found.append(Part(start, start + count, errors, path))
        parts: list[Part] = []
        for part in sorted(found, key=lambda part: (part.start, -part.stop)):
            if not parts or part.start >= parts[-1].stop:
                parts.append(part)
            else:  # rows that are in another part, too
                part.path.unlink()
        return parts


@contextmanager
def open_parts(
    output: Path, names: Iterable[str], *, folder: bool = False, restart: bool = False
) -> Generator[Parts[Any], None, None]:
    """Yield the parts of `output`, a file or a `folder` of files.

    `names` are its inputs, compared as they are asked for. With `restart`, what an earlier command left is dropped.
    After the block nothing is left of an output that is finished but itself, nor of one without any row.

    Raises:
        OutputError: it cannot be written; another process writes it; the folder holds other files; the inputs differ
            from those of an earlier command; the disk is full.
    """
    named, output = output, Path(os.path.realpath(output))  # of a link, where it leads to
    work = output / ".parts" if folder else output.with_name(_hidden(output.name))
    made = not output.exists()
    busy = f"{named}: another command is writing it: wait for its end, or choose another name"
    try:
        with alone(work / ".lock", busy):
            if folder:
                _check(named, restart)
            if restart:
                _drop(output, work, folder)
            for temporary in work.glob(".rows-*"):  # what was being written when a process was killed
                temporary.unlink(missing_ok=True)
            parts = None
            try:
                if not _any(output, work, folder) or not (work / MANIFEST).exists():
                    _clear(work)  # of a command without rows, or one that was killed at its end
                with Listing(work / _INPUTS, names) as listing:
                    parts = Parts[Any](named, output, work, listing, folder=folder)
                    yield parts
            except ListingChangedError as error:
                raise OutputError(_refusal(named, str(error))) from error
            except OSError as error:
                if disk_is_full(error, work):
                    full = f"{named}: the disk is full: free some space or choose another place"
                    raise OutputError(full) from error
                raise
            finally:
                done = (output / MANIFEST).exists() if folder else parts is not None and parts.finished
                if done or not _any(output, work, folder):
                    _clear(work)
    finally:
        with suppress(OSError):
            work.rmdir()
            if folder and made:
                output.rmdir()


def _hidden(name: str) -> str:
    """The name of the work folder beside a file."""
    if len(os.fsencode(name)) > _LONGEST:
        name = f"{name[:64]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}"
    return f".{name}.parts"


def _any(output: Path, work: Path, folder: bool) -> bool:
    """Whether there are rows."""
    return any(work.glob("rows-*")) or (folder and any(output.glob(_SEALED)))


def _check(output: Path, restart: bool) -> None:
    """Raise `OutputError` where a folder holds what no command like this one put there."""
    known = (output / MANIFEST).exists() or (output / ".parts" / MANIFEST).exists() or restart
    for path in output.iterdir():
        if path.name not in (".parts", MANIFEST) and not (known and path.match(_SEALED)):
            raise OutputError(f"{output} holds other files, such as {path.name}: name a new or an empty folder")


def _drop(output: Path, work: Path, folder: bool) -> None:
    if folder:
        for path in output.glob(_SEALED):
            path.unlink()
        (output / MANIFEST).unlink(missing_ok=True)
    _clear(work)


def _clear(work: Path) -> None:
    (work / MANIFEST).unlink(missing_ok=True)  # without which the others mean nothing
    for path in work.iterdir():
        if path.name == _INPUTS or path.name.startswith(("rows-", ".rows-")):
            path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(cast("dict[str, Any]", content).get("request"), dict):
        return None
    return cast("dict[str, Any]", content)


def _write(path: Path, content: Mapping[str, object]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8", errors=ANY_NAME)


def _refusal(name: Path, difference: str) -> str:
    return (
        f"{name}: there are rows of another command ({difference}): run that one again, or add --restart to drop "
        "its rows"
    )


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
