"""Fetching from a local server that misbehaves in all the usual ways."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from torchclas.catalog import find
from torchclas.data.sources import read
from torchclas.errors import CheckpointError, DownloadError, ImageError, OutputError
from torchclas.models import build
from torchclas.reporting.progress import downloading
from torchclas.weights import cache, download
from torchclas.weights.download import Record, fetch, verify
from torchclas.weights.export import layouts, to_pdparams
from torchclas.weights.location import weights_file
from torchclas.weights.published import published_file

MODEL = "PPLCNet_x0_25"

CONTENT = b"\x80\x04" + bytes(range(256)) * 4000  # 1 MB: many packets
OTHER = b"\x80\x04" + bytes(reversed(range(256))) * 3000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers each request with the next of `script`, the last one for good, and keeps the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Callable[[Handler], None]] = [lambda handler: handler.send_content()]
        self.requests: list[Handler] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/zoo/ResNet50.pdparams"


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"
    sent = 0

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.requests.append(self)
        script = self.server.script
        (script.pop(0) if len(script) > 1 else script[0])(self)

    def send_content(
        self,
        content: bytes = CONTENT,
        *,
        drop_at: int | None = None,
        ranges: bool = True,
        validators: dict[str, str] | None = None,
        if_range: bool = True,
        wait: threading.Event | None = None,
    ) -> None:
        validators = {"ETag": f'"{hashlib.md5(content).hexdigest()}"'} if validators is None else validators
        start = 0
        if ranges and "Range" in self.headers and (not if_range or self.headers["If-Range"] in validators.values()):
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        for name, value in validators.items():
            self.send_header(name, value)
        self.end_headers()
        body = content[start:drop_at]
        self.sent = len(body)  # before: the client may be done with the last byte sooner than this thread
        self.wfile.write(body)
        self.wfile.flush()
        if wait:
            wait.wait(10)

    def send_raw(self, headers: dict[str, str], content: bytes, status: int = 200) -> None:
        """Nothing but what is given: the end of the connection ends the content."""
        self.wfile.write(f"HTTP/1.1 {status} Some reason\r\n".encode())
        for name, value in headers.items():
            self.wfile.write(f"{name}: {value}\r\n".encode())
        self.wfile.write(b"\r\n" + content)

    def send_page(self, content_type: str, status: int = 200) -> None:
        page = b"<!DOCTYPE html><title>Log in</title>"
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHCLAS_MIRROR", "TORCHCLAS_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "ResNet50.pdparams"


class Naps(list[float]):
    """Stands in for time.sleep."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def visible(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))


def test_fetches_once_and_records(server: Server, path: Path) -> None:
    calls: list[tuple[int, int | None]] = []
    assert fetch(server.url, path, progress=lambda done, total: calls.append((done, total))) == path
    assert fetch(server.url, path) == path
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert verify(path) == Record(server.url, len(CONTENT), SHA256)
    assert visible(path.parent) == ["ResNet50.pdparams", "ResNet50.pdparams.json"]
    assert calls[-1] == (len(CONTENT), len(CONTENT))
    assert calls == sorted(calls)


def test_resumes_where_the_connection_broke(server: Server, path: Path) -> None:
    server.script = [lambda handler: handler.send_content(drop_at=600_000), Handler.send_content]
    naps = Naps()
    fetch(server.url, path, sleep=naps)
    first, second = server.requests
    assert path.read_bytes() == CONTENT
    assert second.headers["Range"].startswith("bytes=")
    assert second.headers["If-Range"].startswith('"')
    assert len(CONTENT) <= first.sent + second.sent < len(CONTENT) + 2**16, "what had arrived was sent again"
    assert naps == [1.0]
    assert (record := verify(path))
    assert record.sha256 == SHA256


