"""The commands as a user runs them."""

from __future__ import annotations

import csv
import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.parity.golden import golden
from torchclas import cli
from torchclas.data.loader import Batch
from torchclas.inference.classifier import Classifier, Prediction
from torchclas.inference.parts import Parts
from torchclas.weights.pdparams import read_pdparams


@pytest.fixture
def folder(tmp_path: Path, photographs: Path) -> Path:
    """Three good images, one of them below, and two that are none."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for name, target in (("chelsea.png", "a.png"), ("coffee.png", "b c.png"), ("coffee.png", "below/d.png")):
        (folder / target).symlink_to(photographs / name)
    (folder / "c.jpg").write_text("no image")
    (folder / "zero.png").touch()
    return folder


def rows(output: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["--help"],
        ["predict", "--help"],
        ["explain", "--help"],
        ["embed", "--help"],
        ["gallery", "recognize", "--help"],
        ["train", "--help"],
        ["distill", "--help"],
        ["info", "VGG11"],
    ],
)
def test_what_needs_no_torch_does_not_import_it(arguments: list[str]) -> None:
    code = f"""
import sys
from torchclas import cli
code = cli.run({arguments!r})
heavy = {{"torch", "numpy", "cv2", "PIL", "matplotlib"}} & set(sys.modules)
sys.exit(code or (f"imported {{heavy}}" if heavy else 0))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (2, 2), (16, 1)])
def test_predict_writes_one_row_per_input_in_order(
    folder: Path, capsys: pytest.CaptureFixture[str], batch_size: int, workers: int
) -> None:
    arguments = [str(folder), "nowhere.jpg", str(folder / "a.png"), str(folder / "a.png")]
    options = ["--format", "jsonl", "--batch-size", str(batch_size), "--workers", str(workers)]
    assert cli.run(["predict", *arguments, *options]) == 1
    found = rows(capsys.readouterr().out)
    names = ["a.png", "b c.png", "below/d.png", "c.jpg", "zero.png"]
    assert sorted(str(row["source"]) for row in found[:5]) == sorted(str(folder / name) for name in names)
    assert [row["source"] for row in found[5:]] == arguments[1:]
    by_name = {Path(str(row["source"])).name: row for row in found}
    assert by_name["a.png"]["class_ids"][0] == "n02123159"  # type: ignore[index]
    assert by_name["b c.png"]["labels"][0] == "espresso"  # type: ignore[index]
    assert by_name["c.jpg"]["status"] == by_name["zero.png"]["status"] == by_name["nowhere.jpg"]["status"] == "error"
    assert found[6] == found[7]


def test_predict_reads_names_from_standard_input(photographs: Path) -> None:
    command = [sys.executable, "-m", "torchclas", "predict", "-", "--top-k", "1", "--format", "jsonl", "--lang", "zh"]
    names = f"{photographs / 'coffee.png'}\n{photographs / 'chelsea.png'}\n"
    result = subprocess.run(command, input=names, capture_output=True, text=True, check=True)
    assert [row["labels"] for row in rows(result.stdout)] == [["意式浓缩咖啡"], ["虎斑猫"]]


