"""OpenVINO's package, as a guest of our process."""

from __future__ import annotations

import functools
import sys
from typing import Any

from torchclas.errors import MissingDependencyError


def forbid_telemetry() -> None:
    """Keep OpenVINO and NNCF from reporting to their maker; to be called before either is imported.

    Importing OpenVINO sends a message over the network, from a process that it forks in the middle of ours (with
    threads running, which can leave that process hanging for ever). Both do without their reporting package when it
    cannot be imported.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType] - how Python says "missing"


_CONVERTER = "openvino.tools.ovc"


def skip_converter() -> None:
    """Let OpenVINO be imported without its converter, a third of the time that takes; `convert_model` brings it back.

    For commands of ours that only run networks: other code in the process would miss `openvino.convert_model`.
    """
    sys.modules.setdefault(_CONVERTER, None)  # pyright: ignore[reportArgumentType] - how Python says "missing"


def convert_model(onnx_file: str) -> Any:
    """An ONNX file as an `openvino.Model`.

    Raises:
        MissingDependencyError: openvino is not installed.
    """
    openvino_core()
    if not sys.modules.get(_CONVERTER):
        sys.modules.pop(_CONVERTER, None)
    from openvino.tools.ovc import convert_model

    return convert_model(onnx_file)


def openvino_core() -> Any:
    """The `openvino.Core` of this process, for all its models.

    Raises:
        MissingDependencyError: openvino is not installed.
    """
    forbid_telemetry()
    try:
        import openvino  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        raise MissingDependencyError("openvino", "'torchclas[openvino]'") from None
    return _core()


@functools.cache
def _core() -> Any:
    """Made once, and never given back.

    A Core gives the thread that makes it another stack for signal handlers, and takes it away when it goes. When two go
    in the order in which they came, that stack stays set and is no longer there: the next signal that Python handles,
    Ctrl-C above all, ends the process with a segmentation fault (seen with OpenVINO 2026.4).
    """
    import openvino

    return openvino.Core()
