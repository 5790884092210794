"""Our own checkpoint: one safetensors file that says everything a command needs to run it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from torchclas.atomic import atomic_path
from torchclas.errors import CheckpointError
from torchclas.layers.network import Network
from torchclas.weights.links import utf8_path
from torchclas.weights.metadata import KEY, Metadata
from torchclas.weights.pickles import listed

_DTYPES = frozenset(("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"))
_MAX_DIMENSIONS = 32


def save_checkpoint(model: Network, path: str | Path, metadata: Metadata) -> None:
    """Write weights and metadata as one file, atomically."""
    with atomic_path(path) as temporary:
        write_checkpoint(model, temporary, metadata)


def write_checkpoint(model: Network, path: Path, metadata: Metadata) -> None:
    """`save_checkpoint` to a path that is temporary already."""
    write_tensors(model.state_dict(), path, metadata)


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Metadata) -> None:
    """`write_checkpoint` for tensors under names of another layout."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(ready, path, metadata={KEY: metadata.to_json(), "format": "pt"})
    _order_metadata(path)


def _order_metadata(path: Path) -> None:
    """Make the same weights the same bytes: safetensors writes the entries of its metadata in an order of chance."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        content = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(size)
        if len(content) == size:
            file.seek(8)
            file.write(content)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors, memory-mapped.

    Raises:
        CheckpointError: not a safetensors file, a damaged one, or tensors of a type that no network here has.
    """
    try:
        with utf8_path(Path(path)) as opened, safe_open(opened, framework="pt") as file:
            return {name: _tensor(file, name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except _Unusable as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


class _Unusable(Exception):  # noqa: N818 - internal: becomes a CheckpointError once the file's name is at hand
    """What is wrong with a tensor."""


def _tensor(file: Any, name: str) -> Tensor:
    """A tensor, once torch is sure to take it: what it does not take raises errors of all kinds."""
    described = file.get_slice(name)
    shape: list[int] = described.get_shape()
    if (dtype := described.get_dtype()) not in _DTYPES:
        raise _Unusable(f"the tensor {listed([name])} is of type {dtype}, which no network here has")
    if len(shape) > _MAX_DIMENSIONS or 0 in shape:
        raise _Unusable(f"the tensor {listed([name])} has the shape {listed([str(shape)])}, which no network here has")
    return file.get_tensor(name)
