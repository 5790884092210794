"""What is kept of data files lies in the cache, is that of the file as it is, and is made anew where it is damaged."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from torchclas.data.kept import kept_path
from torchclas.data.shards import ParquetImages, TarShards
from torchclas.errors import DataError, OutputError


def write_tar(path: Path, images: list[bytes], labels: list[int]) -> None:
    with tarfile.open(path, "w") as archive:
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            for name, content in ((f"{number}.png", image), (f"{number}.cls", str(label).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def write_parquet(path: Path, images: list[bytes], labels: list[int]) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"image": images, "label": labels}), path)


Kind = tuple[str, Callable[[Path, list[bytes], list[int]], None], type[TarShards] | type[ParquetImages]]
KINDS: list[Kind] = [("a.tar", write_tar, TarShards), ("a.parquet", write_parquet, ParquetImages)]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCHCLAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


def content(images: TarShards | ParquetImages) -> tuple[list[bytes], list[int]]:
    return [images.read(index) for index in range(len(images))], images.labels.tolist()


OLD = [b"old 1", b"old 2"], [0, 1]
NEW = [b"new 1", b"new 2"], [1, 0]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[0])
@pytest.mark.parametrize("how", ["older", "same time", "moved", "in place", "link"])
def test_a_file_that_takes_the_place_of_another_is_read_itself(
    tmp_path: Path, cache: Path, kind: Kind, how: str
) -> None:
    """As `cp -p` and `rsync -t` do it: the size may be the same, and the time older."""
    name, write, read = kind
    data = tmp_path / "data"
    data.mkdir()
    path = data / name
    if how == "link":
        write(data / f"old-{name}", *OLD)
        path.symlink_to(f"old-{name}")
    else:
        write(path, *OLD)
    time = path.stat().st_mtime_ns
    assert content(read((str(path),))) == OLD
    other = tmp_path / f"other-{name}"
    write(other, *NEW)
    os.utime(other, ns=(time, time if how == "same time" else 10**18))
    if how == "moved":
        other.replace(path)
    elif how == "in place":
        path.write_bytes(other.read_bytes())
        os.utime(path, ns=(time, time))
    elif how == "link":
        path.unlink()
        path.symlink_to(other)
    else:
        shutil.copy2(other, path)
    assert content(read((str(path),))) == NEW
    assert {file.name for file in data.iterdir()} <= {name, f"old-{name}"}
    if how != "link":  # what was made of the file as it was is gone
        assert len([file for file in cache.iterdir() if not file.name.startswith(".")]) == 2


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[0])
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "text", "seal"])
def test_what_was_damaged_is_made_anew(tmp_path: Path, cache: Path, kind: Kind, damage: str) -> None:
    name, write, read = kind
    path = tmp_path / name
    write(path, *OLD)
    read((str(path),)).labels  # noqa: B018
    kept = kept_path(path, ".index" if read is TarShards else ".arrow")
    whole = kept.read_bytes()
    if damage == "flipped":
        for at in range(0, len(whole), 97):
            kept.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
            assert content(read((str(path),))) == OLD
            assert kept.read_bytes() == whole
        return
    changes: dict[str, Callable[[], object]] = {
        "cut": lambda: kept.write_bytes(whole[:-20]),
        "empty": lambda: kept.write_bytes(b""),
        "text": lambda: kept.write_text('[["x", -5, "y", 3]]'),
        "seal": lambda: kept.with_name(f"{kept.name}.seal").write_text("[" * 100_000),
    }
    changes[damage]()
    assert content(read((str(path),))) == OLD
    assert kept.read_bytes() == whole


def test_a_copy_that_was_damaged_without_a_trace_does_not_crash(tmp_path: Path, cache: Path) -> None:
    """A fault of the disk leaves times as they are: offsets that lead out of the file are noticed when it is opened."""
    path = tmp_path / "a.parquet"
    images = [np.random.default_rng(number).bytes(1000) for number in range(9)]
    write_parquet(path, images, list(range(9)))
    ParquetImages((str(path),))
    kept = kept_path(path, ".arrow")
    whole = kept.read_bytes()
    at = whole.index(np.array([1000, 2000, 3000], "<i4").tobytes())
    with kept.open("r+b") as file:
        file.seek(at)
        file.write(np.array([2**30], "<i4").tobytes())
    from torchclas.data import kept as module

    module._seal_of(kept).write_text(str(module._state(kept)))
    opened = ParquetImages((str(path),))
    assert content(opened) == (images, list(range(9)))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[0])
def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, cache: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, write, read = kind
    path = tmp_path / name
    write(path, *OLD)
    from torchclas.data import shards

    seal = shards.seal

    def changed(kept: Path, source: Path) -> None:
        write(path, *NEW)
        seal(kept, source)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "seal", changed)
        with pytest.raises(DataError, match="was changed while it was read"):
            read((str(path),)).labels  # noqa: B018
    assert content(read((str(path),))) == NEW


def test_a_cache_that_cannot_be_written(tmp_path: Path, cache: Path) -> None:
    cache.parent.write_text("not a folder")
    write_tar(tmp_path / "a.tar", *OLD)
    assert content(TarShards((str(tmp_path / "a.tar"),))) == OLD
    write_parquet(tmp_path / "a.parquet", *OLD)
    with pytest.raises(OutputError, match="cannot be made"):
        ParquetImages((str(tmp_path / "a.parquet"),))


def test_the_cache_is_listed_and_cleared(tmp_path: Path, cache: Path) -> None:
    from torchclas.weights.cache import clear, entries

    write_tar(tmp_path / "a.tar", *OLD)
    TarShards((str(tmp_path / "a.tar"),)).labels  # noqa: B018
    assert [entry.path.suffix for entry in entries()] == [".index"]
    assert clear() > 0
    assert not [file for file in cache.iterdir() if file.is_file()]
