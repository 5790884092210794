"""Networks as the repositories that the Hugging Face Hub holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torchclas.correspondence import written_as
from torchclas.exporting import gate
from torchclas.exporting.files import WEIGHTS
from torchclas.exporting.gate import DivergenceError
from torchclas.exporting.timm import TimmFolder, write_timm
from torchclas.exporting.timm_page import OnTimm
from torchclas.layers.network import Network
from torchclas.weights.checkpoint import save_checkpoint
from torchclas.weights.metadata import Metadata


def write_repository(network: Network, folder: Path, metadata: Metadata) -> tuple[OnTimm, float] | None:
    """Write a network in evaluation mode as the files of a repository, into a new folder.

    Where timm has the network, they are those of `export --to timm`, opened by it and compared: what it calls the
    network, and the largest error of its logits, relative to the largest one. Else the weights are a checkpoint of
    ours, and the result is None.

    Raises:
        DivergenceError: timm computes something else.
        MissingDependencyError: timm is not installed.
    """
    metadata = replace(metadata, origin={**metadata.origin, **_without_folders(metadata)})
    if written_as("timm", network.arch) is None:
        save_checkpoint(network, folder / WEIGHTS, metadata)
        return None
    cases = [
        (images, gate.compute(network, metadata.preset, images))
        for images in gate.inputs(metadata.preset, channels=network.in_channels, batch=None, pixels=False)
    ]
    there = write_timm(network, folder, metadata)
    try:
        return there, gate.check(TimmFolder(folder), network, cases)
    except DivergenceError as divergence:
        raise DivergenceError(f"nothing was pushed: {divergence}") from None


def _without_folders(metadata: Metadata) -> dict[str, str]:
    """What a run began from, without the folders of the machine that it ran on."""
    began = str(metadata.origin.get("from", "")).replace("\\", "/")
    return {} if "/" not in began or began.startswith("hf://") else {"from": began.rpartition("/")[2]}
