"""What `data check` finds, and what it leaves out of a clean list."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies._internal.core import DataObject
from PIL import Image

from torchclas.cli import run
from torchclas.data.check import KINDS, DataReport, check
from torchclas.data.decode import decode
from torchclas.data.duplicates import NEAR, count_bits, near_groups, perceptual_hash
from torchclas.data.lists import read_list
from torchclas.errors import DataError, OutputError
from torchclas.reporting.console import Console
from torchclas.reporting.data_report import print_report


def picture(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    cells = np.random.default_rng(seed).integers(40, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six good images of each of two classes for training, two for validation."""
    root, seed = tmp_path / "data", 0
    for split, count in (("train", 6), ("val", 2)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                seed += 1
                picture(seed).save(root / split / name / f"{number}.png")
    return root


def found(report: DataReport) -> dict[str, list[tuple[tuple[str, ...], str]]]:
    """Kind → [(file names, detail)]."""
    return {
        finding.kind: [(tuple(name.rpartition("/")[2] for name in item.names), item.detail) for item in finding.items]
        for finding in report.findings
    }


def paths_of(path: Path) -> list[str]:
    images, _ = read_list(path)
    return [images.name(index) for index in range(len(images))]


def test_nothing_to_find(data: Path) -> None:
    report = check(data)
    assert found(report) == {}
    assert report.ok
    assert (report.images, report.val_images, report.kept) == (12, 4, 12)
    assert report.counts == {"cat": 6, "dog": 6}
    assert report.imbalance == 1


def test_files_that_cannot_be_read(data: Path) -> None:
    whole = (data / "train/cat/0.png").read_bytes()
    (data / "train/cat/0.png").write_bytes(whole[:200])
    (data / "train/cat/1.png").write_bytes(b"")
    (data / "val/dog/text.jpg").write_text("hello")
    report = check(data)
    assert not report.ok
    items = dict(found(report)["unreadable"])
    assert set(items) == {("0.png",), ("1.png",), ("text.jpg",)}
    assert "truncated" in items[("0.png",)]
    assert items[("1.png",)] == "the file is empty"
    assert report.counts["cat"] == 4
    assert found(report)["few"] == [(("cat",), "4")]
    assert report.kept == 10


def test_equal_files(data: Path, tmp_path: Path) -> None:
    train, clean = data / "train", tmp_path / "clean.txt"
    shutil.copy(train / "cat/0.png", train / "cat/again.png")
    shutil.copy(train / "cat/1.png", train / "dog/wrong.png")
    shutil.copy(data / "val/dog/0.png", train / "dog/leak.png")
    report = check(data, output=clean)
    assert found(report) == {
        "conflict": [(("1.png", "wrong.png"), "cat, dog")],
        "leak": [(("leak.png", "0.png"), "the same file")],
        "duplicate": [(("0.png", "again.png"), "")],
    }
    assert not report.ok
    kept = {path.partition("train/")[2] for path in paths_of(clean)}
    cats, dogs = {f"cat/{n}.png" for n in (0, 2, 3, 4, 5)}, {f"dog/{n}.png" for n in range(6)}
    assert kept == cats | dogs
    assert report.kept == 11
    assert check(clean).ok


def test_pictures_that_look_the_same(data: Path, tmp_path: Path) -> None:
    train = data / "train"

    def variant(source: Path, destination: Path, size: tuple[int, int], **options: Any) -> None:
        Image.open(source).resize(size, Image.Resampling.BICUBIC).save(destination, **options)

    variant(train / "cat/0.png", train / "cat/small.jpg", (48, 36), quality=60)
    variant(train / "cat/1.png", train / "dog/large.webp", (150, 110))
    variant(data / "val/dog/0.png", train / "dog/leak.jpg", (64, 48), quality=40)
    report = check(data, output=tmp_path / "clean.txt")
    assert found(report) == {
        "near_conflict": [(("1.png", "large.webp"), "cat, dog")],
        "leak": [(("leak.jpg", "0.png"), "they look the same")],
        "near_duplicate": [(("0.png", "small.jpg"), "")],
    }
    kept = (tmp_path / "clean.txt").read_text()
    assert "leak.jpg" not in kept
    assert "small.jpg" in kept
    assert report.kept == 14


def test_flat_pictures_are_not_taken_for_each_other(data: Path) -> None:
    for name, gray in (("cat", 200), ("dog", 90)):
        Image.new("RGB", (64, 64), (gray, gray, gray)).save(data / "train" / name / "flat.png")
    assert found(check(data)) == {}


def test_odd_formats(data: Path) -> None:
    train = data / "train" / "cat"
    picture(101).convert("CMYK").save(train / "cmyk.jpg")
    gray16 = np.random.default_rng(1).integers(0, 2**16, (40, 40), np.uint16)
    cv2.imwrite(str(train / "deep.png"), gray16)
    cv2.imwrite(str(train / "deep.tif"), np.dstack([gray16[::-1]] * 3))
    transparent = picture(102)
    transparent.putalpha(100)
    transparent.save(train / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(103).save(train / "turned.jpg", exif=exif)
    picture(104, 31, 200).save(train / "tiny.png")
    picture(105, 6000, 4200).save(train / "huge.jpg", quality=10)
    barred = Image.new("RGB", (64, 64))
    barred.paste(picture(106), (0, 8))
    barred.save(train / "bars.png")
    Image.new("RGB", (50, 50)).save(train / "black.png")
    picture(107).save(train / "with space.png")
    report = check(data)
    assert found(report) == {
        "tiny": [(("tiny.png",), "31 × 200")],
        "huge": [(("huge.jpg",), "6,000 × 4,200")],
        "bars": [(("bars.png",), "top and bottom")],
        "cmyk": [(("cmyk.jpg",), "")],
        "sixteen_bit": [(("deep.png",), ""), (("deep.tif",), "")],
        "alpha": [(("alpha.png",), "")],
        "rotated": [(("turned.jpg",), "orientation 6")],
        "spaces": [(("with space.png",), "")],
    }
    assert report.ok
    assert report.kept == 12 + 10


def test_uneven_classes(data: Path) -> None:
    (data / "train" / "empty").mkdir()
    for number in range(60):
        picture(1000 + number).save(data / "train" / "dog" / f"more{number}.png")
    report = check(data)
    assert found(report) == {"uneven": [(("dog", "cat"), "66 against 6 images")]}
    assert any("left out" in note and "empty" in note for note in report.notes)
    assert "--set sampling=balanced" in KINDS["uneven"].advice
    assert report.imbalance == 11


def test_list_with_bad_lines_and_missing_files(data: Path, tmp_path: Path) -> None:
    path = data / "train_list.txt"
    lines = [f"train/{name}/{number}.png {label}" for label, name in enumerate(("cat", "dog")) for number in range(6)]
    path.write_text("\n".join([*lines, "train/cat/0.png", "train/none.png 1", "train/dog/1.png one"]))
    report = check(path, output=tmp_path / "clean.txt")
    [(_, first), (_, second)] = found(report)["unlabelled"]
    assert first.startswith(f"{path}:13: no label")
    assert second == f"{path}:15: the label 'one' is not an integer"
    assert found(report)["unreadable"] == [(("none.png",), "no such file")]
    assert report.counts == {"0": 6, "1": 6}
    # The list is in another folder, so its paths are whole.
    assert (tmp_path / "clean.txt").read_text().splitlines()[0] == "data/train/cat/0.png 0"
    assert len(read_list(tmp_path / "clean.txt")[0]) == 12


def test_names_that_no_line_can_hold(data: Path) -> None:
    for name in ("line\nbreak.png", "ends with 7.png", "caf\udce9.png"):
        shutil.copy(data / "val/cat/0.png", data / "train/cat" / name)
        with (data / "train/cat" / name).open("ab") as file:
            file.write(name.encode("utf-8", "surrogateescape"))  # no longer equal
    clean = data / "train" / "clean.txt"
    report = check(data / "train", output=clean)
    assert found(report)["line_breaks"] == [(("line\nbreak.png",), "")]
    paths = paths_of(clean)
    assert str(data / "train/cat/ends with 7.png") in paths
    assert str(data / "train/cat/caf\udce9.png") in paths
    assert len(paths) == 14 == report.kept
    with pytest.raises(DataError, match="in archives"):
        check(write_tar(data), output=clean)


def write_tar(folder: Path) -> Path:
    import tarfile

    path = folder / "a.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(6):
            archive.add(folder / f"train/cat/{number}.png", f"{number}.png")
            (folder / "cls").write_text("0")
            if number:
                archive.add(folder / "cls", f"{number}.cls")
    return path


def test_archives(data: Path) -> None:
    report = check(write_tar(data))
    assert dict(found(report))["unlabelled"] == [(("0.png",), "")]
    [((), fault)] = found(report)["labels"]
    assert "all labels are 0" in fault
    assert report.counts == {"0": 5}


def test_images_without_any_label(tmp_path: Path) -> None:
    import tarfile

    picture(1).save(tmp_path / "a.png")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "a.png", "a.png")
    report = check(tmp_path / "a.tar")
    assert not report.ok
    assert report.counts == {}
    print_report(report, Console(file=io.StringIO()))


def test_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", str(data)]) == 0
    assert "Nothing was found that would hurt training." in capsys.readouterr().out
    (data / "train/cat/[bad].png").write_bytes(b"")
    assert run(["data", "check", str(data), "-o", str(tmp_path / "clean.txt")]) == 1
    out = capsys.readouterr().out
    assert "✗ files that cannot be read: 1" in out
    assert "[bad].png: the file is empty" in out
    assert "12 of the 13 training images" in out
    assert run(["data", "check", str(data / "train"), "--val", str(data / "val"), "--json", "--workers", "0"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert report["val_images"] == 4
    assert [(row["kind"], row["harmful"], len(row["items"])) for row in report["findings"]] == [("unreadable", True, 1)]
    assert run(["data", "check", str(tmp_path / "none")]) == 2


def test_harmful_kinds_come_first() -> None:
    harmful = [kind.harmful for kind in KINDS.values()]
    assert harmful == sorted(harmful, reverse=True)


hashes = st.integers(0, 2**64 - 1)


@given(st.lists(hashes | st.sampled_from([0, 1, 2**63]), max_size=20), st.data())
@settings(max_examples=150, deadline=None)
def test_near_groups_are_those_of_all_pairs(values: list[int], data: DataObject) -> None:
    for _ in range(data.draw(st.integers(0, 20)) if values else 0):
        flips = data.draw(st.lists(st.integers(0, 63), max_size=NEAR + 2))
        values.append(data.draw(st.sampled_from(values)) ^ sum(1 << bit for bit in set(flips)))
    expected = [{place} for place in range(len(values))]
    for first in range(len(values)):
        for second in range(first):
            if (values[first] ^ values[second]).bit_count() <= NEAR and expected[first] is not expected[second]:
                merged = expected[first] | expected[second]
                for place in merged:
                    expected[place] = merged
    groups = {tuple(sorted(group)) for group in expected if len(group) > 1}
    assert {tuple(group) for group in near_groups(values)} == groups


@given(st.lists(hashes, min_size=1))
def test_count_bits(values: list[int]) -> None:
    assert count_bits(np.array(values, np.uint64)).tolist() == [value.bit_count() for value in values]


def test_perceptual_hash_tells_pictures_apart() -> None:
    looks = [look for seed in range(60) if (look := perceptual_hash(decode(picture(seed)))) is not None]
    assert len(looks) == 60
    distances = [(a ^ b).bit_count() for place, a in enumerate(looks) for b in looks[:place]]
    assert min(distances) > NEAR
    assert perceptual_hash(np.full((9, 9, 3), 7, np.uint8)) is None
    assert perceptual_hash(np.zeros((1, 1, 3), np.uint8)) is None


def test_the_list_that_is_checked_is_not_overwritten(data: Path) -> None:
    path = data / "train_list.txt"
    path.write_text("train/cat/0.png 0\ntrain/dog/0.png 1\n")
    with pytest.raises(OutputError, match="is the list that is checked"):
        check(path, output=path)
    assert path.read_text() == "train/cat/0.png 0\ntrain/dog/0.png 1\n"


def test_several_classes_per_image(data: Path, tmp_path: Path) -> None:
    rows = [f"train/{kind}/{n}.png,{int(kind == 'cat')},{int(n < 2)}" for kind in ("cat", "dog") for n in range(6)]
    shutil.copy(data / "train/cat/0.png", data / "train/cat/copy.png")
    table = data / "table.csv"
    table.write_text("\n".join(["path,cat,small", *rows, "train/cat/copy.png,0,1", "train/dog/9.png,0,1"]))
    clean = tmp_path / "clean.txt"
    report = check(table, output=clean)
    assert report.counts == {"cat": 6, "small": 5}
    assert found(report)["conflict"] == [(("0.png", "copy.png"), "cat+small, small")]
    assert found(report)["unreadable"] == [(("9.png",), "no such file")]
    images, _ = read_list(clean)
    assert len(images) == report.kept == 11
    assert images.labels.shape == (11, 2)
