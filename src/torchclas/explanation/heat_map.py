"""Heat maps of pictures: what they hold, and how they lie over a picture. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from torchclas.data.decode import Pixels
from torchclas.data.preprocess import Rectangle
from torchclas.errors import Error
from torchclas.sizes import Size


@dataclass(frozen=True, eq=False)
class HeatMap:
    """How much each place speaks for a class that the model gives this score.

    `relevance` is float32 [h, w], as fine as the network's last map: above 0 for the class, below it against it.
    """

    class_id: str
    label: str
    score: float
    relevance: NDArray[np.float32]

    @property
    def heat(self) -> NDArray[np.float32]:
        """What speaks for the class, as shares of the hottest place, [h, w]; 0 throughout where nothing does."""
        return shares(self.relevance)


@dataclass(frozen=True, eq=False)
class Explanation:
    """Heat maps of one input, or why there are none.

    `maps` are of the classes asked for, by default the likeliest, and last of the likeliest of the others. `picture` is
    uint8 RGB [H, W, 3], turned as its EXIF orientation says; `seen` is the part of it that fills the network's input.
    """

    source: str
    status: Literal["ok", "error"]
    maps: tuple[HeatMap, ...] = ()
    picture: Pixels | None = None
    seen: Rectangle | None = None
    error: str | None = None

    def heat(self, index: int = 0, size: Size | None = None) -> NDArray[np.float32]:
        """One of the maps spread over the picture: float32 [H, W], 1 at its hottest place, 0 where nothing is seen.

        With `size` (height, width) over the picture as it were with so many pixels. Raises `Error` for an input that
        could not be explained.
        """
        if self.picture is None or self.seen is None:
            raise Error(f"{self.source}: there is no heat map: {self.error}")
        return spread(self.maps[index].heat, self.seen, self.picture.shape[:2], size or self.picture.shape[:2])


def shares(relevance: NDArray[np.float32]) -> NDArray[np.float32]:
    """What is above 0 of a map, as shares of its hottest place; 0 throughout where nothing is."""
    positive = np.maximum(relevance, np.float32(0))
    return positive / max(positive.max(), np.finfo(np.float32).tiny)


def spread(
    values: NDArray[np.float32], seen: tuple[float, float, float, float], picture: Size, size: Size
) -> NDArray[np.float32]:
    """A map [h, w] of the part of a picture that was `seen`, over all of the picture drawn with `size` pixels.

    `seen` is such as a `Rectangle`. Linear between the centres of places; 0 where nothing is seen.
    """
    down, across = size[0] / picture[0], size[1] / picture[1]
    top, left, height, width = seen
    rows = _weights(size[0], values.shape[0], top * down, height * down)
    columns = _weights(size[1], values.shape[1], left * across, width * across)
    return rows @ values @ columns.T


def _weights(pixels: int, places: int, start: float, length: float) -> NDArray[np.float32]:
    """How much of each place is in each pixel of a side, [pixels, places]; the places share `length` from `start`."""
    at = (np.arange(pixels) + 0.5 - start) / length  # 0 to 1 where something is seen
    position = (at * places - 0.5).clip(0, places - 1)
    apart = np.abs(position[:, None] - np.arange(places))
    return ((1 - apart).clip(0) * ((at >= 0) & (at <= 1))[:, None]).astype(np.float32)
