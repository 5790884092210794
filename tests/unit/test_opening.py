"""The door for labelled data: what is clear is taken and said, what is not stops with the level named."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from torchclas.data.datasets import Dataset, LabelledImages
from torchclas.data.opening import fingerprint, open_data, open_for_model, open_pictures, open_training
from torchclas.errors import DataError
from torchclas.labels import LabelSet, label_set
from torchclas.spec import find_model
from torchclas.training.options import TrainOptions
from torchclas.training.train_plan import read_data

ANIMALS = ("bird", "cat", "dog")


def tree(root: Path, *folders: str, count: int = 1) -> Path:
    """`count` images, each of other bytes, in every folder."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / folder / f"{number}.jpg").write_bytes(f"{folder}/{number}".encode())
    return root


def splits(root: Path, *names: str) -> Path:
    return tree(root, *(f"{name}/{animal}" for name in names for animal in ANIMALS))


def tar(path: Path, members: Mapping[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    return path


def listed(path: Path, labels: Mapping[str, int], count: int = 1) -> Path:
    """A list of the images of folders beside it, and each folder's label."""
    lines = [f"{folder}/{number}.jpg {label}" for folder, label in labels.items() for number in range(count)]
    path.write_text("\n".join(lines))
    return path


def own(*names: str) -> LabelSet:
    return LabelSet("own", names, {"en": names, "zh": names})


def meaning(images: LabelledImages) -> dict[str, str]:
    """The class of every image, by its content."""
    classes = images.classes
    labels = images.labels.tolist()
    return {images.read(i).decode(): str(k) if classes is None else classes[k] for i, k in enumerate(labels)}


# Folders


@pytest.mark.parametrize(
    ("train", "val"),
    [("train", "val"), ("Train", "Valid"), ("TRAINING", "validation"), ("tr", "dev"), ("train2017", "val2017"),
     ("train_set", "eval"), ("train_images", "Val_Images")],
)  # fmt: skip
def test_splits_in_any_case(tmp_path: Path, train: str, val: str) -> None:
    data = open_training(splits(tmp_path, train, val))
    assert data.classes == data.train.classes == ANIMALS
    assert data.validation is not None
    assert data.validation.read(0) == f"{val}/bird/0".encode()
    assert any(str(tmp_path / train) in note for note in data.notes)


@pytest.mark.parametrize("test", ["test", "Testing"])
def test_images_for_testing_are_left_for_evaluation(tmp_path: Path, test: str) -> None:
    splits(tmp_path, "Train", test)
    tree(tmp_path, "__MACOSX", "notes", ".hidden/cat", count=0)
    data = open_training(tmp_path)
    assert (data.classes, data.validation) == (ANIMALS, None)
    assert "evaluate" in data.notes[-1]
    opened = open_for_model(tmp_path, own(*ANIMALS), "own")
    assert opened.images.read(0) == f"{test}/bird/0".encode()
    assert opened.split == "test"


def test_stray_folders_beside_splits_are_left_out(tmp_path: Path) -> None:
    splits(tmp_path, "train", "val")
    tree(tmp_path, "unlabelled")
    (tmp_path / "__MACOSX" / "train").mkdir(parents=True)
    data = open_training(tmp_path)
    assert data.classes == ANIMALS
    assert "__MACOSX" in "".join(data.notes)
    assert "unlabelled" in "".join(data.notes)


def test_a_class_called_train_is_no_split(tmp_path: Path) -> None:
    data = open_training(tree(tmp_path, "car", "train"))
    assert (data.classes, data.validation) == (("car", "train"), None)
    tree(tmp_path, "test")
    assert open_training(tmp_path).classes == ("car", "test", "train")
    assert open_training(tree(tmp_path / "languages", "de/a", "fr/b", "tr/c")).classes == ("de", "fr", "tr")


@pytest.mark.parametrize(
    ("folders", "reason"),
    [
        (("train", "val"), "look like splits, but hold pictures"),
        (("train/cat", "train/dog", "Training/cat"), "may both be the images for training"),
        (("train/cat", "train/dog", "extra/cat"), "extra does not: name the folder"),
        (("f1/cat", "f1/dog", "f2/cat", "f2/dog"), "one level below: f1, f2 hold the folders cat, dog"),
        (("images", "labels"), "images and labels are no classes"),
        (("Images/cat", "Images/dog", "masks"), r"name .*Images, if its folders \(cat, dog\) are the classes"),
        (("train/images", "train/labels", "val/images", "val/labels"), "train: images and labels are no classes"),
        (("cat",), "one class alone"),
        ((".hidden",), "no class folders"),
        ((".",), "holds 1 pictures, but no class folders"),
        (("a\nb", "c"), "control characters"),
    ],
)  # fmt: skip
def test_what_is_not_clear_stops(tmp_path: Path, folders: tuple[str, ...], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        open_training(tree(tmp_path, *folders))


def test_annotations_without_pictures(tmp_path: Path) -> None:
    tree(tmp_path, "images/cat", "images/dog")
    tree(tmp_path, "labels", count=0)
    with pytest.raises(DataError, match="images and labels are no classes"):
        open_training(tmp_path)
    assert open_training(tmp_path / "images").classes == ("cat", "dog")


def test_empty_folders_are_no_classes(tmp_path: Path) -> None:
    tree(tmp_path, "cat", "dog")
    tree(tmp_path, "empty", "__MACOSX", "nested/empty", count=0)
    (tmp_path / "9.jpg").touch()
    data = open_training(tmp_path)
    assert data.classes == ("cat", "dog")
    assert "empty, nested, __MACOSX" in data.notes[0]
    assert "1 pictures beside the class folders" in data.notes[1]
    with pytest.raises(DataError, match="none of its 2 class folders holds an image"):
        open_data(tree(tmp_path / "none", "a", "b", count=0))


@pytest.mark.parametrize("inner", ["dataset", "a/b/c", "images", "train"])
def test_one_wrapping_folder(tmp_path: Path, inner: str) -> None:
    tree(tmp_path / inner, "cat", "dog")
    tree(tmp_path, "docs", count=0)
    data = open_training(tmp_path)
    assert data.classes == ("cat", "dog")
    assert str(tmp_path / inner) in "".join(data.notes)
    splits(tmp_path / "whole" / inner / "x", "train", "test")
    assert open_training(tmp_path / "whole").classes == ANIMALS


def test_folders_within_classes(tmp_path: Path) -> None:
    data = open_training(tree(tmp_path / "a", "n01/images", "n02/images"))
    assert (data.classes, data.notes) == (("n01", "n02"), ())
    data = open_training(tree(tmp_path / "b", "animals/cat", "animals/dog", "plants/oak"))
    assert data.classes == ("animals", "plants")
    assert "cat, dog, oak" in data.notes[0]
    data = open_training(tree(tmp_path / "c", "cat", "dog/left", "dog/right"))
    assert data.classes == ("cat", "dog")
    assert len(data.train) == 3


def test_names_decide_the_level(tmp_path: Path) -> None:
    views = tree(tmp_path / "views", "cat/left", "cat/right", "dog/left", "dog/right")
    with pytest.raises(DataError, match="one level below"):
        open_training(views)
    (tmp_path / "names.txt").write_text("cat\ndog")
    assert open_training(views, labels=tmp_path / "names.txt").classes == ("cat", "dog")
    assert len(open_for_model(views, own("cat", "dog"), "own").images) == 4
    groups = tree(tmp_path / "groups", "animals/cat", "things/cup")
    with pytest.raises(DataError, match="one level below"):
        open_for_model(groups, own("cat", "cup"), "own")


def test_numbered_folders_sort_as_numbers(tmp_path: Path) -> None:
    assert open_data(tree(tmp_path, *map(str, range(12)))).images.classes == tuple(map(str, range(12)))


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    for name in ("猫", "狗"):
        folder = os.path.join(os.fsencode(tmp_path), name.encode("gbk"))  # noqa: PTH118
        os.mkdir(folder)  # noqa: PTH102
        Path(os.fsdecode(folder), "1.jpg").write_text(name)
    data = open_training(tmp_path)
    assert meaning(data.train) == {"猫": "猫", "狗": "狗"}
    assert "read as GBK" in data.notes[0]
    (tmp_path / "caf\udce9").mkdir()
    (tmp_path / "caf\udce9" / "1.jpg").touch()
    with pytest.raises(DataError, match=r"'caf\\udce9' is not UTF-8: rename it"):
        open_training(tmp_path)


def test_lists_go_before_folders(tmp_path: Path) -> None:
    """As ImageNet lies for PaddleClas: val/ has no class folders."""
    tree(tmp_path, "train/cat", "train/dog", "val")
    listed(tmp_path / "Train_List.txt", {"train/cat": 0, "train/dog": 1})
    listed(tmp_path / "val_list.txt", {"val": 1})
    listed(tmp_path / "val.txt", {"none": 9})  # the usual name goes first
    data = open_training(tmp_path)
    assert isinstance(data.train, Dataset)
    assert data.validation is not None
    assert (len(data.train), len(data.validation)) == (2, 1)
    assert data.validation.read(0) == b"val/0"
    assert data.train.key(1) == "train/dog/0.jpg"


def test_splits_in_archives(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        tar(
            tmp_path / "a" / f"imagenet-{split}-000.tar",
            {f"{n}.jpg": split for n in "ab"} | {"a.cls": "0", "b.cls": "1"},
        )
        tar(
            tmp_path / "b" / "shards" / split / "0.tar",
            {f"{n}.jpg": split for n in "ab"} | {"a.cls": "0", "b.cls": "1"},
        )
    for root in (tmp_path / "a", tmp_path / "b"):
        data = open_training(root)
        assert data.validation is not None
        assert (len(data.train), len(data.validation)) == (2, 2)
        assert (data.train.read(0), data.validation.read(0)) == (b"train", b"val")


def test_what_else_a_path_may_be(tmp_path: Path) -> None:
    tree(tmp_path, "cat")
    for path, reason in {
        "cat/0.jpg": "is a single image", "none": "no such file or folder", "ca*/*": "is a single image",
        "a{3..1}.tar": "stands for 0 files", "{0..1}.txt": "stands for 2 files",
    }.items():  # fmt: skip
        with pytest.raises(DataError, match=reason):
            open_data(tmp_path / path)
    (tmp_path / "data.zip").touch()
    with pytest.raises(DataError, match="unpack it first"):
        open_data(tmp_path / "data.zip")
    with pytest.raises(DataError, match="root for relative paths goes with a list file"):
        open_data(tmp_path, root=tmp_path)


# Labels


def test_a_list_that_begins_at_1(tmp_path: Path) -> None:
    tree(tmp_path, "cat", "dog", count=4)
    data = open_training(listed(tmp_path / "list.txt", {"cat": 1, "dog": 2}, 4))
    assert data.classes == ("0", "1", "2")
    assert "no image has the label 0" in data.notes[0]
    assert "here from 1" in data.notes[0]


def test_gaps_are_named(tmp_path: Path) -> None:
    tree(tmp_path, *"abcd", count=4)
    data = open_training(listed(tmp_path / "list.txt", {"a": 0, "b": 1, "c": 3, "d": 5}, 4))
    assert len(data.classes) == 6
    assert "no image has the label 2, 4" in data.notes[0]


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"a": 0, "b": 0}, "all labels are 0: one class alone"),
        ({"a": 0, "b": 40}, "the highest label 40"),
        ({"a": 0, "b": 1, "stray": 20240131}, r"20240131 \(.*stray/0.jpg\) stands for 20,240,132 classes"),
        ({"a": 0, "b": 1, "stray": 2**31 - 1}, "the highest label"),
        ({"a": 0, "b": 1, "stray": 3}, "the highest label 3"),
    ],
)
def test_labels_that_cannot_be_meant(tmp_path: Path, labels: dict[str, int], reason: str) -> None:
    tree(tmp_path, "a", "b", count=8)
    tree(tmp_path, "stray")
    lines = [f"{name}/{n}.jpg {label}" for name, label in labels.items() for n in range(1 if name == "stray" else 8)]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    with pytest.raises(DataError, match=reason):
        open_training(tmp_path / "list.txt")
    faults = list[DataError]()
    assert open_training(tmp_path / "list.txt", faults=faults).classes == ()
    assert len(faults) == 1


