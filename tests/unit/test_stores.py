"""Images in object stores, from a server that answers and fails as S3 does."""

from __future__ import annotations

import csv
import itertools
import tarfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import torchclas
from tests.servers import picture, write_model
from tests.stores import Buckets, serving
from tests.training_runs import COLOURS, paint
from torchclas import cli
from torchclas.data import stores
from torchclas.data.sources import expand, read
from torchclas.data.stores import StoreError, files, inside, matches
from torchclas.errors import DataError, ImageError

pytest.importorskip("obstore", reason="there is no obstore here: pip install 'torchclas[cloud]'")

IMAGES = ["5.jpg", "cat/1.jpg", "cat/2.JPG", "dog/a b+c%20é#&.jpg", "dog/deep/er/3.png"]  # as they are listed
NAMES = (*IMAGES, "dog/notes.txt", ".hidden/4.jpg")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Buckets]:
    pets = {f"pets/{name}": picture(number) for number, name in enumerate(NAMES)}
    with serving(Buckets({"photos": pets, "empty": {}}), monkeypatch) as buckets:
        yield buckets


def names(address: str) -> list[str]:
    return [name.removeprefix("s3://photos/pets/") for name in expand([address])]


def test_what_an_address_stands_for(store: Buckets) -> None:
    assert names("s3://photos/pets") == names("s3://photos/pets/") == names("s3://photos/") == IMAGES
    assert names("S3://photos/pets/cat")[0].endswith("cat/1.jpg")
    assert names("s3://photos/pets/cat/1.jpg") == ["cat/1.jpg"]
    assert names("s3://photos/pets/nothing.jpg") == ["nothing.jpg"], "it becomes a row that says so"
    assert names("s3://photos/pe") == ["s3://photos/pe"], "a part of a name is no folder"
    assert [*expand(["s3://empty"])] == ["s3://empty"]
    assert inside("s3://photos/pets") == (["cat", "dog"], ["5.jpg"])


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*/*.jpg", ["cat/1.jpg", "dog/a b+c%20é#&.jpg"]),
        ("**/*.[jp]*", ["5.jpg", "cat/1.jpg", "dog/a b+c%20é#&.jpg", "dog/deep/er/3.png"]),
        ("cat/?.jpg", ["cat/1.jpg"]),
        ("dog/**", ["dog/a b+c%20é#&.jpg", "dog/deep/er/3.png"]),
        ("[!c]*/a*", ["dog/a b+c%20é#&.jpg"]),
        ("*.gif", ["*.gif"]),
    ],
)
def test_globs(store: Buckets, pattern: str, found: list[str]) -> None:
    assert names(f"s3://photos/pets/{pattern}") == found


def test_images_are_read_whole_or_not_at_all(store: Buckets) -> None:
    for number, name in enumerate(NAMES):
        assert read(f"s3://photos/pets/{name}") == picture(number)
    with pytest.raises(ImageError, match=r"^no such object$"):
        read("s3://photos/pets/nothing.jpg")
    with pytest.raises(ImageError, match="more than the 100 that an image may have"):
        read("s3://photos/pets/5.jpg", max_bytes=100)


def test_what_a_store_refuses_for_a_while_is_asked_again(store: Buckets) -> None:
    store.every = ("throttled", "failed", "cut", "throttled")
    found = [*expand(["s3://photos/pets"])]
    assert [name.removeprefix("s3://photos/pets/") for name in found] == IMAGES
    for name in found:
        assert read(name) == picture(NAMES.index(name.removeprefix("s3://photos/pets/")))
    store.faults["photos/pets/5.jpg"] = ["failed"] * 100
    store.requests.clear()
    with pytest.raises(ImageError, match="s3://photos cannot be read: InternalError"):
        read("s3://photos/pets/5.jpg")
    assert store.requests["photos/pets/5.jpg"] == stores.RETRIES + 1


