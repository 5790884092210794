"""How fast does training go beside timm's own script? Whole commands; what they log of themselves counts.

    python benchmarks/training.py                       # three networks in fp32 and bf16
    python benchmarks/training.py --networks ResNet18 --precisions bf16 --rounds 3
    python benchmarks/training.py --timm-script train.py    # the script of timm's repository itself

The same architecture, images (JPEG, 500 × 375), batch and recipe (random crop to 224, flip, SGD with momentum,
smoothed labels) for `torchclas train` and for timm, on all threads. First every setting of each is tried once: workers,
channels_last, with `--compile` torch.compile too. Then the best of each side meet in rounds, in an order drawn anew,
and ratios are taken within a round. Each command trains three epochs: the first warms up, the better of the others
counts; that includes reading the images, but not validation.

Needs timm and torchvision beside torchclas[train], scikit-learn and scikit-image for the photographs.
"""

import argparse
import csv
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from markdown import table  # noqa: E402
from photographs import write_photographs  # noqa: E402

from torchclas.engines.machine import load_average, this_machine, usable_threads  # noqa: E402

HERE = ROOT / "benchmarks"
NETWORKS = {
    "MobileNetV3_large_x1_0": "mobilenetv3_large_100",
    "ResNet18": "resnet18",
    "DeiT_tiny_patch16_224": "deit_tiny_patch16_224",
}
CLASSES, EPOCHS = 8, 3
PAUSE = 0.5  # seconds between commands
RECIPE = (
    *("optimizer.lr=0.01", "optimizer.momentum=0.9", "optimizer.weight_decay=0.00002"),
    *("loss.label_smoothing=0.1", "schedule.name=cosine", "schedule.warmup_epochs=0"),
)


@dataclass(frozen=True)
class Setting:
    """One way to train: whose code, and what it is told."""

    side: str  # "torchclas" or "timm"
    workers: int
    channels_last: bool = True  # torchclas knows nothing else
    compile: bool = False

    def __str__(self) -> str:
        layout = "" if self.side == "torchclas" else ", channels_last" if self.channels_last else ", contiguous"
        return f"{self.side}{layout}{', compiled' if self.compile else ''}, workers: {self.workers}"


@dataclass(frozen=True)
class Job:
    """What is trained, on what."""

    network: str
    precision: str
    data: Path
    batch: int
    timm_script: Path | None


def settings(workers: Sequence[int], *, compiled: bool) -> list[Setting]:
    modes = (False, True) if compiled else (False,)
    return [
        setting
        for count in workers
        for mode in modes
        for setting in (
            Setting("torchclas", count, compile=mode),
            *(Setting("timm", count, layout, mode) for layout in (True, False)),
        )
    ]


def write_data(folder: Path, images: int, batch: int) -> Path:
    """Class folders for training, and few images for validation."""
    files = sorted(write_photographs(folder / "all", images + batch).iterdir())
    for index, path in enumerate(files):
        split = "train" if index < images else "validation"
        target = folder / split / str(index % CLASSES) / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.link(path, target)
    return folder


