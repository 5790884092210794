"""What another program computed for images: a file of its input tensors, or of its outputs."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchclas.errors import DataError

SUFFIXES = (".npy", ".npz", ".csv")


@dataclass(frozen=True, eq=False)
class ForeignNumbers:
    """float32 outputs [N, classes] or input tensors [N, channels, height, width], a row for each image, in order."""

    path: Path
    values: NDArray[np.float32]

    @property
    def tensors(self) -> bool:
        """Whether they are what a network takes, and not what it gives."""
        return self.values.ndim == 4


def read_numbers(path: str | Path) -> ForeignNumbers:
    """Read a `.npy`, an `.npz` of one array, or a `.csv` of a row of numbers for each image.

    Input tensors may have their channels last. A first line of a CSV that is no numbers is a heading, and a first
    column that is none holds names, which nothing is done with.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        if path.suffix == ".csv":
            array: NDArray[Any] = np.array(_rows(path), np.float32)
        else:
            loaded = np.load(path, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                array = loaded
            else:
                with loaded:
                    names = list(loaded.files)
                    if len(names) != 1:
                        raise DataError(f"{path}: one array is expected, and there are {len(names)}: write one alone")
                    array = loaded[names[0]]
        array = array.astype(np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: holds no table of numbers ({error}): write .npy, .npz or .csv") from error
    if array.ndim == 4 and array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim not in (2, 4) or 0 in array.shape:
        raise DataError(
            f"{path}: has shape {list(array.shape)}, expected are outputs [images, classes] or input tensors "
            "[images, channels, height, width]"
        )
    return ForeignNumbers(path, array)


def _rows(path: Path) -> list[list[float]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    if rows and not _is_number(rows[0][-1]):
        rows = rows[1:]
    start = 1 if rows and not _is_number(rows[0][0]) else 0
    return [[float(cell) for cell in row[start:]] for row in rows]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
