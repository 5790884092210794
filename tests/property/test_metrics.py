"""The running counts agree with the plain definitions, whatever the data and however it is batched."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies._internal.random import ArtificialRandom
from numpy.typing import NDArray

from torchclas.metrics.single_label import BINS, Proportion, Tally


@st.composite
def scored(draw: Callable[..., Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Probabilities [N, C], many of them equal, and labels [N]."""
    num_classes = draw(st.integers(2, 12))
    images = draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights = random.integers(0, draw(st.integers(2, 9)), (images, num_classes)).astype(np.float64) ** 2
    weights[np.arange(images), random.integers(0, num_classes, images)] += 1  # no row of zeros
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32), random.integers(0, num_classes, images)


def tally_of(probabilities: NDArray[Any], labels: NDArray[Any], batch_size: int | None = None) -> Tally:
    tally = Tally(probabilities.shape[1])
    for start in range(0, len(labels), batch_size or len(labels)):
        stop = start + (batch_size or len(labels))
        tally.add(probabilities[start:stop], labels[start:stop])
    return tally


def ranking(row: NDArray[Any]) -> list[int]:
    return sorted(range(len(row)), key=lambda index: (-row[index], index))


def naive_ece(probabilities: NDArray[Any], labels: NDArray[Any]) -> float:
    edges = np.linspace(0, 1, BINS + 1)
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for row, label in zip(probabilities, labels, strict=True):
        confidence = float(max(row))
        place = next(i for i in range(BINS) if confidence <= edges[i + 1])
        bins[place].append((confidence, ranking(row)[0] == label))
    return sum(
        len(rows) / len(labels) * abs(sum(c for c, _ in rows) / len(rows) - sum(hit for _, hit in rows) / len(rows))
        for rows in bins
        if rows
    )


@settings(max_examples=150, deadline=None)
@given(scored())
def test_figures_are_those_of_the_plain_definitions(data: tuple[NDArray[Any], NDArray[Any]]) -> None:
    probabilities, labels = data
    tally = tally_of(probabilities, labels)
    pairs = list(zip(probabilities, labels, strict=True))

    assert tally.top1 == Proportion(sum(ranking(row)[0] == label for row, label in pairs), len(labels))
    if probabilities.shape[1] > 5:
        assert tally.top5 == Proportion(sum(label in ranking(row)[:5] for row, label in pairs), len(labels))
        assert tally.top5 is not None
        assert tally.top5.count >= tally.top1.count
    else:
        assert tally.top5 is None
    losses = [-math.log(max(float(row[label]), np.finfo(np.float32).tiny)) for row, label in pairs]
    assert tally.nll == pytest.approx(sum(losses) / len(losses), rel=1e-6, abs=1e-9)
    assert tally.ece == pytest.approx(naive_ece(probabilities, labels), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(scored(), st.integers(1, 50), st.randoms(use_true_random=False))
def test_neither_order_nor_batch_size_matters(
    data: tuple[NDArray[Any], NDArray[Any]], batch_size: int, random: ArtificialRandom
) -> None:
    probabilities, labels = data
    order = list(range(len(labels)))
    random.shuffle(order)
    one, other = tally_of(probabilities, labels), tally_of(probabilities[order], labels[order], batch_size)

    assert (one.images, one.top1, one.top5) == (other.images, other.top1, other.top5)
    assert one.confusion == other.confusion
    assert one.classes() == other.classes()
    assert [row.images for row in one.calibration] == [row.images for row in other.calibration]
    assert one.ece == pytest.approx(other.ece, abs=1e-12)
    assert one.nll == pytest.approx(other.nll, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(scored())
def test_the_classes_add_up_to_the_totals(data: tuple[NDArray[Any], NDArray[Any]]) -> None:
    probabilities, labels = data
    tally = tally_of(probabilities, labels)
    classes = tally.classes()
    predicted = np.array([ranking(row)[0] for row in probabilities])

    assert sum(row.support for row in classes) == sum(row.predicted for row in classes) == len(labels)
    assert sum(row.hits for row in classes) == tally.top1.count
    assert sum(row.images for row in tally.calibration) == len(labels)
    assert [row.index for row in classes] == sorted({*labels.tolist(), *predicted.tolist()})
    for row in classes:
        mistaken = predicted[(labels == row.index) & (predicted != row.index)]
        assert row.recall == (row.hits / row.support if row.support else None)
        assert row.precision == (row.hits / row.predicted if row.predicted else None)
        assert row.confused == (np.bincount(mistaken).max() if len(mistaken) else 0)
        assert row.confused_with == (np.bincount(mistaken).argmax() if len(mistaken) else None)


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_wilson_bounds_hold_the_proportion_and_stay_in_range(count: int, more: int) -> None:
    total = count + more
    for proportion in (Proportion(count, total), Proportion(total, total), Proportion(0, total)):
        low, high = proportion.interval
        assert 0 <= low <= proportion.value <= high <= 1
        assert low < high
        # The defining equation: a bound is where the proportion is 1.96 standard errors away.
        for bound in (low, high):
            distance = (proportion.value - bound) ** 2
            assert distance == pytest.approx(1.959963984540054**2 * bound * (1 - bound) / total, rel=1e-4, abs=1e-12)


def test_wilson_of_a_textbook_case() -> None:
    assert Proportion(8, 10).interval == pytest.approx((0.4902, 0.9433), abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers((n + 1) // 2, n))), min_size=1))
def test_calibrated_scores_have_no_calibration_error(groups: list[tuple[int, int]]) -> None:
    # In each group of n images, all scored k / n, exactly k are right.
    tally = Tally(2)
    for n, k in groups:
        score = np.float32(k / n)
        probabilities = np.tile(np.array([score, 1 - score], np.float32), (n, 1))
        tally.add(probabilities, np.array([0] * k + [1] * (n - k)))
    # A tie predicts class 0, too.
    assert tally.ece < 1e-6


def test_overconfidence_is_the_calibration_error() -> None:
    tally = Tally(2)
    tally.add(np.tile(np.array([0.9, 0.1], np.float32), (10, 1)), np.array([0] * 6 + [1] * 4))
    assert tally.ece == pytest.approx(0.3, abs=1e-6)


def test_an_empty_batch_changes_nothing() -> None:
    tally = Tally(7)
    tally.add(np.empty((0, 7), np.float32), np.empty(0, np.int64))
    assert tally.images == 0
    assert tally.top1.interval == (0.0, 1.0)
    assert math.isnan(tally.ece)
    assert tally.classes() == ()