def run(job: Job, setting: Setting, output: Path) -> float:
    """Train; return the images per second of the best epoch but the first."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    words = (torchclas if setting.side == "torchclas" else timm)(job, setting, output / "run")
    time.sleep(PAUSE)
    printed = output / "printed.txt"
    environment = {**os.environ, "OMP_NUM_THREADS": str(usable_threads()), "CUDA_VISIBLE_DEVICES": ""}
    with printed.open("w") as file:
        done = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{setting} failed: {printed.read_text()[-2000:]}")
    return (torchclas_speed if setting.side == "torchclas" else timm_speed)(output, job.batch)


def torchclas(job: Job, setting: Setting, output: Path) -> list[str]:
    return [
        *(str(Path(sys.executable).with_name("torchclas")), "train", str(job.data / "train")),
        *("--val", str(job.data / "validation"), "-m", job.network, "--from", "scratch", "--recipe", "ResNet18"),
        *("--epochs", str(EPOCHS), "--batch-size", str(job.batch), "--precision", job.precision, "--device", "cpu"),
        *("--workers", str(setting.workers), "-o", str(output), *(["--compile"] if setting.compile else [])),
        *(word for change in RECIPE for word in ("--set", change)),
    ]


def torchclas_speed(output: Path, batch: int) -> float:
    with (output / "run" / "log.csv").open(newline="") as file:
        return max(float(row["images_per_second"]) for row in list(csv.DictReader(file))[1:])


def timm(job: Job, setting: Setting, output: Path) -> list[str]:
    script = job.timm_script or HERE / "contenders" / "timm_training.py"
    words = [
        *(sys.executable, str(script), "--data-dir", str(job.data), "--model", NETWORKS[job.network]),
        *("--num-classes", str(CLASSES), "--batch-size", str(job.batch), "--epochs", str(EPOCHS)),
        *("--opt", "sgd", "--lr", "0.01", "--momentum", "0.9", "--weight-decay", "2e-5"),
        *("--sched", "cosine", "--warmup-epochs", "0", "--smoothing", "0.1", "--color-jitter", "0"),
        *("--train-interpolation", "bilinear", "--workers", str(setting.workers)),
        *("--log-interval", "1", "--output", str(output)),
        *(["--channels-last"] if setting.channels_last else []),
        *(["--torchcompile"] if setting.compile else []),
        *(["--amp", "--amp-dtype", "bfloat16"] if job.precision == "bf16" else []),
    ]
    # Newer ones take CUDA unless they are told.
    return [*words, "--device", "cpu"] if "'--device'" in script.read_text() else words


def timm_speed(output: Path, batch: int) -> float:
    """From the mean time of a step, in the last line of each epoch."""
    pattern = re.compile(r"Train: (\d+) \[.*?Time: .*?\((\d+\.\d+)s,")
    seconds = {int(epoch): float(mean) for epoch, mean in pattern.findall((output / "printed.txt").read_text())}
    return batch / min(mean for epoch, mean in seconds.items() if epoch > 0)


def median_of(values: Sequence[float], form: str) -> str:
    return f"{statistics.median(values):{form}} [{min(values):{form}}–{max(values):{form}}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2], metavar="N")
    parser.add_argument("--compile", action="store_true", help="try torch.compile on both sides")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--images", type=int, default=256, help="of an epoch")
    parser.add_argument("--timm-script", type=Path, help="train.py of timm's repository")
    parser.add_argument(
        "--busy", action="store_true", help="let idle OpenMP threads sleep, to try this on a busy machine"
    )
    parser.add_argument("--work", type=Path, default=HERE / ".work/training", help="photographs, outputs")
    parser.add_argument("-o", "--output", type=Path, default=HERE / ".work/training.json")
    options = parser.parse_args()
    os.environ.pop("GOMP_SPINCOUNT", None)
    if options.busy:
        os.environ["GOMP_SPINCOUNT"] = "0"
    work: Path = options.work.resolve()
    data = write_data(work / f"{options.images}-{options.batch}", options.images, options.batch)

    order, loads, start = random.Random(0), [], time.perf_counter()
    results: list[dict[str, object]] = []
    rows: list[list[str]] = []
    for network in options.networks:
        for precision in options.precisions:
            job = Job(network, precision, data, options.batch, options.timm_script)
            measure = cache(lambda setting, number, job=job: run(job, setting, work / "run"))
            tried = {one: measure(one, -1) for one in settings(options.workers, compiled=options.compile)}
            best = {side: max((one for one in tried if one.side == side), key=tried.__getitem__)
                    for side in ("torchclas", "timm")}  # fmt: skip
            found: dict[str, list[float]] = {side: [] for side in best}
            for number in range(options.rounds):
                loads.append(load_average() or 0.0)
                for side in order.sample(list(best), len(best)):
                    found[side].append(measure(best[side], number))
                done = f"{network} {precision}: round {number + 1}, after {time.perf_counter() - start:.0f} s"
                print(done, file=sys.stderr)
            ratios = [ours / theirs for ours, theirs in zip(found["torchclas"], found["timm"], strict=True)]
            chosen = " / ".join(str(one) for one in best.values())
            rows.append(
                [f"{network} {precision}", *(median_of(found[side], ".1f") for side in best), median_of(ratios, ".2f"),
                 chosen]
            )  # fmt: skip
            trials = [{**asdict(one), "images_per_second": speed} for one, speed in tried.items()]
            results.append({"network": network, "precision": precision, "trials": trials, "rounds": found})
    options.output.write_text(
        json.dumps(
            {
                "machine": asdict(this_machine()),
                "timm_script": str(options.timm_script or "contenders/timm_training.py"),
                "batch": options.batch,
                "images": options.images,
                "load": loads,
                "results": results,
            },
            indent=1,
        )
    )
    print(f"{this_machine()}; load {max(loads):.1f} at most\n")
    header = ["network", "torchclas", "timm", "torchclas / timm", "settings"]
    print(table(f"Images per second of training, batches of {options.batch}", header, rows))


if __name__ == "__main__":
    main()
