"""Training from the command line: from class folders to a checkpoint that the other commands take."""

import csv
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import torchclas
from tests.training_runs import COLOURS, last_state, paint, same_run, start, train
from torchclas.cli import run
from torchclas.recipes import Recipe
from torchclas.weights.metadata import read_metadata

pytestmark = pytest.mark.usefixtures("one_thread")

pytest.importorskip("lightning_fabric")

SMALL = ["--workers", "0", "--device", "cpu", "--set", "input_size=32"]
TUNED = ["--epochs", "6", "--workers", "0", "--set", "optimizer.lr=0.001", "--set", "input_size=64"]
QUICK = ["-m", "PPLCNet_x0_25", "--from", "scratch", "--batch-size", "8", "--set", "optimizer.lr=0.1", *SMALL]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint(tmp_path_factory.mktemp("data") / "pictures")


class TestTuning:
    @pytest.fixture(scope="class")
    @staticmethod
    def folder(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        (pictures / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
        folder = train(pictures, tmp_path_factory.mktemp("runs") / "tuned", *TUNED)
        (pictures / "red" / "broken.png").unlink()
        return folder

    def test_it_learns_from_published_weights(self, folder: Path) -> None:
        rows = list(csv.DictReader((folder / "log.csv").open()))
        assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
        assert max(float(row["val_top1"]) for row in rows) > 0.8

    def test_the_folder_is_complete(self, folder: Path) -> None:
        names = {path.name for path in folder.iterdir()}
        assert {"recipe.toml", "environment.json", "run.json", "log.csv", "tensorboard", "last"} <= names
        assert {"best.safetensors", "curves.png", "curves.svg", "confusion.png", "report.html"} <= names
        assert {"README.md", "report.json", "per_class.csv"} <= names
        figures = json.loads((folder / "report.json").read_text())
        assert figures["top1"]["total"] == figures["images"]
        assert f"| top-1 | {100 * figures['top1']['value']:.2f} % |" in (folder / "README.md").read_text()
        assert Recipe.from_toml((folder / "recipe.toml").read_text()).optimizer.name == "adamw"
        page = (folder / "report.html").read_text()
        assert 'src="http' not in page
        assert page.count("<svg") == 4

    def test_a_bad_file_is_listed_and_left_out(self, folder: Path) -> None:
        [header, row] = list(csv.reader((folder / "unreadable.csv").open()))
        assert header == ["path", "error"]
        assert row[0].endswith("red/broken.png")

    def test_predict_knows_the_classes(self, folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
        best = str(folder / "best.safetensors")
        image = str(pictures / "green" / "0.png")
        assert run(["predict", image, "-m", best, "--format", "jsonl", "--device", "cpu", "--engine", "torch"]) == 0
        assert json.loads(capsys.readouterr().out)["labels"][0] == "green"

    def test_evaluate_agrees_with_the_log(
        self, folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        best = folder / "best.safetensors"
        settings = ["--engine", "torch", "--device", "cpu", "--workers", "0"]
        assert run(["evaluate", str(pictures), "-m", str(best), *settings]) == 0
        assert "top-1" in capsys.readouterr().out
        metadata = read_metadata(best)
        assert metadata.class_ids == tuple(COLOURS)
        assert metadata.preset.size == (64, 64)
        assert metadata.origin["val_top1"] > 0.8

    def test_a_finished_run_says_so(self, folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (pictures / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
        before = (folder / "best.safetensors").stat().st_mtime_ns
        train(pictures, folder, *TUNED)
        (pictures / "red" / "broken.png").unlink()
        assert "is finished" in capsys.readouterr().out
        assert (folder / "best.safetensors").stat().st_mtime_ns == before

    def test_another_command_on_the_folder_is_an_error(
        self, folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        train(pictures, folder, *TUNED, "--seed", "1", expect=2)
        assert "seed was 0 and is 1" in capsys.readouterr().err

    def test_fixres_adapts_the_result_to_larger_images(self, folder: Path, pictures: Path, tmp_path: Path) -> None:
        more = ["-m", folder / "best.safetensors", "--fixres", "96", "--epochs", "1", "--workers", "0"]
        result = train(pictures, tmp_path / "fixed", *more) / "best.safetensors"
        preset = read_metadata(result).preset
        assert (preset.size, preset.resize_short) == ((96, 96), 96)
        before, after = load_file(folder / "best.safetensors"), load_file(result)
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert {"classifier.weight", "classifier.bias"} < changed
        assert len(changed) <= 7  # and the last batch norm's six


class TestKilled:
    MORE = (*QUICK, "--epochs", "4", "--checkpoint-steps", "1", "--set", "ema=0.9")

    @pytest.fixture(scope="class")
    @staticmethod
    def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return train(pictures, tmp_path_factory.mktemp("runs") / "whole", *TestKilled.MORE)

    @pytest.mark.parametrize("steps", [2, 7])
    def test_kill_9_changes_nothing(self, pictures: Path, whole: Path, tmp_path: Path, steps: int) -> None:
        killed = tmp_path / "killed"
        process = start(pictures, killed, *self.MORE)
        per_epoch = 3
        while process.poll() is None:
            names = sorted(path.stem.split("-") for path in (killed / "last").glob("epoch*.pt"))
            if names and int(names[-1][1]) * per_epoch + int(names[-1][3]) >= steps:
                break
            time.sleep(0.002)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        train(pictures, killed, *self.MORE)
        same_run(whole, killed)

    def test_sigterm_saves_and_exits_143(self, pictures: Path, tmp_path: Path) -> None:
        more = [*QUICK, "--epochs", "500"]
        process = start(pictures, tmp_path / "run", *more)
        while process.poll() is None and not list((tmp_path / "run").glob("last/epoch*.pt")):
            time.sleep(0.01)
        process.terminate()
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 143
        assert "the same command goes on" in out
        finished = list(csv.DictReader((tmp_path / "run" / "log.csv").open()))
        assert last_state(tmp_path / "run")["progress"]["epoch"] == len(finished)


class TestMistakes:
    def test_a_folder_with_something_else(
        self, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "thesis.txt").write_text("mine")
        train(pictures, tmp_path, *QUICK, expect=2)
        assert "not empty" in capsys.readouterr().err

    def test_one_class(self, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "red").symlink_to(pictures / "red")
        train(tmp_path / "data", tmp_path / "run", *QUICK, expect=2)
        assert "one class" in capsys.readouterr().err

    def test_a_misspelled_setting(self, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        train(pictures, tmp_path / "run", *QUICK, "--set", "optimiser.lr=1", expect=2)
        assert "optimizer.lr" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()

    def test_images_too_small_for_the_network(
        self, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        train(pictures, tmp_path / "run", "-m", "GoogLeNet", "--from", "scratch", *SMALL, expect=2)
        assert "needs images of at least 61 px" in capsys.readouterr().err

    def test_no_data(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        train(tmp_path / "nothing", tmp_path / "run", *QUICK, expect=2)
        assert "no such file or folder" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--device", "gpu"], "did you mean cuda"),
            (["--device", "cuda:99"], "GPU"),
            (["--device", "cpu:0"], "there are auto, cpu, cuda"),
            (["--seed", str(2**64)], "--seed"),
            (
                ["--batch-size", "1"],
                "batch norm needs at least 2 images at once, and a batch has 1: use --batch-size 2",
            ),
            (["--batch-size", "5", "--devices", "3"], "in each of 3 processes, and a batch has 5: use --batch-size 6"),
            (
                ["--set", "loss.class_weights=[1, 2]"],
                "the data 3 classes: give one for each, in the order blue, green, red",
            ),
        ],
    )
    def test_what_cannot_be_done_leaves_no_folder(
        self, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
    ) -> None:
        plain = ["-m", "PPLCNet_x0_25", "--from", "scratch", "--workers", "0", "--set", "input_size=32"]
        train(pictures, tmp_path / "run", *plain, *options, expect=2)
        told = capsys.readouterr().err
        assert message in told
        assert told.count("\n") == 1
        assert not (tmp_path / "run").exists()

    def test_a_run_that_failed_at_once_does_not_block_its_folder(
        self, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        wild = [option if option != "8" else "16" for option in QUICK]
        train(pictures, tmp_path, *wild, "--epochs", "1", "--set", "optimizer.lr=1e9", "--set", "ema=0.5", expect=2)
        assert "begin a new run with a lower learning rate" in capsys.readouterr().err
        assert (tmp_path / "run.json").exists()
        train(pictures, tmp_path, *QUICK, "--epochs", "1")
        assert json.loads((tmp_path / "run.json").read_text())["total_batch"] == 8
        assert Recipe.from_toml((tmp_path / "recipe.toml").read_text()).optimizer.lr == 0.1

    def test_a_renamed_class_does_not_pass_for_the_old_one(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        data = paint(tmp_path / "pictures")
        train(data, tmp_path / "run", *QUICK, "--epochs", "1")
        (data / "blue").rename(data / "zinc")  # the images of every class keep their number but for the label
        train(data, tmp_path / "run", *QUICK, "--epochs", "1", expect=2)
        assert "the folders of its classes, have been added, removed or renamed" in capsys.readouterr().err


def test_a_run_without_its_report_gets_it(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It was killed between its last epoch and that."""
    train(pictures, tmp_path, *QUICK, "--epochs", "1")
    report = tmp_path / "report.html"
    report.unlink()
    train(pictures, tmp_path, *QUICK, "--epochs", "1")
    assert "is finished" in capsys.readouterr().out
    assert report.exists()


def test_few_images_from_scratch_come_in_small_batches(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [option for option in QUICK if option not in ("--batch-size", "8")]
    train(pictures, tmp_path, *few, "--epochs", "1")
    assert "24 images are few for PPLCNet_x0_25, a recipe with batches of 512: they come in batches of 8" in "".join(
        capsys.readouterr().err.splitlines()
    )
    assert json.loads((tmp_path / "run.json").read_text())["total_batch"] == 8


def test_balanced_classes_go_on_bit_by_bit(pictures: Path, tmp_path: Path) -> None:
    rest = [*QUICK, "--epochs", "2", "--set", "sampling=sqrt", "--set", "loss.class_weights=balanced"]
    whole = train(pictures, tmp_path / "whole", *rest)
    with start(pictures, tmp_path / "run", *rest, "--checkpoint-steps", "1") as running:
        while not (tmp_path / "run" / "last").exists():
            time.sleep(0.01)
        running.kill()
    same_run(train(pictures, tmp_path / "run", *rest, "--checkpoint-steps", "1"), whole)


def test_names_that_are_no_text_are_saved(tmp_path: Path) -> None:
    data = paint(tmp_path / os.fsdecode(b"d\xff"))
    (data / "blue").rename(data / os.fsdecode("\u84dd".encode("gbk")))
    (data / "green" / os.fsdecode(b"broken\xfe.png")).write_bytes(b"\x89PNG")
    output = tmp_path / os.fsdecode(b"o\xff")
    for words in ("best: epoch 1", "is finished"):
        with start(data, output, *QUICK, "--epochs", "1") as running:
            assert words in running.communicate()[0]
            assert running.returncode == 0
    assert read_metadata(output / "best.safetensors").class_ids == ("green", "red", "\u84dd")
    assert (output / "report.html").exists()
    assert b"broken\xfe.png" in (output / "unreadable.csv").read_bytes()


def test_no_process_is_left_by_kill_9(pictures: Path, tmp_path: Path) -> None:
    rest = ["-m", "PPLCNet_x0_25", "--from", "scratch", "--batch-size", "8", "--set", "input_size=32", "--epochs", "50"]
    rest += ["--workers", "2", "--checkpoint-steps", "1"]
    with start(pictures, tmp_path, *rest) as running:
        while not (tmp_path / "last").exists():
            time.sleep(0.01)
        family = processes_of(running.pid)
        running.kill()
    assert len(family) >= 3
    for _ in range(100):
        if not any(Path(f"/proc/{pid}/cmdline").exists() for pid in family):
            break
        time.sleep(0.1)
    else:
        pytest.fail("processes are left")


def processes_of(pid: int) -> list[int]:
    """The processes that descend from one, by the system's table of them."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    family = [pid]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family[1:]


class TestOwnWeights:
    def test_of_other_classes_lose_their_last_layer_and_it_is_said(
        self, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        network = torchclas.create_model("PPLCNet_x0_25", num_classes=7)
        torch.save({"model": network.state_dict()}, path := tmp_path / "mine.pth")
        summary = torchclas.train(
            pictures,
            model="PPLCNet_x0_25",
            start=str(path),
            epochs=1,
            workers=0,
            device="cpu",
            overrides="input_size=32",
            output=tmp_path / "run",
        )
        assert f"{path} has 7 classes, the data 3: the last layer starts anew" in " ".join(
            capsys.readouterr().err.split()
        )
        assert summary.best is not None
        metadata = read_metadata(tmp_path / "run" / "best.safetensors")
        assert (metadata.class_names, metadata.origin["from"]) == (tuple(sorted(COLOURS)), str(path))

    def test_of_one_channel(self, pictures: Path, tmp_path: Path) -> None:
        more = ["--epochs", "1", "--workers", "0", "--set", "input_size=32", "--recipe", "finetune"]
        folder = train(
            pictures, tmp_path / "gray", "-m", "PPLCNet_x0_25", "--from", "scratch", "--in-channels", "1", *more
        )
        assert read_metadata(folder / "best.safetensors").in_channels == 1
        assert torchclas.preprocess_for(folder).shape == (1, 32, 32)
        again = train(pictures, tmp_path / "again", "-m", folder, "--epochs", "1", "--workers", "0")
        assert read_metadata(again / "best.safetensors").in_channels == 1
