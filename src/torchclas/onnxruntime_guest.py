"""ONNX Runtime's package, as a guest of our process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from torchclas.errors import MissingDependencyError


def open_session(path: Path, settings: dict[str, str] | None = None, *, threads: int | None = None) -> Any:
    """An `InferenceSession` on the CPU; it raises exceptions of its own, which have no common base.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
    """
    forbid_telemetry()
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError("onnxruntime", "'torchclas[onnxruntime]'") from None
    if sys.platform == "win32":  # where the variable is not looked at
        onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    for key, value in (settings or {}).items():
        options.add_session_config_entry(key, value)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def forbid_telemetry() -> None:
    """Keep ONNX Runtime from reporting to its maker; to be called before it is imported.

    From 1.29 on its import starts a thread that sends what models are run to Microsoft. A process that is forked after
    that does not have the thread, and waits for it for ever when it exits.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
