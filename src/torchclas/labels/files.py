"""Files that name classes, as PaddleClas, PaddleX and people write them."""

from __future__ import annotations

import codecs
import re
from collections import Counter
from pathlib import Path

from torchclas.errors import DataError

_NUMBERED = re.compile(r"(\d{1,9})[ \t,:]\s*(\S.*)")
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def decode_text(content: bytes) -> tuple[str, str]:
    """The text of a file, and its encoding: by its mark, or else UTF-8, or else GBK.

    Raises UnicodeDecodeError: it is none of these.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(encoding), encoding
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return content.decode("gb18030"), "GBK"


def read_names(path: str | Path) -> tuple[str, ...]:
    """Names of classes in the order of their numbers.

    A line is a name (PaddleX's `labels.txt`), or a number from 0 on and a name (PaddleClas's `class_id_map_file`).
    Names that repeat, as ImageNet's do, get their number behind them.

    Raises:
        DataError: cannot be read, names no class, or leaves numbers out.
    """
    path = Path(path)
    try:
        text, _ = decode_text(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is neither UTF-8 nor GBK: save it as UTF-8") from None
    lines = [stripped for line in text.split("\n") if (stripped := line.strip())]
    if not lines:
        raise DataError(f"{path}: names no class; expected a line for each, such as `cat` or `0 cat`")
    names = _numbered(path, lines) or lines
    if broken := next((name for name in names if not _is_text(name)), None):
        raise DataError(f"{path}: {broken!r} is no name of a class: it holds control characters")
    counts = Counter(names)
    return tuple(f"{name} ({number})" if counts[name] > 1 else name for number, name in enumerate(names))


def _numbered(path: Path, lines: list[str]) -> list[str]:
    """The names of lines such as `0 cat`; none where the lines are not all such, or no two numbers differ."""
    found = [match for line in lines if (match := _NUMBERED.fullmatch(line))]
    names = {int(match[1]): match[2] for match in found}
    if len(found) < len(lines) or (len(names) < len(lines) and len(names) == 1):
        return []
    if len(names) < len(lines):
        twice = Counter(int(match[1]) for match in found).most_common(1)[0][0]
        raise DataError(f"{path}: two lines name the class {twice}")
    if missing := sorted(set(range(len(names))) - set(names)):
        raise DataError(f"{path}: classes are numbered from 0 without gaps, but no line names the class {missing[0]}")
    return [names[number] for number in range(len(names))]


def _is_text(name: str) -> bool:
    return not any(ord(character) < 32 or ord(character) == 127 for character in name)
