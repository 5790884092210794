"""The nearest of many vectors, all of which are compared, block by block, in memory that does not grow with them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Indices = NDArray[np.int64]

ROWS = 65_536  # of a block: the products of a few queries with so many take less time than reading them
PRODUCTS = 2**24  # at once: 64 MiB
QUERIES = 256  # at once


def nearest(vectors: Vectors, queries: Vectors, count: int) -> tuple[Vectors, Indices]:
    """The `count` vectors with the largest products with each query (or all of them), the largest first.

    Returns the products and the places of the vectors, [queries, count] each; of equal ones the first comes first.
    Vectors of unit length, [N, dimension] and [queries, dimension], have the cosine of their angle for a product.
    """
    count = min(count, len(vectors))
    products = np.empty((len(queries), count), np.float32)
    places = np.empty((len(queries), count), np.int64)
    for start in range(0, len(queries), QUERIES):
        some = slice(start, start + QUERIES)
        products[some], places[some] = _nearest(vectors, queries[some], count)
    return products, places


def _nearest(vectors: Vectors, queries: Vectors, count: int) -> tuple[Vectors, Indices]:
    best = np.empty((len(queries), 0), np.float32)
    where = np.empty((len(queries), 0), np.int64)
    rows = max(1, min(ROWS, PRODUCTS // max(1, len(queries))))
    for start in range(0, len(vectors), rows):
        products = queries @ vectors[start : start + rows].T
        places = _largest(products, count)
        best = np.concatenate([best, np.take_along_axis(products, places, 1)], axis=1)
        where = np.concatenate([where, places + start], axis=1)
        order = _largest(best, count)
        best, where = np.take_along_axis(best, order, 1), np.take_along_axis(where, order, 1)
    return best, where


def _largest(values: Vectors, count: int) -> Indices:
    """The places of the largest values in each row, largest first; of equal ones the first."""
    if count >= values.shape[1]:
        return np.argsort(-values, axis=1, kind="stable")
    least = np.partition(values, -count, axis=1)[:, -count]
    places = np.empty((len(values), count), np.int64)
    for row, (line, bound) in enumerate(zip(values, least, strict=True)):
        candidates = np.flatnonzero(line >= bound)  # more than `count` where some are equal
        places[row] = candidates[np.argsort(-line[candidates], kind="stable")[:count]]
    return places
