"""Files that name classes, in the forms that people have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from torchclas.errors import DataError
from torchclas.labels import read_names


def _file(folder: Path, text: str | bytes) -> Path:
    path = folder / "labels.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "cat\ndog\ntiger cat\n",
        "0 cat\n1 dog\n2 tiger cat\n",
        "0\tcat\n1\tdog\n2\ttiger cat\n",
        "2 tiger cat\n0 cat\n1 dog",
        "0,cat\n1,dog\n2,tiger cat\n",
        "0: cat\n1: dog\n2: tiger cat\n",
        "tiger cat\t2\ncat\t0\ndog\t1\n",
        "\ufeff0 cat\r\n1 dog\r\n\r\n2 tiger cat\r\n",
        "0 cat\n1 dog\n2 tiger cat\n".encode("utf-16"),
    ],
)
def test_forms_of_the_same_three_names(tmp_path: Path, text: str | bytes) -> None:
    assert read_names(_file(tmp_path, text), 3) == ("cat", "dog", "tiger cat")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0 猫\n1 狗\n", ("猫", "狗")),
        ("0\u3000猫\n1\u3000狗\n", ("猫", "狗")),
        ("0:猫\n1:狗\n", ("猫", "狗")),
        (
            "0 tench, Tinca tinca\n1 goldfish, Carassius auratus\n",
            ("tench, Tinca tinca", "goldfish, Carassius auratus"),
        ),
        ("0\n90\n180\n270\n", ("0", "90", "180", "270")),
        ("cola\n7 up\n", ("cola", "7 up")),
        ("class 0\nclass 1\n", ("class 0", "class 1")),
        ("n01440764 tench\nn01443537 goldfish\n", ("n01440764 tench", "n01443537 goldfish")),
        ("0 crane\n1 crane\n2 owl\n", ("crane (0)", "crane (1)", "owl")),
        ("0 50 km/h\n1 60 km/h\n", ("50 km/h", "60 km/h")),
    ],
)
def test_names_that_could_be_taken_for_something_else(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    assert read_names(_file(tmp_path, text)) == names


def test_a_file_in_gbk_is_read_with_a_word(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="read as GBK"):
        assert read_names(_file(tmp_path, "0 猫\n1 狗\n".encode("gbk"))) == ("猫", "狗")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no classes"),
        ("\n \n", "names no classes"),
        ("1 cat\n2 dog\n", "numbers start at 1"),
        ("0 cat\n2 dog\n", "no line has the number 1"),
        ("0 cat\n0 dog\n", "two lines have the number 0"),
        ("0 cat\n999999999 dog\n", "no line has the number 1"),
        ("0 cat\ndog\n", "'dog' has no number"),
        ("0 cat\n1\n", "'1' has no number or no name"),
        ("cat\ndog\nbird\n", "names 3 classes, but there are 2"),
        (b"\x80\x02}q\x00(X\xff\xff", "save it as UTF-8"),
        ("\x00\x01cat\n", "no list of class names"),
    ],
)
def test_what_cannot_be_right_is_said(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        read_names(_file(tmp_path, text), 2)
    assert "labels.txt" in str(raised.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_names(tmp_path / "none.txt")
