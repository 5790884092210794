"""What a file says of itself where its format has no place for it: `FILE.json` beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from torchclas.exporting.onnx import class_lines
from torchclas.text import json_text
from torchclas.vocabulary import INPUT, EngineName, ExportPrecision
from torchclas.weights.exported import digests, sidecar_of
from torchclas.weights.metadata import KEY, Metadata


def write_sidecar(
    path: Path, metadata: Metadata, *, runtime: EngineName, precision: ExportPrecision, batch: int | None
) -> None:
    """Describe a written model: for us under `torchclas`, for other programs in plain words."""
    shape: Sequence[int | str] = (batch or "N", metadata.in_channels, *metadata.preset.size)
    described = {
        "runtime": runtime,
        "precision": precision,
        "input": {"name": INPUT, "dtype": "float32", "shape": shape},
        "outputs": metadata.outputs,
        **{key: text.split("\n") for key, text in class_lines(metadata).items()},
        "sha256": digests(path),
        KEY: json.loads(metadata.to_json()),
    }
    lines = json.dumps(described, ensure_ascii=False, indent=1).split("\n")
    sidecar_of(path).write_text("".join(f"{json_text(line)}\n" for line in lines), encoding="utf-8")