def test_named_classes_may_lack_images(tmp_path: Path) -> None:
    tree(tmp_path, "a", "b", count=2)
    (tmp_path / "names.txt").write_text("".join(f"{number} class {number}\n" for number in range(50)))
    path = listed(tmp_path / "list.txt", {"a": 0, "b": 40}, 2)
    data = open_training(path, labels=tmp_path / "names.txt")
    assert len(data.classes) == 50
    assert "48 of the 50 classes have no image" in data.notes[0]
    listed(path, {"a": 0, "b": 50})
    with pytest.raises(DataError, match=r"b/0.jpg: the label 50 is out of range 0\.\.49"):
        open_training(path, labels=tmp_path / "names.txt")


def test_numbers_of_the_models_classes(tmp_path: Path) -> None:
    tree(tmp_path, "a", "b")
    data = open_training(listed(tmp_path / "list.txt", {"a": 0, "b": 999}), model=label_set("imagenet1k"))
    assert data.classes == label_set("imagenet1k").ids
    assert "taken for the classes of imagenet1k" in data.notes[0]


# Names


@pytest.mark.parametrize("file", ["labels.txt", "label_list.txt", "pets_label_list.txt"])
def test_names_beside_a_list(tmp_path: Path, file: str) -> None:
    tree(tmp_path, "a", "b")
    path = listed(tmp_path / "train_list.txt", {"a": 0, "b": 1})
    (tmp_path / file).write_text("cat\ndog\n")
    data = open_training(path)
    assert data.classes == ("cat", "dog")
    assert f"{file} names the classes" in data.notes[0]
    assert open_training(tmp_path).classes == ("cat", "dog")
    (tmp_path / file).write_text("cat\n")
    data = open_training(path)
    assert data.classes == ("0", "1")
    assert "not taken for the names" in data.notes[0]
    listed(tmp_path / file, {"a": 0, "b": 1})  # a list as well
    assert open_training(path).classes == ("0", "1")


