"""What a cluster is asked for, without one: models that map tables, addresses that lead nowhere."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from torchclas import cli
from torchclas.distributed import Predictor, workers
from torchclas.errors import DataError
from torchclas.inference.classifier import Classifier


def table(**columns: Any) -> Any:
    return pytest.importorskip("pyarrow").table(columns)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(top_k=2, workers=1)


def test_a_predictor_adds_what_a_classifier_says(predictor: Predictor, photographs: Path) -> None:
    paths = [str(photographs / "chelsea.png"), "missing.jpg", str(photographs / "coffee.png"), None]
    found = predictor(table(number=[3, 1, 2, 0], path=paths)).to_pylist()
    wanted = [*Classifier(top_k=2, workers=1).predict(path or "" for path in paths)]
    assert [row["number"] for row in found] == [3, 1, 2, 0]
    assert [row["status"] for row in found] == ["ok", "error", "ok", "error"]
    for row, want in zip(found, wanted, strict=True):
        assert (row["error"], row["engine"]) == (want.error, want.engine)
        assert (row["labels"], row["class_ids"]) == ([*want.labels], [*want.class_ids])
        assert row["scores"] == [*want.scores]


def test_a_column_of_bytes(predictor: Predictor, photographs: Path) -> None:
    contents = [(photographs / "coffee.png").read_bytes(), b"no image"]
    named = Predictor.__new__(Predictor)
    named.column, named.classifier = "image", predictor.classifier
    assert [row["status"] for row in named(table(image=contents)).to_pylist()] == ["ok", "error"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"file": ["a.jpg"]}, "no column path, but file: name the one with the images"),
        ({"path": [None, 3]}, "the column path holds int, not paths or bytes"),
    ],
)
def test_columns_that_are_no_images(predictor: Predictor, columns: dict[str, list[object]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        predictor(table(**columns))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cluster", "auto"], "--cluster writes rows to a file or a folder alone"),
        (["--cluster", "auto", "-o", "x.csv", "--montage", "x.png"], "leave --montage out"),
        (
            ["--cluster", "somewhere", "-o", "x.csv"],
            "somewhere is no address of a Ray cluster: give HOST:PORT, or auto",
        ),
        (["--cluster", "127.0.0.1:PORT", "-o", "x.csv"], "no Ray cluster answers at 127.0.0.1:"),
    ],
)
def test_no_cluster(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    if "PORT" in str(options):
        pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    assert cli.run(["predict", "a.jpg", *(option.replace("PORT", port) for option in options)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert [*tmp_path.iterdir()] == []


def test_a_worker_that_is_out_of_memory_has_died() -> None:
    """Ray has several errors for a process that is gone, of which others get the work."""
    ray: Any = pytest.importorskip("ray")
    for error in (ray.exceptions.OutOfMemoryError("low"), ray.exceptions.ActorDiedError()):

        def get(result: object, error: Exception = error) -> object:
            raise error

        found = workers.Workers.__new__(workers.Workers)
        found._ray = SimpleNamespace(exceptions=ray.exceptions, get=get)
        with pytest.raises(workers._WorkerDied):
            found._get(None)
