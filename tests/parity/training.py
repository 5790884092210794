"""One training step and fresh parameters against PaddleClas 2.5.2's: `python -m tests.parity.training [PATTERN …]`.

Prints the largest errors of one step per architecture and exits 1 if any is too large.

`golden/gradients.zip` holds, for 25 architectures with the values of `golden.py`, what PaddlePaddle 2.6.2 computes in
float64 from a few images in training mode, without dropout and stochastic depth, for a cross entropy with labels
smoothed by 0.1: the loss; of every gradient its Euclidean norm and up to four entries; of every batch norm's statistics
after this step the same. `golden/initialisation.zip` holds of every parameter of 25 fresh networks the mean and, unless
all entries are equal, standard deviation, largest magnitude and kurtosis (1.8: uniform, 3: normal).
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.parity.check import loaded
from tests.parity.golden import DATA, golden
from torchclas import models
from torchclas.layers.drop_path import DropPath
from torchclas.layers.dropout import DownscalingDropout
from torchclas.layers.network import Network
from torchclas.weights.renames import PublishedName, published_names

LABEL_SMOOTHING = 0.1
ENTRIES = 4
# Relative to a tensor's norm. Gradients this much smaller than the largest one are rounding: those of what a batch norm
# takes away again.
TOLERANCE = 5e-6
NOISE = 1e-9
# Standard errors by which two samples may differ, in some 5,000 comparisons; how much of a parameter is looked at.
CHANCE = 5.5
SAMPLE = 200_000


@dataclass(frozen=True)
class Errors:
    """Of one step: of the loss, and the largest of all gradients and of all batch norms' statistics, relative each."""

    arch: str
    loss: float
    gradient: float
    worst_gradient: str
    statistics: float

    @property
    def equal(self) -> bool:
        return max(self.loss, self.gradient, self.statistics) <= TOLERANCE


def references(kind: str) -> list[str]:
    """Architectures with a reference of this kind: `gradients` or `initialisation`."""
    with zipfile.ZipFile(DATA / f"{kind}.zip") as archive:
        return [name.removesuffix(".json") for name in archive.namelist()]


def reference(kind: str, arch: str) -> dict[str, Any]:
    with zipfile.ZipFile(DATA / f"{kind}.zip") as archive:
        return json.loads(archive.read(f"{arch}.json"))


def published(network: Network, rows: dict[str, Any]) -> dict[str, PublishedName]:
    """Our names of parameters and buffers → the published ones, in the layout that has the reference's `rows`."""
    names = list(network.state_dict())
    layouts = [published_names(names, rules) for rules in models.renames(network.arch).values()]
    return max(layouts, key=lambda layout: sum(name.name in rows for name in layout.values()))


def step(arch: str) -> Errors:
    """Forward and backward pass in float64, compared with the reference."""
    want = reference("gradients", arch)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{arch}.pdparams"
        golden(arch).write(path)
        network = loaded(arch, path)[0].double().train()
    _without_chance(network)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    counts = dict(_count_places(network))
    images, labels = _batch(arch, want)
    loss = F.cross_entropy(network(images), labels, label_smoothing=LABEL_SMOOTHING)
    loss.backward()

    names = published(network, want["gradients"])
    floor = NOISE * max(row[0] for row in want["gradients"].values())
    gradients: dict[str, float] = {}
    owners = dict(network.named_modules())
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        linear = names[name].linear if parameter.ndim == 4 else isinstance(owners[name.rpartition(".")[0]], nn.Linear)
        gradient = parameter.grad
        if linear and parameter.ndim > 1 and parameter[0, 0].numel() == 1 and not names[name].conv:
            gradient = gradient.flatten(1).T  # [in, out], as PaddlePaddle has it
        gradients[name] = _error(gradient, names[name].name, want["gradients"][names[name].name], floor)
    statistics = [0.0]
    for name, buffer in network.named_buffers():
        row = want["running"].get(names[name].name) if name in names else None
        if row is None:
            continue
        module, _, leaf = name.rpartition(".")
        if leaf == "running_var":  # of a batch, PaddlePaddle takes the biased variance
            norm = owners[module]
            assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
            assert norm.momentum is not None
            kept, places = (1 - norm.momentum) * before[name], counts[module][0]
            buffer = kept + (buffer - kept) * (places - 1) / places
        statistics.append(_error(buffer, names[name].name, row, 0.0))
    assert len(gradients) == len(want["gradients"])
    assert len(statistics) == len(want["running"]) + 1
    worst = max(gradients, key=lambda name: gradients[name])
    return Errors(arch, abs(loss.item() / want["loss"] - 1), gradients[worst], worst, max(statistics))


