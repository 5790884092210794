"""Figures for several classes per image are those of scikit-learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sklearn

from torchclas.metrics.multi_label import best_thresholds, figures, mean_average_precision, recall_at

SK: Any = sklearn


@pytest.mark.parametrize("max_fpr", [0.001, 0.01, 0.2])
def test_recall_at_a_false_positive_rate_is_paddleclass(max_fpr: float) -> None:
    """Its `TprAtFpr`: of 10,000 thresholds, whose scores are above them; here scores lie between these."""
    rng = np.random.default_rng(0)
    positive = rng.random(400) < 0.3
    scores = np.round(np.clip(rng.normal(0.35 + 0.3 * positive, 0.15), 0.0001, 0.9998), 4) + 0.00005
    best = 0.0
    for threshold in np.arange(10_000) / 10_000:
        if (scores[~positive] > threshold).mean() <= max_fpr:
            best = max(best, float((scores[positive] > threshold).mean()))
    assert recall_at(max_fpr, scores, positive) == pytest.approx(best, abs=1e-12)


def drawn(seed: int, images: int = 60, classes: int = 7, *, steps: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scores, of few different values with `steps`, and labels."""
    rng = np.random.default_rng(seed)
    scores = rng.random((images, classes))
    if steps:
        scores = np.round(scores * steps) / steps
    labels = (rng.random((images, classes)) < rng.random(classes) * 0.6 + 0.05).astype(np.int64)
    return scores, labels


@given(st.integers(0, 10_000), st.integers(0, 8), st.sampled_from([np.float32, np.float64]))
@settings(max_examples=30, deadline=None)
def test_equal_to_scikit_learn(seed: int, steps: int, dtype: type[Any]) -> None:
    scores, labels = drawn(seed, steps=steps)
    scores = scores.astype(dtype)
    thresholds = np.random.default_rng(seed + 1).random(labels.shape[1])
    made = figures(scores, labels, thresholds)
    predicted = scores >= thresholds.astype(dtype)
    present: NDArray[np.bool_] = labels.max(0) > 0
    expected = [SK.average_precision_score(labels[:, k], scores[:, k]) for k in np.flatnonzero(present)]
    assert made.mean_average_precision == pytest.approx(np.mean(expected), abs=1e-9)
    assert made.exact == pytest.approx(SK.accuracy_score(labels, predicted), abs=1e-9)
    assert made.label_accuracy == pytest.approx(1 - SK.hamming_loss(labels, predicted), abs=1e-9)
    for row, k in zip(made.classes, range(labels.shape[1]), strict=True):
        if not present[k]:
            assert row.average_precision is row.recall is row.f1 is None
            continue
        assert row.recall == pytest.approx(SK.recall_score(labels[:, k], predicted[:, k]), abs=1e-9)
        assert row.f1 == pytest.approx(SK.f1_score(labels[:, k], predicted[:, k], zero_division=0), abs=1e-9)
        if row.predicted:
            assert row.precision == pytest.approx(SK.precision_score(labels[:, k], predicted[:, k]), abs=1e-9)
        else:
            assert row.precision is None


@given(st.integers(0, 10_000), st.integers(0, 8))
@settings(max_examples=30, deadline=None)
def test_no_threshold_has_a_higher_f1(seed: int, steps: int) -> None:
    scores, labels = drawn(seed, images=30, classes=3, steps=steps)
    chosen = figures(scores, labels, best_thresholds(scores, labels))
    for row, k in zip(chosen.classes, range(3), strict=True):
        if row.f1 is None:
            assert row.threshold == 0.5
            continue
        every = [SK.f1_score(labels[:, k], scores[:, k] >= value) for value in np.unique(scores[:, k])]
        assert row.f1 == pytest.approx(max(every), abs=1e-9)


def test_recall_at_a_false_positive_rate() -> None:
    rng = np.random.default_rng(3)
    labels = np.zeros((4000, 1), np.int64)
    labels[:500] = 1
    scores = rng.normal(labels * 2.0, 1.0)
    false, true, _ = SK.roc_curve(labels[:, 0], scores[:, 0], drop_intermediate=False)
    (row,) = figures(scores, labels).classes
    assert row.recall_at_fpr == pytest.approx(true[false <= 1e-3].max(), abs=1e-9)


def test_mean_accuracy_weighs_rare_classes_alike() -> None:
    labels = np.array([[1, 0], [0, 1], [0, 1], [0, 0]])
    scores = np.array([[0.9, 0.1], [0.2, 0.9], [0.8, 0.2], [0.1, 0.1]])
    made = figures(scores, labels)
    assert made.mean_accuracy == pytest.approx(((1 + 2 / 3) / 2 + (1 / 2 + 1) / 2) / 2)
    assert made.exact == 0.75


def test_nothing_to_measure() -> None:
    made = figures(np.empty((0, 2)), np.empty((0, 2), np.int64))
    assert made.images == 0
    assert math.isnan(made.mean_average_precision)
    assert math.isnan(mean_average_precision(np.ones((2, 1)), np.zeros((2, 1), np.int64)))


def test_shapes_and_numbers_are_checked() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\) scores"):
        figures(np.ones((2, 2)), np.ones((2, 3), np.int64))
    with pytest.raises(ValueError, match="not a number"):
        figures(np.full((1, 1), np.nan), np.ones((1, 1), np.int64))
