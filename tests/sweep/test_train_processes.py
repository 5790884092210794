"""Training in several processes gives what one gives, goes on after a kill, and changes their number."""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from subprocess import Popen

import pytest

from tests.training_runs import ENVIRONMENT, command, paint, same_result, same_run, start, train

pytestmark = pytest.mark.usefixtures("one_thread")

pytest.importorskip("lightning_fabric")
pytestmark = pytest.mark.sweep

# Without batch norm and dropout, any number of processes does the same.
PLAIN = ("-m", "SqueezeNet1_1", "--from", "scratch", "--batch-size", "8", "--set", "optimizer.lr=0.01",
         "--set", "dropout=0", "--set", "ema=0.9", "--set", "augment.mixup=0.2", "--set", "augment.mixup_prob=1",
         "--workers", "0", "--device", "cpu", "--set", "input_size=64")  # fmt: skip
SHARED = ("--devices", "2", "--strategy", "fsdp")
ROUNDING = {"rtol": 1e-4, "atol": 1e-6}
TIMEOUT = 180


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture(scope="module")
def one(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a single process makes of three epochs."""
    return train(pictures, tmp_path_factory.mktemp("runs") / "one", *PLAIN, "--epochs", "3")


def finish(process: Popen[str]) -> None:
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors


def when_saved(process: Popen[str], folder: Path, count: int) -> None:
    """Wait until a run has saved `count` times; it keeps the last two."""
    seen: set[str] = set()
    while process.poll() is None and len(seen) < count:
        seen |= {path.name for path in folder.glob("last/epoch*.pt")}
        time.sleep(0.005)
    assert process.poll() is None, process.communicate()[1]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_do_what_one_does(pictures: Path, one: Path, tmp_path: Path, strategy: str) -> None:
    finish(start(pictures, tmp_path, *PLAIN, "--epochs", "3", "--devices", "2", "--strategy", strategy))
    same_run(one, tmp_path, **ROUNDING)


def test_torchrun(pictures: Path, one: Path, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    arguments = command(pictures, tmp_path, *PLAIN, "--epochs", "3")
    subprocess.run([*launcher, *arguments], check=True, env=ENVIRONMENT, timeout=TIMEOUT)
    same_run(one, tmp_path, **ROUNDING)


def test_a_run_goes_on_with_another_number_of_them(pictures: Path, tmp_path: Path) -> None:
    # At a higher rate, rounding grows over so many steps until it can be seen.
    more = (*PLAIN, "--epochs", "40", "--set", "optimizer.lr=0.001")
    process = start(pictures, tmp_path / "run", *more, "--devices", "2")
    when_saved(process, tmp_path / "run", 2)
    process.terminate()
    assert process.wait(timeout=TIMEOUT) == 143
    train(pictures, tmp_path / "run", *more)
    whole = train(pictures, tmp_path / "whole", *more)
    same_result(whole, tmp_path / "run", rtol=1e-3, atol=1e-5)


def test_processes_that_share_the_network_go_on_after_kill_9(pictures: Path, one: Path, tmp_path: Path) -> None:
    """Bit by bit with the same number of them; and a single process takes over what they saved."""
    whole, killed, alone = tmp_path / "whole", tmp_path / "killed", tmp_path / "alone"
    more = (*PLAIN, "--epochs", "3", "--checkpoint-steps", "1")
    finish(start(pictures, whole, *more, *SHARED))
    process = start(pictures, killed, *more, *SHARED)
    when_saved(process, killed, 4)
    process.kill()
    process.communicate()
    shutil.copytree(killed, alone)
    finish(start(pictures, killed, *more, *SHARED))
    train(pictures, alone, *more)
    same_run(whole, killed)
    same_run(whole, alone, **ROUNDING)
    same_run(whole, one, **ROUNDING)
