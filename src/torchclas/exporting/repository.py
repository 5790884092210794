"""Networks as the repositories that the Hugging Face Hub holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torchclas.correspondence import written_as
from torchclas.exporting import gate
from torchclas.exporting.card import Place, write_card
from torchclas.exporting.files import WEIGHTS
from torchclas.exporting.gate import DivergenceError
from torchclas.exporting.timm import TimmFolder, write_timm
from torchclas.layers.network import Network
from torchclas.weights.checkpoint import write_checkpoint
from torchclas.weights.location import CARD
from torchclas.weights.metadata import Metadata


def write_repository(network: Network, folder: Path, metadata: Metadata, name: str) -> float | None:
    """Write a network in evaluation mode as the files of the repository `OWNER/NAME`, into a new folder.

    Where timm has the network, they are those of `export --to timm`, opened by it and compared: the result is the
    largest error of its logits, relative to the largest one. Else the weights are a checkpoint of ours, and the result
    None.

    Raises:
        DivergenceError: timm computes something else.
        MissingDependencyError: timm is not installed.
    """
    metadata = replace(metadata, origin={**metadata.origin, **_without_folders(metadata)})
    if written_as("timm", network.arch) is None:
        folder.mkdir(parents=True)
        write_checkpoint(network, folder / WEIGHTS, metadata)
        write_card(network, folder, metadata, Place.on_the_hub(name))
        (folder / WEIGHTS).chmod((folder / CARD).stat().st_mode)
        return None
    preset = metadata.preset
    cases = [
        (images, gate.compute(network, preset, images))
        for images in gate.inputs(preset, channels=network.in_channels, batch=None, pixels=False)
    ]
    write_timm(network, folder, metadata, place=Place.on_the_hub(name))
    try:
        return gate.check(TimmFolder(folder), network, cases)
    except DivergenceError as divergence:
        raise DivergenceError(f"{name} was not pushed: {divergence}") from None


def _without_folders(metadata: Metadata) -> dict[str, str]:
    """What a run began from, without the folders of the machine that it ran on."""
    began = str(metadata.origin.get("from", ""))
    return {} if "/" not in began.replace("\\", "/") or began.startswith("hf://") else {"from": Path(began).name}
