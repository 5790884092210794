"""Tar shards, Parquet, and what a path stands for."""

import io
import json
import os
import pickle
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch

from torchclas.catalog import Preset
from torchclas.data.augment import TrainTransform
from torchclas.data.datasets import LabelledImages
from torchclas.data.opening import open_data, open_for_model, open_training
from torchclas.data.shards import TarShards, tar_index
from torchclas.data.training import TrainingBatches
from torchclas.errors import DataError, ImageError, MissingDependencyError
from torchclas.labels import LabelSet
from torchclas.recipes import Augment


def png(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (10, 12, 3), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_parquet(
    path: Path, rows: Any, *, names: tuple[()] | tuple[str, str] = ("cat", "dog"), label: str = "label", **options: int
) -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"image": [image for image, _ in rows], label: [label for _, label in rows]})
    features = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
    if names:
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def write_folders(root: Path, names: tuple[str, str] = ("cat", "dog"), count: int = 2) -> Path:
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number}.png").write_bytes(png(10 * label + number))
    return root


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    for shard in range(3):
        members = {}
        for number in range(4):
            members[f"{shard}/a{number}.left.png" if number == 3 else f"{shard}/a{number}.png"] = png(
                10 * shard + number
            )
            members[f"{shard}/a{number}.cls"] = str(number % 2).encode()
        write_tar(tmp_path / f"data-{shard:03}.tar", members)
    return tmp_path


def open_dataset(data: Path | str, **options: Any) -> LabelledImages:
    return open_data(data, **options).images


def contents(images: LabelledImages) -> list[bytes]:
    return [images.read(index) for index in range(len(images))]


def test_tar_shards(shards: Path) -> None:
    images = open_dataset(f"{shards}/data-{{000..001}}.tar")
    assert len(images) == 6  # a3.left.png has another name for an extension
    assert images.labels.tolist() == [0, 1, 0, 0, 1, 0]
    assert contents(images) == [png(number) for number in (0, 1, 2, 10, 11, 12)]
    assert images.name(3) == f"{shards}/data-001.tar/1/a0.png"
    assert images.key(3) == "1/a0.png"
    assert images.classes is None
    for data in (f"{shards}/data-*.tar", str(shards), shards):
        assert len(open_dataset(data)) == 9


def test_tar_index_is_kept(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shards / "data-000.tar"
    first = tar_index(path)
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("the shard was read again"))
        assert tar_index(path) == first
    write_tar(path, {"b.png": png(7), "b.cls": b"5"})
    assert [(member.key, member.label) for member in tar_index(path)] == [("b.png", 5)]
    assert sorted(file.name for file in shards.iterdir()) == [f"data-{shard:03}.tar" for shard in range(3)]


def test_classes_in_tar(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        {
            "n01.tail/x.jpg": b"1",
            "n01.tail/x.json": b'{"label": 3}',
            "y.JPG": b"2",
            "y.json": b'{"cls": 4}',
            "z.jpg": b"3",
            "z.cls": b"cat",
            "w.jpg": b"4",
        },
    )
    images = TarShards((str(path),))
    assert images.labels.tolist() == [3, 4, -1, -1]
    with pytest.raises(DataError, match=r"2 images without a class, the first is .*a\.tar/z\.jpg"):
        TrainingBatches(images, TrainTransform(Augment(), PRESET, 16), 2)


def test_damaged_tar(shards: Path, tmp_path: Path) -> None:
    path = shards / "data-000.tar"
    images = open_dataset(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: cast("Any", images)._members[1][1].offset + 10])
    with pytest.raises(ImageError, match="ends within the image"):
        images.read(1)
    assert images.read(0) == png(0)
    assert len(open_dataset(path)) >= 1  # what is whole remains
    path.write_bytes(b"no tar at all" * 100)
    with pytest.raises(DataError, match="not an uncompressed tar file"):
        open_dataset(path)
    with pytest.raises(DataError, match="holds no images"):
        open_dataset(write_tar(tmp_path / "none.tar", {"a.txt": b""}))
    with pytest.raises(DataError, match="No such file"):
        open_dataset(f"{shards}/data-{{001..009}}.tar")


@pytest.mark.parametrize("struct", [True, False])
def test_parquet(tmp_path: Path, struct: bool) -> None:
    rows = [({"bytes": png(n), "path": f"{n}.png"} if struct else png(n), n % 2) for n in range(10)]
    write_parquet(tmp_path / "data" / "part-0.parquet", rows[:7], row_group_size=3)
    write_parquet(tmp_path / "data" / "part-1.parquet", rows[7:])
    images = open_dataset(tmp_path)
    assert contents(images) == [png(number) for number in range(10)]
    assert images.labels.tolist() == [number % 2 for number in range(10)]
    assert images.classes == ("cat", "dog")
    assert images.key(8) == "part-1.parquet/1"
    assert images.name(8) == f"{tmp_path}/data/part-1.parquet row 1" + (" (8.png)" if struct else "")
    assert contents(pickle.loads(pickle.dumps(images))) == contents(images)
    assert len(open_dataset(tmp_path / "data" / "part-1.parquet")) == 3


def test_parquet_that_was_changed_is_unpacked_again(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [(png(0), 0)])
    assert len(open_dataset(path)) == 1
    write_parquet(path, [(png(1), 1), (None, None)], names=())
    os.utime(path, ns=(2**62, 2**62))
    images = open_dataset(path)
    assert images.labels.tolist() == [1, -1]
    assert images.classes is None
    with pytest.raises(ImageError, match="no image bytes"):
        images.read(1)


