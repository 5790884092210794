"""What PaddleClas's own code measures of scores [N, classes]; runs in an environment that has it (`make peers`).

    python paddle_metrics_peer.py SCORES_AND_LABELS.npz

prints the figures as JSON. Scores reach a threshold there if they are above 0.5.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np  # before paddle 2.6, which crashes otherwise
from paddleclas.ppcls.utils import metrics, misc  # pyright: ignore[reportMissingImports]


def counts(scores: Any, labels: Any) -> dict[str, Any]:
    """What its meter of attributes is told of a batch: of each class, and of each image."""
    said, true = scores > 0.5, labels > 0
    found = {
        "gt_pos": true.sum(0),
        "gt_neg": (~true).sum(0),
        "true_pos": (true & said).sum(0),
        "true_neg": (~true & ~said).sum(0),
        "false_pos": (~true & said).sum(0),
        "false_neg": (true & ~said).sum(0),
        "gt_pos_ins": true.sum(1),
        "true_pos_ins": said.sum(1),
        "intersect_pos": (true & said).sum(1),
        "union_pos": (true | said).sum(1),
    }
    return {name: values.astype(float) for name, values in found.items()}


def run(path: str) -> None:
    file = np.load(path)
    scores, labels = file["scores"], file["labels"]
    said = metrics.multi_hot_encode(scores)
    precision, recall, f1 = metrics.precision_recall_fscore(said, labels)
    meter = misc.AttrMeter(threshold=0.5)
    meter.update(counts(scores, labels))
    print(
        json.dumps(
            {
                "hamming": float(metrics.hamming_distance(said, labels)),
                "exact": float(metrics.accuracy_score(said, labels, base="sample")),
                "label_accuracy": float(metrics.accuracy_score(said, labels, base="label")),
                "map": float(metrics.mean_average_precision(scores, labels)),
                "precision": precision.tolist(),
                "recall": recall.tolist(),
                "f1": f1.tolist(),
                "ma": float(meter.res()[0]),
            }
        )
    )


run(sys.argv[1])
