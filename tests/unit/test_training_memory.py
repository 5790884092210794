"""A training step is computed in as many parts as the free memory asks for."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training_runs import paint, train
from torchclas import models
from torchclas.training import machine, memory
from torchclas.training.memory import COPIES, StepMemory, free_memory, step_memory
from torchclas.training.options import TrainOptions
from torchclas.training.plan import Plan
from torchclas.training.train_plan import make_plan

# One step, as the trainer computes it, in a process of its own; prints what it took at its peak beyond the start's.
STEP = r"""
import re, sys, torch, torch._dynamo  # which the first optimizer imports otherwise
from pathlib import Path
from torchclas import models
from torchclas.allocator import keep_freed_memory

def peak():
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])

keep_freed_memory()
start = peak()
network = models.build(sys.argv[1], num_classes=10).train().to(memory_format=torch.channels_last)
optimizer = torch.optim.AdamW(network.parameters())
for _ in range(2):
    images = torch.randn(int(sys.argv[2]), 3, 160, 160).to(memory_format=torch.channels_last)
    network(images).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
print(peak() - start)
"""


def estimate(arch: str, size: int = 224, precision: str = "32-true") -> StepMemory:
    with torch.device("meta"):
        network = models.build(arch, num_classes=10)
    return step_memory(network, (size, size), precision)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count a process's memory in other ways")
@pytest.mark.parametrize(
    ("arch", "images"), [pytest.param("ResNet18", 16, marks=pytest.mark.sweep), ("MobileNetV3_small_x1_0", 32)]
)
def test_a_step_takes_about_what_was_estimated(arch: str, images: int) -> None:
    command = [sys.executable, "-c", STEP, arch, str(images)]
    taken = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 0.5 < taken / estimate(arch, 160).of(images) < 1.2


def test_what_the_estimate_depends_on() -> None:
    small, large = estimate("ResNet18", 112), estimate("ResNet18", 224)
    assert small.fixed == large.fixed
    assert large.image == pytest.approx(4 * small.image, rel=0.05)
    assert estimate("ResNet18", 224, "bf16-mixed").image < large.image
    weights = sum(parameter.numel() for parameter in models.build("ResNet18", num_classes=10).parameters())
    assert large.fixed == COPIES * 4 * weights


def test_weights_are_not_counted_with_the_images() -> None:
    # AlexNet's 57 million weights are kept for backpropagation as they are; activations are a hundredth of them.
    assert estimate("AlexNet").image < 20 * 2**20


def test_images_that_fit() -> None:
    step = StepMemory(fixed=1000, image=50)
    assert [step.images(free) for free in (0, 1250, 1312, 1313, 2500)] == [0, 0, 0, 1, 20]
    assert step.of(20) == 2000


def test_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, shared = free_memory("cpu"), free_memory("cpu", 4)
    assert alone is not None
    assert shared is not None
    assert shared / alone == pytest.approx(0.25, rel=0.2)  # others take and free memory meanwhile
    assert free_memory("xla") is None


@pytest.mark.parametrize(("limit", "free"), [("max\n", None), ("1000000\n", 1000000 - 700000 + 200000)])
def test_limits_of_containers(tmp_path: Path, limit: str, free: int | None) -> None:
    assert memory._container_limit(tmp_path) is None
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 400000\nfile 300000\ninactive_file 200000\n")
    assert memory._container_limit(tmp_path) == free


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint(tmp_path_factory.mktemp("pictures"))


def plan(pictures: Path, monkeypatch: pytest.MonkeyPatch, free: int | None, **changes: Any) -> Plan:
    monkeypatch.setattr(machine, "free_memory", lambda device, processes: free)
    options: dict[str, Any] = dict(
        model="SqueezeNet1_1", start="scratch", recipe="finetune", batch_size=20, output=Path("nowhere")
    )
    return make_plan(TrainOptions(pictures, **{**options, **changes}))


def test_parts_of_a_step(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def parts(free: int | None, **changes: Any) -> int:
        chosen = plan(pictures, monkeypatch, free, **changes)
        assert chosen.total_batch == 20, "the images of a step stay"
        assert bool(chosen.notes) == (chosen.settings.accumulate > 1 and "accumulate" not in changes)
        return chosen.settings.accumulate

    step = estimate("SqueezeNet1_1")

    def room(images: int) -> int:
        return int(step.of(images) / memory.SHARE) + 2

    assert [parts(room(images)) for images in (40, 20, 19, 10, 7, 1)] == [1, 1, 2, 2, 3, 20]
    assert parts(None) == 1
    assert parts(room(5), devices=4) == 1
    assert parts(room(1), accumulate=5) == 5
    assert "may run out of memory" in plan(pictures, monkeypatch, 0).notes[-1]


def test_a_run_goes_on_in_the_parts_that_it_began_with(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = "-m SqueezeNet1_1 --from scratch --recipe finetune --epochs 1 --batch-size 20 --workers 0"
    monkeypatch.setattr(machine, "free_memory", lambda device, processes: 2**29)
    train(pictures, tmp_path / "run", *more.split())
    said = capsys.readouterr().err
    assert "0.5 are free: each step is computed in" in said
    assert "batches of 20 in" in said
    monkeypatch.setattr(machine, "free_memory", lambda device, processes: 2**40)
    train(pictures, tmp_path / "run", *more.split())
    assert "is finished" in capsys.readouterr().out
    assert "parts" not in capsys.readouterr().err


def test_an_image_size_that_cannot_be_is_an_error_before_anything_is_written(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arch, size, message in (
        ("AlexNet", 32, "at least 63 px, not 32"),
        ("ViT_small_patch16_224", 100, "input_size"),
        ("GoogLeNet", 61, "input_size: GoogLeNet needs images of at least 93 px"),
    ):
        run = tmp_path / arch
        train(pictures, run, "-m", arch, "--from", "scratch", "--set", f"input_size={size}", expect=2)
        assert message in capsys.readouterr().err
        assert not run.exists()
