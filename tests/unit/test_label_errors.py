"""What a model says against labels: planted mistakes are found, and pictures that are nearly the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from torchclas.cli import run
from torchclas.data.duplicates import linked
from torchclas.inference.embedder import unit_length
from torchclas.retrieval import label_errors
from torchclas.retrieval.exact import Vectors
from torchclas.retrieval.label_errors import alike, doubtful_labels


def clouds(sizes: list[int], spread: float = 0.3) -> tuple[Vectors, np.ndarray]:
    """Vectors round one direction for each class, and their classes."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    centres = np.eye(len(sizes), 16)
    return unit_length((centres[labels] + spread * rng.normal(size=(len(labels), 16)) / 4).astype(np.float32)), labels


@pytest.mark.parametrize("at_once", [2**24, 20])
def test_planted_mistakes_are_found_and_nothing_else(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_errors, "_AT_ONCE", at_once)
    vectors, labels = clouds([30, 20, 10])
    assert doubtful_labels(vectors, labels) == []
    wrong = labels.copy()
    wrong[[3, 40, 55]] = [1, 2, 0]
    found = doubtful_labels(vectors, wrong)
    assert {(each.place, each.label) for each in found} == {(3, 0), (40, 1), (55, 2)}
    assert [each.lead for each in found] == sorted((each.lead for each in found), reverse=True)


def test_a_lead_is_that_of_the_mean_without_the_picture() -> None:
    vectors, labels = clouds([4, 5])
    labels[0] = 1
    (found,) = doubtful_labels(vectors, labels)
    own, other = vectors[4:].sum(0), vectors[1:4].sum(0)
    cosines = [vectors[0] @ mean / np.linalg.norm(mean) for mean in (own, other)]
    assert found == (0, 0, pytest.approx(cosines[1] - cosines[0], abs=1e-5))


@pytest.mark.parametrize("sizes", [[5], [1, 1, 1], []])
def test_what_cannot_be_judged_is_not_doubted(sizes: list[int]) -> None:
    vectors, labels = clouds(sizes) if sizes else (np.empty((0, 4), np.float32), np.empty(0, np.int64))
    assert doubtful_labels(vectors, labels) == []


@pytest.mark.parametrize("at_once", [2**24, 5])
def test_all_pairs_that_are_alike(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_errors, "_AT_ONCE", at_once)
    degrees = np.radians([0, 20, 40, 90, 100, 200])
    vectors = np.stack([np.cos(degrees), np.sin(degrees)], axis=1).astype(np.float32)
    assert sorted(alike(vectors)) == [(0, 1), (1, 2), (3, 4)]
    assert linked(6, alike(vectors)) == [[0, 1, 2], [3, 4]]


def test_data_check_asks_the_model(photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cuts of two photographs, one of them in the wrong class, and a mirror image on the other side."""
    for name in ("chelsea", "coffee"):
        with Image.open(photographs / f"{name}.png") as image:
            picture = image.convert("RGB")
        for number in range(5):
            (tmp_path / "train" / name).mkdir(parents=True, exist_ok=True)
            left = 40 * number
            picture.crop((left, 0, left + 240, 240)).save(tmp_path / "train" / name / f"{number}.png")
        (tmp_path / "val" / name).mkdir(parents=True)
        ImageOps.mirror(picture.crop((0, 0, 240, 240))).save(tmp_path / "val" / name / "mirror.png")
    shutil.move(tmp_path / "train" / "coffee" / "4.png", tmp_path / "train" / "chelsea" / "coffee.png")
    run(["data", "check", str(tmp_path), "-m", "EfficientNet_lite0", "--json"])
    report = json.loads(capsys.readouterr().out)
    found = {finding["kind"]: finding for finding in report["findings"]}
    (doubtful,) = found["doubtful"]["items"]
    assert doubtful["names"] == [str(tmp_path / "train" / "chelsea" / "coffee.png")]
    assert doubtful["detail"] == "labelled chelsea, more like coffee"
    assert not found["doubtful"]["harmful"]
    assert not found["alike"]["harmful"]
    groups = [set(item["names"]) for item in found["alike"]["items"]]
    side = "train", "val"
    for name in ("chelsea", "coffee"):
        pair = {str(tmp_path / side[0] / name / "0.png"), str(tmp_path / side[1] / name / "mirror.png")}
        assert any(pair <= group for group in groups)
    assert found["alike"]["items"][0]["detail"].startswith("for training and validation")

    run(["data", "check", str(tmp_path), "--json"])
    assert not {"alike", "doubtful"} & {each["kind"] for each in json.loads(capsys.readouterr().out)["findings"]}
