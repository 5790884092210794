"""Other ways to prepare images, a change each: what programs that prepare them anew are found to do."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from torchclas.catalog import Preset
from torchclas.data.decode import Pixels, decode, max_file_bytes
from torchclas.data.preprocess import Preprocess
from torchclas.data.sources import read
from torchclas.errors import DataError
from torchclas.sizes import show_size

Stage = Literal["decode", "resize", "crop", "colour", "normalisation", "layout", "network", "activation", "classes"]

# Filters that no preset has, and programs use all the same.
FILTERS = {"nearest": cv2.INTER_NEAREST, "area": cv2.INTER_AREA}

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
STATISTICS = {  # mean and deviation that networks are trained with
    "of ImageNet": IMAGENET,
    "0.5 and 0.5": ((0.5,) * 3, (0.5,) * 3),
    "of CLIP": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "0 and 1": ((0.0,) * 3, (1.0,) * 3),
}
SHARES = (1.0, 0.95, 0.9, 0.875)  # of the resized side that crops keep
SIDES = (224, 232, 235, 236, 240, 248, 256, 288, 320, 342)

_UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {  # undoes what decoding did for each orientation of EXIF
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: np.rot90(pixels, -1),
}


@dataclass(frozen=True)
class Preparation(Preprocess):
    """A preset's evaluation transform, with departures that no preset can say.

    `oriented` obeys EXIF. `filtered` is a key of `FILTERS` in place of the preset's. `cut` is where the crop lies:
    `up` puts the half pixel that centring leaves on the other side. `colour` is `BGR` for pixels in that order under
    statistics of RGB, and `flipped` for a tensor whose channels are reversed after all. Without `scaled` pixels stay
    in 0..255. `layout` is `flat` for rows of RGB triples taken for planes, `transposed` for height and width swapped.
    """

    oriented: bool = True
    filtered: str = ""
    cut: Literal["centre", "up", "corner"] = "centre"
    colour: Literal["RGB", "BGR", "flipped"] = "RGB"
    scaled: bool = True
    layout: Literal["planes", "flat", "transposed"] = "planes"

    def tensor(self, source: str, pixels: Pixels) -> NDArray[np.float32]:
        """float32 [channels, height, width] of an image, of which `decode` gave `pixels`."""
        if not self.oriented:
            pixels = np.ascontiguousarray(_UPRIGHT.get(_orientation(source, self.max_pixels), np.asarray)(pixels))
        return self.normalize(self.fit(pixels))

    def normalize(self, pixels: Pixels) -> NDArray[np.float32]:
        """uint8 RGB [height, width, 3] → float32 [channels, height, width]."""
        if self.colour == "BGR":
            pixels = np.ascontiguousarray(pixels[:, :, ::-1])
        tensor = super().normalize(pixels)
        if not self.scaled:
            mean, std = (values[:, :, None] for values in self._statistics)
            tensor = ((tensor * std + mean) * 255 - mean) / std
        if self.colour == "flipped":
            tensor = tensor[::-1]
        if self.layout == "flat":
            tensor = tensor.transpose(1, 2, 0).reshape(tensor.shape)
        elif self.layout == "transposed" and tensor.shape[1] == tensor.shape[2]:
            tensor = tensor.transpose(0, 2, 1)
        return np.ascontiguousarray(tensor, np.float32)

    def _resize(self, pixels: Pixels, height: int, width: int) -> Pixels:
        if self.filtered:
            interpolation = FILTERS[self.filtered]
            return cv2.resize(pixels, (width, height), interpolation=interpolation)  # pyright: ignore[reportReturnType]
        return super()._resize(pixels, height, width)

    def _corner(self, rows: int, columns: int) -> tuple[int, int]:
        if self.cut == "centre":
            return super()._corner(rows, columns)
        return (0, 0) if self.cut == "corner" else ((rows + 1) // 2, (columns + 1) // 2)


@dataclass(frozen=True)
class Change:
    """One difference: where it is, what B does in the words of a verdict, and how A would do the same."""

    stage: Stage
    cause: str
    apply: Callable[[Preparation], Preparation]


def declared(a: Preset, b: Preset) -> list[Change]:
    """The changes that make preset `a` into `b`, in the order in which an image meets them."""
    changes: list[Change] = []
    if a.size != b.size:
        cause = f"B takes images of {show_size(b.size)} px, A of {show_size(a.size)}"
        changes.append(_of_preset("resize", cause, size=b.size, resize_short=b.resize_short))
    elif a.resize_short != b.resize_short:
        changes.append(_of_preset("resize", _side(b.resize_short, a.resize_short), resize_short=b.resize_short))
    if (a.backend, a.interpolation) != (b.backend, b.interpolation):
        cause = f"B resizes by {_filter(b)}, A by {_filter(a)}"
        changes.append(_of_preset("resize", cause, backend=b.backend, interpolation=b.interpolation))
    if a.fit != b.fit:
        changes.append(_of_preset("crop", _fit(b, a), fit=b.fit))
    if (a.mean, a.std) != (b.mean, b.std):
        ours, theirs = (f"{_triple(each.mean)} (std {_triple(each.std)})" for each in (a, b))
        cause = f"B normalises with mean {theirs}, A with {ours}"
        changes.append(_of_preset("normalisation", cause, mean=b.mean, std=b.std))
    return changes


def hypotheses(a: Preset) -> Iterator[Change]:
    """Changes of preset `a` that other programs are likely to have made; some change nothing for some images."""
    yield Change("decode", "B ignores the EXIF orientation, A turns images by it", partial(replace, oriented=False))
    yield Change("colour", "B gives the network BGR, A gives it RGB", partial(replace, colour="BGR"))
    yield Change("colour", "B reverses the channels of the normalised tensor", partial(replace, colour="flipped"))
    short = min(a.size)
    sides = {*SIDES, *(round(short / share) for share in SHARES), *(int(short / share) for share in SHARES), short + 32}
    if a.fit == "crop":
        for side in sorted(side for side in sides if short <= side <= 1.6 * short and side != a.resize_short):
            yield _of_preset("resize", _side(side, a.resize_short), resize_short=side)
    for backend in ("opencv", "pillow", "torchvision"):
        for interpolation in ("bilinear", "bicubic", "lanczos"):
            if (backend, interpolation) != (a.backend, a.interpolation):
                other = replace(a, backend=backend, interpolation=interpolation)
                cause = f"B resizes by {_filter(other)}, A by {_filter(a)}"
                yield _of_preset("resize", cause, backend=backend, interpolation=interpolation)
    for name in FILTERS:
        yield Change("resize", f"B resizes by {name}, A by {_filter(a)}", partial(replace, filtered=name))
    for fit in ("crop", "squeeze", "pad"):
        if fit != a.fit:
            yield Change("crop", _fit(a.fitted(fit), a), partial(_with_fit, fit=fit))
    if a.fit == "crop":
        yield Change("crop", "B crops the upper left corner, A the centre", partial(replace, cut="corner"))
        yield Change("crop", "B rounds the place of its crop the other way", partial(replace, cut="up"))
    for name, (mean, std) in STATISTICS.items():
        if (mean, std) != (a.mean, a.std):
            cause = f"B normalises with mean and std {name}, A with {_triple(a.mean)} (std {_triple(a.std)})"
            yield _of_preset("normalisation", cause, mean=mean, std=std)
        if mean != a.mean and std != a.std:
            cause = f"B subtracts the mean {_triple(mean)}, A {_triple(a.mean)}; their std is the same"
            yield _of_preset("normalisation", cause, mean=mean)
            cause = f"B divides by the std {_triple(std)}, A by {_triple(a.std)}; their mean is the same"
            yield _of_preset("normalisation", cause, std=std)
    if len(set(a.mean)) > 1:
        backwards = {"mean": a.mean[::-1], "std": a.std[::-1]}
        yield _of_preset("normalisation", "B has mean and std in the order of BGR", **backwards)
    yield Change("normalisation", "B does not divide pixels by 255", partial(replace, scaled=False))
    unscaled = "B gives the network pixels of 0..255 as they are"
    plain = partial(replace, mean=(0.0,) * 3, std=(1.0,) * 3)
    yield Change("normalisation", unscaled, lambda made: replace(made, scaled=False, preset=plain(made.preset)))
    yield Change("layout", "B reads rows of RGB triples (HWC) as planes (CHW)", partial(replace, layout="flat"))
    yield Change("layout", "B swaps height and width", partial(replace, layout="transposed"))


def prepare(made: Preparation, sources: Iterable[str], pixels: Iterable[Pixels]) -> NDArray[np.float32]:
    """float32 [N, channels, height, width] of decoded images."""
    return np.stack([made.tensor(source, each) for source, each in zip(sources, pixels, strict=True)])


def changed(made: Preparation, change: Change) -> Preparation | None:
    """`made` with one change more; None where they do not go together."""
    try:
        return change.apply(made)
    except DataError:  # a crop larger than the image
        return None


def pixels_of(source: str, max_pixels: int) -> Pixels:
    """uint8 RGB [H, W, 3]; raises ImageError."""
    return decode(source, max_pixels=max_pixels)


def _of_preset(stage: Stage, cause: str, **fields: object) -> Change:
    return Change(stage, cause, lambda made: replace(made, preset=replace(made.preset, **fields)))  # pyright: ignore[reportArgumentType]


def _with_fit(made: Preparation, fit: Literal["crop", "squeeze", "pad"]) -> Preparation:
    return replace(made, preset=made.preset.fitted(fit))


def _orientation(source: str, max_pixels: int) -> int:
    with Image.open(io.BytesIO(read(source, max_bytes=max_file_bytes(max_pixels)))) as image:
        return image.getexif().get(ExifTags.Base.Orientation, 1)


def _side(b: int, a: int) -> str:
    return f"B resizes the short side to {b} px, A to {a} px"


def _fit(b: Preset, a: Preset) -> str:
    return f"B fits images by {b.fit}, A by {a.fit}"


def _filter(preset: Preset) -> str:
    if preset.backend == "opencv":
        return f"{preset.interpolation} without antialias ({preset.backend})"
    return f"{preset.interpolation} with antialias ({preset.backend})"


def _triple(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:g}" for value in values)
