"""What the surface test does not see of ViT, DeiT and Swin: other input sizes, two heads, masks of shifted windows."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from torchclas import models
from torchclas.layers.patch import from_windows, resize_position_embedding, to_windows
from torchclas.models.swin_transformer import WindowAttention


@pytest.mark.parametrize(
    ("arch", "multiple"),
    [
        ("DeiT_tiny_distilled_patch16_224", 16),
        ("ViT_base_patch32_384", 32),
        ("SwinTransformer_tiny_patch4_window7_224", 32),
    ],
)
def test_other_input_sizes(arch: str, multiple: int) -> None:
    with torch.device("meta"):
        network, image = models.build(arch), torch.empty(1, 3, 256, 256)
        with pytest.raises(ValueError, match="set_input_size"):
            network(image)
        with pytest.raises(ValueError, match=f"multiples of {multiple} px"):
            network.set_input_size(257)
        network.set_input_size(256)
        assert network(image).shape == (1, 1000)
        for feature_map, info in zip(network.features(image), network.feature_info, strict=True):
            assert feature_map.shape == (1, info.channels, 256 // info.stride, 256 // info.stride)


@pytest.mark.parametrize("arch", ["DeiT_tiny_distilled_patch16_224", "SwinTransformer_tiny_patch4_window7_224"])
def test_the_same_input_size_changes_nothing(arch: str) -> None:
    torch.manual_seed(0)
    network = models.build(arch).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.set_input_size(224)
    after = network.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor)


def test_interpolated_positions_stay_in_place() -> None:
    rows, columns = torch.meshgrid(torch.arange(14.0), torch.arange(14.0), indexing="ij")
    embedding = torch.cat((torch.tensor([[-1.0, -2.0]]), torch.stack((rows, columns), -1).flatten(0, 1)))[None]
    resized = resize_position_embedding(embedding, (14, 14), (28, 28), prefix=1)[0]
    torch.testing.assert_close(resized[0], torch.tensor([-1.0, -2.0]))
    inner = resized[1:].unflatten(0, (28, 28))[6:22, 6:22]
    expected = (torch.arange(6, 22) + 0.5) / 2 - 0.5
    torch.testing.assert_close(inner[..., 0], expected[:, None].expand(16, 16))
    torch.testing.assert_close(inner[..., 1], expected.expand(16, 16))


def test_a_distilled_network_averages_its_heads() -> None:
    torch.manual_seed(0)
    network = models.build("DeiT_tiny_distilled_patch16_224", num_classes=5).eval()
    image = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        one, other = network.forward_heads(image)
        assert not torch.equal(one, other)
        torch.testing.assert_close(network(image), (one + other) / 2)


def test_windows_come_back() -> None:
    x = torch.arange(2 * 8 * 8 * 3.0).view(2, 8, 8, 3)
    windows = to_windows(x, 4)
    torch.testing.assert_close(windows[1, 2], x[1, 4:8, 0:4].flatten(0, 1))
    torch.testing.assert_close(from_windows(windows, 4, 8), x)


def test_shifted_windows_hide_places_that_only_wrapping_made_neighbours() -> None:
    side, window = 14, 7
    attention = WindowAttention(8, 2, side, window, shifted=True)
    assert attention.mask is not None
    shift = window // 2
    original = [((row + shift) % side, (column + shift) % side) for row, column in product(range(side), repeat=2)]
    places = to_windows(torch.tensor(original).view(1, side, side, 2), window)[0]
    apart = (places[:, :, None] - places[:, None, :]).abs().amax(-1) >= window
    assert torch.equal(attention.mask == -100, apart)
    assert torch.equal(attention.mask == 0, ~apart)


def test_one_window_over_the_whole_map_has_nothing_to_shift() -> None:
    assert WindowAttention(8, 2, 7, 7, shifted=True).mask is None
