"""Draw how a training run went, for slides and papers. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from torchclas.atomic import atomic_path
from torchclas.training.loop import Epoch

LARGE_RANGE = 30  # of losses: drawn on a logarithmic scale


def has_large_range(history: Sequence[Epoch]) -> bool:
    """Whether a bad start would flatten all the rest of a chart of the losses."""
    losses = [value for row in history for value in (row.train_loss, row.val_loss) if value > 0]
    return bool(losses) and max(losses) > LARGE_RANGE * min(losses)


def top5(history: Sequence[Epoch]) -> list[float]:
    """Top-5 in percent, of each epoch; none where it says nothing, as of five classes or fewer."""
    values = [100 * row.val_top5 for row in history if row.val_top5 is not None]
    return values if any(value < 100 for value in values) else []


def draw_curves(history: Sequence[Epoch], paths: Iterable[Path]) -> None:
    """Loss, accuracy and learning rate over the epochs, one file for each path. Needs matplotlib."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [row.epoch for row in history]
    marker = "o" if len(epochs) < 40 else None
    best = max(history, key=lambda row: (row.score, -row.val_loss))
    with mpl.rc_context({"font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "svg.hashsalt": "torchclas"}):
        figure = Figure(figsize=(13, 4), layout="constrained")
        loss, accuracy, rate = figure.subplots(1, 3)
        loss.plot(epochs, [row.train_loss for row in history], label="training", marker=marker, markersize=3)
        loss.plot(epochs, [row.val_loss for row in history], label="validation", marker=marker, markersize=3)
        loss.set(title="Loss", xlabel="epoch")
        if has_large_range(history):
            loss.set_yscale("log")
        loss.legend()
        accuracy.plot(epochs, [100 * row.score for row in history], label=best.score_name, marker=marker, markersize=3)
        if fifths := top5(history):
            accuracy.plot(epochs, fifths, label="top-5", marker=marker, markersize=3)
        accuracy.plot(best.epoch, 100 * best.score, "*", color="tab:red", markersize=12,
                      label=f"best: {100 * best.score:.2f} %, epoch {best.epoch}")  # fmt: skip
        accuracy.set(title="On the validation images (%)", xlabel="epoch")
        accuracy.legend(loc="lower right")
        rate.plot(epochs, [row.lr for row in history], marker=marker, markersize=3, color="tab:green")
        rate.set(title="Learning rate at the epoch's end", xlabel="epoch", ylim=(0, None))
        for axes in (loss, accuracy, rate):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for path in paths:
            with atomic_path(path) as temporary:
                figure.savefig(temporary, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
