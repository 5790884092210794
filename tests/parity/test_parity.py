"""Logits equal to the reference's, for one small architecture of every family; `make parity` checks them all."""

from __future__ import annotations

import pytest

from tests.parity.check import check
from tests.parity.golden import cases
from torchclas import models

# The cheapest member of each family, and both layouts where a family has two.
FAST = [
    *(
        (arch, "current")
        for arch in (
            "AlexNet",
            "DLA46_c",
            "DPN68",
            "DarkNet53",
            "DeiT_tiny_distilled_patch16_224",
            "DenseNet121",
            "EfficientNetB0",
            "EfficientNetB0_small",
            "GhostNet_x0_5",
            "GoogLeNet",
            "HRNet_W18_C",
            "HarDNet39_ds",
            "InceptionV3",
            "InceptionV4",
            "LeViT_128S",
            "MixNet_S",
            "MobileNetV1_x0_25",
            "MobileNetV2_x0_25",
            "MobileNetV3_small_x0_35",
            "PPLCNet_x0_25",
            "ReXNet_1_0",
            "RedNet26",
            "RegNetX_4GF",
            "RepVGG_A0",
            "Res2Net50_vd_26w_4s",
            "ResNeSt50_fast_1s1x64d",
            "ResNeXt50_32x4d",
            "ResNet18_vd",
            "SE_ResNet18_vd",
            "ShuffleNetV2_x0_25",
            "SqueezeNet1_1",
            "SwinTransformer_tiny_patch4_window7_224",
            "TNT_small",
            "VGG11",
            "ViT_small_patch16_224",
            "Xception41",
            "Xception41_deeplab",
            "alt_gvt_small",
            "pcpvt_small",
        )
    ),
    *(
        (arch, "original")
        for arch in (
            "HRNet_W18_C",
            "InceptionV3",
            "MobileNetV1_x0_25",
            "MobileNetV3_small_x0_35",
            "ResNet18",
            "ResNet18_vd",
        )
    ),
]


@pytest.mark.parametrize(("arch", "layout"), FAST)
def test_logits_equal_the_reference(arch: str, layout: str) -> None:
    outcome = check(arch, layout)
    assert outcome.equal, outcome


def test_the_fast_choice_has_every_family() -> None:
    chosen = {models.family(arch) for arch, _ in FAST}
    assert chosen == {models.family(arch) for arch in models.architectures()}


def test_every_reference_is_built() -> None:
    assert {arch for arch, _ in cases()} <= set(models.architectures())
