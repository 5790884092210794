"""Heat maps drawn over pictures."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from torchclas.explanation.heat_map import Explanation, spread
from torchclas.sizes import Size

OPAQUE = 0.72  # the hottest place
DARK = 0.35  # of the brightness that a part has which the network does not see


def heated(pixels: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A picture, uint8 RGB [H, W, 3], below its heat in 0..1, [H, W]; where that is 0 the picture stays as it is."""
    colours = cv2.cvtColor(cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    share = (OPAQUE * heat)[:, :, None]
    return (pixels * (1 - share) + colours * share).round().astype(np.uint8)


def heated_by_places(pixels: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The same for a map [h, w] of all of a picture."""
    height, width = pixels.shape[:2]
    return heated(pixels, spread(heat, (0, 0, height, width), (height, width), (height, width)))


def draw(explanation: Explanation, index: int | None, largest: int) -> Image.Image:
    """The picture of an explanation, no side longer than `largest`, below one of its maps (None: below none).

    What the network does not see of it is dark.
    """
    assert explanation.picture is not None
    assert explanation.seen is not None
    small = Image.fromarray(explanation.picture)
    small.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    pixels = np.asarray(small)
    size: Size = pixels.shape[:2]
    if index is not None:
        pixels = heated(pixels, explanation.heat(index, size))
    whole = spread(np.ones((1, 1), np.float32), explanation.seen, explanation.picture.shape[:2], size)
    return Image.fromarray((pixels * (DARK + (1 - DARK) * whole[:, :, None])).round().astype(np.uint8))
