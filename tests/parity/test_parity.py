"""Logits equal to the reference's, for a small architecture of every family; `make parity` has all, and in full."""

from __future__ import annotations

import pytest

from tests.networks import REPRESENTATIVES
from tests.parity.check import check
from tests.parity.golden import cases
from torchclas import models

# Both layouts where a family has two.
FAST = [
    *((arch, "current") for arch in REPRESENTATIVES),
    *(
        (arch, "original")
        for arch in (
            "MobileNetV1_x0_25",
            "MobileNetV3_small_x0_35",
            "ResNet18",
            "ResNet18_vd",
        )
    ),
]


@pytest.mark.parametrize(("arch", "layout"), FAST)
def test_logits_equal_the_reference(arch: str, layout: str) -> None:
    outcome = check(arch, layout, quick=True)
    assert outcome.errors
    assert outcome.equal, outcome


def test_the_fast_choice_has_every_family() -> None:
    chosen = {models.family(arch) for arch, _ in FAST}
    assert chosen == {models.family(arch) for arch in models.architectures()}


def test_every_reference_is_built() -> None:
    assert {arch for arch, _ in cases()} <= set(models.architectures())
