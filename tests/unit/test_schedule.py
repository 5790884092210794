"""Learning rates that PaddlePaddle 2.6.2's own schedulers gave, set up as PaddleClas sets them up."""

import pytest

from torchclas.recipes import Schedule, recipe
from torchclas.training.schedule import learning_rate

STEPS = (0.1, 0.01, 0.001, 0.0001)


@pytest.mark.parametrize(
    ("schedule", "lr", "epochs", "steps_per_epoch", "published"),
    [
        (
            Schedule("linear", warmup_epochs=1, min_lr=0.01),
            *(0.1, 10, 10),
            {0: 0.0, 3: 0.03, 9: 0.09, 10: 0.1, 55: 0.055, 99: 0.011},
        ),
        (
            Schedule(),
            *(0.1, 200, 5),
            {0: 0.1, 1: 0.09999975326009292, 137: 0.09543998411780197, 500: 0.05, 998: 9.869571931442335e-07},
        ),
        (
            Schedule(warmup_epochs=5),
            *(0.8, 360, 4),
            {0: 0, 1: 0.04, 19: 0.76, 20: 0.8, 21: 0.7999990210672113, 500: 0.5948691375843186, 1439: 9.7893278865e-07},
        ),
        (
            Schedule(warmup_epochs=5, warmup_lr=1e-6, min_lr=1e-5),
            *(1e-3, 300, 4),
            {
                0: 1e-6,
                1: 5.095e-5,
                19: 9.5005e-4,
                20: 1e-3,
                21: 9.999982456724745e-4,
                610: 5.05e-4,
                1199: 1.00017543e-5,
            },
        ),
        (
            Schedule(warmup_epochs=2, warmup_lr=0.02, min_lr=0.001),
            *(0.1, 10, 10),
            {0: 0.02, 12: 0.068, 19: 0.096, 20: 0.1, 21: 0.09996183729391579, 99: 0.0010381627060842165},
        ),
        (
            Schedule("piecewise", milestones=(30, 60, 90), values=STEPS),
            *(0.1, 120, 5),
            {0: 0.1, 149: 0.1, 150: 0.01, 299: 0.01, 300: 0.001, 449: 0.001, 450: 0.0001, 599: 0.0001},
        ),
        (
            Schedule("piecewise", warmup_epochs=2, warmup_lr=0.01, milestones=(3, 6, 9), values=STEPS),
            *(0.1, 12, 5),
            {0: 0.01, 5: 0.055, 9: 0.091, 10: 0.1, 24: 0.1, 25: 0.01, 39: 0.01, 40: 0.001, 54: 0.001, 55: 0.0001},
        ),
    ],
    ids=["linear", "cosine", "mobile", "transformer", "short", "steps", "steps after warm-up"],
)
def test_equals_paddle(
    schedule: Schedule, lr: float, epochs: int, steps_per_epoch: int, published: dict[int, float]
) -> None:
    ours = {step: learning_rate(schedule, lr, step, steps_per_epoch, epochs) for step in published}
    assert ours == pytest.approx(published, rel=1e-6, abs=1e-15)


def test_what_counts_of_the_values_is_their_ratio() -> None:
    schedule = recipe("ResNet50").schedule
    assert learning_rate(schedule, 0.4, 30 * 7, 7, 120) == pytest.approx(0.04)


@pytest.mark.parametrize("name", ["ResNet50", "PPLCNet_x1_0", "DeiT_tiny_patch16_224", "finetune"])
@pytest.mark.parametrize("steps_per_epoch", [1, 3, 1000])
def test_is_never_above_the_optimizers(name: str, steps_per_epoch: int) -> None:
    found = recipe(name)
    last = found.epochs * steps_per_epoch
    rates = [
        learning_rate(found.schedule, found.optimizer.lr, step, steps_per_epoch, found.epochs)
        for step in range(0, last + 1, max(1, last // 500))
    ]
    assert max(rates) == pytest.approx(found.optimizer.lr, rel=0.01)
    assert max(rates) <= found.optimizer.lr
    assert min(rates) >= 0


def test_stays_at_the_end() -> None:
    schedule = Schedule(min_lr=0.01)
    assert [learning_rate(schedule, 0.1, step, 10, 2) for step in (20, 21, 40)] == [0.01] * 3


def test_half_an_epoch_of_warm_up() -> None:
    schedule = Schedule(warmup_epochs=0.5)
    assert [learning_rate(schedule, 1.0, step, 8, 2) for step in range(5)] == [0, 0.25, 0.5, 0.75, 1.0]
