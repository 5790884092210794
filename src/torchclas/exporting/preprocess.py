"""A model's preprocessing as part of its graph: from the pixels of images of any size to the network's input.

`torchclas.data.preprocess` says what is computed; here it is arithmetic that every runtime has. ONNX's own Resize would
not do: runtimes differ in it from each other and from the libraries that published accuracies hold for (OpenVINO's
leaves out its antialiasing). OpenCV's bilinear, in integers, comes out the same to the last bit.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from torchclas.catalog import Preset
from torchclas.data.preprocess import MAX_ASPECT


class FromPixels(nn.Module):
    """A network that takes the pixels of images: uint8 [N, H, W, 3], RGB, of any height and width.

    The preset crops a square, or squeezes; see `why_not`.
    """

    def __init__(self, network: nn.Module, preset: Preset) -> None:
        super().__init__()
        self.preprocess = OpenCV(preset) if preset.backend == "opencv" else Pillow(preset)
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """[N, H, W, 3] → what the network gives."""
        return self.network(self.preprocess(images))


def why_not(preset: Preset) -> str:
    """Why a graph cannot prepare images this way; empty where it can."""
    if preset.fit == "pad":
        return "its preprocessing pads images, which a graph cannot do here"
    if preset.backend == "torchvision":
        return "its preprocessing rounds sizes as torchvision does, which a graph does not here"
    if preset.fit == "crop" and preset.size[0] != preset.size[1]:
        return "its preprocessing crops a rectangle, which a graph cannot do here"
    return ""


class Axis:
    """Where, along one axis of the images, the pixels of the result come from.

    Lengths are tensors, so that a graph computes them for each image; all integers fit into 32 bits, because OpenVINO
    has no longer ones.
    """

    def __init__(self, images: Tensor, axis: int, preset: Preset) -> None:
        device, length = images.device, preset.size[axis - 1]
        self.index: Tensor  # of the result's pixels in the resized image
        if preset.fit == "squeeze":
            self.source = torch.scalar_tensor(images.shape[axis], dtype=torch.int64, device=device)
            self.margin = torch.zeros_like(self.source)
            self.target = torch.full_like(self.source, length)
            self.index = torch.arange(length, device=device)
            return
        height, width = (torch.scalar_tensor(images.shape[i], dtype=torch.int64, device=device) for i in (1, 2))
        short = torch.minimum(height, width)
        whole = height if axis == 1 else width
        self.source = torch.minimum(whole, short * MAX_ASPECT)  # pixels that are resized …
        self.margin = _floor(whole - self.source, 2)  # … and what is left out before them
        doubled = 2 * self.source * preset.resize_short + short
        rounded = _floor(doubled, 2 * short)
        tie = (rounded * 2 * short == doubled).long() * (rounded - 2 * _floor(rounded, 2))
        self.target = rounded - tie  # a half is rounded to the even neighbour, as Python's round does
        self.index = _floor(self.target - length, 2) + torch.arange(length, device=device)


class _Preprocessing(nn.Module, ABC):
    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.preset = preset
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(preset.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preset.std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] → float32 [N, 3, height, width]."""
        pixels = self.resized(images, Axis(images, 1, self.preset), Axis(images, 2, self.preset))
        return (pixels.permute(0, 3, 1, 2) * (1 / 255) - self.mean) / self.std

    @abstractmethod
    def resized(self, images: Tensor, rows: Axis, columns: Axis) -> Tensor:
        """uint8 [N, H, W, 3] → float32 [N, height, width, 3], whole numbers."""


class OpenCV(_Preprocessing):
    """`cv2.resize`: a few neighbours of each pixel, however much the image shrinks; coefficients of 11 bits.

    The three colours of a row's pixels stand in one line here, which is several times as fast in the runtimes.
    """

    def resized(self, images: Tensor, rows: Axis, columns: Axis) -> Tensor:
        """See the base class."""
        lines = images.flatten(2)
        crop = self._bilinear if self.preset.interpolation == "bilinear" else self._wide
        return crop(lines, rows, columns).unflatten(2, (-1, 3))

    def _bilinear(self, lines: Tensor, rows: Axis, columns: Axis) -> Tensor:
        """[N, H, W · 3] → [N, height, width · 3], with the shifts of OpenCV's loop, which lose a little."""
        (top, bottom), (upper, lower) = _two_taps(rows)
        (left, right), (before, after) = _two_taps(columns)

        def across(row: Tensor) -> Tensor:
            line = lines.index_select(1, row)
            one, other = (line.index_select(2, _colours(column)).int() for column in (left, right))
            return _floor(one * before.repeat_interleave(3) + other * after.repeat_interleave(3), 2**4)

        above = _floor(across(top) * upper[:, None], 2**16)
        below = _floor(across(bottom) * lower[:, None], 2**16)
        return _floor(above + below + 2, 2**2).float()

    def _wide(self, lines: Tensor, rows: Axis, columns: Axis) -> Tensor:
        """[N, H, W · 3] → [N, height, width · 3]."""
        taps = _taps(rows, self.preset.interpolation)
        x = _sum(lines.index_select(1, pixel) * weight[:, None] for pixel, weight in taps)
        taps = _taps(columns, self.preset.interpolation)
        x = _sum(x.index_select(2, _colours(pixel)) * weight.repeat_interleave(3) for pixel, weight in taps)
        return _to_pixels(x * 2.0**-22)


