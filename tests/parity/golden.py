"""Reference checkpoints and logits for every architecture.

`golden/<layout>.zip` lists the tensors of each published checkpoint (name, shape, dtype, in file order);
`golden/<layout>_logits.npz` holds what PaddlePaddle 2.6.2 computes from them on a CPU, in float64 (RepVGG: float32).
`golden/other_inputs.npz` holds the same for three images instead of two, at another size where the original takes one,
stored in float32. The values of a tensor follow from its name, so a checkpoint is rebuilt here with NumPy alone.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from torchclas.weights.pdparams import write_pdparams

DATA = Path(__file__).parent / "golden"
LAYOUTS = ("current", "original")
SEED = 1


# What the reference loses in float32 on the other images, where five times what it loses on the usual ones may be too
# little for a processor or a number of threads that rounds otherwise. Computed by PaddlePaddle 2.6.2.
OTHER_FLOAT32_ERRORS = {"RedNet152": 3.4e-5}


@dataclass(frozen=True)
class Golden:
    """One architecture in one published layout."""

    arch: str
    layout: str
    tensors: tuple[tuple[str, tuple[int, ...], str], ...] = field(repr=False)
    bn_scale: dict[str, float] = field(repr=False)
    input_shape: tuple[int, int, int, int]
    num_classes: int
    trainable_params: int
    names: tuple[str, ...]
    logits_dtype: str
    float32_error: float

    def state(self) -> dict[str, np.ndarray]:
        """The checkpoint's tensors. Integer tables are left out: a reader takes files with and without them."""
        return {
            name: tensor_value(name, shape, self.bn_scale.get(name.rpartition(".")[0], 1.0))
            for name, shape, dtype in self.tensors
            if "int" not in dtype
        }

    def write(self, path: Path) -> None:
        """The checkpoint as a `.pdparams` file."""
        write_pdparams(path, self.state())

    def images(self) -> np.ndarray:
        """float32 [2, 3, H, W]."""
        return mosaic(self.input_shape, SEED)

    def logits(self) -> np.ndarray:
        """Reference logits [2, num_classes] for `images()`."""
        with np.load(DATA / f"{self.layout}_logits.npz") as archive:
            return archive[self.arch]

    def other_images(self) -> np.ndarray:
        """float32 [3, 3, S, S]: another batch size, and another image size where the original takes one."""
        size = other_sizes()[self.arch]
        if self.arch.startswith("RedNet"):  # involutions of made-up weights overflow on images of other statistics
            usual = self.images()
            return np.concatenate([usual, usual[:1, :, ::-1]])[:, :, :size, :size]
        return mosaic((3, 3, size, size), SEED + 1)

    def other_logits(self) -> np.ndarray:
        """Reference logits [3, num_classes] for `other_images()`."""
        with np.load(DATA / "other_inputs.npz") as archive:
            return archive[self.arch]

    def tolerance(self, dtype: str, *, other: bool = False) -> float:
        """Largest error that counts as equal, relative to the largest logit; `other` for the other images.

        float64 leaves no room for a wrong epsilon, padding or rounding of widths; where the reference itself runs in
        float32 it leaves room for that. float32 gets five times what the reference loses there.
        """
        if dtype == "float64":
            return 1e-5 if self.logits_dtype == "float32" else 5e-6
        lost = max(self.float32_error, OTHER_FLOAT32_ERRORS.get(self.arch, 0.0)) if other else self.float32_error
        return max(1e-4, 5 * lost)


def tensor_value(name: str, shape: tuple[int, ...], bn_scale: float) -> np.ndarray:
    """The float32 value of one tensor; `bn_scale` is that of the batch norm it belongs to."""
    x = np.random.default_rng([SEED, zlib.crc32(name.encode())]).standard_normal(shape, dtype=np.float32)
    leaf = name.rpartition(".")[2]
    if leaf == "_mean":
        return np.float32(0.2 * bn_scale) * x
    if leaf == "_variance":
        return np.float32(bn_scale * bn_scale) * (1 + np.float32(0.2) * np.tanh(x))
    if len(shape) <= 1:
        return 1 + np.float32(0.2) * x if leaf == "weight" else np.float32(0.1) * x
    if len(shape) == 3:
        return np.float32(0.5) * x
    fan_in = shape[0] if len(shape) == 2 else int(np.prod(shape[1:]))
    gain = 1.0 if len(shape) == 2 else 2.0
    return np.float32((gain / fan_in) ** 0.5) * x


def mosaic(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Images of noise over coarse random tiles, so that position matters."""
    count, channels, height, width = shape
    rng = np.random.default_rng([seed, zlib.crc32(b"input")])
    noise = rng.standard_normal(shape, dtype=np.float32)
    tiles = rng.standard_normal((count, channels, 6, 6), dtype=np.float32) * 1.5
    tiles = np.kron(tiles, np.ones((1, 1, -(-height // 6), -(-width // 6)), np.float32))
    return (0.3 * noise + tiles[:, :, :height, :width]).astype(np.float32)


@cache
def other_sizes() -> dict[str, int]:
    """Architecture → the size of its `other_images`."""
    return json.loads((DATA / "other_inputs.json").read_text())


@cache
def golden(arch: str, layout: str = "current") -> Golden:
    """One case."""
    with zipfile.ZipFile(DATA / f"{layout}.zip") as archive:
        values = json.loads(archive.read(f"{arch}.json"))
    return Golden(
        arch=arch,
        layout=layout,
        tensors=tuple((name, tuple(shape), dtype) for name, shape, dtype in values["tensors"]),
        bn_scale=values["bn_scale"],
        input_shape=tuple(values["input"]),
        num_classes=values["num_classes"],
        trainable_params=values["trainable_params"],
        names=tuple(values["names"]),
        logits_dtype=values["logits_dtype"],
        float32_error=values["float32_error"],
    )


def cases() -> list[tuple[str, str]]:
    """(arch, layout) of every case."""
    found: list[tuple[str, str]] = []
    for layout in LAYOUTS:
        with zipfile.ZipFile(DATA / f"{layout}.zip") as archive:
            found += [(name.removesuffix(".json"), layout) for name in archive.namelist()]
    return found


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """Largest absolute difference over the largest absolute logit."""
    return float(np.abs(got.astype(np.float64) - want).max() / np.abs(want).max())
