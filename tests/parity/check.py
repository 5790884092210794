"""Run a network on a reference checkpoint and compare its logits with the reference's."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from tests.parity.golden import golden, other_sizes, relative_error
from torchclas import models
from torchclas.layers.network import Network
from torchclas.weights.load import LoadReport, load_weights


@dataclass(frozen=True)
class Outcome:
    """Relative errors of the logits by precision, for the usual and the other images, and what counts as equal."""

    arch: str
    layout: str
    size: int
    errors: dict[str, float]
    other_size: int
    other_errors: dict[str, float]
    tolerances: dict[str, float]
    other_tolerances: dict[str, float]

    @property
    def equal(self) -> bool:
        usual = all(error <= self.tolerances[dtype] for dtype, error in self.errors.items())
        return usual and all(error <= self.other_tolerances[dtype] for dtype, error in self.other_errors.items())


def check(arch: str, layout: str, *, quick: bool = False) -> Outcome:
    """float64 first, which separates a wrong graph from rounding, then float32.

    Where it is to be `quick`, the usual images are computed in float64 alone, and the others in float32 alone.
    """
    case = golden(arch, layout)
    usual, other_size = case.images(), other_sizes()[arch]
    errors: dict[str, float] = {}
    other_errors: dict[str, float] = {}
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{arch}_pretrained.pdparams"
        case.write(path)
        network, _ = loaded(arch, path)
        for dtype in ("float64", "float32"):
            network.to(getattr(torch, dtype))  # to float64 and back, float32 weights lose nothing
            if dtype == "float64" or not quick:
                errors[dtype] = relative_error(logits(network, usual, dtype), case.logits())
            # The values of the other layout differ, so the logits would be others, too.
            if layout == "current" and (dtype == "float32" or not quick):
                other_errors[dtype] = relative_error(logits(network, case.other_images(), dtype), case.other_logits())
    del network
    gc.collect()  # the largest one holds 7 GB in float64
    tolerances = {dtype: case.tolerance(dtype) for dtype in errors}
    other_tolerances = {dtype: case.tolerance(dtype, other=True) for dtype in other_errors}
    return Outcome(arch, layout, usual.shape[-1], errors, other_size, other_errors, tolerances, other_tolerances)


@torch.inference_mode()
def logits(network: Network, images: np.ndarray, dtype: str) -> np.ndarray:
    return network(torch.from_numpy(images.astype(dtype))).numpy()


def loaded(arch: str, path: Path, dtype: torch.dtype = torch.float32) -> tuple[Network, LoadReport]:
    """The network with the file's weights, in eval mode."""
    with torch.device("meta"):
        network = models.build(arch, num_classes=golden(arch).num_classes).to(dtype)
    report = load_weights(network, path)
    return network.eval(), report
