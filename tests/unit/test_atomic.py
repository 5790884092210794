from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from torchclas.atomic import atomic_path, locked
from torchclas.errors import CheckpointError, OutputError


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_file_appears_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "model.safetensors"
    with atomic_path(path) as temporary:
        temporary.write_text("weights")
        assert temporary.parent == path.parent
        assert temporary.suffix == ".safetensors", "writers choose formats by suffix"
        assert not path.exists()
    assert path.read_text() == "weights"
    assert names(path.parent) == [path.name]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("")
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_permissions_do_not_depend_on_the_writer(tmp_path: Path) -> None:
    """Some writers make files that only their owner can read."""
    (tmp_path / "b").write_text("")
    with atomic_path(tmp_path / "a.safetensors") as temporary:
        save_file({"x": np.zeros(1, np.float32)}, temporary)
        temporary.chmod(0o600)
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "b").stat().st_mode


def write(path: Path, content: str, then: BaseException | None = None) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(content)
        if then:
            raise then


@pytest.mark.parametrize("error", [ValueError("mine"), CheckpointError("mine"), KeyboardInterrupt()])
def test_error_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "result.csv"
    write(path, "old")
    with pytest.raises(type(error)):
        write(path, "half of the n", then=error)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.csv"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disk(tmp_path: Path) -> None:
    def write_to_full_disk() -> None:
        with atomic_path(tmp_path / "result.csv") as temporary:
            temporary.unlink()
            temporary.symlink_to("/dev/full")
            temporary.write_text("result")

    with pytest.raises(OutputError, match=r"result\.csv: the disk is full"):
        write_to_full_disk()
    assert names(tmp_path) == []


def test_full_disk_behind_a_writers_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(total=2**30, used=2**30, free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match="the disk is full"):
        write(tmp_path / "model", "half", then=RuntimeError("I/O error (code 28)"))
    assert names(tmp_path) == []


def test_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made: Not a directory"):
        write(tmp_path / "file" / "new" / "result", "")


def test_read_only_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There nothing can be made, and removing fails even where there is nothing to remove."""

    def refuse(path: Path, **_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    began = False

    def work() -> None:
        nonlocal began
        with atomic_path(tmp_path / "result.csv"):
            began = True

    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OutputError, match=r"result\.csv: cannot be written: Read-only file system"):
        work()
    assert not began, "told before the work"


def test_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "result").mkdir()
    with pytest.raises(OutputError, match="cannot be written: Is a directory"):
        write(tmp_path / "result", "")
    assert names(tmp_path) == ["result"]


def test_other_failures_of_the_system_are_not_taken_for_the_output(tmp_path: Path) -> None:
    missing = tmp_path / "input"
    with pytest.raises(FileNotFoundError) as caught, atomic_path(tmp_path / "output") as temporary:
        temporary.write_text(missing.read_text())
    assert caught.value.errno == errno.ENOENT


def test_lock_admits_one_at_a_time(tmp_path: Path) -> None:
    inside, seen = 0, []

    def enter() -> None:
        nonlocal inside
        with locked(tmp_path / "new" / "file"):
            inside += 1
            seen.append(inside)
            release.wait(0.02)
            inside -= 1

    release = threading.Event()
    threads = [threading.Thread(target=enter) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 5


def test_lock_in_an_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"), locked(tmp_path / "file" / "result"):
        pass
