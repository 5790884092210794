"""Where exported files are written until all of their parts are complete."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path

from torchclas.atomic import disk_is_full
from torchclas.errors import Error, OutputError
from torchclas.weights.location import CARD, CONFIG, TIMM_WEIGHTS

WEIGHTS = TIMM_WEIGHTS[0]
TIMM_FILES = frozenset((CONFIG, WEIGHTS, CARD))


@contextmanager
def named_when_done(path: Path) -> Generator[Path, None, None]:
    """Yield a place for `path`, and for files beside it, in a folder of its own; on success all get their names.

    Raises OutputError: the disk is full, or the folder of `path` cannot be written.
    """
    try:
        with folder_beside(path) as folder:
            yield folder / path.name
            give_names(folder, path)
    except Error:
        raise
    except Exception as error:
        if disk_is_full(error, path.parent):
            raise OutputError(f"{path}: the disk is full: free some space or choose another place") from error
        raise


def give_names(folder: Path, path: Path) -> list[Path]:
    """Move what is in a folder beside `path`, and return the files other than `path` itself.

    That comes last: it may need the others, such as weights beyond 2 GB, and what has its name is complete.
    """
    others = sorted(file for file in folder.iterdir() if file.name != path.name)
    if (folder / path.name).is_dir() and path.is_dir():
        shutil.rmtree(path)  # see check_folder
    return [file.replace(path.with_name(file.name)) for file in (*others, folder / path.name)][:-1]


def check_folder(path: Path, names: Collection[str]) -> None:
    """Raise `OutputError` where anything but an export, whose files have `names`, is where one is to be written."""
    if path.is_dir() and all(file.name in names for file in path.iterdir()):
        return
    if path.exists():
        raise OutputError(f"{path}: holds other files: name a new folder")


@contextmanager
def folder_beside(path: Path) -> Generator[Path, None, None]:
    """Yield a new folder on the disk that `path` will be on, which is removed at the end."""
    folder = path.parent / f".{path.stem[:64]}.{uuid.uuid4().hex[:12]}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"{path.parent}: cannot be written: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
