"""What is stopped goes on, and ends as if it had not been stopped; nothing is mixed."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO

import pytest

from torchclas.errors import OutputError
from torchclas.inference import parts
from torchclas.inference.parts import MANIFEST, Parts, open_parts
from torchclas.signals import held_back

BATCH = 4
NAMES = [f"/{number}.jpg" for number in range(50)]
REQUEST = {"model": "PPLCNet_x1_0", "preprocessing": {"size": [224, 224]}}


class Lines:
    """Rows that are lines of a file."""

    suffix = ".txt"

    def __init__(self, file: IO[str] | None = None) -> None:
        self.file = file

    def write(self, rows: Sequence[str]) -> None:
        assert self.file is not None
        self.file.writelines(f"{row}\n" for row in rows)

    @contextmanager
    def open(self, path: Path) -> Generator[Lines, None, None]:
        with path.open("w") as file:
            yield Lines(file)

    def join(self, parts: Iterable[Path], output: Path) -> None:
        output.write_bytes(b"".join(path.read_bytes() for path in parts))

    def count(self, path: Path) -> tuple[int, int]:
        rows = path.read_text().splitlines()
        return len(rows), sum("error" in row for row in rows)


class Killed(BaseException):
    """Stands for kill -9: nothing is put in order."""


def row(name: str) -> str:
    return f"{name} error" if name == "/7.jpg" else f"{name} ok"


def fill(found: Parts[str], *, stop: BaseException | None = None, after: int = 10**9) -> None:
    """Add all rows that are missing; `stop` comes after so many batches."""
    for start, end in found.gaps():
        names = found.listing.names(start)
        names = names if end is None else islice(names, end - start)
        while batch := [*islice(names, BATCH)]:
            with found.add(start) as part:
                while batch:
                    if after == 0 and stop is not None:
                        raise stop
                    after -= 1
                    with held_back():
                        part.write([*map(row, batch)], sum("error" in row(name) for name in batch))
                    batch = [] if part.full else [*islice(names, BATCH)]
            start = part.stop


def run(
    output: Path,
    names: Iterable[str] = NAMES,
    *,
    folder: bool = False,
    restart: bool = False,
    stop: BaseException | None = None,
    after: int = 10**9,
    request: Mapping[str, object] = REQUEST,
    lazy: bool = False,
) -> tuple[int, int]:
    """A whole command; returns how many rows it found, and how many errors there are in the end."""
    with open_parts(output, names, folder=folder, restart=restart) as found:
        if not lazy:
            found.listing.read_all()
        found.begin(request, Lines(), batch_size=BATCH)
        before = found.rows
        fill(found, stop=stop, after=after)
        found.finish()
        return before, found.errors


def content(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.iterdir()} if output.is_dir() else {"": output.read_bytes()}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of one batch, files of five; a disk that does not make anybody wait."""
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.setattr(parts, "SECONDS", 0.0)
    monkeypatch.setattr(parts, "ROWS", 18)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("lazy", [False, True])
def test_whatever_stops_it_the_output_is_the_same(tmp_path: Path, folder: bool, lazy: bool) -> None:
    assert run(tmp_path / "whole", folder=folder) == (0, 1)
    whole = content(tmp_path / "whole")
    assert (
        b"".join(data for name, data in sorted(whole.items()) if name != MANIFEST)
        == "".join(f"{row(name)}\n" for name in NAMES).encode()
    )
    output, before = tmp_path / "stopped", 0
    for stop, after in ((KeyboardInterrupt(), 3), (Killed(), 2), (ZeroDivisionError(), 4), (KeyboardInterrupt(), 0)):
        with pytest.raises(type(stop)):
            run(output, folder=folder, stop=stop, after=after, lazy=lazy)
        if not folder:
            assert not output.exists()
        before += after * BATCH
    assert run(output, folder=folder, lazy=lazy) == (before, 1)
    assert content(output) == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stopped", "whole"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Killed()])
def test_an_interrupt_keeps_the_part_that_was_under_way(tmp_path: Path, stop: BaseException) -> None:
    with pytest.raises(type(stop)):
        run(tmp_path / "out", stop=stop, after=5)
    kept = 5 * BATCH if isinstance(stop, KeyboardInterrupt) else 0
    assert run(tmp_path / "out") == (kept, 1)


def test_parts_in_any_order_leave_gaps(tmp_path: Path) -> None:
    """As workers of a cluster write them, some of them twice."""
    with open_parts(tmp_path / "out", NAMES) as found:
        found.listing.read_all()
        found.begin(REQUEST, Lines(), batch_size=BATCH)
        for start, stop in ((8, 16), (32, 40), (36, 40), (12, 20)):
            with parts.open_part(found.work, Lines(), start, stop) as part:
                part.write([row(name) for name in NAMES[start:stop]], 0)
    with open_parts(tmp_path / "out", NAMES) as found:
        found.listing.read_all()
        found.begin(REQUEST, Lines(), batch_size=BATCH)
        assert found.gaps() == [(0, 8), (16, 32), (40, 50)]
        fill(found)
        found.finish()
    assert (tmp_path / "out").read_text() == "".join(f"{row(name)}\n" for name in NAMES)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("lazy", [False, True])
