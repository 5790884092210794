"""Several views of an image, some of the classes, and ReaL's labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import torchclas
from tests.servers import picture, write_model
from torchclas.catalog import find
from torchclas.data.preprocess import Preprocess, SeveralViews
from torchclas.errors import DataError, Error, UnknownNameError
from torchclas.inference.classifier import Classifier
from torchclas.labels import label_set, subsets
from torchclas.metrics.real_labels import RealLabels
from torchclas.spec import find_model
from torchclas.vocabulary import OUTPUTS, TEST_TIME_AUGMENTATIONS
from torchclas.zoo import create_model, save_checkpoint

IMAGENET = label_set("imagenet1k")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "pets.safetensors")


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network for ImageNet's classes."""
    path = tmp_path_factory.mktemp("model") / "thousand.safetensors"
    network = create_model("PPLCNet_x0_25")
    with torch.no_grad():
        for parameter in network.parameters():  # fresh weights give all classes the same score
            parameter.mul_(3)
    spec = find_model("PPLCNet_x0_25")
    save_checkpoint(network, path, preset=spec.preset.at(32))
    return path


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images in the folders of three classes of ImageNet-A."""
    root = tmp_path_factory.mktemp("photographs")
    for number, synset in enumerate(subsets.subsets()["imagenet-a"][:3]):
        (root / synset).mkdir()
        for copy in range(2):
            name = f"ILSVRC2012_val_{2 * number + copy + 1:08}.JPEG"
            (root / synset / name).write_bytes(picture(2 * number + copy))
    return root


def test_the_usual_view_comes_first() -> None:
    preset = find("PPLCNet_x0_25").preset
    image = picture(1, (400, 300))
    usual = Preprocess(preset).array(image)
    mirrored = SeveralViews(preset, views="flip").array(image)
    np.testing.assert_array_equal(mirrored, [usual, usual[:, :, ::-1]])
    crops = SeveralViews(preset, views="five-crop").array(image)
    assert crops.shape == (5, *usual.shape)
    np.testing.assert_array_equal(crops[0], usual)
    whole = Preprocess(replace(preset, fit="squeeze", size=(256, 341))).array(image)  # 400 x 300 with a side of 256
    corners = (whole[:, :224, :224], whole[:, :224, -224:], whole[:, -224:, :224], whole[:, -224:, -224:])
    np.testing.assert_array_equal(crops[1:], corners)
    with pytest.raises(DataError, match="fitted by squeeze"):
        SeveralViews(preset.fitted("squeeze"), views="five-crop")


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_scores_are_the_mean_of_the_views(model: Path, engine: str) -> None:
    images = [picture(1), picture(2, (60, 80)), b"broken", picture(3)]
    preset = find_model(model).preset
    usual = Classifier(model, engine="torch")
    for tta in TEST_TIME_AUGMENTATIONS:
        several = Classifier(model, engine=engine, tta=tta, outputs=OUTPUTS)  # pyright: ignore[reportArgumentType]
        views = SeveralViews(preset, views=tta)
        rows = list(several.predict(images))
        vectors = list(several.embed(images))
        assert [row.status for row in rows] == ["ok", "ok", "error", "ok"]
        for image, row, vector in zip(images, rows, vectors, strict=True):
            if row.status == "ok":
                logits = usual.engine_for("logits")(views.array(image))
                powers = np.exp(logits - logits.max(axis=1, keepdims=True))
                wanted = (powers / powers.sum(axis=1, keepdims=True)).mean(axis=0)
                assert sorted(row.scores) == pytest.approx(sorted(wanted), abs=1e-5)
                assert vector.vector is not None
                embeddings = usual.engine_for("embedding").run(views.array(image))["embedding"]
                off = np.abs(vector.vector - embeddings.mean(axis=0)).max()
                assert off < 1e-4 * np.abs(embeddings).max()


def test_rows_say_that_files_were_decoded_fast(model: Path) -> None:
    preset = replace(find_model(model).preset, backend="pillow")
    classifier = Classifier(model, engine="torch", preset=preset, fast_decode=True)
    rows = [*classifier.predict([picture(1), b"broken"])]
    assert [row.engine for row in rows] == ["torch fp32, fast decode", None]
    assert [row.status for row in rows] == ["ok", "error"]


def test_a_sheet_shows_the_usual_view(model: Path, tmp_path: Path) -> None:
    batch = next(Classifier(model, engine="torch", tta="flip").batches([picture(1)]))
    np.testing.assert_array_equal(batch.images[0], Preprocess(find_model(model).preset).array(picture(1)))


def test_views_that_there_are_not(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"choose from flip, five-crop"):
        Classifier(model, tta="mirror")  # pyright: ignore[reportArgumentType]
    graph = torchclas.export(model, to="onnx", input="uint8", output=tmp_path / "pixels.onnx").path
    with pytest.raises(Error, match="inside its graph"):
        Classifier(graph, tta="flip")
    with pytest.raises(Error, match="leave out fast_decode"):
        Classifier(graph, fast_decode=True)
    with pytest.raises(Error, match="OpenCV picks without smoothing"):
        Classifier(model, fast_decode=True)


def test_subsets_are_of_imagenet() -> None:
    for name, ids in subsets.subsets().items():
        assert len(ids) == 200, name
        assert len(subsets.columns(name, IMAGENET)) == 200


def test_only_classes_that_compete_are_predicted(thousand: Path, photographs: Path, tmp_path: Path) -> None:
    everything = torchclas.evaluate(photographs, model=thousand, engine="torch")
    assert "--classes data" in everything.notes[-1]
    report = torchclas.evaluate(photographs, model=thousand, engine="torch", classes="data", output=tmp_path)
    assert report.competing == 3
    assert not any("--classes" in note for note in report.notes)
    occurring = {*subsets.subsets()["imagenet-a"][:3]}
    assert {report.class_ids[row.index] for row in report.classes} <= occurring
    assert json.loads((tmp_path / "report.json").read_text())["competing_classes"] == 3
    # The reference: the best of three logits.
    columns = subsets.columns("imagenet-a", IMAGENET)[:3]
    right = 0
    files = sorted(photographs.rglob("*.JPEG"))
    classifier = Classifier(thousand, engine="torch")
    for batch in classifier.batches(files):
        best = classifier.engine(batch.images)[:, columns].argmax(axis=1)
        right += sum(IMAGENET.ids[columns[place]] == file.parent.name for place, file in zip(best, files, strict=True))
    assert (report.top1.count, report.top1.total) == (right, 6)
    all_of_a = torchclas.evaluate(photographs, model=thousand, engine="torch", classes="imagenet-a")
    assert all_of_a.competing == 200


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("n01498041\nn99999999\n", "1 of its 2 classes are none of the model's, the first is n99999999"),
        ("n01498041\n", "two classes at least"),
        ("n02119789\nn02100735\n", "3 classes of the data are not among these"),
    ],
)
def test_classes_that_cannot_be(thousand: Path, photographs: Path, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "some.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        torchclas.evaluate(photographs, model=thousand, engine="torch", classes=tmp_path / "some.txt")
    with pytest.raises(DataError, match="choose from imagenet-a, imagenet-r, data"):
        torchclas.evaluate(photographs, model=thousand, engine="torch", classes="imagenet-b")


def test_real_labels(thousand: Path, photographs: Path, tmp_path: Path) -> None:
    """Images without a label are left out, and any of several labels is right."""
    classifier = Classifier(thousand, engine="torch")
    files = sorted(photographs.rglob("*.JPEG"), key=lambda path: path.name)
    best = [row.class_ids[0] for row in classifier.predict(files)]
    numbers = [IMAGENET.ids.index(name) for name in best]
    labels = [[numbers[0]], [], [numbers[2], 5], [(numbers[3] + 1) % 1000], [], [1, 2, numbers[5]]]
    path = tmp_path / "real.json"
    path.write_text(json.dumps(labels))
    report = torchclas.evaluate(photographs, model=thousand, engine="torch", real=path)
    assert report.real is not None
    assert (report.real.count, report.real.total) == (3, 4)


def test_real_labels_that_do_not_fit(thousand: Path, model: Path, photographs: Path, tmp_path: Path) -> None:
    path = tmp_path / "real.json"
    path.write_text("[[1]]")
    with pytest.raises(DataError, match="1,000 classes of ImageNet"):
        RealLabels(path, find_model(model).classes)
    with pytest.raises(DataError, match="keep the names of the images"):
        torchclas.evaluate(photographs, model=thousand, engine="torch", real=path)
    path.write_text("[1, 2]")
    with pytest.raises(DataError, match=r"as in real\.json"):
        RealLabels(path, IMAGENET)


def test_pictures_of_one_colour_have_one_view(model: Path) -> None:
    """Where views are the same, nothing changes."""
    plain = np.full((70, 70, 3), 90, np.uint8)
    (one,) = Classifier(model, engine="torch").predict(Image.fromarray(plain))
    (two,) = Classifier(model, engine="torch", tta="five-crop").predict(Image.fromarray(plain))
    assert one.scores == pytest.approx(two.scores, abs=1e-6)
