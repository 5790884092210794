"""Shared by all tests: a cache of their own, and photographs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

os.environ["LC_ALL"] = "C.UTF-8"  # messages follow the locale

torch.set_num_threads(max(1, (os.cpu_count() or 2) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))

# In a job that a script put behind it Ctrl-C is ignored, and so it would be in all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


# What only the sweep runs: importing it takes seconds.
SWEPT_FOLDERS = {Path(__file__).parent / name for name in ("browser", "sweep")}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if config.getoption("markexpr") == "not sweep" and collection_path in SWEPT_FOLDERS else None


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Weights are converted once per session, never into the user's cache, and the network is left alone."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # the folder above is the session's, for all of its processes
        folder = folder.parent
    os.environ["TORCHCLAS_CACHE"] = str(folder / "cache")
    os.environ["TORCHCLAS_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def photographs() -> Path:
    """The folder of pictures that scikit-image brings: `chelsea.png`, a cat, `coffee.png` …"""
    import skimage

    return Path(skimage.__file__).parent / "data"


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """What is compared bit by bit, or is small, is computed by one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
