"""Images with any number of classes: lists, tables, whose column is whose, and batches of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torchclas.catalog import find
from torchclas.data.datasets import Dataset, Relabelled
from torchclas.data.multi_label import is_multi_label, rarest
from torchclas.data.opening import fingerprint, open_data, open_for_model, open_training
from torchclas.data.preprocess import Preprocess
from torchclas.data.training import EpochBatches, Loader, class_weights, split_by_hash
from torchclas.errors import DataError
from torchclas.labels import LabelSet

ROWS = [[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]]
WEAR = LabelSet("wear", ("hat", "coat", "bag"), {"en": ("hat", "coat", "bag"), "zh": ("帽子", "外套", "包")})

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file beside four pictures."""
    for number in range(4):
        Image.new("RGB", (40, 30), (60 * number, 90, 20)).save(tmp_path / f"{number}.jpg")

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def paddle_list(rows: list[list[int]] = ROWS) -> str:
    return "".join(f"{number}.jpg\t{','.join(map(str, row))}\n" for number, row in enumerate(rows))


def csv_table(names: tuple[str, ...], rows: list[list[int]] = ROWS) -> str:
    lines = (f"{number}.jpg,{','.join(map(str, row))}" for number, row in enumerate(rows))
    return "\n".join((",".join(("path", *names)), *lines))


def test_a_list_of_paddleclas(write: Write) -> None:
    opened = open_data(write("train_list.txt", paddle_list()), delimiter=r"\t")
    assert is_multi_label(opened.images)
    assert opened.images.labels.tolist() == ROWS
    assert opened.images.classes is None
    assert opened.images.key(3) == "3.jpg"


def test_names_beside_a_list(write: Write) -> None:
    write("labels.txt", "hat\ncoat\nbag\n")
    opened = open_data(write("train_list.txt", paddle_list()), delimiter="\t")
    assert opened.images.classes == WEAR.ids
    assert any("labels.txt names the classes" in note for note in opened.notes)


def test_too_many_names_beside_it_are_not_taken(write: Write) -> None:
    write("labels.txt", "hat\ncoat\nbag\nshoe\n")
    opened = open_data(write("train_list.txt", paddle_list()), delimiter="\t")
    assert opened.images.classes is None
    assert any("4" in note for note in opened.notes)


def test_names_that_are_asked_for(write: Write) -> None:
    path = write("train_list.txt", paddle_list())
    assert open_data(path, delimiter="\t", labels=WEAR.ids).images.classes == WEAR.ids
    with pytest.raises(DataError, match="names 2 classes, but the labels have 3 columns"):
        open_data(path, delimiter="\t", labels=("a", "b"))


@pytest.mark.parametrize("head", ["path", "Image", "图片"])
def test_a_table_names_its_columns(write: Write, head: str) -> None:
    opened = open_data(write("train.csv", csv_table(WEAR.ids).replace("path", head, 1)))
    assert opened.images.classes == WEAR.ids
    assert opened.images.labels.tolist() == ROWS


def test_columns_follow_their_names_and_not_their_order(write: Write) -> None:
    table = csv_table(("bag", "hat", "coat"), [[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 1]])
    opened = open_for_model(write("test.csv", table), WEAR, "mine", multi_label=True)
    assert opened.images.labels.tolist() == ROWS
    assert opened.images.classes == WEAR.ids


def test_columns_may_have_names_in_chinese(write: Write) -> None:
    table = csv_table(("包", "帽子", "外套"), [[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 1]])
    assert open_for_model(write("test.csv", table), WEAR, "mine", multi_label=True).images.labels.tolist() == ROWS


