"""One training step, and what fresh networks are made of, equal PaddleClas's: a few here, all of them in the sweep."""

from __future__ import annotations

import pytest

from tests.parity.training import check_fresh_parameters, step

# Convolutions, squeeze-and-excitation, attention over tokens and over maps.
STEPS = ("DeiT_tiny_patch16_224", "LeViT_128S", "MobileNetV3_large_x1_0", "SE_ResNet18_vd")
# One of each rule that is cheap to build.
FRESH = (
    "DLA60x_c",
    "DeiT_tiny_patch16_224",
    "EfficientNetB0",
    "GhostNet_x1_0",
    "LeViT_128S",
    "MobileNetV1",
    "ResNeXt50_32x4d",
    "SqueezeNet1_1",
    "alt_gvt_small",
)


@pytest.mark.parametrize("arch", STEPS)
def test_one_step_equals_the_reference(arch: str) -> None:
    errors = step(arch)
    assert errors.equal, errors


@pytest.mark.parametrize("arch", FRESH)
def test_fresh_parameters_are_distributed_as_published(arch: str) -> None:
    check_fresh_parameters(arch)