def test_long_listings_come_page_by_page(store: Buckets) -> None:
    store.objects["many"] = {f"{number:06}.jpg": b"" for number in range(20_000)}
    listing = expand(["s3://many"])
    assert [*itertools.islice(listing, 3)] == ["s3://many/000000.jpg", "s3://many/000001.jpg", "s3://many/000002.jpg"]
    assert store.requests.total() <= 2
    assert sum(1 for _ in listing) == 19_997
    assert store.requests.total() == 20


@pytest.mark.parametrize(
    ("address", "environment", "message"),
    [
        ("s3://nobucket/x", {}, "there is no bucket s3://nobucket: is its name right"),
        ("s3://photos/", {"AWS_ACCESS_KEY_ID": "other"}, "s3://photos refuses these credentials: are they right"),
        ("s3://photos/", {"AWS_ACCESS_KEY_ID": ""}, "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("gs://photos/", {}, "no credentials: run `gcloud auth application-default login`"),
        ("az://photos/", {}, "no credentials: set AZURE_STORAGE_ACCOUNT_NAME"),
        ("az://photos/", {"AZURE_STORAGE_ACCOUNT_KEY": "a2V5"}, "no credentials for az://photos: set AZURE_STORAGE"),
        ("s3://", {}, "names no bucket: write s3://BUCKET/FOLDER"),
    ],
)
def test_what_stands_in_the_way_is_one_line_that_says_what_to_do(
    store: Buckets,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    address: str,
    environment: dict[str, str],
    message: str,
) -> None:
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cli.run(["predict", address]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_keys_that_aws_configure_wrote(store: Buckets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    (tmp_path / "credentials").write_text("[work]\naws_access_key_id = key\naws_secret_access_key = secret%\n")
    with pytest.raises(StoreError, match="no credentials"):
        next(files("s3://photos"))
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert next(files("s3://photos")).url == "s3://photos/pets/5.jpg"


def test_predict(store: Buckets, tmp_path: Path) -> None:
    store.every = ("throttled",)
    store.objects["photos"]["pets/broken.jpg"] = b"no picture"
    model, rows = write_model(tmp_path / "model.safetensors"), tmp_path / "rows.csv"
    asked = ["predict", "s3://photos/pets", "-m", str(model), "--engine", "torch", "-o", str(rows)]
    assert cli.run(asked) == 1
    with rows.open(encoding="utf-8", newline="") as file:
        found = {row["source"].removeprefix("s3://photos/pets/"): row["status"] for row in csv.DictReader(file)}
    assert found == {"broken.jpg": "error", **dict.fromkeys(IMAGES, "ok")}
    assert [*found] == sorted(found)


class _Hub:
    """What stands for the file system of the Hugging Face Hub: fsspec's in memory."""

    def __init__(self, **_: Any) -> None:
        from fsspec.implementations.memory import MemoryFileSystem

        self.memory = MemoryFileSystem()

    def ls(self, path: str, *, detail: bool) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.memory.ls(path, detail=detail)  # pyright: ignore[reportAssignmentType]
        return [{**each, "name": each["name"].lstrip("/")} for each in found]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.memory, name)


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = _Hub()
    for name in NAMES:
        hub.memory.pipe_file(f"/datasets/me/pets/{name}", name.encode())
    monkeypatch.setattr("huggingface_hub.HfFileSystem", _Hub)
    stores.forget()
    found = [*expand(["hf://datasets/me/pets"])]
    assert [name.removeprefix("hf://datasets/me/pets/") for name in found] == IMAGES
    assert read(found[-1]) == b"dog/deep/er/3.png"
    assert [each.url for each in matches("hf://datasets/me/pets/cat/*")] == found[1:3]
    assert inside("hf://datasets/me/pets") == (["cat", "dog"], ["5.jpg"])
    with pytest.raises(ImageError, match="no such object"):
        read("hf://datasets/me/pets/6.jpg")
    stores.forget()


def test_the_listing_of_a_web_server(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pets" / name).write_bytes(picture(number))

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/pets/"
    found = [*expand([url])]
    assert [name.removeprefix(url) for name in found] == [
        "5.jpg", "cat/1.jpg", "cat/2.JPG", "dog/a%20b%2Bc%2520%C3%A9%23%26.jpg", "dog/deep/er/3.png",
    ]  # fmt: skip
    assert read(found[3]) == picture(3)
    with pytest.raises(DataError, match="the server answered 404"):
        next(expand([f"{url}nothing/"]))
    server.shutdown()


@pytest.fixture
def colours(store: Buckets, tmp_path: Path) -> Path:
    """Pictures of three colours in the folders of two splits, here and in the bucket `data`."""
    paint(tmp_path / "data" / "train")
    paint(tmp_path / "data" / "val")
    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    store.objects["data"] = {f"set/{path.relative_to(tmp_path / 'data')}": path.read_bytes() for path in files}
    return tmp_path / "data"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model.safetensors", tuple(COLOURS), size=32)


def figures(data: str | Path, model: Path, **more: Any) -> tuple[object, ...]:
    report = torchclas.evaluate(data, model=model, engine="torch", workers=2, **more)
    return report.top1, report.nll, report.ece, report.images


def test_evaluate_reads_every_form_from_a_store(
    store: Buckets, colours: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the figures that the same files have here."""
    monkeypatch.setenv("TORCHCLAS_CACHE", str(tmp_path / "cache"))
    wanted = figures(colours, model)
    assert figures("s3://data/set", model) == figures("s3://data/set/val/", model) == wanted
    assert figures("s3://data", model) == wanted, "the only folder there"
    pictures = sorted(path for path in store.objects["data"] if path.startswith("set/val/"))
    lines = [f"{path.removeprefix('set/')} {sorted(COLOURS).index(path.split('/')[2])}" for path in pictures]
    objects = store.objects["lists"] = {"val_list.txt": "\n".join(lines).encode()}
    with pytest.raises(DataError, match=r"none of the .* paths that were tried leads to a file"):
        figures("s3://lists", model)
    assert figures("s3://lists", model, root="s3://data/set") == wanted
    whole = tmp_path / "whole.txt"
    whole.write_text("".join(f"s3://data/set/{line}\n" for line in lines))
    assert figures(whole, model) == wanted, "a list here of addresses there"
    with tarfile.open(tmp_path / "val-0.tar", "w") as archive:
        for number, line in enumerate(lines):
            path, label = line.split()
            (tmp_path / "cls").write_text(label)
            archive.add(colours / path, f"{number:03}.png")
            archive.add(tmp_path / "cls", f"{number:03}.cls")
    objects.clear()
    objects["shards/val-0.tar"] = (tmp_path / "val-0.tar").read_bytes()
    store.faults["lists/shards/val-0.tar"] = ["throttled", "cut", "failed"]
    for address in ("s3://lists/shards/", "s3://lists/shards/val-{0..0}.tar", "s3://lists/*/*.tar"):
        assert figures(address, model) == wanted
    gets = store.requests["lists/shards/val-0.tar"]
    assert figures("s3://lists/shards/", model) == wanted
    assert store.requests["lists/shards/val-0.tar"] == gets + 1, "it was looked at, and not copied again"


def test_a_table_of_models_on_a_store(store: Buckets, colours: Path, model: Path, tmp_path: Path) -> None:
    assert (
        cli.run(["evaluate", "s3://data/set", "--models", str(model), "-o", str(tmp_path / "t"), "--engine", "torch"])
        == 0
    )
    assert "s3://data/set" in (tmp_path / "t" / "manifest.json").read_text()


def test_data_that_a_store_does_not_have(store: Buckets, colours: Path, model: Path) -> None:
    for address, message in (
        ("s3://nobucket/x", "there is no bucket s3://nobucket"),
        ("s3://data/nothing", "no class folders; expected s3://data/nothing/class_name/image.jpg"),
        ("s3://data/set/val/red", "holds 10 pictures, but no class folders"),
        ("s3://data/nothing.tar", "no such object"),
    ):
        with pytest.raises(DataError, match=message):
            figures(address, model)
