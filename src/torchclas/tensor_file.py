"""safetensors files larger than memory: the header is written first, the tensors are streamed, and read as maps.

The format: the length of the header as 8 bytes (little-endian), the header as JSON, the tensors' values one after
another (https://github.com/huggingface/safetensors#format). The package's own writer wants all of them in memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from torchclas.errors import DataError
from torchclas.weights.links import utf8_path

_NAMES = {"float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "uint8": "U8"}


def write_header(
    file: IO[bytes], tensors: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], metadata: Mapping[str, str]
) -> None:
    """Write what comes before the values of `tensors` (type and shape), which are to follow in this order."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    start = 0
    for name, (kind, shape) in tensors.items():
        end = start + kind.itemsize * math.prod(shape)
        header[name] = {"dtype": _NAMES[kind.name], "shape": list(shape), "data_offsets": [start, end]}
        start = end
    content = json.dumps(header, ensure_ascii=False).encode()
    content += b" " * (-len(content) % 8)  # values begin where numbers of 8 bytes may
    file.write(len(content).to_bytes(8, "little") + content)


def read_metadata(path: Path) -> Mapping[str, str]:
    """The metadata of a safetensors file; raises `DataError` for what is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with utf8_path(path) as opened, safe_open(opened, framework="np") as file:
            return file.metadata() or {}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: not a readable safetensors file ({error})") from error


def map_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a file that `read_metadata` has read, as arrays that are on the disk until they are used."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    kinds = {name: kind for kind, name in _NAMES.items()}
    found: dict[str, npt.NDArray[Any]] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if (kind := kinds.get(entry["dtype"])) is None:
            raise DataError(f"{path}: {name} is of the type {entry['dtype']}, which no file of vectors has")
        shape = tuple(entry["shape"])
        if math.prod(shape) == 0:
            found[name] = np.empty(shape, kind)
        else:
            found[name] = np.memmap(path, kind, "r", 8 + length + entry["data_offsets"][0], shape)
    return found