def check_fresh_parameters(arch: str) -> None:
    """Each parameter of a fresh network has the mean, deviation, kind and bounds of the published one."""
    want = reference("initialisation", arch)
    torch.manual_seed(0)
    network = models.build(arch)
    names = published(network, want)
    assert {names[name].name for name, _ in network.named_parameters()} == set(want)
    different = [
        f"{name}: {difference}"
        for name, parameter in network.named_parameters()
        if (difference := _difference(parameter.detach(), want[names[name].name]))
    ]
    assert not different, different


def _difference(parameter: Tensor, row: list[float]) -> str:
    """What tells a fresh parameter from one with the statistics in `row`; empty where nothing does."""
    if len(row) == 1:
        return "" if bool((parameter == row[0]).all()) else f"should be {row[0]}"
    mean, std, largest, kurtosis = row
    values = parameter.flatten()[:SAMPLE].double()
    size = values.numel()
    chance = CHANCE * (2 / size) ** 0.5  # both sides are samples
    got_mean, got_std = values.mean().item(), values.std().item()
    got_kurtosis = ((values - got_mean).pow(4).mean() / got_std**4).item()
    if abs(got_mean - mean) > chance * std:
        return f"mean {got_mean:.2g}, not {mean:.2g}"
    # Rows have three to four digits.
    if abs(got_std / std - 1) > chance * (max(kurtosis - 1, 0.8) / 4) ** 0.5 + 1e-3:
        return f"deviation {got_std:.4g}, not {std:.4g}"
    if size < 500:  # a kurtosis says nothing
        return ""
    if abs(got_kurtosis - kurtosis) > chance * 24**0.5 + 1e-2:
        return f"kurtosis {got_kurtosis:.3g}, not {kurtosis:.3g}"
    bounded = kurtosis < 2.6
    got_largest = values.abs().max().item()
    if bounded and abs(got_largest / largest - 1) > 20 / size + 2e-3:
        return f"bound {got_largest:.4g}, not {largest:.4g}"
    return ""


def _batch(arch: str, row: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Images of noise over coarse random tiles, and their labels."""
    count, side = row["images"], row["side"]
    rng = np.random.default_rng([7, zlib.crc32(arch.encode())])
    noise = rng.standard_normal((count, 3, side, side))
    tile = -(-side // 6)
    tiles = np.kron(rng.standard_normal((count, 3, 6, 6)) * 1.5, np.ones((1, 1, tile, tile)))[:, :, :side, :side]
    images = (0.3 * noise + tiles) * row["scale"]
    return torch.from_numpy(images), torch.from_numpy(rng.integers(0, 1000, count))


def _without_chance(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Dropout | DownscalingDropout | DropPath):
            module.p = 0.0


def _count_places(network: nn.Module) -> Iterator[tuple[str, list[int]]]:
    """Each batch norm's name → how many values of a channel it will have seen."""
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            seen: list[int] = []

            def note(_module: nn.Module, args: tuple[Tensor, ...], seen: list[int] = seen) -> None:
                seen.append(args[0].numel() // args[0].shape[1])

            module.register_forward_pre_hook(note)
            yield name, seen


def _error(tensor: Tensor, name: str, row: list[float], floor: float) -> float:
    """Largest difference in norm and entries, over the norm."""
    flat = tensor.detach().numpy().ravel()
    rng = np.random.default_rng([11, zlib.crc32(name.encode())])
    places = np.sort(rng.choice(flat.size, min(ENTRIES, flat.size), replace=False))
    got = np.array([np.linalg.norm(flat), *flat[places]])
    return float(np.abs(got - row).max() / max(row[0], floor))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("patterns", nargs="*", default=["*"], help="architectures, as globs; all by default")
    patterns: list[str] = parser.parse_args().patterns
    found: list[Errors] = []
    for arch in references("gradients"):
        if any(fnmatch(arch, pattern) for pattern in patterns):
            errors = step(arch)
            found.append(errors)
            print(
                f"{'equal ' if errors.equal else 'DIFFER'} {arch:40} loss {errors.loss:.1e}  gradients "
                f"{errors.gradient:.1e}  statistics {errors.statistics:.1e}  {errors.worst_gradient}",
                flush=True,
            )
    if not found:
        return 1
    print(
        f"{len(found)} architectures; largest error of a loss {max(row.loss for row in found):.1e}, of a gradient "
        f"{max(row.gradient for row in found):.1e}, of a statistic {max(row.statistics for row in found):.1e}"
    )
    return int(not all(row.equal for row in found))


if __name__ == "__main__":
    sys.exit(main())
