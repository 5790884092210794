"""`benchmark` on the command line."""

from __future__ import annotations

import pytest

from tests.timings import TINY
from torchclas.benchmarking.results import Case, Result
from torchclas.cli import app
from torchclas.tasks import benchmark


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Case] = []

    def note(planned: list[Case], **_: object) -> list[Result]:
        seen.extend(planned)
        return []

    monkeypatch.setattr(benchmark, "benchmark", note)
    app(
        [
            "benchmark",
            TINY,
            "--engine",
            "torch,openvino",
            "--batch",
            "1,8",
            "--threads",
            "1",
            "--precision",
            "fp32,int8",
        ]
    )
    assert len(seen) == 8
    assert {case.batch for case in seen} == {1, 8}
    assert {case.engine for case in seen} == {"torch", "openvino"}
