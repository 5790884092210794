"""Folders of many images that cost next to nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

DIFFERENT = 8  # pictures; the others are links to them


def write_images(folder: Path, count: int) -> Path:
    """Fill a folder with pictures of 64 × 64 pixels, of which one in a hundred is none."""
    noise = np.random.default_rng(0)
    for index in range(count):
        path = folder / f"{index:05}.png"
        if index < DIFFERENT:
            Image.fromarray(noise.integers(0, 255, (64, 64, 3), np.uint8)).save(path)
        elif index % 100 == 99:
            path.write_text("broken")
        else:
            path.hardlink_to(folder / f"{index % DIFFERENT:05}.png")
    return folder