def test_bad_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", [(png(0), "cat")], names=())
    with pytest.raises(DataError, match=r"expected the columns image .* not image \(binary\), label \(string\)"):
        open_dataset(path)
    with pytest.raises(DataError, match="expected the columns"):
        open_dataset(write_parquet(tmp_path / "b.parquet", [(png(0), 1)], label="class"))
    (tmp_path / "c.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        open_dataset(tmp_path / "c.parquet")
    with pytest.raises(DataError, match="No such file"):
        open_dataset(tmp_path / "d.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"torchclas\[parquet\]"):
        open_dataset(path)
    assert not list(tmp_path.glob(".*.arrow"))


PRESET = Preset(16, (16, 16), "bilinear", "opencv", (0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_archives_train_as_files_do(tmp_path: Path, kind: str) -> None:
    """The same images in the same order give the same batches, with worker processes and after resuming too."""
    folders = open_dataset(write_folders(tmp_path / "files", count=5))
    rows = [(folders.read(index), int(label)) for index, label in enumerate(folders.labels)]
    if kind == "tar":
        members = {}
        for number, (image, label) in enumerate(rows):
            members |= {f"{number:02}.png": image, f"{number:02}.cls": str(label).encode()}
        archive = write_tar(tmp_path / "a.tar", members)
    else:
        archive = write_parquet(tmp_path / "a.parquet", rows)

    def run(images: LabelledImages, workers: int, start: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        batches = TrainingBatches(images, TrainTransform(Augment(), PRESET, 16), 3, workers=workers)
        return list(batches.epoch(1, start))

    expected = run(folders, 0, 0)
    for workers in (0, 2):
        resumed = run(open_dataset(archive), workers, 1)
        assert len(resumed) == len(expected) - 1
        for first, second in zip(resumed, expected[1:], strict=True):
            assert all(map(torch.equal, first, second))


ROWS = [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
FEATURES = {"info": {"features": {"labels": {"feature": {"names": ["hat", "coat", "bag", "cap"]}, "_type": "List"}}}}


def write_several(path: Path, metadata: object = None, **columns: object) -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"image": [png(number) for number in range(3)], **columns})
    described = {} if metadata is None else {"huggingface": json.dumps(metadata)}
    pq.write_table(table.replace_schema_metadata(described), path)
    return path


def lists_of(rows: list[list[int]], names: Sequence[object] = range(3)) -> list[list[object]]:
    return [[name for name, value in zip(names, row, strict=True) if value] for row in rows]


def test_parquet_with_a_column_for_each_class(tmp_path: Path) -> None:
    columns = dict(zip(("hat", "coat", "bag"), zip(*ROWS, strict=True), strict=True))
    images = open_dataset(write_several(tmp_path / "a.parquet", id=["x", "y", "z"], **columns))
    assert images.labels.tolist() == ROWS
    assert images.classes == ("hat", "coat", "bag"), "text is no class"
    assert contents(pickle.loads(pickle.dumps(images))) == [png(number) for number in range(3)]
    flags = {name: [bool(value) for value in column] for name, column in reversed(columns.items())}
    both = write_several(tmp_path / "b.parquet", **flags).parent
    images = open_dataset(both)
    assert images.labels.tolist() == ROWS * 2, "columns of the second file are found by name"


def test_parquet_with_lists_of_labels(tmp_path: Path) -> None:
    images = open_dataset(write_several(tmp_path / "a.parquet", labels=lists_of(ROWS)))
    assert (images.labels.tolist(), images.classes) == (ROWS, None)
    images = open_dataset(write_several(tmp_path / "b.parquet", label=lists_of(ROWS, ("hat", "coat", "bag"))))
    assert images.classes == ("bag", "coat", "hat")
    assert images.labels.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    images = open_dataset(write_several(tmp_path / "c.parquet", FEATURES, labels=lists_of(ROWS)))
    assert images.classes == ("hat", "coat", "bag", "cap")
    assert images.labels.tolist() == [[*row, 0] for row in ROWS]


def test_lists_of_labels_need_not_have_all_classes(tmp_path: Path) -> None:
    train = write_several(tmp_path / "train.parquet", labels=lists_of(ROWS, ("hat", "coat", "bag")))
    val = write_several(tmp_path / "val.parquet", labels=[["hat"], [], ["hat"]])
    data = open_training(train, val)
    assert data.classes == ("bag", "coat", "hat")
    assert data.validation is not None
    assert data.validation.labels.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 1]]
    wear = LabelSet("wear", ("hat", "coat", "bag"), {"en": ("hat", "coat", "bag")})
    numbers = write_several(tmp_path / "numbers.parquet", labels=[[0], [], [0, 1]])
    opened = open_for_model(numbers, wear, "wear", multi_label=True)
    assert opened.images.labels.tolist() == [[1, 0, 0], [0, 0, 0], [1, 1, 0]]
    named = open_data(numbers, labels=wear.ids)
    assert (named.images.classes, named.images.labels.shape) == (wear.ids, (3, 3))
    with pytest.raises(DataError, match="shoe"):
        open_training(train, write_several(tmp_path / "other.parquet", labels=[["shoe"], [], []]))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": [7, 8, 9], "hat": [0, 1, 1]}, r"row 0: id is 7: expected 1 .* leave columns out"),
        ({"hat": [0, 1, None], "coat": [1, 1, 1]}, "row 2: hat is None"),
        ({"labels": [[0], [-1], []]}, "the class -1"),
        ({"labels": [[0], [2_000_000], []]}, "the class 2000000"),
        ({"labels": [[0], None, []]}, "a row has no list"),
        ({"labels": [[0], [None], []]}, "an empty place"),
        ({"labels": [[0], [1], []], "label": [[0], [1], []]}, "expected the columns"),
    ],
)
def test_bad_labels_of_several_classes(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    path = write_several(tmp_path / "a.parquet", **columns)
    with pytest.raises(DataError, match=message):
        open_dataset(path).labels  # noqa: B018
