"""List files: labels as the list means them, however it was written, or an error that says where and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from torchclas.data.lists import read_list
from torchclas.errors import DataError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a list beside the images 0.jpg … 3.jpg in a folder called a."""
    (tmp_path / "a").mkdir()
    for number in range(4):
        (tmp_path / "a" / f"{number}.jpg").touch()

    def write(text: str | bytes, name: str = "list.txt") -> Path:
        content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    return write


def read(path: Path, **options: object) -> list[tuple[str, int]]:
    """Paths below the root, and labels."""
    images, _ = read_list(path, **options)  # pyright: ignore[reportArgumentType]
    return [(images.key(index), label) for index, label in enumerate(images.labels.tolist())]


def test_paths_and_labels(write: Write, tmp_path: Path) -> None:
    path = write("\ufeffa/1.jpg 0\r\n\nmy photo.jpg 12\n/data/x.jpg 3\ncaf\udce9.jpg  4")
    images, notes = read_list(path)
    names = ("a/1.jpg", "my photo.jpg", "/data/x.jpg", "caf\udce9.jpg")
    assert [*zip(map(images.name, range(len(images))), images.labels.tolist(), strict=True)] == [
        (str(tmp_path / name), label) for name, label in zip(names, (0, 12, 3, 4), strict=True)
    ]
    assert notes == []


@pytest.mark.parametrize("delimiter", ["\t", r"\t"])
def test_a_tab_may_be_spelled(write: Write, delimiter: str) -> None:
    assert read(write("a/1.jpg\t1\na/2 3.jpg\t2\n"), delimiter=delimiter) == [("a/1.jpg", 1), ("a/2 3.jpg", 2)]


@pytest.mark.parametrize(
    ("text", "delimiter", "advice"),
    [("a/1.jpg\t0", " ", r"--delimiter '\\t'"), ("a b/1.jpg,0", " ", "--delimiter ,"), ("a/1.jpg 0", ",", "' '")],
)
def test_another_delimiter_is_advised(write: Write, text: str, delimiter: str, advice: str) -> None:
    with pytest.raises(DataError, match=advice):
        read(write(text), delimiter=delimiter)


@pytest.mark.parametrize("quote", ["'", '"'])
def test_quotes(write: Write, quote: str) -> None:
    assert read(write(f"{quote}a/1.jpg{quote},{quote}1{quote}\n"), delimiter=",") == [("a/1.jpg", 1)]


def test_backslashes(write: Write, tmp_path: Path) -> None:
    path = write("a\\1.jpg 0\na\\2.jpg 1\n")
    assert read(path) == [("a/1.jpg", 0), ("a/2.jpg", 1)]
    assert "are taken for /" in read_list(path)[1][0]
    (tmp_path / "a\\1.jpg").touch()  # then it is the file's name
    assert read(path)[0] == ("a\\1.jpg", 0)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "gb18030"])
def test_encodings(write: Write, tmp_path: Path, encoding: str) -> None:
    (tmp_path / "猫.jpg").touch()
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    path = write(mark + "猫.jpg 0\n没有.jpg 1\n".encode(encoding))
    assert read(path) == [("猫.jpg", 0), ("没有.jpg", 1)]
    assert bool(read_list(path)[1]) == (encoding == "gb18030")


def test_names_of_files_may_be_any_bytes(write: Write, tmp_path: Path) -> None:
    """A name that is GBK on disk and in the list is that name, not its characters."""
    name = "猫.jpg".encode("gbk")
    (tmp_path / name.decode("utf-8", "surrogateescape")).touch()
    images, notes = read_list(write(name + b" 1\n"))
    assert images.read(0) == b""
    assert notes == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a/1.jpg 0\nb.jpg\n", "list.txt:2: no label"),
        ("a/1.jpg 0\n\nmy cat.jpg\n", "list.txt:3: the label 'cat.jpg' is not an integer"),
        ("a/1.jpg 1.5\n", "the label '1.5' is not an integer"),
        ("a/1.jpg 1_0\n", "is not an integer"),
        ("a/1.jpg -1\n", "list.txt:1: the label -1 is out of range"),
        ("a/1.jpg 99999999999\n", "the label 99999999999 is out of range"),
        ("a/1.jpg " + "9" * 5000, "is not an integer"),
        ("\n \n", "the list is empty"),
        (b"a/1.jpg 0\n".decode().encode("utf-16-le"), "saved as UTF-8"),
    ],
)
def test_what_is_no_list(write: Write, text: str | bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read(write(text))


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("b/1.jpg 0", "--root FOLDER"),
        (r"C:\pictures\1.jpg 0", "Windows machine"),
        ("/mnt/gone/1.jpg 0", "mounted"),
        ("b/1.jpg 3 0", "no suffix of an image"),
        ("猫.jpg 0", "saved as UTF-8"),
    ],
)
def test_paths_that_lead_nowhere(write: Write, line: str, cause: str) -> None:
    with pytest.raises(DataError, match="no such file") as caught:
        read(write(f"{line}\n{line}\n"))
    assert cause in str(caught.value)
    assert "none of the 2 paths" in str(caught.value)


def test_the_root_is_found_and_taken(write: Write, tmp_path: Path) -> None:
    path = write("a/1.jpg 0\na/9.jpg 0\n", "lists/list.txt")
    with pytest.raises(DataError, match=f"--root {tmp_path}"):
        read(path)
    assert read(path, root=tmp_path) == [("a/1.jpg", 0), ("a/9.jpg", 0)]


def test_a_long_list_is_tried_all_over(write: Write) -> None:
    lines = [f"gone/{number}.jpg 0" for number in range(5000)]
    assert len(read(write("\n".join([*lines, *["a/1.jpg 0"] * 200])))) == 5200


def test_bad_lines_are_collected(write: Write) -> None:
    path, bad = write("a/1.jpg 0\nb.png\nc.png x\n"), list[DataError]()
    assert read(path, bad_lines=bad) == [("a/1.jpg", 0)]
    assert [str(error) for error in bad] == [
        f"{path}:2: no label; expected a path, ' ' and a label, got 'b.png'",
        f"{path}:3: the label 'x' is not an integer",
    ]
    with pytest.raises(DataError, match=r"list\.txt:1: no label.*no line is any better"):
        read(write("b.png\n"), bad_lines=[])


def test_missing_list(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read(tmp_path / "none.txt")
