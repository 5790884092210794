"""Evaluation: every sample is counted, the figures are right, and the files say what the report says."""

import csv
import errno
import io
import json
import os
import shutil
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from torchclas import create_model
from torchclas.catalog import Preset
from torchclas.cli import run
from torchclas.data.sample_pages import ROTATIONS, render_page, turned
from torchclas.errors import DataError, Error, OutputError
from torchclas.inference.classifier import Classifier
from torchclas.inference.evaluation import EvaluationReport
from torchclas.metrics.single_label import Proportion
from torchclas.reporting import evaluation_report, image_rows
from torchclas.reporting.confusion import MOST_CELLS, matrix
from torchclas.reporting.console import Console
from torchclas.reporting.contact_sheet import CAPTION, GAP, LINE, TILE
from torchclas.reporting.evaluation_report import print_report
from torchclas.tasks import evaluate as module
from torchclas.tasks.evaluate import evaluate
from torchclas.weights.checkpoint import save_checkpoint
from torchclas.weights.metadata import Metadata

pytestmark = pytest.mark.usefixtures("one_thread")

MODEL = "PPLCNet_x1_0_text_orientation"  # right about every rendered page, so wrong labels make known mistakes
SETTINGS: dict[str, Any] = dict(model=MODEL, batch_size=3, workers=0, device="cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders 0, 90, 180 and 270, two pages each."""
    root = tmp_path_factory.mktemp("data") / "turned pages"
    for seed in range(2):
        page = render_page(seed)
        for degrees in ROTATIONS:
            path = root / str(degrees) / f"page {seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            turned(page, degrees).save(path)
    return root


@pytest.fixture(scope="module")
def page_list(folders: Path) -> Path:
    """A list beside the folders: six right labels, two wrong ones, two images that cannot be read."""
    (folders / "[bold]broken.png").write_bytes((folders / "0" / "page 0.png").read_bytes()[:2000])
    lines = [f"{degrees}/page {seed}.png {label}" for label, degrees in enumerate(ROTATIONS) for seed in range(2)]
    lines[0] = "0/page 0.png 3"
    lines[6] = "270/page 0.png 2"
    lines[3:3] = ["[bold]broken.png 1"]
    lines += ["no such page.png 0"]
    path = folders / "pages.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def evaluated(page_list: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[EvaluationReport, Path]:
    """The report on the list, and the folder it was written to."""
    output = tmp_path_factory.mktemp("evaluation") / "new" / "folder"
    return evaluate(page_list, **SETTINGS, output=output), output


def printed(report: EvaluationReport) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_report(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_class_folders(folders: Path) -> None:
    report = evaluate(folders, **SETTINGS)
    assert report.complete
    assert (report.samples, report.images, report.top1, report.top5) == (8, 8, Proportion(8, 8), None)
    assert [(row.support, row.precision, row.recall) for row in report.classes] == [(2, 1.0, 1.0)] * 4
    scores = [
        prediction.scores[0] for prediction in Classifier(MODEL, device="cpu").predict(sorted(folders.rglob("p*.png")))
    ]
    assert len(scores) == 8
    assert report.nll == pytest.approx(-np.log(scores).mean(), rel=1e-4)
    assert report.notes == report.written == ()
    assert "top-5" not in printed(report)


def test_every_sample_of_a_list_is_counted(evaluated: tuple[EvaluationReport, Path]) -> None:
    report, _ = evaluated
    assert (report.samples, report.images, report.top1) == (10, 8, Proportion(6, 8))
    assert [Path(path).name for path, _ in report.unreadable] == ["[bold]broken.png", "no such page.png"]
    assert "is truncated or damaged" in report.unreadable[0][1]
    assert report.unreadable[1][1] == "no such file"
    assert not report.complete
    zero, ninety, half, three_quarters = report.classes
    assert (zero.support, zero.predicted, zero.hits, zero.confused_with) == (1, 2, 1, None)
    assert (ninety.support, ninety.predicted, ninety.hits, ninety.confused_with) == (2, 2, 2, None)
    assert (half.support, half.predicted, half.hits, half.confused_with, half.confused) == (3, 2, 2, 3, 1)
    assert (three_quarters.support, three_quarters.predicted, three_quarters.confused_with) == (2, 2, 0)
    assert report.ece > 0.1  # surely wrong twice


def test_the_files_hold_the_report(evaluated: tuple[EvaluationReport, Path]) -> None:
    report, output = evaluated
    names = [
        "report.json", "per_class.csv", "errors.csv", "confusion.png", "predictions.csv", "wrong.csv", "wrong.png",
    ]  # fmt: skip
    assert list(report.written) == [output / name for name in names]
    assert {path.name for path in output.iterdir()} == set(names)  # no temporary files

    figures = json.loads((output / "report.json").read_text(encoding="utf-8"))
    assert figures == json.loads(json.dumps(report.to_dict()))
    assert figures["top1"] == {
        "value": 0.75, "interval_95": pytest.approx([0.4093, 0.9285], abs=1e-4), "count": 6, "total": 8,
    }  # fmt: skip
    assert (figures["samples"], figures["images"], figures["unreadable"]) == (10, 8, 2)
    assert (figures["model"], figures["arch"], figures["weights"]) == (MODEL, "PPLCNet_x1_0", "published")
    assert figures["preset"]["interpolation"] == "lanczos"
    assert sum(row["images"] for row in figures["calibration"]) == 8

    with (output / "per_class.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["0", "90", "180", "270"]
    assert rows["180"] == {
        "id": "180", "name": "180°", "support": "3", "predicted": "2", "correct": "2", "precision": "1.0",
        "recall": str(2 / 3), "confused_with": "270", "confused": "1",
    }  # fmt: skip
    with (output / "errors.csv").open(encoding="utf-8", newline="") as file:
        assert [(row["path"], row["error"]) for row in csv.DictReader(file)] == list(report.unreadable)
    with Image.open(output / "confusion.png") as picture:
        picture.load()
        assert picture.width > 1000
        assert len(picture.getcolors(2**24)) > 20


def test_a_row_for_each_image(evaluated: tuple[EvaluationReport, Path], page_list: Path) -> None:
    """In the order of the list, what failed included."""
    _, output = evaluated
    with (output / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["path"]).name for row in rows] == [
        line.rpartition(" ")[0].rpartition("/")[2] for line in page_list.read_text().splitlines()
    ]
    assert [row["status"] for row in rows] == ["ok"] * 3 + ["error"] + ["ok"] * 5 + ["error"]
    assert rows[9]["error"] == "no such file"
    assert (rows[9]["true_class_id"], rows[9]["true_score"], rows[9]["class_id_1"]) == ("0", "", "")
    fine = [row for row in rows if row["status"] == "ok"]
    right = [row["class_id_1"] == row["true_class_id"] for row in fine]
    assert right == [False, True, True, True, True, True, False, True]
    predictions = Classifier(MODEL, device="cpu").predict([row["path"] for row in fine])
    for row, want in zip(fine, predictions, strict=True):
        scores = [float(row[f"score_{rank}"]) for rank in (1, 2, 3, 4)]
        assert tuple(row[f"class_id_{rank}"] for rank in (1, 2, 3, 4)) == want.class_ids
        assert scores == pytest.approx(want.scores, abs=1e-5)
        assert float(row["true_score"]) == scores[want.class_ids.index(row["true_class_id"])]


def test_the_mistakes_surest_first(evaluated: tuple[EvaluationReport, Path]) -> None:
    _, output = evaluated
    with (output / "wrong.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["true_class_id"], row["predicted_class_id"]) for row in rows} == {("270", "0"), ("180", "270")}
    scores = [float(row["predicted_score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    with Image.open(output / "wrong.png") as sheet:
        assert sheet.size == (2 * (TILE + GAP) + GAP, TILE + CAPTION + LINE + 2 * GAP)


def test_no_mistakes_no_sheet(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.png").write_text("of an earlier evaluation")
    evaluate(folders, **SETTINGS, output=tmp_path)
    assert not (tmp_path / "wrong.png").exists()
    assert len((tmp_path / "wrong.csv").read_text().splitlines()) == 1
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 9


def test_only_the_surest_mistakes_are_drawn(
    evaluated: tuple[EvaluationReport, Path], page_list: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_rows, "MAX_PICTURES", 1)
    evaluate(page_list, **SETTINGS, output=tmp_path)
    _, output = evaluated
    with Image.open(tmp_path / "wrong.png") as one, Image.open(output / "wrong.png") as two:
        assert one.width == TILE + 2 * GAP
        assert one.tobytes() == two.crop((0, 0, *one.size)).tobytes()


def test_the_pixel_limit(folders: Path) -> None:
    with pytest.raises(DataError, match=r"none of its 8 images.*more than the limit of 1,000.*--max-pixels"):
        evaluate(folders, **SETTINGS, max_pixels=1000)


def test_the_printed_report_says_what_is_missing(evaluated: tuple[EvaluationReport, Path]) -> None:
    report, output = evaluated
    text = printed(report)
    assert "75.00 %" in text
    assert "40.93 – 92.85" in text
    assert "8 of 10" in text
    assert "2 of 10 images could not be read" in text
    assert "[bold]broken.png: is truncated or damaged" in text
    assert str(output / "confusion.png") in text


@pytest.mark.parametrize("batch_size", [1, 10])
def test_the_batch_size_changes_nothing(
    evaluated: tuple[EvaluationReport, Path], page_list: Path, batch_size: int
) -> None:
    report, _ = evaluated
    other = evaluate(page_list, **cast("dict[str, Any]", {**SETTINGS, "batch_size": batch_size, "workers": 2}))
    assert (other.samples, other.images, other.unreadable) == (report.samples, report.images, report.unreadable)
    assert (other.top1, other.classes) == (report.top1, report.classes)
    assert other.nll == pytest.approx(report.nll, rel=1e-4)
    assert other.ece == pytest.approx(report.ece, abs=1e-5)


def test_root_and_delimiter(folders: Path, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.txt"
    path.write_text("90/page 0.png\t1\n180/page 1.png\t2\n", encoding="utf-8")
    assert evaluate(path, **SETTINGS, root=folders, delimiter="\t").top1 == Proportion(2, 2)


def test_folders_with_names_of_their_own_need_a_file_that_says_which_is_which(folders: Path, tmp_path: Path) -> None:
    for name, degrees in zip(("d", "a", "b", "c"), ROTATIONS, strict=True):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "page.png").write_bytes((folders / str(degrees) / "page 1.png").read_bytes())
    with pytest.raises(DataError, match=r"\(a, b, c and 1 more\) are not among the 4 of .* --labels FILE"):
        evaluate(tmp_path / "data", **SETTINGS)
    (tmp_path / "names.txt").write_text("d\na\nb\nc\n")
    report = evaluate(tmp_path / "data", **SETTINGS, labels=tmp_path / "names.txt")
    assert report.top1 == Proportion(4, 4)
    assert "d is taken for 0" in report.notes[0]
    assert "d is taken for 0" in printed(report)


def test_a_folder_of_splits_and_archives(folders: Path, tmp_path: Path) -> None:
    """What `train` takes, `evaluate` takes, with the same figures."""
    shutil.copytree(folders, tmp_path / "data" / "val", ignore=shutil.ignore_patterns("*.txt", "*broken*"))
    shutil.copytree(folders / "0", tmp_path / "data" / "train" / "0")
    report = evaluate(tmp_path / "data", **SETTINGS)
    assert report.top1 == Proportion(8, 8)
    assert "is taken for the images for validation" in report.notes[0]
    with tarfile.open(tmp_path / "pages.tar", "w") as archive:
        for label, degrees in enumerate(ROTATIONS):
            (tmp_path / "cls").write_text(str(label))
            archive.add(folders / str(degrees) / "page 0.png", f"{degrees}.png")
            archive.add(tmp_path / "cls", f"{degrees}.cls")
        archive.add(tmp_path / "cls", "bad.png")
        archive.add(tmp_path / "cls", "bad.cls")
    report = evaluate(tmp_path / "pages.tar", **SETTINGS)
    assert (report.top1, report.samples) == (Proportion(4, 4), 5)
    assert report.unreadable[0][0] == f"{tmp_path}/pages.tar/bad.png"


def test_without_matplotlib_all_but_the_picture_is_written(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for where in (module, evaluation_report):
        monkeypatch.setattr(where, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name))
    report = evaluate(folders, **SETTINGS, output=tmp_path)
    assert not (tmp_path / "confusion.png").exists()
    assert (tmp_path / "per_class.csv").exists()
    assert "torchclas[plot]" in report.notes[-1]


def test_data_that_cannot_be_used(
    folders: Path, page_list: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        evaluate(tmp_path / "nothing", **SETTINGS)
    with pytest.raises(DataError, match="goes with a list file"):
        evaluate(folders, **SETTINGS, root=tmp_path)
    bad = tmp_path / "bad.txt"
    bad.write_text(f"{folders}/0/page 0.png 4\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"out of range 0\.\.3"):
        evaluate(bad, **SETTINGS)
    bad.write_text("page.png 3\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"page.png': no such file"):
        evaluate(bad, **SETTINGS)
    monkeypatch.setattr(module, "Classifier", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(DataError, match=r"page\.png': no such file"):
        evaluate(bad, **SETTINGS)
    with pytest.raises(OutputError, match="cannot be made a folder"):
        evaluate(page_list, **SETTINGS, output=bad)


@pytest.mark.parametrize("full", ["predictions.csv", "report.json"])
def test_a_full_disk_does_not_take_the_figures(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], full: str
) -> None:
    """Neither while the rows are written, nor afterwards."""

    def no_space(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if full == "predictions.csv":
        monkeypatch.setattr(image_rows.ImageRows, "add", no_space)
    else:
        monkeypatch.setattr(evaluation_report.json, "dumps", no_space)
    output = tmp_path / "out"
    assert run(["evaluate", str(folders), "-m", MODEL, "--workers", "0", "-o", str(output), "--engine", "torch"]) == 2
    said = capsys.readouterr()
    assert "100.00 %" in said.out
    assert f"{full}: the disk is full" in " ".join(said.err.split())
    assert not (output / full).exists()


@pytest.mark.filterwarnings("ignore:.*NaN or infinity")  # loading warns of them
def test_weights_of_ones_own(folders: Path, tmp_path: Path) -> None:
    network = create_model("PPLCNet_x0_25", num_classes=4)
    preset = Preset(32, (32, 32), "bilinear", "opencv", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    names = tuple(map(str, ROTATIONS))
    path = tmp_path / "own.safetensors"
    metadata = Metadata("PPLCNet_x0_25", 4, preset, class_ids=names, class_names=names)
    save_checkpoint(network, path, metadata)
    settings = cast("dict[str, Any]", {**SETTINGS, "model": None, "engine": "torch"})  # without an export of each
    report = evaluate(folders, **settings, weights=path)
    assert (report.model, report.arch, report.weights, report.images) == ("own", "PPLCNet_x0_25", str(path), 8)

    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    save_checkpoint(network, path, metadata)
    with pytest.raises(Error, match="own computes NaN"):
        evaluate(folders, **settings, weights=path)


def test_of_two_classes_the_recall_of_the_second_at_few_false_alarms(folders: Path, tmp_path: Path) -> None:
    preset = Preset(32, (32, 32), "bilinear", "opencv", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    path = tmp_path / "two.safetensors"
    save_checkpoint(create_model("PPLCNet_x0_25", num_classes=2), path, Metadata("PPLCNet_x0_25", 2, preset))
    lines = [f"{degrees}/page {seed}.png {label // 2}" for label, degrees in enumerate(ROTATIONS) for seed in range(2)]
    pages = folders / "two.txt"
    pages.write_text("\n".join(lines), encoding="utf-8")
    settings: dict[str, Any] = {**SETTINGS, "model": path, "engine": "torch"}
    report = evaluate(pages, **settings, max_fpr=0.25, output=tmp_path / "report")
    rows = list(csv.DictReader((tmp_path / "report" / "predictions.csv").open()))
    second = [float(row[f"score_{1 + (row['class_id_1'] != '1')}"]) for row in rows]
    limit = sorted(second[:4])[-2]  # one of the four may be as high as it likes
    assert report.recall_at_fpr == sum(score > limit for score in second[4:]) / 4
    assert report.to_dict()["max_fpr"] == 0.25
    assert "at 25 % (1)" in printed(report)
    with pytest.raises(Error, match="--max-fpr"):
        evaluate(pages, **settings, max_fpr=1.0)


def test_the_matrix_of_many_classes_is_drawn_in_groups() -> None:
    confusion = {(label, label): 3 for label in range(1000)} | {(5, 993): 2, (5, 6): 1}
    classes, group, others, counts = matrix(confusion)
    assert (classes, group, others) == (list(range(1000)), 10, False)
    assert counts.shape == (MOST_CELLS, MOST_CELLS)
    assert counts.sum() == 3003
    assert (counts[0, 0], counts[0, 99]) == (31, 2)


def test_classes_without_images_share_a_column() -> None:
    classes, group, others, counts = matrix({(207, 207): 4, (207, 3): 1, (900, 12): 2, (900, 207): 5})
    assert (classes, group, others) == ([207, 900], 1, True)
    np.testing.assert_array_equal(counts, [[4, 0, 1], [5, 0, 2]])