def test_a_file_that_names_the_classes(tmp_path: Path) -> None:
    (tmp_path / "map.txt").write_text("0 dog\n1 cat\n")
    folders = tree(tmp_path / "named", "cat", "dog")
    data = open_training(folders, labels=tmp_path / "map.txt")
    assert data.classes == ("dog", "cat")
    assert meaning(data.train) == {"cat/0": "cat", "dog/0": "dog"}
    data = open_training(tree(tmp_path / "numbered", "0", "1"), labels=tmp_path / "map.txt")
    assert meaning(data.train) == {"0/0": "dog", "1/0": "cat"}
    shards = tar(tmp_path / "a.tar", {"x.jpg": "x", "x.cls": "1", "y.jpg": "y", "y.cls": "0"})
    assert meaning(open_training(shards, labels=tmp_path / "map.txt").train) == {"x": "cat", "y": "dog"}
    with pytest.raises(DataError, match="does not name the classes cow"):
        open_training(tree(folders, "cow"), labels=tmp_path / "map.txt")


# A model's classes


def test_names_decide_in_a_model(tmp_path: Path) -> None:
    opened = open_for_model(tree(tmp_path / "a", "dog", "bird"), own("dog", "cat", "bird"), "own")
    assert meaning(opened.images) == {"bird/0": "bird", "dog/0": "dog"}
    assert opened.images.labels.tolist() == [2, 0]
    assert opened.notes == ()
    imagenet = label_set("imagenet1k")
    goldfish = tree(tmp_path / "b", "goldfish, Carassius auratus", "n01440764")
    with pytest.raises(DataError, match="1 of its 2 classes"):
        open_for_model(goldfish, own("n01440764", "n01443537"), "own")
    assert set(open_for_model(goldfish, imagenet, "ResNet50").images.labels.tolist()) == {0, 1}
    with pytest.raises(DataError, match="1 of its 1 classes"):  # ImageNet has two of them
        open_for_model(tree(tmp_path / "c", "crane"), imagenet, "ResNet50")


