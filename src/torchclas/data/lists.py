"""List files of `path label` lines, as PaddleClas has them, also as Windows and spreadsheets write them.

A label is a class's number, or 0,1,0,1: a digit for each class, where an image has any number of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from torchclas.data.datasets import Dataset, LabelledImages, Sample
from torchclas.data.multi_label import from_rows, read_table, table_of
from torchclas.data.sources import SUFFIXES
from torchclas.data.stores import StoreError, in_store, joined, look, place
from torchclas.encoding import decode_text
from torchclas.errors import DataError

PROBED = 48  # paths that are looked for before anything runs
MAX_LABEL = 2**31 - 1

_COLUMNS = re.compile(r"[01](,[01])+")
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_DELIMITERS = {"\t": r"'\t'", ",": ",", ";": ";", " ": "' '"}


class _Line(NamedTuple):
    name: str
    label: int
    row: tuple[int, ...] = ()  # in place of the label, where images have several


def read_list(
    path: str | Path,
    *,
    root: str | Path | None = None,
    delimiter: str = " ",
    relabel: bool = False,
    bad_lines: list[DataError] | None = None,
) -> tuple[LabelledImages, list[str]]:
    r"""Read a list of `path<delimiter>label` lines, and say what of it was guessed.

    Where labels are 0,1,0,1, or the file is CSV with a header of `path` and a name for each class, the images have
    labels [N, classes] of 0 and 1.

    The last delimiter of a line counts, so paths may contain it; `\t` may be spelled out. Paths are relative to
    `root`, by default the list's folder; they may be quoted, and have backslashes. A list is UTF-8, UTF-16 with its
    mark, or GBK. With `relabel` the labels may be any numbers; they are numbered anew as PaddleClas does it, and become
    the names of their classes.

    Raises:
        DataError: a line, which is named, has no label or one that is no class (`bad_lines` collects these instead);
            the list cannot be read, or is empty; none of its first paths leads to a file.
    """
    path = Path(path)
    root = path.parent if root is None else place(root)
    delimiter = "\t" if delimiter == r"\t" else delimiter
    if not delimiter:
        raise DataError("the delimiter between path and label must not be empty")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    raw = content.decode("utf-8-sig", "surrogateescape")  # file names may be any bytes
    notes = list[str]()
    try:
        text, encoding = decode_text(content)
    except UnicodeDecodeError:
        text, encoding = raw, "utf-8"
    if encoding == "gbk":
        if _holds_real_names(raw, delimiter, root):
            text = raw
        else:
            notes.append(f"{path} is not UTF-8: it was read as GBK")
    if "\0" in text:
        raise DataError(f"{path}: is no text: expected a list of `path label` lines, saved as UTF-8")
    if table_of(text):
        table = read_table(path, text, root, bad_lines)
        _probe(path, table, table.key(0), root)
        return table, notes
    lines = list(_parse(path, text, delimiter, bad_lines))
    if not lines:
        raise DataError(f"{path}: the list is empty" if not bad_lines else f"{bad_lines[0]}; no line is any better")
    if backslashes := _with_slashes(lines, root):
        lines = backslashes
        notes.append(rf"{path}: the \ in its paths are taken for /")
    if lines[0].row:
        if relabel:
            raise DataError(f"{path}: its images have any number of classes, whose labels are not numbered anew")
        several = from_rows([line.name for line in lines], [line.row for line in lines], root, None)
        _probe(path, several, lines[0].name, root)
        return several, notes
    names = None
    if relabel:
        # In the order in which Python's set has them, which is PaddleClas's: 3, 12, 7 of these three. A network that it
        # trained has its outputs in that order.
        numbers = {label: number for number, label in enumerate({line.label for line in lines})}
        lines = [_Line(line.name, numbers[line.label]) for line in lines]
        names = tuple(map(str, numbers))
        order = ", ".join(f"{number} is {name}" for number, name in enumerate(names[:4]))
        notes.append(f"{path}: its labels are numbered anew: {order}{' …' if len(names) > 4 else ''}")
    samples = [Sample(joined(root, line.name), line.label) for line in lines]
    dataset = Dataset(samples, root=str(root), classes=names)
    _probe(path, dataset, lines[0].name, root)
    return dataset, notes


def _parse(path: Path, text: str, delimiter: str, bad_lines: list[DataError] | None) -> Iterator[_Line]:
    classes: int | None = None  # of the first line; 0 where labels are numbers
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if not line:
            continue
        try:
            parsed = _parse_line(line, delimiter)
            classes = len(parsed.row) if classes is None else classes
            if len(parsed.row) != classes:
                raise DataError(_other_kind(len(parsed.row), classes))
            yield parsed
        except DataError as error:
            located = DataError(f"{path}:{number}: {error}")
            if bad_lines is None:
                raise located from None
            bad_lines.append(located)


def _parse_line(line: str, delimiter: str) -> _Line:
    name, found, label = line.rpartition(delimiter)
    if not found:
        raise DataError(
            f"no label; expected a path, {delimiter!r} and a label, got {line!r}{_other_delimiter(line, delimiter)}"
        )
    label = _unquoted(label)
    if _COLUMNS.fullmatch(label):
        return _Line(_unquoted(name), 0, tuple(map(int, label.split(","))))
    if not _INTEGER.fullmatch(label):
        raise DataError(f"the label {label!r} is not an integer{_other_delimiter(line, delimiter)}")
    index = int(label)
    if not 0 <= index <= MAX_LABEL:
        raise DataError(f"the label {index} is out of range: classes are numbered from 0")
    return _Line(_unquoted(name), index)


def _other_kind(found: int, expected: int) -> str:
    if found and expected:
        return f"{found} values of 0 and 1, where lines before have {expected}"
    return "some labels are numbers of classes, others rows of 0 and 1: all must be of one kind"


def _other_delimiter(line: str, delimiter: str) -> str:
    """Advice, where another delimiter would give a label."""
    for other, spelled in _DELIMITERS.items():
        name, found, label = line.rpartition(other)
        label = _unquoted(label)
        if other != delimiter and found and name and (_INTEGER.fullmatch(label) or _COLUMNS.fullmatch(label)):
            return f" (try --delimiter {spelled})"
    return ""


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'" else text


def _holds_real_names(text: str, delimiter: str, root: Path | str) -> bool:
    """Whether the first name that is not UTF-8 is, byte for byte, that of a file."""
    for line in text.split("\n"):
        name = _unquoted(line.strip().rpartition(delimiter)[0])
        if not name.isascii():
            return _exists(joined(root, name))
    return True


def _with_slashes(lines: Sequence[_Line], root: Path | str) -> list[_Line]:
    """The lines with / for backslashes, unless these are part of the names; nothing where there are none."""
    first = next((line.name for line in lines if "\\" in line.name), None)
    if os.sep == "\\" or first is None or _exists(joined(root, first)):
        return []
    return [line._replace(name=line.name.replace("\\", "/")) for line in lines]


def _probe(path: Path, images: LabelledImages, name: str, root: Path | str) -> None:
    """Raise DataError where none of some paths over the whole list leads to a file."""
    paths = [images.name(index) for index in range(0, len(images), -(-len(images) // PROBED))]
    if any(_exists(each) for each in paths):
        return
    what = f"none of the {len(paths)} paths that were tried leads to a file; the first is " if len(paths) > 1 else ""
    raise DataError(f"{path}: {what}{paths[0]!r}: no such file; {_cause(name, path, root)}")


def _cause(name: str, path: Path, root: Path | str) -> str:
    """Why a path of a list leads nowhere, and what to do."""
    if _WINDOWS.match(name):
        return "it is a path of a Windows machine: write paths relative to the list's folder, or to --root FOLDER"
    if os.path.isabs(name):  # noqa: PTH117
        return "is the disk mounted, or were the pictures moved? Relative paths begin at --root FOLDER"
    if Path(name).suffix.lower() not in SUFFIXES:
        return f"{name!r} has no suffix of an image: expected lines of a path, the --delimiter, and a number"
    for base in (Path(), *path.absolute().parents[:4]):
        if base != root and _exists(str(base / name)):
            return f"but it is in {base.absolute()}: say --root {base}"
    if not name.isascii():
        return "is the list saved as UTF-8? --root FOLDER says where its paths begin"
    return "--root FOLDER says where its paths begin"


def _exists(path: str) -> bool:
    if in_store(path):
        try:
            return look(path) is not None
        except StoreError as error:
            raise DataError(f"{path}: {error}") from None
    if "://" in path:  # of a web server, which is asked when the image is read
        return True
    try:
        return os.path.exists(path)  # noqa: PTH110
    except ValueError:  # a null character
        return False
