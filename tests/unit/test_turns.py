"""What is timed takes turns."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from torchclas.engines import turns


class Clock:
    """A clock that runs only while something is timed; `calls` are the names of what ran."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls = ""

    def run(self, name: str, seconds: float) -> Callable[[], None]:
        def work() -> None:
            self.now += seconds
            self.calls += name

        return work


@pytest.mark.parametrize(
    ("stretch", "least", "calls"),
    [
        (0.0, 1, "ab" + "ab" * 3),  # a call each until both together had twice the seconds
        (0.0, 5, "ab" + "ab" * 5),
        (2.0, 1, "ab" + "aab" * 2),  # 2 s of each, then as many again
    ],
)
def test_they_take_turns(monkeypatch: pytest.MonkeyPatch, stretch: float, least: int, calls: str) -> None:
    clock = Clock()
    monkeypatch.setattr(turns.time, "perf_counter", lambda: clock.now)
    times = turns.take_turns(
        {"a": clock.run("a", 1.0), "b": clock.run("b", 2.0)}, seconds=4.0, stretch=stretch, least=least
    )
    assert clock.calls == calls
    assert times == {"a": [1.0] * (calls.count("a") - 1), "b": [2.0] * (calls.count("b") - 1)}
