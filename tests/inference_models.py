"""Inference models that PaddlePaddle 2.6.2 and 3.3.1 exported, as far as they are kept here: their programs.

Of the attributes of operators only strides are kept, as others hold the paths of the machine that exported them.
The values of a parameter follow from its name. `data/inference_models.zip` has beside each program which of our
parameters each of its own is, which was told by the values when it was exported.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from torchclas.weights.inference_model import Array, Parameter, Program, read_program

ARCHIVE = Path(__file__).parent / "data" / "inference_models.zip"
# Of PaddlePaddle 2; of 3; with batch norms folded by Paddle Inference, or branches by PaddleClas.
CASES = (
    "PPLCNet_x0_25.pdmodel",
    "PPLCNet_x0_25-3.json",
    "PPLCNet_x0_25-folded.pdmodel",
    "DLA46_c.pdmodel",
    "DeiT_tiny_distilled_patch16_224-3.json",
    "RepVGG_A0-folded.pdmodel",
)
NUMBERS = {"f16": 4, "f32": 5, "bf16": 22, "i64": 3}


def program(case: str) -> bytes:
    with zipfile.ZipFile(ARCHIVE) as archive:
        return archive.read(case)


def names(case: str) -> dict[str, str]:
    """Their names → ours."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        return json.loads(archive.read(f"{Path(case).stem}.names.json"))


def unpack(case: str, folder: Path) -> tuple[Path, dict[str, Array]]:
    """The inference model in a folder, its program's path, and its values."""
    path = folder / f"inference{Path(case).suffix}"
    path.write_bytes(program(case))
    read = read_program(path)
    values = {name: value(parameter) for name, parameter in read.parameters.items()}
    path.with_suffix(".pdiparams").write_bytes(parameters(read, values))
    return path, values


def value(parameter: Parameter) -> Array:
    rng = np.random.default_rng(zlib.crc32(parameter.name.encode()))
    return 0.5 + rng.random(parameter.shape, dtype=np.float32)


def parameters(read: Program, values: dict[str, Array]) -> bytes:
    """The content of a .pdiparams."""
    pieces: list[bytes] = []
    for name in sorted(values):
        array = values[name]
        description = bytes([0x08, NUMBERS[read.parameters[name].dtype]])
        description += b"".join(b"\x10" + varint(length) for length in array.shape)
        pieces += [struct.pack("<IQIi", 0, 0, 0, len(description)), description, array.tobytes()]
    return b"".join(pieces)


def varint(number: int) -> bytes:
    rest, digit = divmod(number, 128)
    return bytes([digit]) if rest == 0 else bytes([digit | 128]) + varint(rest)