@pytest.mark.parametrize(
    ("folders", "classes", "reason"),
    [
        (("food", "plant", "thing"), ("bird", "food", "thing"), r"1 of its 3 classes \(plant\).*leave them out"),
        (("a", "b", "c"), ("bird", "food", "thing"), r"3 of its 3 classes \(a, b, c\).*--labels FILE"),
        (("1", "2", "3"), ("bird", "food", "thing"), "3 of its 3 classes"),
    ],
)
def test_names_that_contradict_a_model(
    tmp_path: Path, folders: tuple[str, ...], classes: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        open_for_model(tree(tmp_path, *folders), own(*classes), "own")


def test_numbered_folders_are_a_models_outputs(tmp_path: Path) -> None:
    opened = open_for_model(tree(tmp_path, "0", "2"), own(*ANIMALS), "own")
    assert meaning(opened.images) == {"0/0": "bird", "2/0": "dog"}
    assert "0 is taken for bird" in opened.notes[0]


def test_a_file_says_what_the_outputs_are_called(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("vogel\nkatze\nhund\n")
    opened = open_for_model(tree(tmp_path / "d", "hund", "vogel"), own(*ANIMALS), "own", labels=tmp_path / "names.txt")
    assert meaning(opened.images) == {"hund/0": "dog", "vogel/0": "bird"}
    assert "vogel is taken for bird" in opened.notes[0]


def test_a_list_for_a_model(tmp_path: Path) -> None:
    tree(tmp_path, "a", "b")
    path = listed(tmp_path / "list.txt", {"a": 0, "b": 2})
    assert open_for_model(path, own(*ANIMALS), "own").images.labels.tolist() == [0, 2]
    (tmp_path / "labels.txt").write_text("dog\ncat\nbird\n")
    opened = open_for_model(path, own(*ANIMALS), "own")  # the same names in another order
    assert meaning(opened.images) == {"a/0": "dog", "b/0": "bird"}
    assert opened.images.labels.tolist() == [2, 0]
    (tmp_path / "labels.txt").write_text("鸟\n猫\n狗\n")
    opened = open_for_model(path, own(*ANIMALS), "own")
    assert meaning(opened.images) == {"a/0": "bird", "b/0": "dog"}
    assert "numbers decide" in opened.notes[-1]
    (tmp_path / "labels.txt").unlink()
    with pytest.raises(DataError, match=r"b/0\.jpg: the label 2 is out of range 0\.\.1: it is none of the 2 classes"):
        open_for_model(path, own("cat", "dog"), "own")
    with pytest.raises(DataError, match="1 image without a class"):
        open_for_model(tar(tmp_path / "a.tar", {"x.jpg": "x"}), own(*ANIMALS), "own")


# Training and validation


def test_validation_folders_may_be_fewer(tmp_path: Path) -> None:
    tree(tmp_path, "train/ant", "train/bee", "train/cat", "val/bee", "val/cat", "other/bee", "other/cow")
    data = open_training(tmp_path / "train", tmp_path / "val")
    assert data.validation is not None
    assert data.validation.labels.tolist() == [1, 2]
    with pytest.raises(DataError, match=r"1 of them \(cow\) are unknown there \(ant, bee, cat\)"):
        open_training(tmp_path / "train", tmp_path / "other")


def test_numbers_are_never_sorted_names(tmp_path: Path) -> None:
    folders = tree(tmp_path / "d", "apple", "thing")
    path = listed(tmp_path / "list.txt", {"d/apple": 1, "d/thing": 0})
    for data, val in ((path, folders), (folders, path)):
        with pytest.raises(DataError, match="--labels FILE says which number is which class"):
            open_training(data, val)
    (tmp_path / "names.txt").write_text("thing\napple\n")
    for data, val in ((path, folders), (folders, path)):
        opened = open_training(data, val, labels=tmp_path / "names.txt")
        assert opened.validation is not None
        assert opened.classes == ("thing", "apple")
        assert meaning(opened.train) == meaning(opened.validation) == {"apple/0": "apple", "thing/0": "thing"}


def test_numbers_and_numbered_folders(tmp_path: Path) -> None:
    folders = tree(tmp_path / "d", "1", "2", "10")
    path = listed(tmp_path / "list.txt", {"d/10": 10, "d/2": 2, "d/1": 1})
    opened = open_training(folders, path)
    assert opened.validation is not None
    assert meaning(opened.train) == meaning(opened.validation)
    assert "by number" in opened.notes[-1]
    tree(tmp_path / "e", "0", "1", "2")
    opened = open_training(listed(tmp_path / "list.txt", {"e/2": 2, "e/0": 0, "e/1": 1}), tmp_path / "e")
    assert opened.validation is not None
    assert opened.validation.labels.tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="no class for training has the number 10"):
        open_training(tmp_path / "list.txt", folders)


def test_two_lists(tmp_path: Path) -> None:
    tree(tmp_path, "a", "b", "c")
    train = listed(tmp_path / "train.txt", {"a": 0, "b": 1})
    opened = open_training(train, listed(tmp_path / "val.txt", {"b": 1}))
    assert opened.validation is not None
    assert opened.validation.labels.tolist() == [1]
    with pytest.raises(DataError, match=r"c/0.jpg: the label 2 is out of range 0\.\.1.* classes for training"):
        open_training(train, listed(tmp_path / "val.txt", {"c": 2}))


def test_a_list_of_imagenet_and_folders_of_synsets(tmp_path: Path) -> None:
    tree(tmp_path, "a", "b", "val/n01443537")
    imagenet = label_set("imagenet1k")
    opened = open_training(listed(tmp_path / "list.txt", {"a": 0, "b": 999}), tmp_path / "val", model=imagenet)
    assert opened.validation is not None
    assert opened.validation.labels.tolist() == [1]


# The rest


def test_pictures_need_no_classes(tmp_path: Path) -> None:
    tree(tmp_path / "flat", ".", "more")
    assert len(open_pictures(tmp_path / "flat").images) == 2
    opened = open_pictures(splits(tmp_path / "splits", "train", "val"))
    assert len(opened.images) == 3
    assert opened.images.read(0).startswith(b"train/")
    assert len(open_pictures(tree(tmp_path / "unsorted", "train", "val")).images) == 2
    assert len(open_pictures(tar(tmp_path / "s" / "a.tar", {"x.jpg": "x"}).parent).images) == 1
    with pytest.raises(DataError, match="holds no images"):
        open_pictures(tree(tmp_path / "none", "a", count=0))


def test_fingerprint(tmp_path: Path) -> None:
    first = fingerprint(open_data(tree(tmp_path / "a", "cat", "dog")).images)
    assert fingerprint(open_data(tree(tmp_path / "elsewhere", "cat", "dog")).images) == first
    (tmp_path / "a" / "cat").rename(tmp_path / "a" / "emu")
    renamed = fingerprint(open_data(tmp_path / "a").images)
    (tmp_path / "a" / "emu" / "0.jpg").rename(tmp_path / "a" / "emu" / "1.jpg")
    assert len({first, renamed, fingerprint(open_data(tmp_path / "a").images)}) == 3
    tree(tmp_path, "x", "y")
    one, other = ({"x": 0, "y": 1}, {"x": 1, "y": 0})
    lists = [fingerprint(open_data(listed(tmp_path / "list.txt", labels)).images) for labels in (one, other)]
    assert lists[0] != lists[1]


def test_training_reads_through_the_same_door(tmp_path: Path) -> None:
    tree(tmp_path / "data", *(f"{split}/{name}" for split in ("Train", "Test") for name in ANIMALS), count=2)
    options = TrainOptions(tmp_path / "data")
    spec = find_model("PPLCNet_x0_25")
    images, held_out, classes, notes = read_data(options, spec)
    assert (len(images), len(held_out), classes) == (3, 3, ANIMALS)
    assert "is taken for the images for training" in notes[0]
    listed(tmp_path / "list.txt", {"Train/cat": 0, "Train/dog": 1})
    (tmp_path / "names.txt").write_text("0 cat\n1 dog\n")
    options = TrainOptions(tmp_path / "list.txt", root=tmp_path / "data", labels=tmp_path / "names.txt")
    with pytest.raises(DataError, match="cannot be divided"):  # one image of each class
        read_data(options, spec)
    tree(tmp_path / "val", "dog")
    assert read_data(replace(options, val=tmp_path / "val"), spec)[2] == ("cat", "dog")


def test_a_link_to_itself_beside_the_classes_hides_none(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    (tmp_path / "loop").symlink_to("loop")
    opened = open_data(tmp_path)
    assert opened.images.classes == ("cat", "dog")
    assert len(opened.images) == 2
