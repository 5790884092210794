"""A program of someone else, with what may be wrong in it, and a model that it should agree with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import torchclas
from torchclas.catalog import Preset, find
from torchclas.comparison.difference import Difference, compare
from torchclas.comparison.foreign_numbers import read_numbers
from torchclas.inference.classifier import Classifier
from torchclas.layers.network import Network
from torchclas.zoo import load_model, save_checkpoint

ARCH = "PPLCNet_x0_25"
PRESET = find(ARCH).preset
CLASSES = [f"class {number}" for number in range(12)]
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Program:
    """Someone else's program: OpenCV and torch, with what may be wrong in it."""

    side: int = 256
    crop: int = 224
    interpolation: int = cv2.INTER_LINEAR
    pillow: Image.Resampling | None = None
    exif: bool = True
    rgb: bool = True
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    scale: float = 255.0
    corner: bool = False
    squeeze: bool = False
    flat: bool = False

    def tensor(self, path: str) -> Array:
        flags = cv2.IMREAD_COLOR if self.exif else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imread(path, flags)
        assert image is not None
        height, width = image.shape[:2]
        share = self.side / min(height, width)
        size = (self.crop, self.crop) if self.squeeze else (round(width * share), round(height * share))
        if self.pillow is None:
            image = cv2.resize(image, size, interpolation=self.interpolation)
        else:
            image = np.asarray(Image.fromarray(image).resize(size, self.pillow))
        top, left = (0, 0) if self.corner else ((side - self.crop) // 2 for side in image.shape[:2])
        image = image[top : top + self.crop, left : left + self.crop]
        image = image[:, :, ::-1] if self.rgb else image
        normal = ((image / self.scale - np.array(self.mean)) / np.array(self.std)).astype(np.float32)
        return normal.reshape(3, self.crop, self.crop) if self.flat else normal.transpose(2, 0, 1)

    def tensors(self, paths: list[str]) -> Array:
        return np.ascontiguousarray(np.stack([self.tensor(path) for path in paths]))


RIGHT = Program()


@dataclass(frozen=True)
class Case:
    """A model, its network, and pictures."""

    model: Path
    network: Network
    pictures: list[str]
    classifier: Classifier

    def logits(self, program: Program = RIGHT) -> Array:
        with torch.inference_mode():
            return self.network(torch.from_numpy(program.tensors(self.pictures))).numpy()

    def explain(self, values: Array, path: Path) -> Difference:
        np.save(path, values)
        return compare(self.classifier, read_numbers(path), self.pictures)


def seeded(network: Network, images: Array) -> None:
    """Weights that tell pictures apart, with statistics of real pictures in the batch norms."""
    torch.manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=1.0)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.5
    with torch.no_grad():
        for _ in range(3):
            network.train()(torch.from_numpy(images))
    network.eval()


def make_case(folder: Path, photographs: Path) -> Case:
    """A model in `folder` with fresh weights, and three pictures, of which the first lies on its side by EXIF."""
    pictures: list[str] = []
    for index, name in enumerate(("chelsea.png", "coffee.png", "astronaut.png")):
        with Image.open(photographs / name) as image:
            exif = Image.Exif()
            exif[0x0112] = 6 if index == 0 else 1
            path = folder / f"{index}.jpg"
            image.convert("RGB").resize((381 - 20 * index, 293 + 9 * index)).save(path, exif=exif, quality=95)
            pictures.append(str(path))
    network = torchclas.create_model(ARCH, num_classes=len(CLASSES))
    seeded(network, RIGHT.tensors(pictures))
    model = save_checkpoint(network, folder / "model.safetensors", class_names=CLASSES, preset=PRESET)
    return Case(model, load_model(Classifier(model, engine="torch").spec), pictures, Classifier(model, engine="torch"))


def changed_model(case: Case, path: Path, change: Callable[[Network], object], preset: Preset = PRESET) -> Path:
    network = load_model(case.classifier.spec)
    change(network)
    return save_checkpoint(network, path, class_names=CLASSES, preset=preset)


# What a verdict says of programs that prepare images otherwise.
PREPARATIONS = [
    ("BGR, A gives it RGB", replace(RIGHT, rgb=False)),
    ("short side to 248 px, A to 256", replace(RIGHT, side=248)),
    ("bicubic without antialias", replace(RIGHT, interpolation=cv2.INTER_CUBIC)),
    ("bilinear with antialias", replace(RIGHT, pillow=Image.Resampling.BILINEAR)),
    ("ignores the EXIF orientation", replace(RIGHT, exif=False)),
    ("mean and std 0.5 and 0.5", replace(RIGHT, mean=(0.5,) * 3, std=(0.5,) * 3)),
    ("by squeeze, A by crop", replace(RIGHT, squeeze=True)),
    ("upper left corner", replace(RIGHT, corner=True)),
    ("by nearest", replace(RIGHT, interpolation=cv2.INTER_NEAREST)),
    ("by area", replace(RIGHT, interpolation=cv2.INTER_AREA)),
    ("does not divide pixels by 255", replace(RIGHT, scale=1.0)),
    ("(HWC) as planes", replace(RIGHT, flat=True)),
]
