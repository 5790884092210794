"""What becomes of text from strangers where it leaves the program: on a terminal, in a CSV file, in any file at all.

Names of files, classes and tensors and the answers of servers may hold anything: what a terminal obeys, what a
spreadsheet computes, what no encoding can express.
"""

from __future__ import annotations

import codecs
import json

_FORMULA = frozenset("=+-@\t\r\n＝＋－＠")  # what a spreadsheet takes for the start of a formula


def printable(text: str) -> str:
    """`text` on one line, without what a terminal would obey or could not show: `\\x1b[2J`, not a blank screen."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def csv_text(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: one that begins like a formula gets an apostrophe before it.

    So does one that only apostrophes keep from beginning like a formula: taking one apostrophe away always gives the
    text back.
    """
    return f"'{text}" if text.lstrip("'")[:1] in _FORMULA else text


def csv_path(path: str) -> str:
    """`csv_text` for the path of a file, which still leads to the file: `-1.jpg` becomes `./-1.jpg`."""
    return f"./{path}" if path[:1] in _FORMULA else path


def json_text(line: str) -> str:
    """A line of JSON with everything that is not printable escaped, which changes nothing in its meaning."""
    if line.isprintable():
        return line
    return "".join(character if character.isprintable() else json.dumps(character)[1:-1] for character in line)


def encodable(text: str) -> str:
    """Text that UTF-8 can hold: bytes of file names that are no text come as `\\udcXX`."""
    return text.encode("utf-8", "backslashreplace").decode()


def _encoded(error: UnicodeError) -> tuple[bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    # U+DC80 … U+DCFF are Python's stand-ins for single bytes of a file name that is not text.
    pieces = (
        bytes([ord(character) - 0xDC00]) if "\udc80" <= character <= "\udcff" else ascii(character)[1:-1].encode()
        for character in error.object[error.start : error.end]
    )
    return b"".join(pieces), error.end


ANY_NAME = "torchclas.any_name"
"""For `open(errors=…)`: bytes of file names that are not text go out as they were, lone surrogates as `\\ud800`."""
codecs.register_error(ANY_NAME, _encoded)


def many_images(count: int) -> str:
    """A number of images, for people."""
    return "1 image" if count == 1 else f"{count:,} images"
