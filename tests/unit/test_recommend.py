"""The search for a model: it finds what measuring all would."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.timings import TINY, kept, row
from torchclas import catalog
from torchclas.benchmarking import bench, search
from torchclas.benchmarking.results import Case, Result
from torchclas.benchmarking.search import top1
from torchclas.catalog import Entry
from torchclas.cli import app
from torchclas.errors import Error


def next_of(looking: search.Search) -> Entry:
    entry = looking.next()
    assert entry is not None
    return entry


def carried_out(looking: search.Search, times: dict[str, float]) -> list[str]:
    """Measure what the search asks for; the names, in order."""
    asked: list[str] = []
    while (entry := looking.next()) is not None:
        asked.append(entry.name)
        looking.add(entry, row(entry.name, times[entry.name]))
    return asked


@hypothesis.settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([2.0, 8.0, 40.0]), st.sampled_from([None, 70.0, 78.0]))
def test_the_search_finds_what_measuring_all_would(random: object, max_ms: float, min_top1: float | None) -> None:
    bounds = search.Bounds(max_ms, min_top1)
    found = search.candidates(bounds)
    # Rates within the headroom of each other: what the search relies on.
    times = {entry.name: 10 * search.gflops(entry) * random.uniform(1.01, 1.99) for entry in found}  # type: ignore[attr-defined]
    looking = search.Search(bounds, found)
    asked = carried_out(looking, times)
    best = max((entry.top1 or 0 for entry in found if times[entry.name] <= max_ms), default=None)
    assert next((entry.top1 for entry in looking.fitting), None) == best
    assert len(asked) == len(set(asked))


def test_the_search_for_the_fastest_leaves_out_what_computes_too_much() -> None:
    bounds = search.Bounds(min_top1=75)
    found = search.candidates(bounds)
    times = {entry.name: 10 * search.gflops(entry) + 1 for entry in found}
    looking = search.Search(bounds, found)
    asked = carried_out(looking, times)
    assert looking.fitting[0].name == min(times, key=lambda name: times[name])
    assert len(asked) < len(found) / 4


def test_larger_kin_of_what_is_too_slow_are_left_out() -> None:
    """A family may be far slower than others per multiply-add: one of it that is too slow settles its larger ones."""
    bounds = search.Bounds(max_ms=10, min_top1=75)
    found = search.candidates(bounds)
    slow = {"LeViT": 4.0, "ReXNet": 3.0, "MixNet": 5.0, "GhostNet": 3.0}
    times = {entry.name: 8 * search.gflops(entry) * slow.get(entry.series.id, 1.0) for entry in found}
    looking = search.Search(bounds, found)
    asked = carried_out(looking, times)
    assert len(asked) <= 14
    assert looking.fitting[0].top1 == max(entry.top1 or 0 for entry in found if times[entry.name] <= 10)


def test_candidates_are_the_best_weights_of_each_network() -> None:
    names = {entry.name for entry in search.candidates(search.Bounds(min_top1=75, max_params=30e6))}
    assert "ResNet50_vd_ssld" in names  # and not the same network with lesser weights
    assert "ResNet50_vd" not in names
    assert "ResNet50_vd_v2" not in names
    assert all(top1(catalog.find(name)) >= 75 for name in names)
    assert "MobileNetV3_large_x1_0_ssld_int8" not in names, "it has no weights of its own"


def advised(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = app(
        ["recommend", *arguments, "--engine", "torch", "--threads", "1", "--device", "cpu", "--results", str(folder)]
    )
    return code or 0, capsys.readouterr().out


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with rows of every model, 10 ms per 10⁹ multiply-adds; nothing else is to be measured."""
    kept(tmp_path, *(row(entry.name, 1 + 10 * search.gflops(entry)) for entry in catalog.entries() if entry.weights))

    def measure(*_: object) -> Result:
        raise AssertionError("earlier results are there")

    monkeypatch.setattr(bench.Bench, "measure", measure)
    return tmp_path


def test_recommend_from_earlier_results(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = advised(measured, capsys, "--max-ms", "10", "--min-top1", "75", "--max-params", "10M")
    fitting = [entry for entry in search.candidates(search.Bounds(10, 75, 10e6)) if 1 + 10 * search.gflops(entry) <= 10]
    best = sorted(fitting, key=lambda entry: -top1(entry))
    assert code == 0
    assert said.startswith(f"{best[0].name}\n")
    assert "the most accurate within 10 ms" in said
    assert said.index(best[0].name, len(best[0].name)) < said.index(best[1].name) < said.index(best[2].name)


def test_the_best_so_far_after_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(timer: bench.Bench, case: Case) -> Result:
        if len(timer.rows) == 2:
            raise KeyboardInterrupt
        timer.rows[case] = row(case.model, 4)
        return timer.rows[case]

    monkeypatch.setattr(bench.Bench, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        advised(tmp_path, capsys, "--max-ms", "10", "--min-top1", "75")
    said, progress = capsys.readouterr()
    assert re.search(r"stopped: the best so far; \d+ candidates that may be better were not measured", said)
    assert "2 of 145 candidates measured" in said
    assert re.search(r"top-1 [\d.]+ %: 4.00 ms  \d+ more may be better", progress)


def test_recommend_when_nothing_fits(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = advised(measured, capsys, "--max-ms", "3", "--min-top1", "82")
    assert code == 1
    assert "Nothing here meets at most 3 ms, top-1 of at least 82 %" in said
    pool = search.candidates(search.Bounds(None, 82))
    fastest = min(pool, key=search.gflops)
    within = [entry for entry in search.candidates(search.Bounds()) if 1 + 10 * search.gflops(entry) <= 3]
    assert fastest.name in said
    assert f"{(1 + 10 * search.gflops(fastest)) / 3:.2f} times as long" in said
    assert max(within, key=top1).name in said


def test_recommend_says_what_no_published_figure_meets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Error, match=r"SwinTransformer_large\S+ comes nearest with 87\.\d+ %"):
        advised(tmp_path, capsys, "--min-top1", "95")
    with pytest.raises(Error, match="--max-ms"):
        advised(tmp_path, capsys)


def test_recommend_gives_up_where_nothing_can_be_measured() -> None:
    bounds = search.Bounds(max_ms=10)
    looking = search.Search(bounds, search.candidates(bounds))
    failed = replace(row(TINY, math.nan), timing=None, error="no such engine")
    for _ in range(search.PATIENCE - 1):
        looking.add(next_of(looking), failed)
    with pytest.raises(Error, match="no such engine"):
        looking.add(next_of(looking), failed)