def test_predict_writes_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["predict", str(folder / "b c.png"), str(folder / "zero.png"), "--top-k", "1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "95.1%  espresso" in lines[1]
    assert "the file is empty" in lines[2]


def test_what_follows_two_dashes_is_no_option(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    (folder / "b c.png").rename("--top-k")
    assert cli.run(["predict", "--top-k", "1", "--", "--top-k"]) == 0
    assert "./--top-k   95.1%  espresso" in capsys.readouterr().out
    assert cli.run(["data", "check", "--", "-none"]) == 2
    assert "-none: no such file" in capsys.readouterr().err


def test_predict_writes_csv_and_parquet(folder: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    assert cli.run(["predict", str(folder), "-o", str(tmp_path / "out.csv"), "--top-k", "2"]) == 1
    assert cli.run(["predict", str(folder), "-o", str(tmp_path / "out.parquet"), "--threshold", "0.9"]) == 1
    with (tmp_path / "out.csv").open() as file:
        flat = list(csv.DictReader(file))
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["source"] for row in flat] == [row["source"] for row in table]
    espresso = next(row for row in flat if row["source"].endswith("b c.png"))
    assert espresso["class_id_1"] == "n07920052"
    assert 0.9 < float(espresso["score_1"]) < 1
    assert {len(row["labels"]) for row in table} == {0, 1}


def test_links_and_devices_stay_what_they_are(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to("file.csv")
    (tmp_path / "null.csv").symlink_to("/dev/null")
    for name in ("link.csv", "null.csv"):
        assert cli.run(["predict", str(folder), "-o", str(tmp_path / name)]) == 1
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "file.csv").read_text().startswith("source,")
    assert (tmp_path / "null.csv").is_char_device()


def test_montage(folder: Path, tmp_path: Path) -> None:
    cli.run(["predict", str(folder), "--montage", str(tmp_path / "sheet.png"), "-o", str(tmp_path / "x.csv")])
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 300
        assert len(sheet.convert("RGB").getcolors(2**24) or []) > 1000, "pictures, not a blank sheet"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict"], "no images were named"),
        (["predict", "x.jpg", "-m", "ResNet50_vdd"], "did you mean ResNet50_vd"),
        (["predict", "x.jpg", "-m", "ResNet50_vd"], "TORCHCLAS_OFFLINE"),
        (["predict", "x.jpg", "-m", "MobileNetV3_large_x1_0_ssld_int8"], "never published"),
        (["predict", "x.jpg", "--fromat", "csv"], "did you mean --format?"),
        (["predict", "x.jpg", "-o", "out.doc"], "cannot tell the format"),
        (["predict", "x.jpg", "--threshold", "2"], "from 0 to 1"),
        (["predict", "x.jpg", "--device", "cuda:7"], "cannot be used here"),
        (["predict", "x.jpg", "-m", "nowhere.safetensors"], "nowhere.safetensors"),
        (["list", "--series", "Swin"], "SwinTransformer"),
        (["info", "ResNet5O"], "did you mean"),
        (["weights", "inspect", "nowhere.pdparams"], "no such file"),
        (["evaluate", "nowhere"], "nowhere"),
        (["recipe", "PPLCNet_x1_0", "--set", "optimizer.rl=1"], "optimizer.rl"),
    ],
)
def test_errors_are_one_line_that_helps(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not captured.out


def test_full_disk_leaves_the_old_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.csv"
    output.write_text("precious")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert cli.run(["predict", str(folder), "-o", str(output)]) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert output.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "pictures"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_stopped_goes_on_with_the_same_command(tmp_path: Path, number: int) -> None:
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(images / "0.png")
    for i in range(1, 200):
        (images / f"{i}.png").symlink_to("0.png")
    output = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "torchclas", "predict", str(images), "-o", str(output), "--batch-size", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (partial := list(tmp_path.glob(".out*/.rows*"))) or partial[0].stat().st_size == 0:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, remarks = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "the same command goes on" in remarks
    assert "Traceback" not in remarks
    assert not output.exists()
    resumed = subprocess.run(command, capture_output=True, text=True)
    assert "images were done before" in resumed.stderr
    assert resumed.returncode == 0
    found = rows(output.read_text())
    assert [row["source"] for row in found] == [str(path) for path in sorted(images.iterdir())]
    assert all(row["status"] == "ok" for row in found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out.jsonl"]


def test_a_stopped_sheet_is_drawn_whole_by_the_same_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str) -> int:
        files = ["-o", str(tmp_path / f"{name}.csv"), "--montage", str(tmp_path / f"{name}.png")]
        return cli.run(["predict", str(folder), *files, "--batch-size", "2", "--lang", "zh"])

    def interrupt(classifier: Classifier, batch: Batch) -> Iterator[Prediction]:
        if not batch.sources[0].endswith("a.png"):
            raise KeyboardInterrupt
        return rows_of(classifier, batch)

    assert run("whole") == 1
    rows_of = Classifier.rows
    with monkeypatch.context() as changed:
        changed.setattr(Classifier, "rows", interrupt)
        assert run("stopped") == 130
    assert "已停止：2 张图像已完成，再次运行同一条命令即可继续" in capsys.readouterr().err
    with Image.open(tmp_path / "stopped.png") as sheet:
        few = sheet.size
    assert run("stopped") == 1
    assert "stopped.csv：此前已完成 2 张图像" in capsys.readouterr().err
    assert (tmp_path / "stopped.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    with Image.open(tmp_path / "stopped.png") as sheet, Image.open(tmp_path / "whole.png") as whole:
        assert sheet.size == whole.size != few
        assert sheet.tobytes() == whole.tobytes()


def test_rows_of_another_command_are_not_mixed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", str(folder), "-o", str(tmp_path / "out.csv")]
    with monkeypatch.context() as changed:
        changed.setattr(Parts, "finish", lambda parts: signal.raise_signal(signal.SIGTERM))  # pyright: ignore
        assert cli.run(command) == 143
    capsys.readouterr()
    assert cli.run([*command, "--top-k", "3"]) == 2
    message = "out.csv: there are rows of another command (top_k: 5, now 3): run that one again, or add --restart"
    assert message in capsys.readouterr().err
    (folder / "more.png").touch()
    assert cli.run(command) == 2
    assert f"input 5 was {folder}/zero.png, and now is {folder}/more.png" in capsys.readouterr().err
    assert cli.run([*command, "--top-k", "3", "--restart"]) == 1
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 7


def test_predict_fills_a_folder_with_parquet_files(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow.parquet as pq

    assert cli.run(["predict", str(folder), "-o", str(tmp_path / "out.parquet")]) == 1
    for remark in ("5 images, 2 of them failed", "5 images, 2 of them failed, 5 of them done before"):
        assert cli.run(["predict", str(folder), "-o", f"{tmp_path / 'rows'}/"]) == 1
        assert remark in capsys.readouterr().err
    files = sorted(path.name for path in (tmp_path / "rows").iterdir())
    assert files == ["_manifest.json", "part-00000.parquet"]
    assert pq.read_table(tmp_path / "rows").equals(pq.read_table(tmp_path / "out.parquet"))
    manifest = json.loads((tmp_path / "rows" / "_manifest.json").read_bytes())
    assert (manifest["inputs"], manifest["errors"], manifest["request"]["model"]) == (5, 2, "EfficientNet_lite0")


def test_a_folder_of_other_files_is_not_filled(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in ([], ["--restart"]):
        assert cli.run(["predict", str(folder), "-o", str(folder), *options]) == 2
        assert "holds other files" in capsys.readouterr().err
    assert cli.run(["predict", str(folder), "-o", f"{tmp_path / 'new'}/", "--format", "csv"]) == 2
    assert "a folder is filled with Parquet files, not with csv" in capsys.readouterr().err
    assert cli.run(["predict", str(folder), "--restart"]) == 2
    assert "--restart drops the rows kept for an output file" in capsys.readouterr().err


def test_a_dash_is_standard_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["predict", str(folder / "a.png"), "-o", "-", "--format", "jsonl"]) == 0
    assert [row["status"] for row in rows(capsys.readouterr().out)] == ["ok"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["a.png", "-o", "a.png", "--format", "csv"], "a.png is one of the inputs: choose another name"),
        ([".", "-o", "link.csv", "--format", "csv"], "link.csv is an image"),
        (["b.png", "-o", "a.png", "--format", "jsonl"], "a.png is an image: rows would take its place"),
        (["notes.csv", "-o", "./notes.csv"], "notes.csv is one of the inputs"),
        ([".", "--montage", "a.png"], "a.png is one of the images: choose another name for the montage"),
        (["*.png", "--montage", "link.png"], "link.png is one of the images"),
        ([".", "-o", "x.csv", "--montage", "./x.csv"], "x.csv cannot hold both the rows and the montage"),
    ],
)
def test_what_is_read_is_not_overwritten(
    tmp_path: Path,
    options: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (32, 32)).save(name)
    Path("link.csv").symlink_to("a.png")
    os.link("a.png", "link.png")
    Path("notes.csv").write_text("not an image")
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert cli.run(["predict", *options]) == 2
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_the_list_on_standard_input_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("list.csv\n")
    for options, message in (("-o list.csv", "is read as the list"), ("--montage sheet.png", "is one of the images")):
        Image.new("RGB", (32, 32)).save(tmp_path / "sheet.png")
        command = f"{sys.executable} -m torchclas predict - {options} < "
        (tmp_path / "names").write_text("./sheet.png\n")
        command += "list.csv" if "list.csv" in options else "names"
        done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert (tmp_path / "list.csv").read_text() == "list.csv\n"


def test_a_sheet_of_an_earlier_run_elsewhere_is_replaced(folder: Path, tmp_path: Path) -> None:
    sheet, table = tmp_path / "sheet.png", tmp_path / "rows.csv"
    for _ in range(2):
        assert cli.run(["predict", str(folder), "--montage", str(sheet), "-o", str(table)]) == 1


@pytest.mark.parametrize(
    ("redirection", "code", "message"),
    [
        ("<&-", 2, "standard input named no images"),
        ("< /dev/zero", 2, "standard input is not a list"),
        ("< list.txt >&-", 2, "cannot be written: Bad file descriptor"),
        ("< list.txt -o rows.csv >&-", 1, "1 image, 1 of them failed"),
    ],
)
def test_closed_and_odd_standard_streams(tmp_path: Path, redirection: str, code: int, message: str) -> None:
    (tmp_path / "list.txt").write_text("missing.png\n")
    command = f"{sys.executable} -m torchclas predict - {redirection}"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.parametrize(
    ("arch", "layout"),
    [
        ("ResNet18_vd", "current"),
        ("ResNet18_vd", "original"),
        ("SE_ResNet18_vd", "current"),
        ("MobileNetV3_small_x0_35", "current"),
        ("MobileNetV3_small_x0_35", "original"),
        ("DeiT_tiny_patch16_224", "current"),
    ],
)
def test_convert_there_and_back(tmp_path: Path, arch: str, layout: str) -> None:
    """What goes through our format comes back tensor by tensor, under the published names."""
    case = golden(arch, layout)
    case.write(tmp_path / "in.pdparams")
    ours, back = str(tmp_path / "ours.safetensors"), str(tmp_path / "back.pdparams")
    assert cli.run(["weights", "convert", str(tmp_path / "in.pdparams"), ours, "-m", arch]) == 0
    assert cli.run(["weights", "convert", ours, back, "--layout", layout]) == 0
    got, want = read_pdparams(Path(back)), case.state()
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        np.testing.assert_array_equal(got[name], tensor, err_msg=name)


def test_inspect_tells_which_model_a_file_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "unknown.pdparams"
    golden("PPLCNet_x0_25").write(path)
    assert cli.run(["weights", "inspect", str(path)]) == 0
    assert "PPLCNet_x0_25 (current layout, 1000 classes)" in capsys.readouterr().out
    assert cli.run(["weights", "inspect", str(path), "-m", "VGG11"]) != 0


def test_a_command_that_is_advised_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "of mine $1.pdparams"
    golden("PPLCNet_x0_25").write(path)
    assert cli.run(["weights", "inspect", str(path)]) == 0
    assert f"-m PPLCNet_x0_25 --weights {shlex.quote(str(path))}" in capsys.readouterr().out.replace("\n", "")


def test_fetch_path_and_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHCLAS_CACHE", str(tmp_path))
    assert cli.run(["weights", "fetch", "EfficientNet_lite0", "PPLCNet_x0_25"]) == 1, "the second one is not to be had"
    captured = capsys.readouterr()
    assert "fetched" in captured.out
    assert "PPLCNet_x0_25" in captured.err
    assert cli.run(["weights", "path", "EfficientNet_lite0"]) == 0
    assert Path(capsys.readouterr().out.strip()).is_file()
    assert cli.run(["weights", "clear", "--all"]) == 0
    assert not list(tmp_path.rglob("*.safetensors"))


def test_list_filters_and_sorts(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["list", "--max-params", "5M", "--min-top1", "75", "--sort", "flops", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found
    assert all(row["params_m"] <= 5 and row["top1"] >= 75 for row in found)
    flops = [row["gflops"] for row in found if row["gflops"] is not None]
    assert flops == sorted(flops)
