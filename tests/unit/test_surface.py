"""Every architecture offers the same small surface; here one or two of each family, all of them in the sweep."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from tests.networks import REPRESENTATIVES, fresh
from tests.parity.golden import golden
from torchclas import models
from torchclas.errors import Error, ImageSizeError
from torchclas.layers.network import FeatureInfo, Network

# Their maps lose places at the borders.
UNPADDED = ("alexnet", "googlenet", "inception_v3", "inception_v4", "squeezenet")


def images(network: Network, size: int | None = None) -> torch.Tensor:
    """Of the usual size, where the graph takes several."""
    side = size or (network.input_size or (224, 224))[0]
    return torch.empty(2, network.in_channels, side, side, device="meta")


@pytest.mark.parametrize("arch", REPRESENTATIVES)
def test_surface(arch: str) -> None:
    check_surface(arch)
    check_parameter_count(arch)


def check_surface(arch: str) -> None:
    """With four input channels, as nothing but the first layer may mind them."""
    network = fresh(arch, "meta", num_classes=10, in_channels=4).eval()
    assert (network.arch, network.num_classes, network.in_channels) == (arch, 10, 4)
    image = images(network)
    last = network.forward_features(image)
    assert network.forward_head(last).shape == network(image).shape == (2, 10)
    assert network.forward_head(last, pre_logits=True).shape == (2, network.num_features)
    if type(network).forward_heads is not Network.forward_heads:
        assert {head.shape for head in network.forward_heads(image)} == {(2, 10)}

    maps = network.features(image)
    size = image.shape[-1]
    assert len(maps) == len(network.feature_info) >= 1
    for feature_map, info in zip(maps, network.feature_info, strict=True):
        assert isinstance(info, FeatureInfo)
        places = math.ceil(size / info.stride)
        assert feature_map.shape[:3] == (2, info.channels, feature_map.shape[3])
        if models.family(arch) in UNPADDED:
            assert places - 3 <= feature_map.shape[-1] < places
        else:
            assert feature_map.shape[-1] == places
    assert network.feature_sizes(size) == tuple(tuple(feature_map.shape[2:]) for feature_map in maps)
    strides = [info.stride for info in network.feature_info]
    assert strides == sorted(strides)

    least = network.input_size[0] if network.input_size else network.min_size
    if least != size:
        assert network(images(network, least)).shape == (2, 10)
    if least > 1:
        for run in (network, network.features, network.forward_heads):
            with pytest.raises(ImageSizeError, match=r"\d px.*resize"):
                run(images(network, least - 1))

    network.reset_classifier(7)
    assert network.num_classes == 7
    assert network.forward_head(last).shape == (2, 7)
    network.reset_classifier(0)
    assert network.forward_head(last).shape == (2, network.num_features)
    assert not any(map(corrupts_the_heap, network.modules()))


def check_parameter_count(arch: str) -> None:
    """Against the published checkpoint's tensors."""
    case = golden(arch)
    network = fresh(arch, "meta", num_classes=case.num_classes)
    published = sum(
        math.prod(shape)
        for name, shape, dtype in case.tensors
        if not name.endswith(("._mean", "._variance", ".attn_mask")) and "int" not in dtype
    )
    assert sum(parameter.numel() for parameter in network.parameters()) == published


def corrupts_the_heap(module: nn.Module) -> bool:
    """Whether its gradient in channels_last does on x86 (oneDNN's issue 6035, torch 2.15)."""
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.in_channels // module.groups < 16
    )


def test_sizes_of_maps_are_those_of_the_maps() -> None:
    """Of a network with weights, in training mode; nothing of it changes."""
    network = fresh("GoogLeNet", in_channels=1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    maps = network.features(torch.zeros(1, 1, 96, 128))
    assert network.feature_sizes(96, 128) == tuple(tuple(feature_map.shape[2:]) for feature_map in maps)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert fresh("LeViT_128S").feature_sizes(224) == ((14, 14), (7, 7), (4, 4))
    with pytest.raises(ImageSizeError):
        network.feature_sizes(60)


def test_auxiliary_heads_need_larger_images() -> None:
    network = fresh("GoogLeNet", "meta")
    assert [head.shape for head in network.forward_heads(images(network, 93))] == [(2, 4)] * 3
    with pytest.raises(ImageSizeError, match="at least 93 px"):
        network.forward_heads(images(network, 92))
    assert network(images(network, 92)).shape == (2, 4)


@pytest.mark.filterwarnings("ignore")  # torch says that TorchScript is deprecated, and what a trace holds fixed
@pytest.mark.parametrize("arch", ["PPLCNet_x0_25", "LeViT_128S"])
def test_torchscript_is_traced_not_scripted(arch: str) -> None:
    network = fresh(arch).eval()
    side = network.input_size[0] if network.input_size else 64
    with pytest.raises(Error, match=r"torch\.jit\.trace"):
        torch.jit.script(network)
    with torch.no_grad():
        traced: Any = torch.jit.trace(network, torch.zeros(1, 3, side, side), check_trace=False)
        images = torch.randn(3, 3, side, side)
        assert torch.equal(traced(images), network(images))


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
