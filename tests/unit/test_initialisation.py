"""How layers of networks without a reference begin, as their published code has it."""

from __future__ import annotations

import subprocess
import sys
from math import sqrt

import pytest
import torch
from torch import nn

from torchclas import models
from torchclas.layers.network import Network


def fresh(arch: str) -> Network:
    torch.manual_seed(0)
    return models.build(arch, num_classes=500)


@pytest.mark.parametrize(
    ("arch", "bound"),
    [
        ("DPN68", 0.01),
        ("DenseNet121", sqrt(1 / 1024)),
        ("GoogLeNet", sqrt(3 / 1024)),
        ("HarDNet39_ds", sqrt(6 / (1024 + 500))),
        ("MixNet_S", sqrt(6 / (1536 + 500))),
        ("MobileNetV2_x0_25", sqrt(6 / (1280 + 500))),
    ],
)
def test_uniform_classifiers(arch: str, bound: float) -> None:
    network = fresh(arch)
    layer = network.classifier
    assert isinstance(layer, nn.Linear)
    assert layer.weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert layer.weight.std().item() == pytest.approx(bound / sqrt(3), rel=1e-2)
    assert not layer.bias.any()


def test_other_classes_begin_near_zero() -> None:
    network = fresh("GoogLeNet")
    network.reset_classifier(400)
    for layer in (network.classifier, network.classifier_aux1, network.classifier_aux2):
        assert isinstance(layer, nn.Linear)
        assert layer.weight.std().item() == pytest.approx(0.01, rel=1e-2)
        assert not layer.bias.any()


def test_a_classifier_that_was_published_as_a_convolution() -> None:
    layer = fresh("ReXNet_1_0").classifier
    assert isinstance(layer, nn.Linear)
    assert layer.weight.std().item() == pytest.approx(sqrt(2 / 1280), rel=1e-2)


def test_the_last_layer_of_transformers_is_cut_too() -> None:
    network = fresh("DeiT_tiny_distilled_patch16_224")
    for layer in (network.classifier, network.classifier_distilled):
        assert isinstance(layer, nn.Linear)
        assert 0.039 < layer.weight.abs().max().item() <= 0.04


def test_auxiliary_heads() -> None:
    network = fresh("GoogLeNet")
    layers = [module for head in (network.aux1, network.aux2) for module in head.modules()]  # pyright: ignore
    widths = [layer.weight.abs().max().item() for layer in layers if isinstance(layer, nn.Linear)]
    assert widths == pytest.approx([sqrt(3 / 2048)] * 2, rel=1e-3)


@pytest.mark.parametrize("arch", ["HarDNet39_ds", "MobileNetV2_x0_25", "ReXNet_1_0"])
def test_depthwise_convolutions_count_the_inputs_of_all_groups(arch: str) -> None:
    convs = [m for m in fresh(arch).modules() if isinstance(m, nn.Conv2d) and m.groups > 100]
    for conv in convs:
        assert conv.weight.std().item() == pytest.approx(sqrt(2 / conv.weight[:, 0].numel()), rel=0.15)
    assert len(convs) > 5


def test_on_the_meta_device_no_compiler_is_loaded() -> None:
    code = """
import sys, torch
from torchclas import models
for arch in ("PPLCNet_x0_25", "SwinTransformer_tiny_patch4_window7_224", "LeViT_128S", "GoogLeNet", "DPN68"):
    with torch.device("meta"):
        network = models.build(arch, num_classes=7)
    assert all(tensor.is_meta for tensor in (*network.parameters(), *network.buffers())), arch
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
