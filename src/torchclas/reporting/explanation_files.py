"""The files that explanations are written to: a sheet, a page, or arrays."""

from __future__ import annotations

import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from torchclas.atomic import atomic_path
from torchclas.errors import OutputError
from torchclas.explanation.heat_map import Explanation
from torchclas.reporting.explanation_page import Page
from torchclas.reporting.explanation_sheet import Sheet
from torchclas.text import encodable

PAGES, ARRAYS = (".html", ".htm"), ".npz"


class ExplanationFile(Protocol):
    """Takes explanations, one after another."""

    room: int | None  # for so many; None: for any number

    def add(self, explanation: Explanation) -> None:
        """Take one."""
        ...


def check_suffix(path: Path) -> None:
    """Raise `OutputError` where it is that of no picture, page or arrays."""
    Image.init()
    suffix = path.suffix.lower()
    if suffix not in PAGES and suffix != ARRAYS and Image.EXTENSION.get(suffix) not in Image.SAVE:
        raise OutputError(
            f"{path}: explanations are written as a picture (.png, .jpg), a page (.html) or arrays (.npz): choose one "
            "of these suffixes"
        )


@contextmanager
def open_file(path: Path, model: str) -> Generator[ExplanationFile]:
    """Yield what takes the explanations that `model` gave; the file is there when this is closed.

    Raises OutputError: it cannot be written, or `check_suffix` finds none.
    """
    check_suffix(path)
    suffix = path.suffix.lower()
    with atomic_path(path) as temporary:
        if suffix == ARRAYS:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
                arrays = Arrays(file)
                yield arrays
                arrays.finish()
            return
        drawn = Page(model) if suffix in PAGES else Sheet()
        yield drawn
        drawn.save(temporary)


class Arrays:
    """An .npz file: `maps/SOURCE` holds the maps of a picture, float16 [K, H, W] in 0..1, and other arrays a row each.

    `sources`, `status` and `error` have a text for every input, `class_ids`, `labels` and `scores` [inputs, K] what
    the maps are of (empty, and NaN, for an error).
    """

    room: int | None = None

    def __init__(self, file: zipfile.ZipFile) -> None:
        self.file = file
        self.rows: list[Explanation] = []
        self.written: set[str] = set()

    def add(self, explanation: Explanation) -> None:
        """Write the maps of one, unless the same picture has come before."""
        self.rows.append(Explanation(explanation.source, explanation.status, explanation.maps, error=explanation.error))
        if explanation.status == "ok" and explanation.source not in self.written:
            self.written.add(explanation.source)
            maps = [explanation.heat(index).astype(np.float16) for index in range(len(explanation.maps))]
            self._write(f"maps/{explanation.source}", np.stack(maps))

    def finish(self) -> None:
        """Write the rows."""
        count = max((len(row.maps) for row in self.rows), default=0)
        self._write("sources", np.array([row.source for row in self.rows], np.str_))
        self._write("status", np.array([row.status for row in self.rows], np.str_))
        self._write("error", np.array([row.error or "" for row in self.rows], np.str_))
        blank = ["", "", np.nan]
        table = [
            [[each.class_id, each.label, each.score] for each in row.maps] + [blank] * (count - len(row.maps))
            for row in self.rows
        ]
        for place, (name, kind) in enumerate((("class_ids", np.str_), ("labels", np.str_), ("scores", np.float32))):
            values = np.array([[cell[place] for cell in row] for row in table], kind)
            self._write(name, values.reshape(len(self.rows), count))

    def _write(self, name: str, values: np.ndarray[Any, Any]) -> None:
        member_name = encodable(name)  # names of files need not be text
        with self.file.open(f"{member_name}.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, values, allow_pickle=False)