def test_units_are_what_has_no_rows(tmp_path: Path, folder: bool, lazy: bool) -> None:
    """As workers of a cluster are given them; files of a folder have 20 rows here."""
    with open_parts(tmp_path / "out", NAMES, folder=folder) as found:
        if not lazy:
            found.listing.read_all()
        found.begin(REQUEST, Lines(), batch_size=BATCH)
        with parts.open_part(found.work, Lines(), 8, 16) as part:
            part.write([row(name) for name in NAMES[8:16]], 0)
        assert part.kept is not None
        found.keep(part.kept)
        starts: list[int] = []
        for start, names in found.units(8):
            assert names == NAMES[start : start + len(names)]
            starts.append(start)
            with parts.open_part(found.work, Lines(), start) as part:
                part.write([*map(row, names)], sum("error" in row(name) for name in names))
            assert part.kept is not None
            found.keep(part.kept)
        assert starts == ([0, 16, 20, 28, 36, 40, 48] if folder else [0, 16, 24, 32, 40, 48])
        found.finish()
    assert run(tmp_path / "whole", folder=folder) == (0, 1)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def interrupted(output: Path, *, folder: bool = False) -> dict[str, bytes]:
    with pytest.raises(KeyboardInterrupt):
        run(output, folder=folder, stop=KeyboardInterrupt(), after=3)
    work = output / ".parts" if folder else output.with_name(f".{output.name}.parts")
    return content(work)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize(
    ("names", "request_", "message"),
    [
        (NAMES, {**REQUEST, "model": "ResNet50_vd"}, "model: PPLCNet_x1_0, now ResNet50_vd"),
        (NAMES, {"model": "PPLCNet_x1_0"}, 'preprocessing: {"size": [224, 224]}, now null'),
        ([*NAMES, "/z.jpg"], REQUEST, "there were 50 inputs, and now /z.jpg follows"),
        (["/a.jpg", *NAMES], REQUEST, "input 1 was /0.jpg, and now is /a.jpg"),
    ],
)
def test_what_would_be_mixed_is_refused(
    tmp_path: Path, folder: bool, names: list[str], request_: Mapping[str, object], message: str
) -> None:
    output = tmp_path / "out"
    before = interrupted(output, folder=folder)
    with pytest.raises(OutputError) as refused:
        run(output, names, request=request_, folder=folder)
    assert message in str(refused.value)
    assert "add --restart" in str(refused.value)
    assert content(output / ".parts" if folder else tmp_path / ".out.parts") == before, "nothing was lost"
    assert run(output, names, request=request_, folder=folder, restart=True) == (0, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.usefixtures("short")
def test_a_folder_that_is_complete_stays_so(tmp_path: Path) -> None:
    output = tmp_path / "new" / "out"
    assert run(output, folder=True) == (0, 1)
    before = content(output)
    assert sorted(before) == ["_manifest.json", "part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert run(output, folder=True) == (50, 1)
    with pytest.raises(OutputError, match="of 50 inputs, now others"):
        run(output, [*NAMES, "/z.jpg"], folder=True)
    assert content(output) == before
    assert run(output, [*NAMES, "/z.jpg"], folder=True, restart=True) == (0, 1)
    assert json.loads((output / MANIFEST).read_bytes())["inputs"] == 51


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "part-00000.parquet").write_text("precious")
    with pytest.raises(OutputError, match=r"holds other files, such as part-00000\.parquet"):
        run(tmp_path, folder=True)
    assert content(tmp_path) == {"part-00000.parquet": b"precious"}


def test_nothing_is_left_where_nothing_was_done(tmp_path: Path) -> None:
    for folder in (False, True):
        with pytest.raises(ZeroDivisionError):
            run(tmp_path / "out", folder=folder, stop=ZeroDivisionError(), after=0)
    assert [*tmp_path.iterdir()] == []


def test_rows_without_a_manifest_mean_nothing(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    (tmp_path / ".out.parts" / MANIFEST).unlink()
    assert run(tmp_path / "out") == (0, 1)


def test_a_file_that_was_there_stays_until_the_end(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    interrupted(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "precious"
    run(tmp_path / "out")
    assert (tmp_path / "out").read_text().startswith("/0.jpg ok")


def test_a_full_disk_keeps_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SECONDS", 0.0)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OutputError, match=r"out: the disk is full"):
        run(tmp_path / "out", stop=full, after=3)
    assert run(tmp_path / "out") == (12, 1)


def test_the_longest_name(tmp_path: Path) -> None:
    for name in ("x" * 251 + ".csv", "x" * 250 + "y.csv"):
        run(tmp_path / name)
    assert len([*tmp_path.iterdir()]) == 2


def hold(output: Path, ready: object, release: object) -> None:
    with open_parts(output, NAMES):
        ready.set()  # type: ignore[attr-defined]
        release.wait(60)  # type: ignore[attr-defined]


def test_two_commands_at_once_are_one_too_many(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "out", ready, release))
    other.start()
    assert ready.wait(60)
    (tmp_path / "link").symlink_to("out")
    for name in ("out", "link"):
        with pytest.raises(OutputError, match=f"{name}: another command is writing it"):
            run(tmp_path / name)
    other.kill()
    other.join()
    assert run(tmp_path / "out") == (0, 1), "a dead process holds nothing"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "out"]


@pytest.mark.usefixtures("short")
def test_random_stops(tmp_path: Path) -> None:
    chance = random.Random(0)
    for folder in (False, True):
        run(tmp_path / f"whole-{folder}", folder=folder)
        for number in range(10):
            output = tmp_path / f"{number}-{folder}"
            while True:
                try:
                    run(
                        output,
                        folder=folder,
                        stop=chance.choice([KeyboardInterrupt(), Killed()]),
                        after=chance.randrange(9),
                    )
                    break
                except (KeyboardInterrupt, Killed):
                    pass
            assert content(output) == content(tmp_path / f"whole-{folder}")
