"""Evaluation data sets: labels as the data means them, or an error that says where."""

from pathlib import Path

import pytest

from torchclas.data.datasets import Sample, class_folders, list_file
from torchclas.errors import DataError

SYNSETS = ("n01440764", "n01443537", "n01484850", "n01491361")


def folders(root, *names):
    for name in names:
        (root / name).mkdir()
        (root / name / "1.jpg").touch()
    return root


def test_synset_folders_are_mapped_by_id_even_as_a_subset(tmp_path):
    dataset = class_folders(folders(tmp_path, "n01484850", "n01443537"), class_ids=SYNSETS)
    assert dataset.samples == [Sample(f"{tmp_path}/n01443537/1.jpg", 1), Sample(f"{tmp_path}/n01484850/1.jpg", 2)]
    assert dataset.classes == SYNSETS


def test_other_folders_are_the_classes_in_sorted_order(tmp_path):
    dataset = class_folders(folders(tmp_path, "dog", "cat"))
    assert dataset.classes == ("cat", "dog")
    assert [sample.label for sample in dataset.samples] == [0, 1]
    assert class_folders(tmp_path, class_ids=["A", "B"]) == dataset


def test_numbered_folders_sort_as_numbers(tmp_path):
    dataset = class_folders(folders(tmp_path, *map(str, range(12))))
    assert [(Path(path).parent.name, label) for path, label in dataset.samples if label > 9] == [("10", 10), ("11", 11)]


def test_images_below_a_class_and_other_files(tmp_path):
    folders(tmp_path, "a", "b")
    (tmp_path / "a" / "deep").mkdir()
    (tmp_path / "a" / "deep" / "2.PNG").touch()
    (tmp_path / "a" / "readme.txt").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / ".cache").mkdir()
    dataset = class_folders(tmp_path)
    assert dataset.classes == ("a", "b", "empty")
    assert [Path(path).name for path, _ in dataset.samples] == ["1.jpg", "2.PNG", "1.jpg"]


def test_folders_that_are_not_the_models_classes(tmp_path):
    folders(tmp_path, "n01443537", "tench")
    with pytest.raises(DataError, match=r"1 of 2 folders \(such as 'tench'\) are not among the model's 4 classes"):
        class_folders(tmp_path, class_ids=SYNSETS)


def test_folders_without_classes_or_images(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        class_folders(tmp_path / "none")
    with pytest.raises(DataError, match="no class folders"):
        class_folders(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="none of its 1 class folders holds an image"):
        class_folders(tmp_path)


def write(tmp_path, text):
    path = tmp_path / "val_list.txt"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


def test_list_file(tmp_path):
    path = write(tmp_path, "\ufeffval/1.jpg 0\r\n\nval/my photo.jpg 12\n/data/x.jpg 3\ncaf\udce9.jpg  4")
    expected = [("val/1.jpg", 0), ("val/my photo.jpg", 12), ("/data/x.jpg", 3), ("caf\udce9.jpg", 4)]
    assert list_file(path).samples == [(str(tmp_path / name), label) for name, label in expected]
    assert list_file(path, root="/images").samples[0] == Sample("/images/val/1.jpg", 0)


def test_list_file_with_another_delimiter(tmp_path):
    path = write(tmp_path, "a b.jpg\t1\nc.jpg\t2\n")
    assert list_file(path, delimiter="\t").samples == [(f"{tmp_path}/a b.jpg", 1), (f"{tmp_path}/c.jpg", 2)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a.jpg 0\nb.jpg\n", r"val_list.txt:2: no label"),
        ("a.jpg 0\n\nmy cat.jpg\n", r"val_list.txt:3: the label 'cat.jpg' is not an integer"),
        ("a.jpg 1.5\n", "the label '1.5' is not an integer"),
        ("a.jpg 4\n", r"val_list.txt:1: the label 4 is out of range 0\.\.3"),
        ("a.jpg -1\n", "the label -1 is out of range"),
        ("\n \n", "the list is empty"),
    ],
)
def test_bad_list(tmp_path, text, reason):
    with pytest.raises(DataError, match=reason):
        list_file(write(tmp_path, text), num_classes=4)


def test_missing_list(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        list_file(tmp_path / "none.txt")
