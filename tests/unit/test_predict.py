"""The Classifier: whatever an image comes as, one prediction for it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import torchclas
from torchclas.catalog import find
from torchclas.errors import CheckpointError, Error
from torchclas.inference.classifier import Classifier
from torchclas.inference.request import request_of
from torchclas.layers.network import Network
from torchclas.vocabulary import EngineName
from torchclas.weights.checkpoint import save_checkpoint
from torchclas.weights.metadata import Metadata


def own_model(path: Path, change: Callable[[Network], object] = lambda model: None) -> Path:
    """A checkpoint of a small network with two classes."""
    model = torchclas.create_model("PPLCNet_x0_25", num_classes=2)
    change(model)
    preset = find("PPLCNet_x0_25").preset
    save_checkpoint(model, path, Metadata(model.arch, 2, preset, class_ids=("c", "d"), class_names=("cat", "dog")))
    return path


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(workers=1)


def test_an_image_in_every_form(classifier: Classifier, photographs: Path) -> None:
    path = photographs / "coffee.png"
    with Image.open(path) as image:
        forms = [path, str(path), path.read_bytes(), image.copy(), np.asarray(image)]
    results = [list(classifier.predict(form)) for form in forms]
    assert [len(result) for result in results] == [1] * 5
    assert {result[0].labels for result in results} == {results[0][0].labels}
    assert results[0][0].labels[0] == "espresso"
    assert results[0][0].class_ids[0] == "n07920052"
    assert list(results[0][0].scores) == sorted(results[0][0].scores, reverse=True)
    assert [result[0].source for result in results[2:]] == ["bytes[0]", "image[0]", "array[0]"]


def test_predictions_stream(classifier: Classifier, photographs: Path) -> None:
    """An endless source gives its first predictions."""

    def forever() -> Iterator[Path]:
        yield photographs / "coffee.png"
        yield from itertools.repeat(photographs / "no such picture")

    first = list(itertools.islice(classifier.predict(forever()), 20))
    assert [row.status for row in first] == ["ok"] + ["error"] * 19
    assert first[1].error == "no such file"


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (3, 0), (3, 2), (16, 2)])
def test_batches_and_workers_change_nothing(
    classifier: Classifier, photographs: Path, batch_size: int, workers: int
) -> None:
    sources = [photographs / name for name in ("coffee.png", "README", "chelsea.png", "coffee.png", "", "rocket.jpg")]
    want = list(classifier.predict(sources))
    got = list(Classifier(batch_size=batch_size, workers=workers).predict(sources))
    assert [(row.source, row.status, row.class_ids[:1], row.error) for row in got] == [
        (row.source, row.status, row.class_ids[:1], row.error) for row in want
    ]
    for row, other in zip(got, want, strict=True):
        assert row.scores == pytest.approx(other.scores, abs=1e-5)


@pytest.mark.parametrize("engine", ["auto", "torch"])
@pytest.mark.filterwarnings("ignore:.*NaN or infinity")
def test_nan_is_an_error(tmp_path: Path, photographs: Path, engine: EngineName) -> None:
    path = own_model(tmp_path / "broken.safetensors", lambda model: next(model.parameters()).data.fill_(float("nan")))
    (row,) = Classifier(path, engine=engine).predict(photographs / "coffee.png")
    assert row.status == "error"
    assert "NaN" in (row.error or "")


def test_own_classes(tmp_path: Path, photographs: Path) -> None:
    """A checkpoint of one's own brings its classes, and has no more of them than it has."""
    path = own_model(tmp_path / "own.safetensors")
    (row,) = Classifier(path, lang="zh", engine="torch").predict(photographs / "chelsea.png")
    assert sorted(zip(row.class_ids, row.labels, strict=True)) == [("c", "cat"), ("d", "dog")]
    assert sum(row.scores) == pytest.approx(1)


def test_what_decides_the_rows(tmp_path: Path) -> None:
    """Rows are mixed where it is the same, and nowhere else."""
    path = own_model(tmp_path / "own.safetensors")

    def decides(**options: Any) -> dict[str, object]:
        return request_of(Classifier(path, engine="torch", **options))

    first = decides()
    assert decides(workers=0) == first == json.loads(json.dumps(first))
    changes: list[dict[str, Any]] = [
        {"top_k": 1}, {"threshold": 0.5}, {"labels": ["dog", "cat"]}, {"tta": "flip"}, {"max_pixels": 1000},
        {"activation": "sigmoid"}, {"threads": 1}, {"precision": "bf16"},
        {"preset": find("PPLCNet_x0_25").preset.at(192)},
    ]  # fmt: skip
    for change in changes:
        assert decides(**change) != first, change
    classifier = Classifier(path, engine="torch")
    own_model(path)
    with pytest.raises(CheckpointError, match="was written while it was read"):
        request_of(classifier)
    assert decides() == {**first, "weights": decides()["weights"]} != first


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"max_pixels": 0}, {"top_k": 0}, {"device": "tpu"}, {"lang": "de"}]
)
def test_options_that_cannot_be(options: dict[str, object]) -> None:
    with pytest.raises(Error, match=r"batch_size|top_k|max_pixels|tpu|'de'"):
        Classifier(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_the_loop_of_the_readme_takes_what_cannot_be_read(
    page: str, classifier: Classifier, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    loop = text[text.index("for prediction in torchclas.Classifier(") :].partition("```")[0]
    loop = loop.replace('"cat.jpg"', repr(str(photographs / "chelsea.png")))
    exec(loop, {"torchclas": SimpleNamespace(Classifier=lambda name: classifier)})
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(str(photographs / "chelsea.png"))
    assert second == "dog.jpg no such file"


def test_pixel_limit(classifier: Classifier, photographs: Path) -> None:
    """A server wants a lower one."""
    strict = Classifier(workers=1, max_pixels=100_000)
    (row,) = strict.predict(photographs / "coffee.png")
    assert row.error == (
        "has 600 × 400 pixels, more than the limit of 100,000: make it smaller, or raise max_pixels (--max-pixels) if "
        "you trust it"
    )
