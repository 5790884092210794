"""Galleries: what is nearest, what is known, what a file holds, and what the commands say."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from PIL import Image

import torchclas
from tests.networks import small_checkpoint
from torchclas import Embedder, Gallery, Searcher
from torchclas.cli import run
from torchclas.errors import CheckpointError, DataError, UnknownNameError
from torchclas.inference.embedder import unit_length
from torchclas.retrieval import exact
from torchclas.retrieval.building import embed_pictures, empty_gallery, open_labelled
from torchclas.retrieval.calibration import LEAST_LEAD, calibrate
from torchclas.retrieval.exact import nearest
from torchclas.spec import find_model

pytestmark = pytest.mark.usefixtures("one_thread")
COLOURS = {"blue": (20, 40, 200), "green": (30, 180, 60), "red": (210, 30, 40)}
UNSEEN = (235, 215, 40)


def draw(path: Path, colour: tuple[int, int, int], seed: int) -> Path:
    """A picture of one colour, or nearly."""
    jitter = np.random.default_rng(seed).normal(0, 5, 3)
    pixels = np.broadcast_to(np.clip(np.array(colour) + jitter, 0, 255).astype(np.uint8), (64, 64, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders, and beside them pictures that were held out, and one of no class."""
    folder = tmp_path_factory.mktemp("gallery")
    for name, colour in COLOURS.items():
        for number in range(4):
            draw(folder / "pictures" / name / f"{number}.png", colour, number)
        draw(folder / "new" / f"{name}.png", colour, 99)
    draw(folder / "new" / "strange.png", UNSEEN, 7)
    (folder / "new" / "broken.png").write_text("no picture")
    small_checkpoint(folder / "model.safetensors")
    return folder


@pytest.fixture
def embedder(data: Path) -> Embedder:
    return Embedder(data / "model.safetensors", engine="torch", normalize=True, workers=0)


@pytest.fixture
def gallery(data: Path, embedder: Embedder) -> Gallery:
    return embed_pictures(embedder, open_labelled(data / "pictures")).into(empty_gallery(embedder))


@pytest.fixture
def file(data: Path, gallery: Gallery, tmp_path: Path) -> Path:
    gallery.write(tmp_path / "colours.gallery")
    return tmp_path / "colours.gallery"


OPTIONS = ("--engine", "torch", "--workers", "0")


# What is nearest


