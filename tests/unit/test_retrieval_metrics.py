"""Recall at k, mAP and the vote of the nearest: equal to scikit-learn's, and what `evaluate --knn` makes of them."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier

from tests.networks import small_checkpoint
from torchclas.cli import run
from torchclas.inference.embedder import unit_length
from torchclas.metrics.retrieval import RECALL_AT, VOTERS, RetrievalTally, vote


def test_figures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels, asked = rng.integers(0, 5, 200), rng.integers(0, 5, 60)
    centres = rng.normal(size=(5, 8))

    def vectors(classes: np.ndarray) -> np.ndarray:
        return unit_length((centres[classes] + 1.5 * rng.normal(size=(len(classes), 8))).astype(np.float32))

    pictures, queries = vectors(labels), vectors(asked)
    products = queries @ pictures.T
    tally = RetrievalTally()
    for line, label in zip(products, asked.tolist(), strict=True):
        tally.add(labels[np.argsort(-line, kind="stable")], label)
    precision = [average_precision_score(labels == label, line) for line, label in zip(products, asked, strict=True)]
    assert tally.mean_average_precision == pytest.approx(np.mean(precision), abs=1e-9)
    one = KNeighborsClassifier(1, metric="cosine").fit(pictures, labels)
    assert tally.accuracy[1].value == pytest.approx(one.score(queries, asked))
    assert tally.recall[1] == tally.accuracy[1]
    _, nearest = KNeighborsClassifier(20, metric="cosine").fit(pictures, labels).kneighbors(queries)
    for k in RECALL_AT:
        assert tally.recall[k].count == (labels[nearest[:, :k]] == asked[:, None]).any(axis=1).sum()
    for k in VOTERS:
        counts = np.stack([np.bincount(labels[row[:k]], minlength=5) for row in nearest])
        clear = np.sort(counts, axis=1)[:, -1] > np.sort(counts, axis=1)[:, -2]
        sure = (counts.argmax(axis=1) == asked)[clear].sum()
        assert sure <= tally.accuracy[k].count <= sure + (~clear).sum()


def test_the_nearest_decides_between_equal_votes() -> None:
    assert vote(np.array([3, 1, 1, 3, 2])) == 3
    assert vote(np.array([2, 1, 1])) == 1
    assert vote(np.array([], np.int64)) == -1


def test_a_class_without_pictures_is_a_mistake_of_the_vote_alone() -> None:
    tally = RetrievalTally()
    tally.add(np.array([0, 1]), 2)
    assert math.isnan(tally.mean_average_precision)
    tally.add(np.array([0, 1]), 1)
    assert (tally.recall[1].count, tally.recall[1].total, tally.accuracy[1].total) == (0, 1, 2)
    assert tally.mean_average_precision == pytest.approx(0.5)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of colours that no model was trained on, in splits, with one broken file."""
    folder = tmp_path_factory.mktemp("knn")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for name, colour in (("blue", (20, 40, 200)), ("red", (210, 30, 40))):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                shade = np.clip(np.array(colour) + rng.normal(0, 5, 3), 0, 255).astype(np.uint8)
                Image.fromarray(np.broadcast_to(shade, (64, 64, 3))).save(folder / split / name / f"{number}.png")
    (folder / "val" / "red" / "broken.png").write_text("no picture")
    small_checkpoint(folder / "model.safetensors")
    return folder


def test_evaluate_knn(colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--knn", "-m", str(colours / "model.safetensors"), "--engine", "torch", "--workers", "0"]
    assert run(["evaluate", str(colours), *options, "-o", str(tmp_path)]) == 1, "one image is broken"
    said = capsys.readouterr().out
    assert "100.00 %" in said
    assert "broken.png" in said
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["queries"], report["pictures"], report["classes"], report["unreadable"]) == (4, 8, 2, 1)
    assert report["recall@1"]["value"] == report["mean_average_precision"] == report["knn5_accuracy"]["value"] == 1
    assert not report["leave_one_out"]
    rows = list(csv.DictReader((tmp_path / "neighbours.csv").open()))
    assert [row["right"] for row in rows] == ["1"] * 4
    assert all(f"{colours}/val" in row["path"] and f"{colours}/train" in row["nearest"] for row in rows)

    assert run(["evaluate", str(colours / "train"), *options, "-o", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["queries"], report["pictures"], report["leave_one_out"]) == (8, 8, True)
    assert all(row["path"] != row["nearest"] for row in csv.DictReader((tmp_path / "neighbours.csv").open()))
    assert run(["evaluate", str(colours / "val"), "--against", str(colours / "train"), *options]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--knn", "--classes", "data"], "--classes is of classes"), (["--against", "."], "--against goes with --knn")],
)
def test_options_that_do_not_go_together(
    arguments: list[str], message: str, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", str(colours), *arguments]) == 2
    assert message in capsys.readouterr().err
