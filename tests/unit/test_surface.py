"""Every architecture offers the same small surface."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.parity.golden import cases, golden
from torchclas import models
from torchclas.layers.network import FeatureInfo, Network

ARCHITECTURES = models.architectures()
REFERENCED = sorted({arch for arch, _ in cases()} & set(ARCHITECTURES))


def on_meta(arch: str, **fields: int) -> Network:
    with torch.device("meta"):
        return models.build(arch, **fields).eval()


def meta_image(arch: str, channels: int = 3) -> torch.Tensor:
    size = golden(arch).input_shape[-1] if arch in REFERENCED else 224
    return torch.empty(2, channels, size, size, device="meta")


@pytest.mark.parametrize("arch", REFERENCED)
def test_parameter_count_is_the_published_checkpoint_s(arch: str) -> None:
    case = golden(arch)
    network = on_meta(arch, num_classes=case.num_classes)
    published = sum(
        math.prod(shape)
        for name, shape, dtype in case.tensors
        if not name.endswith(("._mean", "._variance", ".attn_mask")) and "int" not in dtype
    )
    assert sum(parameter.numel() for parameter in network.parameters()) == published


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_surface(arch: str) -> None:
    network, image = on_meta(arch), meta_image(arch)
    last = network.forward_features(image)
    assert network.forward_head(last).shape == network(image).shape == (2, 1000)
    assert network.forward_head(last, pre_logits=True).shape == (2, network.num_features)
    assert network.forward_heads(image)[0].shape == (2, 1000)

    maps = network.features(image)
    size = image.shape[-1]
    assert len(maps) == len(network.feature_info) >= 1
    for feature_map, info in zip(maps, network.feature_info, strict=True):
        assert isinstance(info, FeatureInfo)
        assert feature_map.shape[:2] == (2, info.channels)
        # valid (unpadded) convolutions lose a few pixels
        assert size / info.stride - 4 <= feature_map.shape[-1] <= size / info.stride + 1
    strides = [info.stride for info in network.feature_info]
    assert strides == sorted(strides)

    network.reset_classifier(7)
    assert network.num_classes == 7
    assert network(image).shape == (2, 7)
    network.reset_classifier(0)
    assert network(image).shape == (2, network.num_features)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_other_numbers_of_channels(arch: str) -> None:
    network = on_meta(arch, in_channels=4, num_classes=10)
    assert network.in_channels == 4
    assert network(meta_image(arch, channels=4)).shape == (2, 10)


def test_a_misspelled_argument_raises() -> None:
    with pytest.raises(TypeError):
        models.build("PPLCNet_x0_25", num_clases=10)  # pyright: ignore[reportCallIssue]


def test_gradient_checkpointing_changes_no_gradient() -> None:
    torch.manual_seed(0)
    network = models.build("ResNet18", num_classes=5)
    image = torch.randn(2, 3, 32, 32)

    def gradients(enabled: bool) -> list[torch.Tensor]:
        for module in network.modules():  # a second pass through a stage must not see other statistics
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
        network.zero_grad()
        network.set_gradient_checkpointing(enabled)
        network(image).square().sum().backward()
        return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]

    for one, other in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(one, other)
