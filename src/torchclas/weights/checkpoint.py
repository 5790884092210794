"""Our own checkpoint: one safetensors file that says everything a command needs to run it."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from torchclas.atomic import atomic_path
from torchclas.errors import CheckpointError
from torchclas.layers.network import Network
from torchclas.weights.links import utf8_path
from torchclas.weights.metadata import KEY, Metadata


def save_checkpoint(model: Network, path: str | Path, metadata: Metadata) -> None:
    """Write weights and metadata as one file, atomically."""
    with atomic_path(path) as temporary:
        write_checkpoint(model, temporary, metadata)


def write_checkpoint(model: Network, path: Path, metadata: Metadata) -> None:
    """`save_checkpoint` to a path that is temporary already."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, path, metadata={KEY: metadata.to_json(), "format": "pt"})


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors, memory-mapped."""
    try:
        with utf8_path(Path(path)) as opened, safe_open(opened, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
