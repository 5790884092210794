"""What was made by quantizing, and how it does."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torchclas.engines.machine import this_machine
from torchclas.quantization.judging import Figures
from torchclas.quantization.network import FloatOperation
from torchclas.quantization.speed import Speed
from torchclas.version import __version__


@dataclass(frozen=True)
class QuantizationReport:
    """What was made, and how it does; `all_int8` is before anything was put back into float. Sizes are in bytes.

    `max_drop`, in percentage points, was allowed: of accuracy where `fp32` is there, else of agreement.
    """

    model: str
    path: Path
    calibration: str
    calibration_images: int
    checking: str
    checking_images: int
    unreadable: int
    max_drop: float
    fp32: Figures | None
    all_int8: Figures
    int8: Figures
    operations: int
    in_float: tuple[FloatOperation, ...]
    fp32_size: int
    int8_size: int
    threads: int
    speed: tuple[Speed, ...]
    seconds: float
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        machine = this_machine().to_dict()
        return {"torchclas": __version__, "machine": machine, **asdict(self), "path": str(self.path)}
