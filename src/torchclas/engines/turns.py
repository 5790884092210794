"""Times that can be compared: what is timed takes turns, since other programs may interfere."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


def take_turns(
    runs: Mapping[Name, Callable[[], object]], *, seconds: float, stretch: float = 0.0, least: int = 1
) -> dict[Name, list[float]]:
    """The seconds that each call of each of `runs` took, in as many turns as `seconds` for each of them need.

    In a turn each is called once, or until it has had `stretch` seconds in a row for every turn so far; each has
    `least` turns at least. The very first call is not counted, since it allocates.
    """
    for run in runs.values():
        run()
    times: dict[Name, list[float]] = {name: [] for name in runs}
    turn = 0
    while turn < least or sum(map(sum, times.values())) < seconds * len(runs):
        turn += 1
        for name, run in runs.items():
            while True:
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
                if sum(times[name]) >= turn * stretch:
                    break
    return times
