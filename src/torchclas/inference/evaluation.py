"""What was measured of a model on labelled images."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torchclas.catalog import Preset
from torchclas.metrics.multi_label import Figures
from torchclas.metrics.single_label import ClassCounts, ConfidenceBin, Proportion
from torchclas.version import __version__


@dataclass(frozen=True)
class EvaluationReport:
    """What was measured, on what. The figures are over the `images` that could be read; `unreadable` lists the others.

    `nll` is in nats, `ece` in 0..1; `top5` is None for five classes or fewer. Of a model that gives an image any number
    of classes, `multi_label` has the figures, and those of one class per image are of none. `classes` are those that
    occur, as label or as prediction; `class_ids` and `class_names` are all of the model's. `written` are the files.
    """

    data: str
    model: str
    arch: str
    weights: str
    engine: str
    preset: Preset
    samples: int
    images: int
    unreadable: tuple[tuple[str, str], ...]
    top1: Proportion
    top5: Proportion | None
    nll: float
    ece: float
    calibration: tuple[ConfidenceBin, ...]
    classes: tuple[ClassCounts, ...] = field(repr=False)
    class_ids: tuple[str, ...] = field(repr=False)
    class_names: tuple[str, ...] = field(repr=False)
    seconds: float
    notes: tuple[str, ...]
    written: tuple[Path, ...] = ()
    multi_label: Figures | None = None

    @property
    def complete(self) -> bool:
        """Whether every image could be read."""
        return not self.unreadable

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; the tables of classes and of unreadable images are files of their own."""
        if self.multi_label is not None:
            return {**self._facts(), **_multi_label(self.multi_label)}
        return {
            **self._facts(),
            "top1": _proportion(self.top1),
            "top5": None if self.top5 is None else _proportion(self.top5),
            "nll": self.nll,
            "ece": self.ece,
            "calibration": [asdict(row) for row in self.calibration],
        }

    def _facts(self) -> dict[str, Any]:
        return {
            "torchclas": __version__,
            "data": self.data,
            "model": self.model,
            "arch": self.arch,
            "weights": self.weights,
            "engine": self.engine,
            "preset": self.preset.to_dict(),
            "samples": self.samples,
            "images": self.images,
            "unreadable": len(self.unreadable),
            "complete": self.complete,
            "seconds": self.seconds,
            "notes": list(self.notes),
        }


def _multi_label(figures: Figures) -> dict[str, Any]:
    means = {
        "mean_average_precision": figures.mean_average_precision,
        "mean_f1": figures.mean_f1,
        "mean_accuracy": figures.mean_accuracy,
    }
    return {
        **{name: None if math.isnan(value) else value for name, value in means.items()},
        "exact": figures.exact,
        "thresholds": [row.threshold for row in figures.classes],
    }


def _proportion(proportion: Proportion) -> dict[str, object]:
    return {"value": proportion.value, "interval_95": list(proportion.interval), **asdict(proportion)}
