"""Cases run in processes of their own; their rows are kept, and a killed run goes on."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.timings import TINY, console, kept, printed, row, timing_of
from torchclas import catalog
from torchclas.benchmarking import bench, timing
from torchclas.benchmarking.fresh_weights import write_fresh_weights
from torchclas.benchmarking.results import Case, Result, Results
from torchclas.engines import installed
from torchclas.engines.machine import this_machine
from torchclas.errors import Error, OutputError
from torchclas.spec import find_model
from torchclas.tasks import benchmark
from torchclas.weights.metadata import KEY, Metadata
from torchclas.zoo import load_model


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


def test_weights_that_no_package_carries_are_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.10 has a version for a package without a name, which would have them fetched."""
    real = bench.metadata.version
    monkeypatch.setattr(bench.metadata, "version", lambda name: real(name) if name else "1.0")
    monkeypatch.setenv("TORCHCLAS_CACHE", str(tmp_path))
    assert bench._weights(Case(TINY, "torch", "fp32", 1, 1, "cpu")) == "random"
    assert bench._weights(Case("EfficientNet_lite0", "torch", "fp32", 1, 1, "cpu")) == "published"
