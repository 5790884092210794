"""Run a network on a reference checkpoint and compare its logits with the reference's."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tests.parity.golden import golden, relative_error
from torchclas import models
from torchclas.layers.network import Network
from torchclas.weights.load import LoadReport, load_weights


@dataclass(frozen=True)
class Outcome:
    """Relative error of the logits per precision, and what counts as equal."""

    arch: str
    layout: str
    errors: dict[str, float]
    tolerances: dict[str, float]
    params: int

    @property
    def equal(self) -> bool:
        return all(self.errors[dtype] <= self.tolerances[dtype] for dtype in self.errors)


def check(arch: str, layout: str) -> Outcome:
    """float64 first, which separates a wrong graph from rounding, then float32."""
    case = golden(arch, layout)
    images, want = torch.from_numpy(case.images()), case.logits()
    errors: dict[str, float] = {}
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{arch}_pretrained.pdparams"
        case.write(path)
        for dtype in (torch.float64, torch.float32):
            network, _ = loaded(arch, path, dtype)
            with torch.inference_mode():
                got = network(images.to(dtype)).numpy()
            errors[str(dtype).removeprefix("torch.")] = relative_error(got, want)
            params = sum(parameter.numel() for parameter in network.parameters())
            del network, got
            gc.collect()  # the largest network holds 7 GB in float64
    return Outcome(arch, layout, errors, {dtype: case.tolerance(dtype) for dtype in errors}, params)


def loaded(arch: str, path: Path, dtype: torch.dtype = torch.float32) -> tuple[Network, LoadReport]:
    """The network with the file's weights, in eval mode."""
    with torch.device("meta"):
        network = models.build(arch, num_classes=golden(arch).num_classes).to(dtype)
    report = load_weights(network, path)
    return network.eval(), report
