"""What is timed: the machine, cases, and how many repetitions are enough."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from tests.timings import TINY
from torchclas import catalog
from torchclas.benchmarking import bench, timing
from torchclas.engines.machine import busy_seconds, this_machine
from torchclas.errors import UnknownNameError


def test_machine() -> None:
    machine = this_machine()
    assert json.loads(json.dumps(machine.to_dict()))["id"] == machine.id
    assert replace(machine, cpu="another").id != machine.id
    assert replace(machine, versions={}, governor="powersave").id == machine.id
    assert machine.threads >= 1
    assert machine.cpu


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_busy_seconds_count_our_own() -> None:
    before, own = busy_seconds(), time.process_time()
    assert before is not None
    while time.process_time() - own < 0.1:
        pass
    after = busy_seconds()
    assert after is not None
    assert after - before > 0.05


def test_only_engines_may_need_torch() -> None:
    code = "import sys, torchclas.tasks.benchmark, torchclas.tasks.recommend; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_warm_up_ends_when_times_are_steady() -> None:
    times = iter([1.0, 0.5, 0.3, *[0.2] * 100])
    assert timing.warm(lambda: next(times), limit=60) == 4 + timing.PATIENCE


def test_warm_up_has_a_limit() -> None:
    times = (1 / number for number in range(1, 10_000))  # faster for ever
    assert timing.warm(lambda: next(times), limit=0) == 2


def test_few_runs_of_a_slow_network() -> None:
    assert len(timing.repeat(lambda: 100.0, limit=0)) == timing.MIN_REPEATS


def test_cases_are_every_combination() -> None:
    planned = bench.cases([TINY, "ppLCnet_x0_5"], engines=("torch", "openvino"), batches=(1, 8), threads=(1, 2))
    assert len(planned) == len(set(planned)) == 16
    assert [case.model for case in planned] == [TINY] * 8 + ["PPLCNet_x0_5"] * 8


def test_cases_of_globs_and_series() -> None:
    assert {case.model for case in bench.cases(series="LeViT")} == set(catalog.names(series="LeViT"))
    assert [case.model for case in bench.cases(["alex*", "AlexNet"])] == ["AlexNet"]
    everything = {entry.name for entry in catalog.entries() if entry.weights is not None}
    assert {case.model for case in bench.cases()} == everything


@pytest.mark.parametrize("name", ["PPLCNet_x9", "PPLCNet_x9*"])
def test_unknown_models(name: str) -> None:
    with pytest.raises(UnknownNameError, match="PPLCNet"):
        bench.cases([name])
