"""Many models over one data set: the figures of single evaluations, from images that are decoded once."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import torchclas
from tests.parity.golden import golden
from tests.servers import picture, write_model
from torchclas import cli
from torchclas.catalog import Preset, find
from torchclas.data import crops as crops_module
from torchclas.data import datasets
from torchclas.data.crops import Crops
from torchclas.data.datasets import Dataset, Relabelled, Sample, entries
from torchclas.data.folders import class_folders
from torchclas.data.loader import load
from torchclas.data.preprocess import Preprocess
from torchclas.errors import DataError, OutputError, UnknownNameError
from torchclas.inference import accuracy_rows, accuracy_table
from torchclas.inference.accuracy_rows import AccuracyTable, Measured, Records, Row
from torchclas.inference.accuracy_table import Settings, is_validation_set, measure_models, selected
from torchclas.inference.classifier import Classifier
from torchclas.labels import label_set
from torchclas.metrics.single_label import Proportion
from torchclas.reporting.accuracy_table import write_accuracies
from torchclas.weights import cache
from torchclas.weights.checkpoint import save_checkpoint
from torchclas.weights.metadata import find_metadata
from torchclas.zoo import create_model

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Settings(batch_size=4, workers=0, device="cpu", engine="torch")
CLASSES = ("cat", "dog", "eel")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine pictures of three classes, and a file that is none."""
    root = tmp_path_factory.mktemp("data") / "pets"
    for number in range(9):
        path = root / CLASSES[number % 3] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, (90 + number, 70)))
    (root / "dog" / "broken.jpg").write_bytes((root / "dog" / "1.jpg").read_bytes()[:300])
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three networks that take images of the same size, normalised in two ways, and one that takes smaller ones."""
    root = tmp_path_factory.mktemp("models")
    paths = [
        write_model(root / f"{seed}.safetensors", CLASSES, seed=seed, size=32 if seed == 3 else 64) for seed in range(4)
    ]
    metadata = find_metadata(paths[1])
    assert metadata is not None
    other = replace(metadata.preset, mean=(0.5, 0.5, 0.5), std=(0.5, 0.4, 0.3))
    save_checkpoint(create_model(paths[1]), paths[1], replace(metadata, preset=other))
    return [*map(str, paths)]


def single(model: str, data: Path) -> Measured:
    report = torchclas.evaluate(data, model=model, batch_size=4, workers=0, device="cpu", engine="torch")
    return Measured(
        report.top1, report.top5, report.nll, report.ece, report.images, report.unreadable, report.engine, 0.0
    )


def figures(row: Row) -> Measured:
    assert row.measured is not None, row.error
    return replace(row.measured, seconds=0.0)


PRESETS = [
    Preset(40, (32, 32), "bilinear", "opencv", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    Preset(40, (32, 24), "bicubic", "pillow", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    Preset(32, (32, 32), "bilinear", "torchvision", (0.5, 0.4, 0.3), (0.5, 0.5, 0.5), fit="squeeze"),
    Preset(32, (32, 48), "bilinear", "opencv", (0.5, 0.4, 0.3), (0.5, 0.5, 0.5), fit="pad"),
]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("workers", [0, 2])
def test_crops_are_what_is_decoded_anew(folders: Path, tmp_path: Path, preset: Preset, workers: int) -> None:
    images = class_folders(folders)
    with Crops(images, Preprocess(preset), tmp_path, workers=workers) as crops:
        assert not [*tmp_path.iterdir()], "the file has no name, or a killed process would leave it"
        other = preset if preset.fit == "pad" else replace(preset, mean=(0.1, 0.2, 0.3))
        for channels, same in ((3, preset), (1, preset), (3, other)):
            preprocess = Preprocess(same, channels=channels)
            kept = crops.batches(preprocess, batch_size=4, workers=workers)
            for found, wanted in zip(kept, load(entries(images), preprocess, batch_size=4, workers=0), strict=True):
                assert found.sources == wanted.sources
                assert [*map(str, found.errors)] == [*map(str, wanted.errors)]
                assert found.images.dtype == wanted.images.dtype
                np.testing.assert_array_equal(found.images, wanted.images)
        with pytest.raises(ValueError, match="the crops are for"):
            crops.batches(Preprocess(preset.at(16)), batch_size=4, workers=0)


def test_of_images_that_cannot_be_read_nothing_is_kept(tmp_path: Path) -> None:
    preprocess = Preprocess(PRESETS[0])
    images = Dataset([Sample(str(tmp_path / "none.jpg"), 0)])
    with Crops(images, preprocess, tmp_path, workers=0) as crops:
        (batch,) = crops.batches(preprocess, batch_size=4, workers=0)
        assert [*map(str, batch.errors)] == ["no such file"]


def test_figures_are_those_of_single_evaluations(
    folders: Path, models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last digit, and each picture is read once for each size."""
    wanted = [single(model, folders) for model in models]
    reads: list[str] = []
    read = datasets.read
    monkeypatch.setattr(datasets, "read", lambda path, **more: (reads.append(str(path)), read(path, **more))[1])
    table = measure_models(models, folders, SETTINGS)
    assert [row.model for row in table.rows] == models
    assert [*map(figures, table.rows)] == wanted
    assert len({measured.nll for measured in wanted}) == 4, "they are four different networks"
    assert sorted(reads) == sorted([str(path) for path in folders.rglob("*.jpg")] * 2)
    assert not table.passed, "an image could not be read"
    assert [Path(path).name for path, _ in table.unreadable] == ["broken.jpg"]


