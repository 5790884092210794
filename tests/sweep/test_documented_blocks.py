"""The documented blocks that can be run do what their pages say, in order, from a fresh folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documented_blocks import DOCS, blocks, pages, run

pytest.importorskip("skimage", reason="there are no photographs here: pip install scikit-image")

pytestmark = pytest.mark.sweep
RUNNABLE = [page for page in pages() if any(block.why_not is None for block in blocks(page))]


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: str(page.relative_to(DOCS)))
def test_blocks_run(page: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    run(page, folder, tmp_path / "cache")


def test_there_are_pages_to_run() -> None:
    assert {"start.md", "choose.md", "offline.md"} <= {page.name for page in RUNNABLE}
