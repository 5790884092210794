"""Backbones: maps of every architecture, and what torchvision and segmentation_models_pytorch make of them."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

import torchclas
from tests.networks import fresh
from torchclas.backbone import Backbone
from torchclas.errors import Error, ImageSizeError

DOCS = Path(__file__).parents[2] / "docs"
ENGLISH, CHINESE = DOCS / "backbone.md", DOCS / "backbone.zh-CN.md"


# Each way of making maps; tests/sweep has all architectures.
KINDS = (
    "AlexNet", "DLA46_c", "DeiT_tiny_distilled_patch16_224", "GoogLeNet", "HRNet_W18_C", "LeViT_128S", "PPLCNet_x0_25",
    "SwinTransformer_tiny_patch4_window7_224", "TNT_small", "Xception41_deeplab", "alt_gvt_small",
)  # fmt: skip


@pytest.mark.parametrize("arch", KINDS)
def test_maps(arch: str) -> None:
    check_maps(arch)


def check_maps(arch: str) -> None:
    """With four input channels; all maps, and then the coarsest but one alone."""
    network = fresh(arch, "meta", in_channels=4)
    expected = network.feature_info
    side = (network.input_size or (224, 224))[0]
    image = torch.empty(2, 4, side, side, device="meta")
    backbone = Backbone(network)
    maps = backbone(image)
    assert [feature_map.shape[:2] for feature_map in maps] == [(2, channels) for channels in backbone.channels]
    assert [tuple(feature_map.shape[2:]) for feature_map in maps] == list(backbone.sizes(side))
    for feature_map, stride in zip(maps, backbone.strides, strict=True):
        assert side / stride - 3 <= feature_map.shape[2] <= side / stride + 1
    assert (backbone.channels, backbone.strides) == tuple(
        zip(*((info.channels, info.stride) for info in expected), strict=True)
    )
    assert backbone.in_channels == 4

    one = Backbone(fresh(arch, "meta", in_channels=4), out_indices=[-2])
    (single,) = one(image)
    assert (*one.channels, *one.strides) == (expected[-2].channels, expected[-2].stride)
    assert single.shape == maps[-2].shape
    single.sum().backward()
    if "HRNet" not in arch:  # its maps are made from each other to the end
        assert [name for name, parameter in one.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("arch", ["DeiT_tiny_distilled_patch16_224", "LeViT_128S", "TNT_small", "RepVGG_A0"])
def test_maps_are_those_of_the_network(arch: str) -> None:
    network = fresh(arch).eval()
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = network.features(image)
        backbone = Backbone(network, out_indices=(2, 0))
        first, second = backbone(image)
        assert torch.equal(first, expected[2])
        assert torch.equal(second, expected[0])
        for fused, plain in zip(backbone.fuse()(image), (first, second), strict=True):
            assert (fused - plain).abs().max() <= 1e-5 * plain.abs().max()


@pytest.mark.parametrize("arch", ["SwinTransformer_tiny_patch4_window7_224", "LeViT_128S", "DeiT_tiny_patch16_224"])
def test_other_image_sizes(arch: str) -> None:
    """Also where the layers behind the last map, which follow the image's size too, are gone."""
    whole, cut = (Backbone(fresh(arch, "meta"), indices) for indices in (None, [0, 1]))
    for backbone in (whole, cut):
        backbone.set_input_size(256)
        assert backbone.input_size == (256, 256)
    image = torch.empty(1, 3, 256, 256, device="meta")
    assert [each.shape for each in cut(image)] == [each.shape for each in whole(image)[:2]]
    with pytest.raises(ImageSizeError, match="set_input_size"):
        cut(torch.empty(1, 3, 224, 224, device="meta"))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([4], r"ResNet18 has the maps 0 to 3 \(strides 4, 8, 16, 32\), not 4"),
        ([], "at least one is needed"),
        ([3, -1], r"\(3, -1\) name a map of ResNet18 twice"),
        ([-5], "a whole number from -4 on, not -5"),
        ([1.5], r"not 1\.5"),
    ],
)
def test_maps_that_do_not_exist(wanted: Any, message: str) -> None:
    with pytest.raises(Error, match=message):
        torchclas.create_backbone("ResNet18", out_indices=wanted)


def test_weights_come_along() -> None:
    """Published ones, those of a file, and of images with one channel."""
    pretrained = torchclas.create_backbone("EfficientNet_lite0", pretrained=True)
    model = torchclas.create_model("EfficientNet_lite0", pretrained=True)
    image = torch.rand(1, 3, 96, 64)
    for ours, expected in zip(pretrained.eval()(image), model.eval().features(image), strict=True):
        assert torch.equal(ours, expected)
    assert pretrained.preset == torchclas.model_info("EfficientNet_lite0").preset
    gray = torchclas.create_backbone("EfficientNet_lite0", pretrained=True, in_channels=1, out_indices=[0])
    assert gray.in_channels == 1
    assert gray(torch.rand(2, 1, 64, 64))[0].shape == (2, gray.channels[0], 32, 32)


