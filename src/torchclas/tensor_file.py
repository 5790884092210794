"""safetensors files larger than memory: the header is written first, the tensors are streamed, and read as maps.

The format: the length of the header as 8 bytes (little-endian), the header as JSON, the tensors' values one after
another (https://github.com/huggingface/safetensors#format). The package's own writer wants all of them in memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

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
