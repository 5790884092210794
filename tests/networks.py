"""Fresh networks of every architecture."""

from __future__ import annotations

import os
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from filelock import FileLock

from torchclas import models
from torchclas.catalog import find
from torchclas.layers.network import Network
from torchclas.zoo import save_checkpoint

ARCHITECTURES = models.architectures()
CLASSES = 4

# The cheapest member of each family, and more where a family has graphs that differ.
REPRESENTATIVES = (
    "AlexNet",
    "DLA46_c",
    "DPN68",
    "DarkNet53",
    "DeiT_tiny_distilled_patch16_224",
    "DeiT_tiny_patch16_224",
    "DenseNet121",
    "EfficientNetB0",
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
    "SE_ResNet18_vd",
    "ShuffleNetV2_x0_25",
    "SqueezeNet1_1",
    "SwinTransformer_tiny_patch4_window7_224",
    "TNT_small",
    "VGG11",
    "Xception41",
    "Xception41_deeplab",
    "alt_gvt_small",
)

# What slow checks sweep over: the representatives for every change, all architectures each night and for a release.
SWEPT = tuple(ARCHITECTURES) if os.environ.get("SWEEP") == "all" else REPRESENTATIVES

LARGE = 150_000_000  # parameters; with their gradients such networks take more than a GiB


def fresh(arch: str, device: str = "cpu", *, num_classes: int = CLASSES, in_channels: int = 3) -> Network:
    """On the meta device shapes are computed, and nothing else."""
    with torch.device(device):
        return models.build(arch, num_classes=num_classes, in_channels=in_channels)


def small_checkpoint(path: Path, seed: int = 0) -> Path:
    """A file with a small network for images of 64 × 64 pixels, untrained, whose embeddings tell colours apart."""
    torch.manual_seed(seed)
    network = fresh("PPLCNet_x0_25").train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of one batch, whole
    with torch.no_grad():
        network(4 * torch.rand(64, 3, 1, 1) - 2 + 0.05 * torch.randn(64, 3, 64, 64))
    return save_checkpoint(network.eval(), path, preset=find("PPLCNet_x0_25").preset.at(64))


def room_for(arch: str) -> AbstractContextManager[object]:
    """Lets large networks into memory one at a time, whichever test process asks."""
    parameters = sum(parameter.numel() for parameter in fresh(arch, "meta").parameters())
    lock = Path(tempfile.gettempdir()) / "torchclas-large-networks.lock"
    return FileLock(lock) if parameters > LARGE else nullcontext()
