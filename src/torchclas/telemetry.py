"""What other packages would tell their makers about our users."""

from __future__ import annotations

import sys


def forbid_telemetry() -> None:
    """Keep OpenVINO and NNCF from reporting to their maker; to be called before either is imported.

    Importing OpenVINO sends a message over the network, from a process that it forks in the middle of ours (with
    threads running, which can leave that process hanging for ever). Both do without their reporting package when it
    cannot be imported.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType] - how Python says "missing"
