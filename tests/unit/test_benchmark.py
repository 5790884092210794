from __future__ import annotations

import csv
import io
import json
import math
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from xml.etree import ElementTree

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from torchclas import catalog
from torchclas.benchmarking import bench, search, timing
from torchclas.benchmarking.fresh_weights import write_fresh_weights
from torchclas.benchmarking.results import Case, Result, Results, Timing, settings
from torchclas.benchmarking.search import top1
from torchclas.catalog import Entry
from torchclas.cli import app
from torchclas.engines import installed
from torchclas.engines.machine import busy_seconds, this_machine
from torchclas.errors import Error, MissingDependencyError, OutputError, UnknownNameError
from torchclas.reporting import charts, speed_charts, speed_page
from torchclas.reporting.console import Console
from torchclas.spec import find_model
from torchclas.tasks import benchmark
from torchclas.weights.metadata import KEY, Metadata
from torchclas.zoo import load_model

TINY = "PPLCNet_x0_25"


def timing_of(ms: float, *, batch: int = 1) -> Timing:
    return Timing(
        ran="torch",
        version=installed()["torch"],
        hardware="a processor",
        weights="random",
        median_ms=ms,
        p5_ms=0.9 * ms,
        p95_ms=1.2 * ms,
        best_ms=0.8 * ms,
        spread=0.1,
        images_per_s=1000 * batch / ms,
        repeats=9,
        warm_up=3,
        load_s=0.5,
        peak_mib=300.0,
        load_average=0.1,
        others=0.0,
    )


def row(model: str, ms: float, *, batch: int = 1) -> Result:
    return Result(
        Case(model, "torch", "fp32", batch, 1, "cpu"), timing_of(ms, batch=batch), "", "2030-01-01T00:00:00+00:00"
    )


def kept(folder: Path, *rows: Result) -> Results:
    results = Results(folder)
    results.claim(this_machine())
    for each in rows:
        results.append(each)
    return results


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def printed(to: Console) -> str:
    assert isinstance(to.file, io.StringIO)
    return to.file.getvalue()


# The machine.


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


# Statistics.


def test_warm_up_ends_when_times_are_steady() -> None:
    times = iter([1.0, 0.5, 0.3, *[0.2] * 100])
    assert timing.warm(lambda: next(times), limit=60) == 4 + timing.PATIENCE


def test_warm_up_has_a_limit() -> None:
    times = (1 / number for number in range(1, 10_000))  # faster for ever
    assert timing.warm(lambda: next(times), limit=0) == 2


def test_few_runs_of_a_slow_network() -> None:
    assert len(timing.repeat(lambda: 100.0, limit=0)) == timing.MIN_REPEATS


# Cases.


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


