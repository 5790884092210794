"""Photographs to predict: JPEG files of 500 × 375 pixels, cut from the real ones of scikit-image and scikit-learn.

Every file is another cut, some mirrored, darker or paler, so that no two decode alike. Calibration and test pictures
take different seeds, and so are different cuts of the same few photographs.
"""

import argparse
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import skimage
import sklearn

WIDTH, HEIGHT = 500, 375  # what many pictures of ImageNet measure
DISTINCT = 1024  # beyond as many, files are hard links to the first ones: a decoder does not know

NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "coins.png", "camera.png")


@cache
def originals() -> tuple[np.ndarray, ...]:
    """BGR."""
    skimage_data = Path(skimage.__file__).parent / "data"
    sklearn_data = Path(sklearn.__file__).parent / "datasets" / "images"
    paths = [*(skimage_data / name for name in NAMES), *sorted(sklearn_data.glob("*.jpg"))]
    read = (cv2.imread(str(path), cv2.IMREAD_COLOR) for path in paths)
    return tuple(pixels for pixels in read if pixels is not None)


def photograph(seed: int) -> np.ndarray:
    """uint8 [375, 500, 3], BGR: one of the originals, cut, mirrored, and exposed differently."""
    choose = np.random.default_rng(seed)
    whole = originals()[choose.integers(len(originals()))]
    height, width = whole.shape[:2]
    most = min(width / WIDTH, height / HEIGHT)
    scale = most * choose.uniform(0.5, 1)
    wide, high = int(WIDTH * scale), int(HEIGHT * scale)
    left, top = choose.integers(width - wide + 1), choose.integers(height - high + 1)
    cut = cv2.resize(whole[top : top + high, left : left + wide], (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    if choose.random() < 0.5:
        cut = cut[:, ::-1]
    exposed = cut * choose.uniform(0.7, 1.2) + choose.uniform(-20, 20)
    return np.clip(exposed, 0, 255).astype(np.uint8)


def photographs(count: int, *, first: int = 0) -> Iterator[np.ndarray]:
    return (photograph(first + index) for index in range(count))


def write_photographs(folder: Path, count: int) -> Path:
    """Fill `folder` with `count` files, unless it is full already."""
    if folder.exists() and sum(1 for _ in folder.iterdir()) == count:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        path = folder / f"{index:05}.jpg"
        path.unlink(missing_ok=True)
        if index < DISTINCT:
            quality = int(np.random.default_rng(index).integers(85, 96))
            cv2.imwrite(str(path), photograph(index), [cv2.IMWRITE_JPEG_QUALITY, quality])
        else:
            os.link(folder / f"{index % DISTINCT:05}.jpg", path)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int)
    options = parser.parse_args()
    write_photographs(options.folder, options.count)
