"""The learning rate at every step, as PaddlePaddle's schedulers have it."""

from __future__ import annotations

import math
from bisect import bisect_right

from torchclas.recipes import Schedule


def learning_rate(schedule: Schedule, lr: float, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The learning rate of the optimizer's step number `step`, counted from 0 over all epochs.

    `lr` is where the warm-up ends. What follows the warm-up starts from there: a cosine or a line spans the steps that
    are left, and milestones are counted from its end.
    """
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return schedule.warmup_lr + (lr - schedule.warmup_lr) * step / warmup
    step -= warmup
    if schedule.name == "piecewise":
        passed = bisect_right(schedule.milestones, step / steps_per_epoch)
        return lr * (schedule.values[passed] / schedule.values[0])
    progress = min(1.0, step / max(1, epochs * steps_per_epoch - warmup))
    if schedule.name == "linear":
        return lr + (schedule.min_lr - lr) * progress
    return schedule.min_lr + (lr - schedule.min_lr) * (1 + math.cos(math.pi * progress)) / 2