def test_resumes_by_date_where_the_etag_is_weak(server: Server, path: Path) -> None:
    validators = {"ETag": 'W/"1"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
    server.script = [
        lambda handler: handler.send_content(drop_at=600_000, validators=validators),
        lambda handler: handler.send_content(validators=validators),
    ]
    fetch(server.url, path, sleep=Naps())
    assert server.requests[1].headers["If-Range"] == validators["Last-Modified"]
    assert path.read_bytes() == CONTENT
    assert server.requests[1].sent < len(CONTENT)


def test_unpacks_what_was_compressed_on_the_way(server: Server, path: Path) -> None:
    packed = {"Content-Encoding": "gzip", "ETag": '"1"'}
    server.script = [
        lambda handler: handler.send_content(gzip.compress(CONTENT, 0), drop_at=600_000, validators=packed),
        lambda handler: handler.send_content(gzip.compress(CONTENT, 0), validators=packed),
    ]
    fetch(server.url, path, sleep=Naps())
    assert "Range" not in server.requests[1].headers
    assert path.read_bytes() == CONTENT


def test_starts_over_where_nothing_tells_versions_apart(server: Server, path: Path) -> None:
    server.script = [
        lambda handler: handler.send_content(drop_at=600_000, validators={}),
        lambda handler: handler.send_content(validators={}),
    ]
    fetch(server.url, path, sleep=Naps())
    assert "Range" not in server.requests[1].headers
    assert path.read_bytes() == CONTENT


def test_starts_over_where_the_server_ignores_ranges(server: Server, path: Path) -> None:
    server.script = [
        lambda handler: handler.send_content(drop_at=600_000),
        lambda handler: handler.send_content(ranges=False),
    ]
    fetch(server.url, path, sleep=Naps())
    assert "Range" in server.requests[1].headers
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize("content", [OTHER, OTHER[:1000]])
def test_never_joins_two_versions(server: Server, path: Path, content: bytes, if_range: bool) -> None:
    server.script = [
        lambda handler: handler.send_content(drop_at=600_000),
        lambda handler: handler.send_content(content, if_range=if_range),
    ]
    fetch(server.url, path, sleep=Naps())
    assert path.read_bytes() == content


def test_tries_again_after_server_errors(server: Server, path: Path) -> None:
    def busy(handler: Handler) -> None:
        handler.send_response(503)
        handler.send_header("Retry-After", "7")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.script = [lambda handler: handler.send_page("text/html", 500), busy, Handler.send_content]
    naps = Naps()
    fetch(server.url, path, sleep=naps)
    assert path.read_bytes() == CONTENT
    assert naps == [1.0, 7.0]


def test_gives_up_in_the_end_and_keeps_what_arrived(server: Server, path: Path) -> None:
    server.script = [lambda handler: handler.send_content(drop_at=600_000), lambda handler: handler.send_error(500)]
    naps = Naps()
    with pytest.raises(DownloadError, match=r"answered 500 .*5 attempts.*goes on after the \d{3},\d{3} bytes"):
        fetch(server.url, path, sleep=naps)
    assert naps == [1.0, 2.0, 4.0, 8.0]
    assert not path.exists()
    server.script = [Handler.send_content]
    fetch(server.url, path, sleep=naps)
    assert path.read_bytes() == CONTENT
    assert server.requests[-1].sent < len(CONTENT)


def test_attempts_count_from_the_last_progress(server: Server, path: Path) -> None:
    server.script = [
        lambda handler, end=end: handler.send_content(drop_at=end) for end in range(100_000, 1_000_000, 100_000)
    ]
    server.script.append(Handler.send_content)
    naps = Naps()
    fetch(server.url, path, sleep=naps)
    assert path.read_bytes() == CONTENT
    assert set(naps) == {1.0}


def test_nothing_listens(path: Path) -> None:
    with Server() as closed:
        url = closed.url
    naps = Naps()
    with pytest.raises(DownloadError, match=r"cannot be reached \(3 attempts\); check the connection"):
        fetch(url, path, sleep=naps)
    assert naps == [1.0, 2.0], "who cannot be reached is not asked for long"


@pytest.mark.parametrize("url", ["ResNet50.pdparams", "ftp://127.0.0.1/a", "http://"])
def test_impossible_addresses(path: Path, url: str) -> None:
    naps = Naps()
    with pytest.raises(DownloadError, match="cannot be fetched"):
        fetch(url, path, sleep=naps)
    assert naps == []


def test_missing(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.script = [lambda handler: handler.send_error(404)]
    with pytest.raises(DownloadError, match=r"/zoo/ResNet50\.pdparams: not found \(404\); check the address"):
        fetch(server.url, path)
    mirror = server.url.removesuffix("/zoo/ResNet50.pdparams") + "/mirror/"
    monkeypatch.setenv("TORCHCLAS_MIRROR", mirror)
    with pytest.raises(DownloadError, match=rf"{mirror}zoo/ResNet50.*not found \(404\); TORCHCLAS_MIRROR={mirror}"):
        fetch(server.url, path)
    assert len(server.requests) == 2, "no second attempt"


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/octet-stream"])
def test_web_page_in_place_of_the_file(server: Server, path: Path, content_type: str) -> None:
    server.script = [lambda handler: handler.send_page(content_type)]
    with pytest.raises(DownloadError, match="sent a web page"):
        fetch(server.url, path)
    assert not path.exists()


def test_other_content_than_expected(server: Server, path: Path) -> None:
    assert fetch(server.url, path, sha256=SHA256).read_bytes() == CONTENT
    expected = hashlib.sha256(OTHER).hexdigest()
    with pytest.raises(DownloadError, match=f"has sha256 {SHA256}, expected {expected}"):
        fetch(server.url, path, sha256=expected)
    server.script = [lambda handler: handler.send_content(OTHER)]
    assert fetch(server.url, path, sha256=expected).read_bytes() == OTHER


def test_mirror(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHCLAS_MIRROR", server.url.removesuffix("/zoo/ResNet50.pdparams") + "/paddle")
    fetch("https://published.invalid/models/a.pdparams?x=1", path)
    assert server.requests[0].path == "/paddle/models/a.pdparams?x=1"
    assert (record := verify(path))
    assert record.url == "https://published.invalid/models/a.pdparams?x=1"
    monkeypatch.setenv("TORCHCLAS_MIRROR", "paddle.example")
    with pytest.raises(DownloadError, match=r"TORCHCLAS_MIRROR=paddle\.example is not a URL"):
        fetch(server.url, path.with_name("b"))


def test_offline(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHCLAS_OFFLINE", "1")
    with pytest.raises(DownloadError, match=rf"TORCHCLAS_OFFLINE is set: unset it, or put the file at {path}"):
        fetch(server.url, path)
    assert not server.requests
    monkeypatch.setenv("TORCHCLAS_OFFLINE", "0")
    fetch(server.url, path)
    monkeypatch.setenv("TORCHCLAS_OFFLINE", "true")
    assert fetch(server.url, path) == path


def test_takes_a_file_that_the_user_put_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHCLAS_OFFLINE", "1")
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert fetch("http://published.invalid/a", path) == path
    assert fetch("http://published.invalid/a", path, sha256=SHA256) == path
    with pytest.raises(DownloadError):
        fetch("http://published.invalid/a", path, sha256=hashlib.sha256(OTHER).hexdigest())


def test_verify_notices_damage(server: Server, path: Path) -> None:
    fetch(server.url, path)
    damaged = bytearray(CONTENT)
    damaged[5000] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="damaged since it was fetched"):
        verify(path)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(CheckpointError, match="damaged since it was fetched"):
        verify(path)
    assert fetch(server.url, path).read_bytes() == CONTENT, "a file of another size is fetched again"
    path.with_name(f"{path.name}.json").write_text("{")
    assert verify(path) is None, "without a readable record nothing is known of the file"


def test_full_disk_keeps_what_arrived(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = Path.open

    def open_on_a_small_disk(self: Path, mode: str = "r", *arguments: object, **options: object) -> Any:
        file = real_open(self, mode, *arguments, **options)  # type: ignore[arg-type]
        if self.suffix != ".part" or mode not in ("ab", "wb"):
            return file
        write = file.write

        class SmallDisk:
            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def write(self, data: bytes) -> int:
                if file.tell() + len(data) > 500_000:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return write(data)

        return SmallDisk()

    naps = Naps()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_on_a_small_disk)
        with pytest.raises(OutputError, match=r"the disk is full.*TORCHCLAS_CACHE.*the \d+,\d+ bytes already here"):
            fetch(server.url, path, sleep=naps)
    assert naps == [], "trying again does not help"
    fetch(server.url, path)
    assert path.read_bytes() == CONTENT
    assert 0 < server.requests[1].sent < len(CONTENT)


def test_unwritable_folder(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        fetch(server.url, tmp_path / "file" / "ResNet50.pdparams")


FETCH = "import sys; from torchclas.weights.download import fetch; fetch(sys.argv[1], sys.argv[2])"


def test_two_processes_fetch_once(server: Server, path: Path) -> None:
    def slow(handler: Handler) -> None:
        time.sleep(0.5)
        handler.send_content()

    server.script = [slow]
    processes = [subprocess.Popen([sys.executable, "-c", FETCH, server.url, str(path)]) for _ in range(2)]
    assert [process.wait(30) for process in processes] == [0, 0]
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_resumes_after_the_process_was_killed(server: Server, path: Path) -> None:
    killed = threading.Event()
    server.script = [lambda handler: handler.send_content(drop_at=600_000, wait=killed), Handler.send_content]
    process = subprocess.Popen([sys.executable, "-c", FETCH, server.url, str(path)])
    part = path.with_name(f"{path.name}.part")
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size > 500_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    killed.set()
    assert not path.exists()
    fetch(server.url, path)
    assert path.read_bytes() == CONTENT
    assert server.requests[1].sent < len(CONTENT) - 500_000


def test_progress_bar_draws_on_terminals_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with downloading("ResNet50") as progress:
        progress(5, 10)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with downloading("ResNet50") as progress:
        pass
    assert "ResNet50" not in capsys.readouterr().err, "nothing fetched, nothing shown"
    with downloading("ResNet50") as progress:
        progress(5, 10)
    captured = capsys.readouterr()
    assert "ResNet50" in captured.err
    assert captured.out == ""


def test_record_is_readable(server: Server, path: Path) -> None:
    fetch(server.url, path)
    record = json.loads(path.with_name(f"{path.name}.json").read_text())
    assert record == {"url": server.url, "size": len(CONTENT), "sha256": SHA256}


@pytest.mark.parametrize("length", ["²", "9" * 5000, "-5", "twelve", ""])
def test_impossible_lengths_are_not_believed(server: Server, path: Path, length: str) -> None:
    server.script = [lambda handler: handler.send_raw({"Content-Length": length}, CONTENT)]
    try:
        fetch(server.url, path, sleep=Naps())
    except DownloadError as error:
        assert "cannot be understood" in str(error) or "broke" in str(error)  # noqa: PT017 - either is right
    else:
        assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("wait", ["²", "9" * 5000, "-5", "Thu, 01 Jan 2026 00:00:00 GMT"])
def test_impossible_waits_are_not_believed(server: Server, path: Path, wait: str) -> None:
    server.script = [lambda handler: handler.send_raw({"Retry-After": wait}, b"", 503), Handler.send_content]
    naps = Naps()
    fetch(server.url, path, sleep=naps)
    assert naps == [1.0]


@pytest.mark.parametrize(
    "target", ["http://[::1", "http://" + "x" * 300 + ".invalid/", "//:99999999/", "file:///etc/passwd", "/zoo/again"]
)
def test_redirects_that_lead_nowhere(server: Server, path: Path, target: str) -> None:
    server.script = [lambda handler: handler.send_raw({"Location": target}, b"", 302)]
    with pytest.raises(DownloadError, match=r"cannot be fetched|cannot be understood|cannot be reached"):
        fetch(server.url, path, sleep=Naps())
    assert not path.exists()


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b" \r\n\xef\xbb\xbf\n", b"\xff\xfe"])
@pytest.mark.parametrize("page", ["<!DOCTYPE html><title>", "<html>", "<?xml version='1.0'?><Error>"])
def test_web_page_in_any_encoding(server: Server, path: Path, mark: bytes, page: str) -> None:
    content = mark + page.encode("utf-16-le" if mark == b"\xff\xfe" else "utf-8")
    server.script = [lambda handler: handler.send_content(content)]
    with pytest.raises(DownloadError, match="sent a web page"):
        fetch(server.url, path)
    assert not path.exists()


def test_an_empty_answer_is_no_file(server: Server, path: Path) -> None:
    server.script = [lambda handler: handler.send_raw({}, b"")]
    with pytest.raises(DownloadError, match="sent an empty file"):
        fetch(server.url, path, sleep=Naps())
    assert not path.exists()


@pytest.mark.parametrize("headers_too", [True, False])
def test_answers_that_trickle_are_given_up(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch, headers_too: bool
) -> None:
    monkeypatch.setattr(download, "_WAIT", 0.1)
    monkeypatch.setattr(download, "_PATIENCE", 0.15)
    monkeypatch.setattr(download, "_UNREACHABLE_PATIENCE", 0.15)
    stop = threading.Event()

    def trickle(handler: Handler) -> None:
        if not headers_too:
            handler.send_response(200)
            handler.send_header("Content-Length", "1000000")
            handler.end_headers()
        while not stop.wait(0.02):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n" if headers_too else b"\x80")
            handler.wfile.flush()

    server.script = [trickle]
    start = time.monotonic()
    with pytest.raises(DownloadError, match=r"sent less than 65 kB in .* \(2 attempts\)"):
        fetch(server.url, path, sleep=Naps())
    stop.set()
    assert time.monotonic() - start < 5


def test_a_certificate_that_is_not_accepted(path: Path) -> None:
    certificate = Path(__file__).parents[1] / "data" / "localhost.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = Server()
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    url, naps = server.url.replace("http:", "https:"), Naps()
    with pytest.raises(DownloadError, match=r"certificate was not accepted \(.*self.signed certificate"):
        fetch(url, path, sleep=naps)
    with pytest.raises(ImageError, match=r"certificate of 127.* was not accepted \(.*self.signed"):
        read(url)
    assert naps == [], "no other attempt"
    server.shutdown()
    server.server_close()


def test_what_to_do_without_a_connection(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as closed:
        url = closed.url
    with pytest.raises(DownloadError, match=rf"name a TORCHCLAS_MIRROR, or put the file at {path}"):
        fetch(url, path, sleep=Naps())
    monkeypatch.setenv("TORCHCLAS_MIRROR", url)
    with pytest.raises(DownloadError, match=rf"correct TORCHCLAS_MIRROR, or put the file at {path}"):
        fetch(url, path, sleep=Naps())


@pytest.fixture
def mirrored_model(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What the server should send for `MODEL`, into an empty cache."""
    file = tmp_path / "published.pdparams"
    to_pdparams(build(MODEL), file, layout=layouts(MODEL)[0])
    monkeypatch.setenv("TORCHCLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHCLAS_MIRROR", server.url.removesuffix("/zoo/ResNet50.pdparams"))
    return file.read_bytes()


@pytest.mark.parametrize("damage", ["cut", "lie", "json", "other"])
def test_what_is_no_weights_file_does_not_spoil_the_next_command(
    server: Server, mirrored_model: bytes, damage: str
) -> None:
    wrong = {
        "cut": ({}, mirrored_model[:-5000]),  # without a length nobody can tell
        "lie": ({"Content-Length": str(len(mirrored_model) // 2)}, mirrored_model),
        "json": ({}, b'{"error": "quota exceeded"}'),
        "other": ({}, CONTENT),
    }[damage]
    server.script = [
        lambda handler: handler.send_raw(*wrong),
        lambda handler: handler.send_content(mirrored_model, validators={}),
    ]
    with pytest.raises(DownloadError, match=rf"not {MODEL}'s weights, and was dropped .*TORCHCLAS_MIRROR"):
        published_file(find(MODEL))
    assert published_file(find(MODEL)).is_file()
    assert len(server.requests) == 2


def test_a_file_put_there_by_hand_is_never_dropped(mirrored_model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHCLAS_OFFLINE", "1")
    by_hand = cache.published_path(weights_file(find(MODEL)).url or "")
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes(mirrored_model[:-5000])
    with pytest.raises(CheckpointError):
        published_file(find(MODEL))
    assert by_hand.is_file()


def test_a_fetched_file_that_changed_is_fetched_again(server: Server, mirrored_model: bytes) -> None:
    server.script = [lambda handler: handler.send_content(mirrored_model)]
    fetched = cache.cached_path(weights_file(find(MODEL)).url or "")
    fetched.write_bytes(mirrored_model[:-1] + b"?")
    assert published_file(find(MODEL)).is_file()
    assert len(server.requests) == 2


def test_converted_weights_that_changed_are_made_anew(
    server: Server, mirrored_model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script = [lambda handler: handler.send_content(mirrored_model)]
    converted = published_file(find(MODEL))
    content = converted.read_bytes()
    for damaged in (content[:-100] + bytes(100), content[:-100], b""):
        converted.write_bytes(damaged)
        assert published_file(find(MODEL)) == converted
        assert cache.is_intact(converted)
        assert converted.stat().st_size == len(content)
    converted.write_bytes(b"")
    monkeypatch.setenv("TORCHCLAS_OFFLINE", "1")
    with pytest.raises(DownloadError, match=r"is damaged and has to be made anew: .*TORCHCLAS_OFFLINE"):
        published_file(find(MODEL))


@pytest.mark.parametrize("room", [1000, 7_000_000])
def test_room_on_the_disk_is_asked_for_before(
    server: Server, mirrored_model: bytes, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    server.script = [lambda handler: handler.send_content(mirrored_model)]
    usage = shutil.disk_usage("/")

    def small(folder: Path) -> object:
        fetched = sum(file.stat().st_size for file in cache.cache_dir().rglob("*.pdparams*"))
        return usage._replace(free=max(room - fetched, 0))

    monkeypatch.setattr(shutil, "disk_usage", small)
    with pytest.raises(OutputError, match=r"MB are needed and \d MB are free"):
        published_file(find(MODEL))
    assert not [*cache.cache_dir().rglob("*.safetensors")]