def test_validation_follows_the_names_of_training(write: Write) -> None:
    train = write("train.csv", csv_table(WEAR.ids))
    val = write("val.csv", csv_table(("bag", "coat", "hat"), [[1, 0, 0]] * 4))
    data = open_training(train, val)
    assert data.classes == WEAR.ids
    assert data.validation is not None
    assert data.validation.labels.tolist() == [[0, 0, 1]] * 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.jpg\t0,1,0\n1.jpg\t0,1\n", r"list.txt:2: 2 values of 0 and 1, where lines before have 3"),
        ("0.jpg\t0,1,0\n1.jpg\t2\n", "some labels are numbers of classes, others rows"),
        ("0.jpg\t2\n1.jpg\t0,1\n", "some labels are numbers of classes, others rows"),
        ("0.jpg\t0,2,0\n", "is not an integer"),
        ("gone.jpg\t0,1\n", "no such file"),
    ],
)
def test_bad_lists(write: Write, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(write("list.txt", text), delimiter="\t")


def test_a_list_with_tabs_says_so(write: Write) -> None:
    with pytest.raises(DataError, match=r"try --delimiter '\\t'"):
        open_data(write("list.txt", paddle_list()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,hat,coat\n0.jpg,1\n", "train.csv:2: 1 values for 2 classes"),
        ("path,hat,coat\n0.jpg,1,yes\n", "train.csv:2: coat is 'yes'"),
        ("path,hat,hat\n0.jpg,1,1\n", "two columns are called 'hat'"),
        ("path,hat,coat\n", "empty"),
        ("path,hat,coat\ngone.jpg,1,1\n", "no such file"),
    ],
)
def test_bad_tables(write: Write, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(write("train.csv", text))


def test_bad_lines_are_collected(write: Write) -> None:
    bad: list[DataError] = []
    opened = open_data(write("train.csv", csv_table(WEAR.ids) + "\n9.jpg,1,maybe,0\n"), bad_lines=bad)
    assert len(opened.images) == 4
    assert len(bad) == 1


def test_a_model_of_another_kind(write: Write) -> None:
    several = write("several.csv", csv_table(WEAR.ids))
    with pytest.raises(DataError, match="any number of classes, and mine gives an image one"):
        open_for_model(several, WEAR, "mine")
    one = write("one.txt", "0.jpg 0\n1.jpg 2\n")
    with pytest.raises(DataError, match="one class each, and mine gives an image any number"):
        open_for_model(one, WEAR, "mine", multi_label=True)
    with pytest.raises(DataError, match="one class each"):
        open_training(several, one)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("hat", "coat", "shoe"), "has the columns shoe"),
        (("hat", "coat"), "has no column for bag"),
        (("hat", "帽子", "bag"), "the columns hat, 帽子 stand for one class"),
    ],
)
def test_other_columns_than_the_models(write: Write, names: tuple[str, ...], message: str) -> None:
    rows = [row[: len(names)] for row in ROWS]
    with pytest.raises(DataError, match=message):
        open_for_model(write("test.csv", csv_table(names, rows)), WEAR, "mine", multi_label=True)


def test_what_cannot_be_learned_is_said(write: Write) -> None:
    data = open_training(write("train.csv", csv_table(WEAR.ids, [[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]])))
    assert any("1 of the 3 classes have no image to train on: bag" in note for note in data.notes)
    assert any("all images are of hat" in note for note in data.notes)
    with pytest.raises(DataError, match="nothing to learn"):
        open_training(write("none.csv", csv_table(WEAR.ids, [[0, 0, 0]] * 4)))


def test_batches_have_rows(write: Write) -> None:
    images = open_data(write("train.csv", csv_table(WEAR.ids))).images
    preset = find("PPLCNet_x0_25").preset.at(32)
    (batch,) = Loader(images, Preprocess(preset), EpochBatches(4, 4, shuffle=False))
    assert batch.labels.tolist() == ROWS
    assert batch.images.shape == (4, 3, 32, 32)


def test_a_split_keeps_the_rare_class_on_both_sides() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((400, 4)) < np.array([0.9, 0.5, 0.3, 0.02])).astype(np.int64)
    from torchclas.data.datasets import Dataset, Relabelled, Sample

    images = Relabelled(Dataset([Sample(f"{number}.jpg", 0) for number in range(400)]), labels)
    train, held_out = split_by_hash(images, 0.2)
    assert len(held_out) == pytest.approx(80, abs=3)
    assert train.labels[:, 3].sum() >= 1
    assert held_out.labels[:, 3].sum() >= 1
    assert rarest(np.array([[1, 0, 1], [0, 0, 0], [1, 1, 0], [1, 0, 0]])).tolist() == [2, -1, 1, 0]


def test_weights_of_classes_count_what_is_missing() -> None:
    labels = np.array([[1, 1], [0, 1], [0, 1], [0, 0]])
    assert class_weights(labels, 2).tolist() == pytest.approx([3.0, 1 / 3])
    assert class_weights(labels, 2, (2.0, 1.0)).tolist() == [2.0, 1.0]


def test_a_label_more_is_another_data_set(write: Write) -> None:
    first = open_data(write("a.csv", csv_table(WEAR.ids))).images
    second = open_data(write("b.csv", csv_table(WEAR.ids, [*ROWS[:3], [1, 1, 0]]))).images
    assert fingerprint(first) != fingerprint(second)


def test_names_that_are_given_find_the_columns_of_a_table(write: Write) -> None:
    path = write("train.csv", csv_table(WEAR.ids))
    images = open_data(path, labels=("bag", "hat", "coat")).images
    assert images.classes == ("bag", "hat", "coat")
    assert isinstance(images, Relabelled)
    assert isinstance(images.images, Dataset)
    assert images.labels.tolist() == [[row[2], row[0], row[1]] for row in ROWS]
    with pytest.raises(DataError, match="does not name the classes coat"):
        open_data(path, labels=("bag", "hat", "Mantel"))
