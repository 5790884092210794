"""Weights that are made up, where the published file of a name would be."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.parity.golden import golden  # noqa: E402
from torchclas import catalog  # noqa: E402
from torchclas.weights.cache import published_path  # noqa: E402


def write_published(name: str, cache: Path) -> None:
    """Put the file into a cache as if it had just been fetched. The cache becomes the one of this process."""
    os.environ["TORCHCLAS_CACHE"] = str(cache)
    entry = catalog.find(name)
    assert entry.weights is not None
    assert entry.weights.url is not None
    path = published_path(entry.weights.url)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        golden(entry.arch).write(path)
