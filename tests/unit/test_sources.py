"""Naming images: everything the user names comes out once, in order, and nothing is lost."""

import io
import os
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from torchclas.data import sources
from torchclas.data.sources import expand, read
from torchclas.errors import ImageError


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "c/z.JPEG", "c/d/y.webp", ".git/x.jpg", "photo.HEIC"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


ALL = ["photos/a.PNG", "photos/b.jpg", "photos/c/d/y.webp", "photos/c/z.JPEG", "photos/photo.HEIC"]


def test_folder_is_walked_in_order(tree: Path) -> None:
    assert list(expand(["photos"])) == ALL
    assert list(expand([tree / "photos"])) == [f"{tree}/{path}" for path in ALL]


def test_named_files_are_kept_whatever_they_are(tree: Path) -> None:
    named = ["photos/notes.txt", "missing.jpg", "photos/b.jpg", "https://example.org/*.jpg?x=[1]", "photos/b.jpg"]
    assert list(expand(named)) == named


def test_globs(tree: Path) -> None:
    assert list(expand(["photos/*.[jP]*"])) == ["photos/a.PNG", "photos/b.jpg"]
    assert list(expand(["photos/**/*.webp"])) == ["photos/c/d/y.webp"]
    assert list(expand(["phot*"])) == ALL
    assert list(expand(["nothing/*.jpg"])) == ["nothing/*.jpg"]


def test_file_whose_name_looks_like_a_glob(tree: Path) -> None:
    (tree / "img[1].jpg").touch()
    (tree / "img1.jpg").touch()
    assert list(expand(["img[1].jpg"])) == ["img[1].jpg"]


def test_standard_input(tree: Path) -> None:
    lines = ["photos/b.jpg\n", "\n", "photos/c\r\n", " spaced name.jpg\n", "http://host/x.png"]
    expected = ["photos/b.jpg", "photos/c/d/y.webp", "photos/c/z.JPEG", " spaced name.jpg", "http://host/x.png"]
    assert list(expand(["first.jpg", "-", "last.jpg"], stdin=lines)) == ["first.jpg", *expected, "last.jpg"]


def test_standard_input_of_the_process_may_hold_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"caf\xe9.jpg\n" + "é.jpg\n".encode())))
    assert [os.fsencode(name) for name in expand(["-"])] == [b"caf\xe9.jpg", "é.jpg".encode()]


def test_links(tree: Path) -> None:
    (tree / "photos" / "loop").symlink_to(tree / "photos")
    (tree / "photos" / "c" / "up").symlink_to("..")
    (tree / "photos" / "gone.jpg").symlink_to("nowhere")
    (tree / "elsewhere").mkdir()
    (tree / "elsewhere" / "e.jpg").touch()
    (tree / "photos" / "side").symlink_to(tree / "elsewhere")
    assert list(expand(["photos"])) == [*ALL[:4], "photos/gone.jpg", ALL[4], "photos/side/e.jpg"]


def test_links_to_themselves_hide_no_picture(tree: Path) -> None:
    (tree / "photos" / "itself").symlink_to("itself")
    (tree / "photos" / "itself.jpg").symlink_to("itself.jpg")
    assert list(expand(["photos"])) == [*ALL[:4], "photos/itself.jpg", *ALL[4:]]
    with pytest.raises(ImageError, match="Too many levels of symbolic links"):
        read("photos/itself.jpg")
    (tree / "links").mkdir()
    (tree / "links" / "itself").symlink_to("itself")
    with pytest.raises(ImageError, match="it holds 1 × without suffix"):
        read("links")


def test_folder_without_images_is_told(tree: Path) -> None:
    (tree / "empty" / "sub").mkdir(parents=True)
    (tree / "empty" / "list.csv").touch()
    assert list(expand(["empty", "photos/c"])) == ["empty", "photos/c/d/y.webp", "photos/c/z.JPEG"]
    with pytest.raises(ImageError, match=r"is a folder, not an image; it holds 1 × (folders|\.csv), 1 × "):
        read("empty")
    with pytest.raises(ImageError, match="it holds nothing"):
        read("empty/sub")


def test_unreadable_folder_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def denied(path: Path | str) -> object:
        if os.fspath(path) == "photos/c":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert list(expand(["photos"])) == ["photos/a.PNG", "photos/b.jpg", "photos/c", "photos/photo.HEIC"]
    with pytest.raises(ImageError, match="permission denied"):
        read("photos/c")


def test_expansion_is_lazy() -> None:
    def arguments() -> Iterator[str]:
        while True:
            yield "x.jpg"

    assert list(islice(expand(arguments()), 3)) == ["x.jpg"] * 3


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("missing.jpg", "no such file"),
        ("photos/b.jpg/x.jpg", "Not a directory"),
        ("x" * 5000, "too long"),
        ("nul\0.jpg", "cannot be read"),
        ("sftp://host/x.jpg", "sftp:// is not supported"),
        ("file:///etc/passwd", "file:// is not supported"),
    ],
)
def test_unreadable_source(tree: Path, source: str, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        read(source)


class Server(ThreadingHTTPServer):
    released: threading.Event


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/ok")
            self.end_headers()
        elif self.path == "/slow":
            self.server.released.wait(10)
        elif self.path == "/trickle":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            while not self.server.released.wait(0.02):
                self.wfile.write(b"x")
        elif self.path == "/broken":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"x" * 50)
        elif self.path in ("/ok", "/endless"):
            self.send_response(200)
            if self.path == "/ok":
                self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"image" if self.path == "/ok" else b"x" * 300_000)
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@contextmanager
def serving() -> Generator[str]:
    server = Server(("127.0.0.1", 0), Handler)
    server.released = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as host:
        yield host


@pytest.mark.parametrize("path", ["/ok", "/moved"])
def test_url(host: str, path: str) -> None:
    assert read(host + path) == b"image"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/none", "the server answered 404 Not Found"),
        ("/slow", "did not answer in time"),
        ("/trickle", "did not answer in time, or too slowly"),
        ("/broken", "broke off"),
        ("/endless", "larger than the download limit of 100,000 bytes"),
    ],
)
def test_url_that_fails(host: str, path: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "READ_SECONDS", 0.2)
    with pytest.raises(ImageError, match=reason):
        read(host + path, max_download_bytes=100_000)


def test_announced_size_is_checked_before_the_download(host: str) -> None:
    with pytest.raises(ImageError, match="larger than the download limit of 4 bytes"):
        read(host + "/ok", max_download_bytes=4)


def test_download_has_a_time_limit(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "DOWNLOAD_SECONDS", -1)
    with pytest.raises(ImageError, match="took longer than"):
        read(host + "/ok")


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as host:
        pass
    with pytest.raises(ImageError, match=r"no connection to 127\.0\.0\.1"):
        read(host)
