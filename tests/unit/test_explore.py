"""The zoo as data and as one page; what the page says in both languages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from torchclas import catalog
from torchclas.benchmarking.results import Case, Result, Results, Timing
from torchclas.engines.machine import this_machine
from torchclas.errors import OutputError
from torchclas.reporting.zoo_overview import zoo_overview
from torchclas.serving.explorer import STATIC, write_explorer

TIMING = Timing(
    ran="torch",
    version="2",
    hardware="a processor",
    weights="random",
    median_ms=12.5,
    p5_ms=12.0,
    p95_ms=13.0,
    best_ms=12.0,
    spread=0.1,
    images_per_s=80.0,
    repeats=10,
    warm_up=2,
    load_s=1.0,
    peak_mib=None,
    load_average=None,
    others=None,
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCHCLAS_CACHE", str(tmp_path))
    return tmp_path


def kept(cache: Path) -> Results:
    results = Results(cache / "benchmark" / this_machine().id)
    results.folder.mkdir(parents=True)
    return results


def test_what_was_timed_here_stands_beside_what_was_published(cache: Path) -> None:
    assert zoo_overview()["here"]["rows"] == []
    results = kept(cache)
    for model, timing in (("PPLCNet_x1_0", TIMING), ("ResNet18", None), (str(cache / "mine.onnx"), TIMING)):
        results.append(Result(Case(model, "torch", "fp32", 1, 2), timing, "" if timing else "failed", "2026-01-01"))
    zoo = zoo_overview()
    row = {"model": "PPLCNet_x1_0", "setting": "torch fp32, batch 1, 2 threads", "ms": 12.5, "engine": "torch"}
    assert zoo["here"]["rows"] == [{**row, "remark": ""}]
    assert [model["name"] for model in zoo["models"]] == catalog.names()
    assert str(cache) not in json.dumps(zoo)  # clients learn nothing of the files of this machine


def test_timings_of_another_version_stop_the_command_but_not_the_service(cache: Path) -> None:
    kept(cache).path.write_text('{"case": {}, "timing": {}}\n')
    with pytest.raises(OutputError, match="not a row of this version"):
        zoo_overview()
    assert zoo_overview(timings=False)["here"]["rows"] == []


def test_the_page_is_one_file(cache: Path) -> None:
    page = write_explorer(cache / "zoo.html").read_text(encoding="utf-8")
    assert not re.search(r"^(import|export) ", page, re.MULTILINE)
    assert not re.search(r"<(?:script|link|img)[^>]*(?:src|href)=\"(?!data:)", page)
    found = re.search(r'<script type="application/json" id="zoo">(.*?)</script>', page, re.DOTALL)
    assert found
    assert json.loads(found[1]) == zoo_overview()
    assert "<" not in found[1]


def test_the_command_needs_neither_torch_nor_the_extra(cache: Path) -> None:
    code = (
        "import sys; from torchclas.cli import run; status = run(sys.argv[1:]);"
        "assert not {'torch', 'fastapi', 'uvicorn', 'matplotlib'} & set(sys.modules); sys.exit(status)"
    )
    command = [sys.executable, "-c", code, "explore", "-o", str(cache / "zoo.html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"wrote {cache / 'zoo.html'}\n"
    assert (cache / "zoo.html").is_file()


def texts() -> dict[str, dict[str, str]]:
    """What text.js says, by language."""
    found: dict[str, dict[str, str]] = {}
    for line in (STATIC / "text.js").read_text(encoding="utf-8").splitlines():
        if opened := re.fullmatch(r"  (en|zh): {", line):
            found[opened[1]] = {}
        elif row := re.fullmatch(r'    "([^"]+)": "(.*)",', line):
            found[list(found)[-1]][row[1]] = row[2]
    return found


def test_the_page_says_the_same_in_both_languages() -> None:
    said = texts()
    assert list(said["en"]) == list(said["zh"])
    assert len(said["en"]) > 100
    for key, text in said["en"].items():
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", said["zh"][key])), key


def test_every_text_of_the_page_is_used_and_every_used_one_is_there() -> None:
    known = set(texts()["en"])
    sources = "".join(path.read_text(encoding="utf-8") for path in STATIC.iterdir() if path.name != "text.js")
    used = set(re.findall(r"[\"'`]([a-z]+(?:\.[a-z_0-9]+)+)[\"'`]", sources)) - {path.name for path in STATIC.iterdir()}
    families = tuple(re.findall(r"`([a-z]+\.)\$\{", sources))  # such as `column.${id}`
    single = {key for key in known if "." not in key}
    assert {key for key in single if f'"{key}"' not in sources} == set()
    assert {key for key in known - single if key not in used and not key.startswith(families)} == set()
    parts = {key.split(".")[0] for key in known - single}
    assert {key for key in used if key.split(".")[0] in parts} - known == set()