@pytest.mark.parametrize("rows", [3, 7, 1000])
def test_blocks_change_nothing_and_ties_go_to_the_first(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.integers(-2, 3, (100, 4)).astype(np.float32)  # exact products, of which many are equal
    queries = rng.integers(-2, 3, (9, 4)).astype(np.float32)
    monkeypatch.setattr(exact, "ROWS", rows)
    monkeypatch.setattr(exact, "QUERIES", 4)
    products = queries @ vectors.T
    order = np.argsort(-products, axis=1, kind="stable")
    for count in (1, 5, 100, 200):
        found, places = nearest(vectors, queries, count)
        np.testing.assert_array_equal(places, order[:, :count])
        np.testing.assert_array_equal(found, np.take_along_axis(products, order[:, :count], 1))


def test_no_queries_and_no_vectors() -> None:
    none = np.empty((0, 4), np.float32)
    assert nearest(none, np.ones((2, 4), np.float32), 3)[0].shape == (2, 0)
    assert nearest(np.ones((2, 4), np.float32), none, 3)[1].shape == (0, 2)


# What is known


def on_circle(*degrees: float) -> Any:
    angles = np.radians(np.array(degrees))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_the_threshold_lies_between_ones_own_class_and_the_others() -> None:
    found = calibrate(on_circle(0, 5, 90, 95), np.array([0, 0, 1, 1]))
    low, high = np.cos(np.radians(85)), np.cos(np.radians(5))
    assert found.threshold == pytest.approx((low + high) / 2, abs=1e-6)
    assert (found.kept, found.rejected, found.tie, found.pictures) == (1, 1, LEAST_LEAD, 4)


def test_classes_that_overlap_have_near_ties_and_rates_below_one() -> None:
    vectors, labels = on_circle(0, 10, 13, 30, 60, 64), np.array([0, 0, 1, 1, 2, 2])
    found = calibrate(vectors, labels)
    cosine = {angle: np.cos(np.radians(angle)) for angle in (3, 10, 13, 17, 20, 30)}
    # 10° and 13° have another class nearer than their own.
    wrong = [cosine[3] - cosine[10], cosine[3] - cosine[17]]
    assert found.tie == pytest.approx(np.median(wrong), abs=1e-6)
    own, others = vectors @ vectors.T, vectors @ vectors.T
    own[labels[:, None] != labels], others[labels[:, None] == labels] = -1, -1
    np.fill_diagonal(own, -1)
    best = max((own.max(1) >= t).mean() + (others.max(1) < t).mean() for t in np.linspace(0.8, 1, 2001))
    assert found.kept is not None
    assert found.rejected is not None
    assert found.kept + found.rejected == pytest.approx(best)


def test_copies_say_nothing() -> None:
    """A picture that is in its class twice is not known by that."""
    once = calibrate(on_circle(0, 20, 90, 110), np.array([0, 0, 1, 1]))
    twice = calibrate(on_circle(0, 0, 20, 20, 90, 110), np.array([0, 0, 0, 0, 1, 1]))
    assert once.threshold == pytest.approx(twice.threshold, abs=1e-6)


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [-1, -1, -1], [0, -1, -1]])
def test_what_cannot_be_calibrated(labels: list[int]) -> None:
    assert calibrate(on_circle(0, 20, 90), np.array(labels)).threshold is None


# Galleries in Python


def test_pictures_are_found_and_classes_recognised(data: Path, gallery: Gallery, embedder: Embedder) -> None:
    assert gallery.counts == dict.fromkeys(COLOURS, 4)
    searcher = Searcher(gallery, embedder)
    for found in searcher.search([data / "pictures" / name / "2.png" for name in COLOURS], 4):
        assert found.neighbours[0] == found.source
        assert found.similarities[0] == pytest.approx(1, abs=1e-5)
        assert set(found.classes) == {Path(found.source).parent.name}
        assert list(found.similarities) == sorted(found.similarities, reverse=True)
    blue, strange, broken = searcher.recognize([data / "new" / f"{name}.png" for name in ("blue", "strange", "broken")])
    assert (blue.status, blue.classes, blue.near_tie) == ("ok", ("blue",), False)
    assert (strange.status, broken.status) == ("unknown", "error")
    assert len(strange.classes) == 1, "what is nearest is said all the same"
    (lenient,) = searcher.recognize(data / "new" / "strange.png", 9, threshold=-1)
    assert (lenient.status, sorted(lenient.classes)) == ("ok", sorted(COLOURS))


def test_a_class_behind_many_pictures_of_another_is_found(gallery: Gallery, embedder: Embedder, data: Path) -> None:
    vector = gallery.vectors[:1]
    crowd = gallery.with_pictures(np.repeat(vector, 200, axis=0), ["blue"] * 200, [f"copy/{n}" for n in range(200)])
    (found,) = Searcher(crowd, embedder).recognize(data / "pictures" / "blue" / "0.png", 3, threshold=0)
    assert found.classes[0] == "blue"
    assert set(found.classes) == set(COLOURS)


def test_a_near_tie_is_said(gallery: Gallery, embedder: Embedder, data: Path) -> None:
    both = gallery.with_pictures(gallery.vectors[:1], ["azure"], ["azure.png"]).calibrated()
    (found,) = Searcher(both, embedder).recognize(data / "pictures" / "blue" / "0.png", 2, threshold=0.5)
    assert found.near_tie
    assert set(found.classes) == {"azure", "blue"}


