"""Pictures that look the same: a 64-bit perceptual hash, and all groups of near hashes without comparing all pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from torchclas.data.decode import Pixels

Hashes = npt.NDArray[np.uint64]

NEAR = 4  # of 64 bits: other sizes, formats and qualities of a picture differ in fewer
FLAT = 4.0  # standard deviation of intensities (of 255) below which a picture has no structure to be recognised by
COMPARED = 2**22  # pairs at once


def perceptual_hash(pixels: Pixels) -> int | None:
    """Return the pHash of RGB pixels [H, W, 3], or None for a flat picture, whose hash would be noise.

    It says which of the 64 lowest frequencies of a 32 × 32 thumbnail are above their median.
    """
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    thumbnail = cv2.resize(gray, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    if thumbnail.std() < FLAT:
        return None
    frequencies = cv2.dct(thumbnail)[:8, :8].ravel()
    bits = frequencies > np.median(frequencies[1:])  # without the mean intensity
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_groups(hashes: Sequence[int], distance: int = NEAR) -> list[list[int]]:
    """Return the groups of two or more places whose hashes are linked by steps of at most `distance` bits.

    Two hashes that differ in d bits agree in at least one of d + 1 bands, so only those that share one are compared.
    """
    if not hashes:
        return []
    unique, group_of = np.unique(np.array(hashes, np.uint64), return_inverse=True)
    root = _roots(len(unique), _near_pairs(unique, distance))
    return _groups(root[group] for group in group_of.ravel().tolist())


def linked(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return the groups of two or more of so many places that pairs of places link, directly or by others."""
    return _groups(_roots(count, pairs))


def _near_pairs(hashes: Hashes, distance: int) -> Iterator[tuple[int, int]]:
    edges = np.linspace(0, 64, distance + 2).astype(int).tolist()
    for low, high in pairwise(edges):
        band = (hashes >> np.uint64(low)) & np.uint64(2 ** (high - low) - 1)
        order = np.argsort(band, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(band[order])) + 1):
            rows = max(1, COMPARED // len(bucket))
            for start in range(0, len(bucket) - 1, rows):
                some, rest = bucket[start : start + rows], bucket[start:]
                differing = count_bits(hashes[some][:, None] ^ hashes[rest][None, :])
                for row, column in np.argwhere(np.triu(differing <= distance, 1)).tolist():
                    yield int(some[row]), int(rest[column])


def count_bits(values: Hashes) -> Hashes:
    """How many bits of each 64-bit value are set (numpy 2 has `bitwise_count`)."""
    ones = [np.uint64(int(pattern * (16 // len(pattern)), 16)) for pattern in ("5", "3", "0f")]
    one, two, four = (np.uint64(shift) for shift in (1, 2, 4))
    values = values - ((values >> one) & ones[0])  # per 2 bits
    values = (values & ones[1]) + ((values >> two) & ones[1])  # per 4 bits
    values = (values + (values >> four)) & ones[2]  # per byte
    return (values * np.uint64(0x0101010101010101)) >> np.uint64(56)


def _roots(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """What stands for the group of each place."""
    parents = list(range(count))
    for first, second in pairs:
        parents[_root(parents, first)] = _root(parents, second)
    return [_root(parents, place) for place in range(count)]


def _groups(roots: Iterable[int]) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for place, root in enumerate(roots):
        groups.setdefault(root, []).append(place)
    return [group for group in groups.values() if len(group) > 1]


def _root(parents: list[int], node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]  # shortens the way for those who come later
        node = parents[node]
    return node