def test_a_file_of_weights(tmp_path: Path) -> None:
    model = torchclas.create_model("PPLCNet_x0_25", num_classes=3)
    file = torchclas.save_checkpoint(model, tmp_path / "mine.safetensors")
    image = torch.rand(1, 3, 64, 64)
    by_name = torchclas.create_backbone("PPLCNet_x0_25", weights=file).eval()
    by_file = torchclas.create_backbone(file).eval()
    for one, other, expected in zip(by_name(image), by_file(image), model.eval().features(image), strict=True):
        assert torch.equal(one, expected)
        assert torch.equal(other, expected)


def test_it_can_be_pickled_and_exported() -> None:
    backbone = Backbone(fresh("PPLCNet_x0_25"), out_indices=(1, 3)).eval()
    image = torch.rand(1, 3, 64, 64)
    expected = backbone(image)
    again = pickle.loads(pickle.dumps(backbone))
    program: Any = torch.export.export(backbone, (image,))
    for maps in (again(image), program.module()(image)):
        for ours, theirs in zip(maps, expected, strict=True):
            torch.testing.assert_close(ours, theirs)


class Pyramid(nn.Module):
    """A feature pyramid of thin maps over a backbone, as torchvision's detectors want it."""

    def __init__(self, backbone: Backbone, out_channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pyramid = FeaturePyramidNetwork(list(backbone.channels), out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.pyramid(OrderedDict((str(i), feature_map) for i, feature_map in enumerate(self.backbone(x))))


def losses_of_training(detector: nn.Module, side: int, steps: int) -> list[float]:
    """Trains on two images with a bright box in each."""
    torch.manual_seed(1)
    images = [torch.rand(3, side, side) / 2 for _ in range(2)]
    boxes = [torch.tensor([[8.0, 8.0, 40.0, 40.0]]), torch.tensor([[16.0, 24.0, 56.0, 60.0]])]
    for image, ((left, top, right, bottom),) in zip(images, boxes, strict=True):
        image[:, int(top) : int(bottom), int(left) : int(right)] += 0.5
    targets = [{"boxes": box, "labels": torch.tensor([1])} for box in boxes]
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-3)
    found: list[float] = []
    for _ in range(steps):
        loss = torch.stack(list(detector.train()(images, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(detector.parameters(), 1)
        optimizer.step()
        found.append(loss.item())
    with torch.no_grad():
        answers = detector.eval()(images)
    assert len(answers) == 2
    assert all({"boxes", "labels", "scores"} <= answer.keys() for answer in answers)
    return found


@pytest.mark.parametrize("arch", ["PPLCNet_x0_25", "SwinTransformer_tiny_patch4_window7_224"])
def test_in_retinanet(arch: str) -> None:
    torch.manual_seed(0)
    backbone = Backbone(fresh(arch), out_indices=(1, 2, 3))
    backbone.set_input_size(64)
    sizes = tuple((8 * 2**i, 12 * 2**i) for i in range(3))
    detector = RetinaNet(
        Pyramid(backbone, 32),
        num_classes=2,
        anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 3),
        fixed_size=(64, 64),
        image_mean=list(backbone.preset.mean),
        image_std=list(backbone.preset.std),
    )
    losses = losses_of_training(detector, 64, 24 if arch.startswith("PPLCNet") else 6)
    assert losses[-1] < 0.8 * losses[0], losses


def test_in_faster_rcnn() -> None:
    torch.manual_seed(0)
    backbone = Backbone(fresh("MobileNetV3_small_x0_35"), out_indices=(1, 2, 3))
    detector = FasterRCNN(
        Pyramid(backbone, 32),
        num_classes=2,
        rpn_anchor_generator=AnchorGenerator(((16,), (32,), (64,)), ((0.5, 1.0, 2.0),) * 3),
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], 5, 2),
        fixed_size=(64, 64),
        rpn_post_nms_top_n_train=100,
        rpn_post_nms_top_n_test=50,
    )
    losses = losses_of_training(detector, 64, 8)
    assert losses[-1] < 0.8 * losses[0], losses


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_both_languages_show_the_same_code() -> None:
    def plain(page: Path) -> list[str]:
        return [re.sub(r"#.*|\"\"\".*?\"\"\"", "", block) for block in blocks(page)]

    assert plain(ENGLISH) == plain(CHINESE)


def test_the_code_of_the_docs_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """A detector of torchvision and a Unet of segmentation_models_pytorch; what is printed is what the docs say."""
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    for block in blocks(ENGLISH):
        exec(compile(block, str(ENGLISH), "exec"), names)
        printed = capsys.readouterr().out.splitlines()
        assert printed == re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
    assert names["masks"].shape == (2, 4, 128, 128)
    assert isinstance(names["detector"], RetinaNet)
    masks: Tensor = names["masks"]
    masks.mean().backward()
    encoder: nn.Module = names["unet"].encoder
    assert all(parameter.grad is not None for parameter in encoder.parameters())
