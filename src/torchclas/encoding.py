"""Text files that users write: UTF-8, or UTF-16 where Windows marked it, or GBK where a Chinese Windows wrote it."""

from __future__ import annotations

import codecs
import json
import warnings
from pathlib import Path
from typing import TypeVar

from torchclas.errors import DataError

T = TypeVar("T")


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, UTF-16 or UTF-32 with a byte-order mark, or GBK; warns where GBK is a guess.

    Raises:
        DataError: it cannot be read, or its bytes are no text in any of these encodings.
    """
    try:
        text, encoding = decode_text(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: no text in UTF-8 or GBK ({error.reason}): save it as UTF-8") from error
    if encoding == "gbk":
        warnings.warn(f"{path}: not UTF-8, read as GBK; save it as UTF-8 if names look wrong", stacklevel=3)
    return text


def decode_text(content: bytes) -> tuple[str, str]:
    """The text of a file, and the encoding: by its mark, or else UTF-8, or else GBK.

    Raises UnicodeDecodeError: it is none of these.
    """
    if encoding := _marked(content):
        return content.decode(encoding), encoding
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return content.decode("gbk"), "gbk"


def read_json(path: Path, kind: type[T]) -> T | None:
    """What a JSON file that was written here holds; None where there is none.

    Raises:
        DataError: it cannot be read, or holds something else than a `kind`.
    """
    if not path.is_file():
        return None
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: damaged, or not written by torchclas: remove it ({error})") from error
    if not isinstance(content, kind):
        raise DataError(f"{path}: not written by torchclas: remove it")
    return content


def _marked(content: bytes) -> str | None:
    """The encoding that a byte-order mark tells. UTF-32's begins with UTF-16's, so it is looked for first."""
    if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig" if content.startswith(codecs.BOM_UTF8) else None
