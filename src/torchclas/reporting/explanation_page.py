"""A page of explanations: each picture, and beside it the same below the heat map of each class."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from torchclas.explanation.heat_map import Explanation
from torchclas.reporting import pages
from torchclas.reporting.heat import draw
from torchclas.reporting.rows import short_label

MAX_PICTURES = 200  # a page of more would be too large for a browser
LARGEST = 640  # pixels along a side


class Page:
    """Collects explanations as they stand on the page; those after the first 200 are left out."""

    room: int | None = MAX_PICTURES

    def __init__(self, model: str) -> None:
        self.model = model
        self.total = 0
        self.rows: list[tuple[str, str | None, str | None, list[tuple[str, float, str]]]] = []

    def add(self, explanation: Explanation) -> None:
        """Take one."""
        self.total += 1
        if len(self.rows) == MAX_PICTURES:
            return
        plain = None if explanation.error is not None else _jpeg(draw(explanation, None, LARGEST))
        maps = [
            (short_label(shown.label), shown.score, _jpeg(draw(explanation, index, LARGEST)))
            for index, shown in enumerate(explanation.maps)
        ]
        self.rows.append((explanation.source, explanation.error, plain, maps))

    def save(self, path: Path) -> None:
        """Write the page."""
        pages.write_page(path, "explanations.html", model=self.model, total=self.total, rows=self.rows)


def _jpeg(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return pages.embedded(buffer.getvalue(), "jpeg")