def test_without_room_for_crops_images_are_decoded_again(
    folders: Path, models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crops_module, "RESERVE", 2**62)
    table = measure_models(models[:2], folders, SETTINGS)
    assert [*map(figures, table.rows)] == [single(model, folders) for model in models[:2]]
    assert "decoded again for each model" in table.notes[0]


def test_what_is_done_is_not_measured_again(
    folders: Path, models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [str(shutil.copy(model, tmp_path)) for model in models[:3]]
    opened: list[str] = []

    def counted(model: str, **others: Any) -> Classifier:
        opened.append(model)
        if model == own[2] and len(opened) == 3:
            raise KeyboardInterrupt
        return Classifier(model, **others)

    monkeypatch.setattr(accuracy_table, "Classifier", counted)
    folder = tmp_path / "table"
    with Records(folder) as records, pytest.raises(KeyboardInterrupt):
        measure_models(own, folders, SETTINGS, records=records)
    opened.clear()
    with Records(folder) as records:
        first = measure_models(own, folders, SETTINGS, records=records)
        assert opened == own[2:]
        assert [*map(figures, first.rows)] == [single(model, folders) for model in own]
        # How it is done may change; the order and the number of models, too.
        faster = replace(SETTINGS, batch_size=9, workers=2)
        again = measure_models(own[::-1], folders, faster, records=records)
        assert opened == own[2:]
        assert again.rows == first.rows[::-1]
        shutil.copy(models[3], own[1])
        third = measure_models(own, folders, SETTINGS, records=records)
        assert opened == [own[2], own[1]], "its weights are others now"
        assert figures(third.rows[1]) == single(models[3], folders)


def test_a_folder_answers_one_question(
    folders: Path, models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Records(tmp_path / "table") as records:
        measure_models(models[:1], folders, SETTINGS, records=records)
        fewer = tmp_path / "fewer"
        shutil.copytree(folders, fewer, ignore=shutil.ignore_patterns("8.jpg"))
        for data, settings, message in (
            (fewer, SETTINGS, rf"measured on other images \({folders}\): choose another folder"),
            (folders, replace(SETTINGS, max_pixels=9_000), "with max_pixels 100000000, not 9000: choose another"),
            (folders, replace(SETTINGS, classes="data"), "with classes None, not data: choose another"),
        ):
            with pytest.raises(OutputError, match=message):
                measure_models(models[:1], data, settings, records=records)
        monkeypatch.setattr(accuracy_rows, "LOCK_PATIENCE", 0)
        with pytest.raises(OutputError, match="another process is measuring"), Records(tmp_path / "table"):
            pass
        moved = tmp_path / "moved"
        shutil.copytree(folders, moved)
        assert measure_models(models[:1], moved, SETTINGS, records=records).data == str(moved)


def test_what_stands_in_the_way_of_one_model_is_said_in_its_row(
    folders: Path, models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt = str(shutil.copy(models[0], tmp_path / "spoilt.safetensors"))
    metadata = find_metadata(Path(models[0]))
    assert metadata is not None
    save_checkpoint(create_model(models[0]), tmp_path / "tags.safetensors", replace(metadata, activation="sigmoid"))

    def failing(model: str, **others: Any) -> Classifier:
        if model == spoilt:
            raise MemoryError("so large")
        return Classifier(model, **others)

    monkeypatch.setattr(accuracy_table, "Classifier", failing)
    asked = ["none.pdparams", spoilt, str(tmp_path / "tags.safetensors"), "ResNet18", models[0]]
    table = measure_models(asked, folders, SETTINGS)
    missing, large, tags, published, fine = table.rows
    assert missing.error == "no such file"
    assert large.error == "unexpected MemoryError: so large"
    assert "any number of classes (sigmoid)" in tags.error
    assert "(cat, dog) are not among the 1,000 of ResNet18" in published.error
    assert (published.published_top1, published.measured) == (70.98, None)
    assert figures(fine) == single(models[0], folders)
    with pytest.raises(DataError, match="no such file or folder"):
        measure_models(["none.pdparams", "ResNet18"], tmp_path / "nothing", SETTINGS)


def test_models_are_chosen_by_names_globs_and_series() -> None:
    assert selected(["resnet18", "PPLCNet_x0_?5", "ResNet18", "runs/mine"]) == [
        "ResNet18", "PPLCNet_x0_25", "PPLCNet_x0_35", "PPLCNet_x0_75", "runs/mine",
    ]  # fmt: skip
    assert "PPLCNet_x1_0_text_orientation" not in selected([], series="PPLCNet"), "nothing was published of it"
    everything = selected([], everything=True)
    assert len(everything) == len(set(everything)) > 200
    with pytest.raises(UnknownNameError, match="did you mean"):
        selected(["ResNet17"])


def measured(top1: float, top5: float | None = None, total: int = 50_000) -> Measured:
    share = None if top5 is None else Proportion(round(top5 / 100 * total), total)
    return Measured(Proportion(round(top1 / 100 * total), total), share, 1.0, 0.1, total, (), "torch fp32", 1.0)


@pytest.mark.parametrize(
    ("published", "found", "agrees"),
    [
        ((76.5, 93.0), measured(76.43, 93.1), True),
        ((76.5, 93.0), measured(76.1, 93.0), False),
        ((76.5, 93.0), measured(76.5, 92.7), False),
        ((76.5, None), measured(76.5, 90.0), True),
        ((76.5, 93.0), measured(74.0, 93.0, 500), True),
        ((None, None), measured(76.5, 93.0), None),
        ((76.5, 93.0), None, None),
    ],
)
def test_agreement(published: tuple[float | None, float | None], found: Measured | None, agrees: bool | None) -> None:
    row = Row("ResNet50", "ResNet50", "ResNet", *published, comparable=True, measured=found)
    assert row.agrees is agrees
    assert replace(row, comparable=False).agrees is None
    assert AccuracyTable("val", 50_000, (row,)).passed is (agrees is not False and found is not None)


def test_published_figures_are_of_the_validation_set() -> None:
    classes = label_set("imagenet1k")
    labels = np.repeat(np.arange(1000), 50)
    images = Dataset([Sample("one.jpg", 0)] * 50_000)
    assert is_validation_set(Relabelled(images, labels), classes)
    assert not is_validation_set(Relabelled(images, np.where(labels == 7, 8, labels)), classes)
    assert not is_validation_set(Dataset(images.samples[:-1]), classes)
    assert not is_validation_set(Relabelled(images, labels), replace(classes, ids=classes.ids[::-1]))


def test_the_command(
    models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With published weights, here made by a rule, on a few pictures in folders of ImageNet's classes."""
    monkeypatch.setenv("TORCHCLAS_CACHE", str(tmp_path / "cache"))
    entry = find("PPLCNet_x0_25")
    assert entry.weights is not None
    assert entry.weights.url is not None
    weights = cache.published_path(entry.weights.url)
    weights.parent.mkdir(parents=True)
    golden(entry.arch, entry.weights.layout).write(weights)
    for number, synset in enumerate(label_set("imagenet1k").ids[:4]):
        (tmp_path / "val" / synset).mkdir(parents=True)
        (tmp_path / "val" / synset / f"{number}.jpg").write_bytes(picture(number))
    asked = ["evaluate", str(tmp_path / "val"), "--engine", "torch", "--workers", "0", "-o", str(tmp_path / "table")]
    assert cli.run([*asked, "--models", "PPLCNet_x0_25"]) == 0
    out, err = capsys.readouterr()
    assert "PPLCNet_x0_25" in out
    assert "51.86" in out
    assert "these are 4 images of 4 classes: the measured ones cannot be compared" in " ".join(out.split())
    assert "agrees" not in out
    assert "1/1 PPLCNet_x0_25: top-1" in err

    assert cli.run([*asked, "--models", "PPLCNet_x0_25,PPLCNet_x0_35", "--lang", "zh"]) == 1
    out, _ = capsys.readouterr()
    assert "PPLCNet_x0_35" in out
    assert "尚未下载" in out
    cli.run(["--lang", "en", "list", "ResNet18"])
    with (tmp_path / "table" / "table.csv").open(encoding="utf-8", newline="") as file:
        fine, missing = csv.DictReader(file)
    report = torchclas.evaluate(tmp_path / "val", model="PPLCNet_x0_25", engine="torch", workers=0)
    assert (float(fine["nll"]), float(fine["top1"])) == (report.nll, 100 * report.top1.value)
    assert (fine["published_top1"], fine["published_top5"], fine["agrees"]) == ("51.86", "75.65", "")
    assert (missing["published_top1"], missing["top1"]) == ("58.09", "")
    assert "TORCHCLAS_OFFLINE" in missing["error"]
    assert json.loads((tmp_path / "table" / "manifest.json").read_text())["precision"] == "fp32"
    assert not [*(tmp_path / "table").glob("*.tmp")]

    capsys.readouterr()
    assert cli.run([*asked, "--series", "PPLCNet", "--tta", "flip"]) == 2
    assert "--tta goes with one model" in capsys.readouterr().err
    assert cli.run(["evaluate", "--all"]) == 2
    assert "which images?" in capsys.readouterr().err


def test_the_page_says_what_the_table_says(tmp_path: Path) -> None:
    rows = (
        Row("ResNet50", "ResNet50", "ResNet", 76.5, 93.0, True, measured(76.4, 93.1)),
        Row("ResNet18", "ResNet18", "ResNet", 70.98, 89.92, True, measured(60.0, 80.0)),
        Row("<b>.onnx", measured=measured(50.0)),
        Row("ResNet34", "ResNet34", "ResNet", 74.57, 92.14, error="it is <not> here"),
    )
    table = AccuracyTable("val & more", 50_000, rows, ("a note",))
    assert not table.passed
    written = write_accuracies(table, tmp_path)
    assert [path.name for path in written] == ["table.csv", "index.html"]
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    for text in (
        "-0.10",
        "76.03 – 76.77",
        "<b>3 / 4</b>",
        "&lt;b&gt;.onnx",
        "it is &lt;not&gt; here",
        "val &amp; more",
    ):
        assert text in page
    assert page.count('class="no"') == 1
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        found = [*csv.DictReader(file)]
    assert [row["agrees"] for row in found] == ["yes", "no", "", ""]
    assert float(found[1]["difference"]) == pytest.approx(-10.98)
