from __future__ import annotations

import threading
from pathlib import Path

import pytest

from torchclas.errors import DownloadError, OutputError
from torchclas.weights import cache

LEGENDARY = "https://published.invalid/dygraph/legendary_models/ResNet50_pretrained.pdparams"
ORIGINAL = "https://published.invalid/dygraph/ResNet50_pretrained.pdparams"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCHCLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHCLAS_OFFLINE", "1")
    return tmp_path / "cache"


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHCLAS_CACHE", "~/weights")
    assert cache.cache_dir() == Path.home() / "weights"
    monkeypatch.delenv("TORCHCLAS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert cache.cache_dir() == Path("/var/cache/torchclas")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_dir() == Path.home() / ".cache" / "torchclas"


def test_twins_do_not_collide(folder: Path) -> None:
    paths = {cache.published_path(LEGENDARY), cache.published_path(ORIGINAL)}
    assert len(paths) == 2
    for path in paths:
        assert path.parent.parent == folder
        assert path.name.startswith("ResNet50_pretrained-")
        assert path.suffix == ".pdparams"
    assert cache.published_path(LEGENDARY) == cache.published_path(LEGENDARY)


def test_cached_path_finds_what_is_there() -> None:
    path = put(cache.published_path(LEGENDARY), b"weights")
    assert cache.cached_path(LEGENDARY) == path
    with pytest.raises(DownloadError, match="TORCHCLAS_OFFLINE"):
        cache.cached_path(ORIGINAL)


def test_cached_file_is_built_once(folder: Path) -> None:
    built: list[Path] = []

    def build(path: Path) -> None:
        assert not (folder / "converted" / "ResNet50.safetensors").exists()
        built.append(path)
        threading.Event().wait(0.05)
        path.write_bytes(b"converted")

    results: list[Path] = []
    threads = [
        threading.Thread(target=lambda: results.append(cache.cached_file("ResNet50.safetensors", build)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert results == [folder / "converted" / "ResNet50.safetensors"] * 4
    assert results[0].read_bytes() == b"converted"


def test_cached_file_that_fails_is_not_kept(folder: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise ValueError("cannot be converted")

    with pytest.raises(ValueError, match="cannot be converted"):
        cache.cached_file("a.safetensors", fail)
    assert cache.entries() == []
    assert cache.cached_file("a.safetensors", lambda path: put(path, b"whole") and None).read_bytes() == b"whole"


@pytest.mark.parametrize("key", ["", "a/b", "../a", "/etc/passwd", ".hidden", ".."])
def test_cached_file_wants_a_file_name(key: str) -> None:
    with pytest.raises(ValueError, match="not a file name"):
        cache.cached_file(key, lambda path: None)


def test_entries_and_clear(folder: Path) -> None:
    assert cache.entries() == []
    assert cache.clear() == 0
    published = put(cache.published_path(LEGENDARY), b"12345")
    put(published.with_name(f"{published.name}.json"), b"{}")
    part = put(cache.published_path(ORIGINAL).with_suffix(".pdparams.part"), b"123")
    converted = cache.cached_file("a.safetensors", lambda path: put(path, b"1234567") and None)
    foreign = put(folder / "thesis.tex", b"precious")
    assert set(cache.entries()) == {
        cache.Entry(published, 5, partial=False),
        cache.Entry(part, 3, partial=True),
        cache.Entry(converted, 7, partial=False),
    }
    assert cache.clear() >= 5 + 2 + 3 + 7
    assert not [path for path in folder.rglob("*") if path.is_file() and path != foreign]
    assert cache.entries() == []
    assert foreign.exists()


def test_a_cache_that_cannot_be_written_can_be_elsewhere(folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    with pytest.raises(OutputError, match=r"cannot be made.*set TORCHCLAS_CACHE"):
        cache.cached_file("a.safetensors", lambda path: path.touch())