class Pillow(_Preprocessing):
    """`Image.resize`: a filter as wide as the image shrinks; rounded after each axis.

    Along the rows first, as in all versions before 13, which takes the columns of tall images first.
    """

    def resized(self, images: Tensor, rows: Axis, columns: Axis) -> Tensor:
        """See the base class."""
        pixels = images.permute(0, 3, 1, 2).float()
        pixels = _to_pixels(pixels @ self._weights(columns, images.shape[2]).T)
        return _to_pixels(self._weights(rows, images.shape[1]) @ pixels).permute(0, 2, 3, 1)

    def _weights(self, axis: Axis, length: int) -> Tensor:
        """[height or width, length]: what each source pixel contributes to each of the result's."""
        pixel = torch.arange(length, device=axis.index.device) - axis.margin
        # Twice the distance of a source pixel's centre to a target pixel's, in units of the coarser grid.
        scale = torch.maximum(axis.source, axis.target)
        distance = (2 * pixel + 1) * axis.target - (2 * axis.index[:, None] + 1) * axis.source
        x = distance.float() / (2 * scale).float()
        weights = _KERNELS[self.preset.interpolation](x)
        weights = weights * ((pixel >= 0) & (pixel < axis.source))
        return weights / weights.sum(1, keepdim=True)


def _two_taps(axis: Axis) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Both neighbours of each of the crop's pixels, and their coefficients, of 2048."""
    start, fraction = _position(axis)
    first, second = (torch.minimum((start + i).clamp(min=0), axis.source - 1) + axis.margin for i in (0, 1))
    return (first, second), (torch.round((1 - fraction) * 2048).int(), torch.round(fraction * 2048).int())


def _taps(axis: Axis, interpolation: str) -> list[tuple[Tensor, Tensor]]:
    """All neighbours of each of the crop's pixels that OpenCV looks at, and their coefficients, of 2048."""
    count = 4 if interpolation == "bicubic" else 8
    start, fraction = _position(axis)
    offsets = range(1 - count // 2, count // 2 + 1)
    weights = [_cubic(fraction - i, -0.75) if count == 4 else _lanczos(fraction - i, 4) for i in offsets]
    pixels = [torch.minimum((start + i).clamp(min=0), axis.source - 1) + axis.margin for i in offsets]
    total = torch.stack(weights).sum(0)
    return [(pixel, torch.round(weight / total * 2048)) for pixel, weight in zip(pixels, weights, strict=True)]


def _position(axis: Axis) -> tuple[Tensor, Tensor]:
    """Of each of the crop's pixels the source pixel at or before it, -1 included, and how far it is beyond that."""
    doubled = (2 * axis.index + 1) * axis.source + axis.target  # half pixels; one more pixel keeps it positive
    start = _floor(doubled, 2 * axis.target) - 1
    fraction = (doubled - (start + 1) * 2 * axis.target).float() / (2 * axis.target).float()
    whole = start.float()
    return start, (whole + fraction) - whole  # with the few digits that OpenCV's sum of both has


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _cubic(x: Tensor, a: float) -> Tensor:
    """Keys's kernel."""
    x = x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return near * (x < 1) + far * ((x >= 1) & (x < 2))


def _lanczos(x: Tensor, lobes: float) -> Tensor:
    """Where x is 0 both sines are replaced by their arguments."""
    zero = (x == 0).float()
    angle = x * math.pi + zero
    window = angle / lobes
    value = (torch.sin(angle) / angle) * (torch.sin(window) / window)
    return (value * (1 - zero) + zero) * (x.abs() < lobes)


_KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "bilinear": _triangle,
    "bicubic": lambda x: _cubic(x, -0.5),
    "lanczos": lambda x: _lanczos(x, 3),
}


def _sum(terms: Iterable[Tensor]) -> Tensor:
    first, *rest = terms
    return sum(rest, first)


def _to_pixels(x: Tensor) -> Tensor:
    return (x + 0.5).floor().clamp(0, 255)


def _colours(pixels: Tensor) -> Tensor:
    """Where in a line the colours of its pixels stand."""
    return (3 * pixels[:, None] + torch.arange(3, device=pixels.device)).flatten()


def _floor(x: Tensor, divisor: Tensor | int) -> Tensor:
    """x / divisor for whole numbers, neither of them negative."""
    return torch.div(x, divisor, rounding_mode="trunc")