def test_a_gallery_grows_and_shrinks(gallery: Gallery) -> None:
    first = gallery.sources[0]
    moved = gallery.with_pictures(gallery.vectors[:1], ["azure"], [first])
    assert len(moved) == len(gallery)
    assert moved.counts == {"blue": 3, "green": 4, "red": 4, "azure": 1}
    less = moved.without(["green"], [first])
    assert less.counts == {"blue": 3, "red": 4}, "a class without pictures is gone"
    assert [less.class_of(place) for place in range(len(less))] == ["blue"] * 3 + ["red"] * 4
    with pytest.raises(UnknownNameError, match="did you mean green"):
        moved.without(["grean"])
    with pytest.raises(DataError, match="no such picture"):
        moved.without(sources=["elsewhere.png"])
    with pytest.raises(DataError, match="nothing would be left"):
        moved.without(list(moved.classes))
    with pytest.raises(DataError, match="vectors of 3 numbers do not go into"):
        gallery.with_pictures(np.ones((1, 3), np.float32), ["a"], ["a"])


def test_a_file_holds_all_of_it_and_may_be_moved_with_its_pictures(
    data: Path, embedder: Embedder, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    shutil.copytree(data / "pictures", here / "pictures")
    (here / "pictures" / "red" / "3.png").rename(here / "pictures" / "red" / "ö\n.png")
    made = embed_pictures(embedder, open_labelled(here / "pictures")).into(empty_gallery(embedder))
    made.write(here / "a.gallery")
    again = Gallery.read(here / "a.gallery")
    assert (again.provenance, again.classes, again.sources) == (made.provenance, made.classes, made.sources)
    assert again.calibration == made.calibration
    np.testing.assert_array_equal(again.vectors, made.vectors)
    np.testing.assert_array_equal(again.labels, made.labels)
    here.rename(tmp_path / "there")
    moved = Gallery.read(tmp_path / "there" / "a.gallery")
    assert all(Path(source).is_file() for source in moved.sources)


def test_a_damaged_gallery_is_an_error(file: Path, data: Path) -> None:
    content = file.read_bytes()
    for wrong in (content[:-9], content[:100], b"", content.replace(b'\\"format\\": 1', b'\\"format\\": 7')):
        file.write_bytes(wrong)
        with pytest.raises(DataError):
            Gallery.read(file)
    with pytest.raises(DataError, match="no gallery"):
        Gallery.read(data / "model.safetensors")
    changed = content.replace(b'\\"classes\\": [\\"blue\\", ', b'\\"classes\\": [          ')
    assert changed != content
    file.write_bytes(changed)
    with pytest.raises(DataError, match="labels up to 2 for 2 classes"):
        Gallery.read(file)


def test_galleries_of_other_models_are_refused(
    data: Path, gallery: Gallery, embedder: Embedder, tmp_path: Path
) -> None:
    other = Embedder(small_checkpoint(tmp_path / "b.safetensors", seed=1), engine="torch", normalize=True)
    with pytest.raises(DataError, match=r"other weights than .*b\.safetensors: .* similarity of 0\.\d+ only"):
        Searcher(gallery, other)
    wide = replace(gallery.provenance, dimension=3, probe=(1.0, 0.0, 0.0), model="Wide", path="")
    with pytest.raises(DataError, match=r"holds vectors of 3 numbers, and .* gives 1,280: use Wide"):
        Searcher(Gallery(wide, np.eye(3, dtype=np.float32), np.zeros(3, np.int64), ("a",), ("1", "2", "3")), embedder)
    larger = Embedder(data / "model.safetensors", preset=embedder.spec.preset.at(96), engine="torch", normalize=True)
    with pytest.raises(DataError, match=r"prepared with resize_short = \d+, and"):
        Searcher(gallery, larger)
    retrained = torchclas.create_model(data / "model.safetensors")
    retrained.reset_classifier(7)
    saved = torchclas.save_checkpoint(
        retrained, tmp_path / "c.safetensors", preset=find_model(data / "model.safetensors").preset
    )
    Searcher(gallery, Embedder(saved, engine="torch", normalize=True))  # another classifier changes no vector
    lost = replace(gallery, provenance=replace(gallery.provenance, path="lost.safetensors"))
    with pytest.raises(CheckpointError, match="it is gone: name the model"):
        Searcher(lost)
    with pytest.raises(DataError, match="unit length"):
        empty_gallery(Embedder(data / "model.safetensors", engine="torch"))


# Commands


def gallery_run(*arguments: object) -> int:
    return run(["gallery", *map(str, arguments)])


def test_a_gallery_from_build_to_remove(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "g.gallery"
    assert gallery_run("build", data / "pictures", "-o", file, "-m", data / "model.safetensors", *OPTIONS) == 0
    said = capsys.readouterr().err
    assert "12 pictures in 3 classes" in said
    assert "Unknown below 0." in said
    before = Gallery.read(file)

    assert gallery_run("recognize", data / "new" / "strange.png", "-g", file, "--format", "jsonl", *OPTIONS) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "unknown"
    assert gallery_run("add", data / "new" / "strange.png", "--class", "yellow", "-g", file, *OPTIONS) == 0
    assert "13 pictures in 4 classes" in capsys.readouterr().err
    again = draw(tmp_path / "again.png", UNSEEN, 8)
    assert gallery_run("recognize", again, "-g", file, "--format", "jsonl", *OPTIONS) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["status"], row["classes"]) == ("ok", ["yellow"]), "a class grows from one picture, without training"
    assert gallery_run("add", data / "pictures", "-g", file, *OPTIONS) == 0
    assert "12 pictures were in the gallery before, and replaced" in " ".join(capsys.readouterr().err.split())

    assert gallery_run("info", file) == 0
    assert "yellow" in capsys.readouterr().out
    assert gallery_run("remove", "-g", file, "--class", "yellow") == 0
    assert gallery_run("remove", data / "pictures" / "red", "-g", file) == 0
    after = Gallery.read(file)
    assert after.classes == ("blue", "green")
    np.testing.assert_array_equal(after.vectors, before.vectors[:8])


def test_rows_are_the_same_in_every_format(
    data: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [str(data / "new" / f"{name}.png") for name in ("blue", "broken", "strange")]
    for suffix in ("jsonl", "csv", "parquet", "txt"):
        output = tmp_path / f"rows.{suffix}"
        assert gallery_run("recognize", *inputs, "-g", file, "-k", 2, "-o", output, *OPTIONS) == 1
        assert "3 images, 1 of them failed, 1 unknown" in capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == inputs
    assert [row["status"] for row in rows] == ["ok", "error", "unknown"]
    table = parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    flat = list(csv.DictReader((tmp_path / "rows.csv").open(encoding="utf-8")))
    for row, other, line in zip(rows, table, flat, strict=True):
        assert {**other, "similarities": None} == {**row, "similarities": None}
        np.testing.assert_allclose(other["similarities"], row["similarities"], rtol=1e-6)
        for rank, name in enumerate(row["classes"], 1):
            assert line[f"class_{rank}"] == name
            assert float(line[f"similarity_{rank}"]) == row["similarities"][rank - 1]
            assert line[f"neighbour_{rank}"] == row["neighbours"][rank - 1]
        assert line["error"] == (row["error"] or "")
    lines = (tmp_path / "rows.txt").read_text().splitlines()
    assert lines[0].split() == ["image", "similarity", "class"]
    assert any(line.endswith("unknown") for line in lines)


@pytest.mark.parametrize("name", ["sheet.png", "page.html"])
def test_neighbours_are_drawn(data: Path, file: Path, tmp_path: Path, name: str) -> None:
    assert gallery_run("search", data / "new", "-g", file, "-k", 3, "--montage", tmp_path / name, *OPTIONS) == 1
    if name == "sheet.png":
        with Image.open(tmp_path / name) as sheet:
            centre = sheet.convert("RGB").getpixel((14 + 88, 14 + 88))
        assert isinstance(centre, tuple)
        assert np.abs(np.array(centre) - COLOURS["blue"]).max() < 60, "the first input stands at the upper left"
    else:
        page = (tmp_path / name).read_text(encoding="utf-8")
        assert page.count("<article") == 5
        assert page.count("data:image/jpeg") == 4 * 4
        assert "http" not in page


def test_pictures_without_classes_are_found_and_not_named(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "g.gallery"
    model = ("-m", data / "model.safetensors", *OPTIONS)
    assert gallery_run("build", data / "new", "-o", file, "--unlabelled", *model) == 1, "one of them is broken"
    assert "broken.png" in capsys.readouterr().err
    assert gallery_run("search", data / "new" / "red.png", "-g", file, "--format", "jsonl", *OPTIONS) == 0
    row = json.loads(capsys.readouterr().out)
    assert Path(row["neighbours"][0]).name == "red.png"
    assert set(row["classes"]) == {""}
    assert gallery_run("recognize", data / "new" / "red.png", "-g", file, *OPTIONS) == 2
    assert "the gallery has no classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "{data}/pictures", "{data}/new", "-o", "g"], "name one folder of class folders"),
        (["build", "{data}/new", "-o", "g", "--class", " "], "an empty word"),
        (["build", "{data}/new", "-o", "g", "--class", "a", "--unlabelled"], "choose one of the two"),
        (["build", "{data}/new/broken.png", "-o", "g", "--class", "a"], "none of the 1 pictures can be read"),
        (["build", "{data}/pictures", "-o", "{data}/model.safetensors"], "is there, and no gallery"),
        (["add", "{data}/pictures", "-g", "missing.gallery"], "no such file"),
        (["add", "{data}/pictures", "-g", "{data}/model.safetensors"], "no gallery; `torchclas gallery build"),
        (["remove", "-g", "{file}"], "what is to be removed?"),
        (["remove", "-g", "{file}", "--class", "purple"], "unknown class 'purple': its classes are blue, green, red"),
        (["search", "-g", "{file}"], "no images were named"),
        (["search", "{data}/new", "-g", "{file}", "--montage", "sheet.xyz"], "drawn as a picture"),
        (["search", "{data}/new", "-g", "{file}", "-o", "{file}", "--format", "csv"], "is one of the inputs"),
        (["search", "{data}/new", "-g", "{file}", "-m", "{data}/none.safetensors"], "no such file"),
        (["recognize", "{data}/new", "-g", "{file}", "--threshold", "70"], "a cosine in -1..1"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    data: Path,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = file.read_bytes()
    filled = [argument.format(data=data, file=file) for argument in arguments]
    if filled[0] == "build":
        filled += ["-m", str(data / "model.safetensors")]
    assert gallery_run(*filled, *([] if filled[0] == "remove" else OPTIONS)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == [file.name]


def test_classes_whose_pictures_are_all_broken_are_named(data: Path, embedder: Embedder, tmp_path: Path) -> None:
    shutil.copytree(data / "pictures", tmp_path / "p")
    for path in (tmp_path / "p" / "red").iterdir():
        path.write_text("no picture")
    embedded = embed_pictures(embedder, open_labelled(tmp_path / "p"))
    assert embedded.notes == ("no picture of 1 classes can be read, so the gallery lacks them: red",)
    assert len(embedded.unreadable) == 4


def test_one_picture_in_two_classes_is_an_error(data: Path, embedder: Embedder, tmp_path: Path) -> None:
    picture = data / "pictures" / "red" / "0.png"
    (tmp_path / "list.txt").write_text(f"{picture} 0\n{picture} 1\n")
    with pytest.raises(DataError, match=r"is in two classes, 0 and 1: keep the right one"):
        embed_pictures(embedder, open_labelled(tmp_path / "list.txt"))


def test_vectors_have_unit_length(gallery: Gallery) -> None:
    np.testing.assert_allclose(gallery.vectors, unit_length(np.array(gallery.vectors)), atol=1e-6)