# Running.


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A network of one convolution, in a file that runs without torch."""
    weights = numpy_helper.from_array(np.ones((10, 3, 8, 8), np.float32), "weights")
    nodes = [
        helper.make_node("Conv", ["images", "weights"], ["map"], strides=[8, 8]),
        helper.make_node("GlobalAveragePool", ["map"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["logits"]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 224, 224])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])
    model = helper.make_model(
        helper.make_graph(nodes, "tiny", [images], [logits], [weights]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    names = tuple(map(str, range(10)))
    preset = catalog.find(TINY).preset
    described = Metadata(arch=TINY, num_classes=10, preset=preset, class_ids=names, class_names=names)
    helper.set_model_props(model, {KEY: described.to_json()})
    path = tmp_path / "tiny.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_real_cases_survive_a_kill(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    options = ["--engine", "onnxruntime", "--batch", "1,2", "--threads", "1", "--seconds", "0.2", "--device", "cpu"]
    command = [sys.executable, "-m", "torchclas", "benchmark", str(exported), *options, "-o", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows = folder / "results.jsonl"
    while process.poll() is None and not (rows.is_file() and rows.read_bytes().endswith(b"\n")):
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it should have been killed between its two cases"
    first = rows.read_text(encoding="utf-8")
    assert len(first.splitlines()) == 1
    rows.write_text(first + first[:50], encoding="utf-8")  # a line that was being written
    (folder / ".fresh").mkdir()  # what is left of random weights

    planned = bench.cases([str(exported)], engines=("onnxruntime",), batches=(1, 2), threads=(1,), device="cpu")
    done = benchmark.benchmark(planned, seconds=0.2, output=folder, console=console(), notes=console())
    lines = rows.read_text(encoding="utf-8").splitlines()
    assert lines[:2] == [first.strip(), first[:50]]
    assert len(lines) == 3, "only the case without a row was run"
    assert Results(folder).read() == {each.case: each for each in done}
    for case, each in zip(planned, done, strict=True):
        assert each.case == case
        assert_sound(each)
        assert each.timing is not None
        assert each.timing.weights == "own"
    assert not (folder / ".fresh").exists()
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [line["batch"] for line in table] == ["1", "2"]
    assert float(table[0]["median_ms"]) == done[0].timing.median_ms  # pyright: ignore[reportOptionalMemberAccess]
    assert json.loads((folder / "machine.json").read_text(encoding="utf-8")) == this_machine().to_dict()
    assert (folder / "index.html").is_file()
    assert (folder / "charts" / "throughput.svg").is_file()


def assert_sound(row: Result) -> None:
    taken = row.timing
    assert taken is not None, row.error
    assert (taken.ran, taken.version) == (row.case.engine, installed()[taken.ran])
    assert 0 < taken.best_ms <= taken.p5_ms <= taken.median_ms <= taken.p95_ms
    assert taken.images_per_s == pytest.approx(1000 * row.case.batch / taken.median_ms)
    assert taken.repeats >= timing.MIN_REPEATS
    # What the process held before counts too, and here that is whatever tests it ran. Linux counts in batches of pages.
    assert taken.peak_mib is None or 30 < taken.peak_mib < 16 + (timing.peak_mebibytes() or 0)


def test_random_weights(tmp_path: Path) -> None:
    case, fresh = Case(TINY, "torch", "fp32", 1, 1, "cpu"), tmp_path / "fresh.safetensors"
    taken = timing.time_case(timing.Task(case, "random", 0.1, str(fresh)))
    assert_sound(Result(case, taken, "", ""))
    assert taken.weights == "random"
    assert "finite" not in taken.remark
    assert find_model(TINY, weights=fresh).path == fresh


@pytest.mark.parametrize("name", [TINY, "DenseNet121"])
def test_values_in_a_fresh_network_neither_explode_nor_vanish(name: str, tmp_path: Path) -> None:
    entry = catalog.find(name)
    write_fresh_weights(entry, tmp_path / "fresh.safetensors")
    network = load_model(find_model(name, weights=tmp_path / "fresh.safetensors"))
    sizes: list[float] = []
    for module in network.modules():
        module.register_forward_hook(lambda *hooked: sizes.append(float(hooked[2].abs().max())))
    with torch.inference_mode():
        network(torch.randn(1, 3, 224, 224))
    assert all(size == 0 or 1e-6 < size < 1e6 for size in sizes)


@pytest.mark.sweep
def test_random_weights_in_a_process_of_their_own(tmp_path: Path) -> None:
    with bench.Bench(tmp_path, seconds=0.1) as timer:
        for batch in (1, 2):
            row = timer.measure(Case(TINY, "onnxruntime", "fp32", batch, 1, "cpu"))
            assert_sound(row)
            assert row.timing is not None
            assert row.timing.weights == "random"
        assert (tmp_path / ".fresh").is_dir()
    assert not (tmp_path / ".fresh").exists(), "random weights are not kept"


def test_a_failed_case_is_a_row(tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    case = Case(str(broken), "torch", "fp32", 1, 1, "cpu")
    (failed,) = benchmark.benchmark([case], seconds=0.1, output=tmp_path / "out", console=console(), notes=console())
    assert failed.timing is None
    assert "is no safetensors file" in failed.error
    assert Results(tmp_path / "out").read()[case] == failed


def test_one_process_has_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "LOCK_PATIENCE", 0)
    with bench.Bench(tmp_path), pytest.raises(Error, match="another process"), bench.Bench(tmp_path):
        pass


# Rows.


def test_the_last_row_of_a_case_counts(tmp_path: Path) -> None:
    old, other, new = row(TINY, 3), row("AlexNet", 9), row(TINY, 2)
    assert list(kept(tmp_path, old, other, new).read().values()) == [other, new]


def test_the_same_network_is_timed_once_and_reported_under_both_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def run(_: bench.Bench, task: timing.Task) -> dict[str, object]:
        asked.append(task.case.model)
        return {"timing": asdict(timing_of(3)), "prepare_s": 1.0}

    monkeypatch.setattr(bench.Bench, "_run", run)
    planned = bench.cases(
        ["PPLCNet_x0_5", "PPLCNet_x0_5_ssld", "ResNet50_vd", "Fix_ResNet50_vd_ssld_v2", "ResNet50_vd_v2"],
        engines=("torch",),
        threads=(1,),
        device="cpu",
    )
    out = console()
    done = benchmark.benchmark(planned, seconds=0.1, output=tmp_path, console=out, notes=console())
    assert list(dict.fromkeys(asked)) == ["PPLCNet_x0_5", "ResNet50_vd", "Fix_ResNet50_vd_ssld_v2"]
    timed_as = [each.timing and each.timing.timed_as for each in done]
    assert timed_as == ["", "PPLCNet_x0_5", "", "", "ResNet50_vd"], "another input size is another network"
    assert "timed as PPLCNet_x0_5, the same network" in printed(out)
    assert set(Results(tmp_path).read()) == set(planned), "charts and tables have both names"


def test_another_engine_s_version_is_measured_again(tmp_path: Path) -> None:
    now, before = row(TINY, 3), row("AlexNet", 3)
    assert before.timing is not None
    before = replace(before, timing=replace(before.timing, version="0.1"))
    kept(tmp_path, now, before)
    with bench.Bench(tmp_path) as timer:
        assert timer.known(now.case) == now
        assert timer.known(before.case) is None


def test_a_folder_belongs_to_one_machine(tmp_path: Path) -> None:
    kept(tmp_path)
    with pytest.raises(OutputError, match=re.escape(this_machine().cpu)):
        Results(tmp_path).claim(replace(this_machine(), cpu="another"))


def test_rows_of_another_format(tmp_path: Path) -> None:
    results = kept(tmp_path)
    results.path.write_text('{"model": "x"}\n', encoding="utf-8")
    with pytest.raises(OutputError, match="line 1"):
        results.read()


# Charts and the page.


def test_charts_hold_the_measured_points(tmp_path: Path) -> None:
    rows = [row("ResNet18", 12), row("ResNet50", 30), row("ResNet50_vd_ssld", 33), row("AlexNet", 9), row(TINY, 2)]
    results = kept(tmp_path, *rows, row(TINY, 14, batch=8), row("PPLCNet_x1_0_text_orientation", 5))
    written = speed_charts.write_charts(results)
    folder = tmp_path / "charts" / "torch-fp32-batch-1-1-thread"
    assert {path.name for path in folder.iterdir()} == {
        f"{name}{suffix}" for name in ("server", "mobile", "other", "pareto") for suffix in (".svg", ".png")
    }
    assert all(path.stat().st_size for path in written)
    ids = {element.get("id") for element in ElementTree.parse(folder / "server.svg").iter()}
    assert {"ResNet18", "ResNet50", "ResNet50_vd_ssld"} <= ids
    assert "AlexNet" not in ids
    ids = {element.get("id") for element in ElementTree.parse(folder / "pareto.svg").iter()}
    assert {each.case.model for each in rows} <= ids

    shown = speed_charts.measured(next(iter(settings(results.read())))[1])
    axes = speed_charts.plot_kind([each for each in shown if each.entry.series.group.kind == "server"], "batch 1").axes[
        0
    ]
    points = {line.get_gid(): tuple(np.ravel(line.get_xydata())) for line in axes.lines if line.get_gid()}
    assert points == {
        model: (ms, catalog.find(model).top1)
        for model, ms in (("ResNet18", 12), ("ResNet50", 30), ("ResNet50_vd_ssld", 33))
    }
    assert "measured" in axes.get_xlabel()
    assert "published" in axes.get_ylabel()


def test_throughput_has_every_model_in_every_setting(tmp_path: Path) -> None:
    rows = kept(tmp_path, row(TINY, 2), row(TINY, 8, batch=8), row("AlexNet", 9)).read()
    axes = speed_charts.plot_throughput(dict(settings(rows))).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["AlexNet", TINY]
    drawn = {str(line.get_gid()): np.asarray(line.get_xydata()).tolist() for line in axes.lines if line.get_gid()}
    assert drawn == {
        "torch fp32, batch 1, 1 thread": [[1000 / 9, 0], [500, 1]],
        "torch fp32, batch 8, 1 thread": [[1000, 1]],
    }


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1))
def test_pareto_front(values: list[tuple[int, int]]) -> None:
    points = [speed_charts.Point(str(number), x, y) for number, (x, y) in enumerate(values)]
    front = speed_charts.pareto_front(points)
    for point in points:
        beaten = any(
            other.x <= point.x and other.y >= point.y and (other.x, other.y) != (point.x, point.y) for other in points
        )
        assert beaten == ((point.x, point.y) not in {(other.x, other.y) for other in front})
    assert front == sorted(front, key=lambda point: point.x)


def test_the_page_holds_its_rows_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    failed = replace(row("AlexNet", 1), timing=None, error="bad </script><b>")
    (page,) = speed_page.write_page(kept(tmp_path, row(TINY, 2), failed))
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found
    data = json.loads(found[1])
    assert [each["model"] for each in data["rows"]] == [TINY, "AlexNet"]
    assert data["rows"][0]["median_ms"] == 2
    assert data["rows"][1]["error"] == failed.error
    assert data["machine"]["cpu"] == this_machine().cpu
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", text)


def test_what_is_read_from_files_cannot_end_the_script_of_the_page(tmp_path: Path) -> None:
    rows = [row(f"{tmp_path}/{name}.onnx", 2) for name in ("<!--<script>", "</script>", "a&b")]
    (page,) = speed_page.write_page(kept(tmp_path, *rows))
    text = page.read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 2
    assert "<!--" not in text
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found
    assert [each["model"] for each in json.loads(found[1])["rows"]] == ["<!--<script>.onnx", "script>.onnx", "a&b.onnx"]


def test_the_page_is_small_and_says_when_the_machine_was_busy(tmp_path: Path) -> None:
    busy = row(TINY, 2)
    assert busy.timing is not None
    busy = replace(busy, timing=replace(busy.timing, remark="the machine was busy"))
    (page,) = speed_page.write_page(kept(tmp_path, busy))
    assert page.stat().st_size < 100_000
    assert '"remark": "the machine was busy"' in page.read_text(encoding="utf-8")


def test_without_what_draws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    results = kept(tmp_path, row(TINY, 2))
    for module in ["matplotlib", *(name for name in sys.modules if name.startswith("matplotlib."))]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        speed_charts.write_charts(results)
    assert speed_page.write_page(results)[0].is_file(), "the page draws its own"


# Recommendations.


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


# The command line.


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


def test_designs_of_published_and_measured_charts_are_the_same() -> None:
    entry = catalog.find("ResNet50_vd_ssld")
    assert (charts.design(entry), charts.is_ssld(entry)) == ("ResNet_vd", True)


def test_weights_that_no_package_carries_are_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.10 has a version for a package without a name, which would have them fetched."""
    real = bench.metadata.version
    monkeypatch.setattr(bench.metadata, "version", lambda name: real(name) if name else "1.0")
    monkeypatch.setenv("TORCHCLAS_CACHE", str(tmp_path))
    assert bench._weights(Case(TINY, "torch", "fp32", 1, 1, "cpu")) == "random"
    assert bench._weights(Case("EfficientNet_lite0", "torch", "fp32", 1, 1, "cpu")) == "published"
