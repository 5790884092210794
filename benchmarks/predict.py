"""How long does it take to classify photographs? Whole commands by the clock on the wall, beside what people run today.

    make peers                                   # once: the peers' environments, in benchmarks/.peers
    python benchmarks/predict.py                 # 1, 256 and 10,000 photographs
    python benchmarks/predict.py --counts 1 256 --rounds 3 --commands paddleclas warm
    python benchmarks/predict.py --timm-script inference.py    # the script of timm's repository itself

PP-LCNet_x1_0 on photographs of 500 × 375 pixels, batch 8, two threads, from starting Python to the last row written:
the `paddleclas` command 2.5.2, timm's inference script, and `torchclas predict`, warm and cold. Cold means that the
weights are there but nothing has been made of them yet: no converted file, no exported network, nothing measured.
paddleclas and torchclas get the same weights, and their best classes must agree. A round runs every command once, in
an order drawn anew; ratios are taken within a round.
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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from markdown import table  # noqa: E402
from photographs import write_photographs  # noqa: E402
from published import write_published  # noqa: E402

from tests.parity.golden import golden  # noqa: E402
from torchclas.engines.machine import load_average, this_machine  # noqa: E402

HERE = ROOT / "benchmarks"
PADDLE = HERE / ".peers" / "paddle" / "bin"
MODEL, TIMM_MODEL = "PPLCNet_x1_0", "lcnet_100"
BATCH, THREADS = 8, 2
ROUNDS = {1: 7, 256: 5, 10_000: 2}
PAUSE = 0.5  # seconds between commands


@dataclass
class Command:
    """One way to classify a folder of photographs."""

    name: str
    words: Callable[[Path, Path], list[str]]  # folder, output → the command line
    top1: Callable[[Path], dict[str, str]] | None = None  # output → file name → best class, where it can be compared
    before: Callable[[], None] = lambda: None  # not timed
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Run:
    """What one run of a command took."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def commands(work: Path, timm_script: Path | None) -> list[Command]:
    cache, cold_cache = work / "warm", work / "cold"
    return [
        Command("paddleclas", lambda folder, _: paddleclas(folder, work / "paddle"), paddleclas_top1),
        Command("timm", lambda folder, output: timm(folder, output, timm_script)),
        Command("timm-channels-last", lambda folder, output: [*timm(folder, output, timm_script), "--channels-last"]),
        Command("cold", torchclas, torchclas_top1, lambda: fresh_cache(cold_cache), offline(cold_cache)),
        Command("warm", torchclas, torchclas_top1, environment=offline(cache)),
    ]


def paddleclas(folder: Path, model: Path) -> list[str]:
    return [
        str(PADDLE / "paddleclas"),
        *("--infer_imgs", str(folder), "--inference_model_dir", str(model), "--batch_size", str(BATCH)),
        *("--use_gpu", "False", "--enable_mkldnn", "True", "--cpu_num_threads", str(THREADS)),
    ]


def timm(folder: Path, output: Path, script: Path | None) -> list[str]:
    common = [
        *("--data-dir", str(folder), "--model", TIMM_MODEL, "--batch-size", str(BATCH)),
        *("--topk", "5", "--results-dir", str(output)),
    ]
    if script is None:
        return [sys.executable, str(HERE / "contenders" / "timm_inference.py"), *common]
    checkpoint = output / "random.pth"  # the script fetches weights unless it is given some
    if not checkpoint.exists():
        output.mkdir(parents=True, exist_ok=True)
        make = f"import timm, torch; torch.save(timm.create_model({TIMM_MODEL!r}).state_dict(), {str(checkpoint)!r})"
        subprocess.run([sys.executable, "-c", make], check=True)
    return [sys.executable, str(script), *common, "--device", "cpu", "--checkpoint", str(checkpoint)]


def torchclas(folder: Path, output: Path) -> list[str]:
    return [
        str(Path(sys.executable).with_name("torchclas")),
        *("predict", str(folder), "--model", MODEL, "--batch-size", str(BATCH), "--threads", str(THREADS)),
        *("--output", str(output / "rows.csv")),
    ]


def offline(cache: Path) -> dict[str, str]:
    return {"TORCHCLAS_CACHE": str(cache), "TORCHCLAS_OFFLINE": "1"}


def fresh_cache(cache: Path) -> None:
    """Nothing in it but the published file, as if it had just been fetched."""
    shutil.rmtree(cache, ignore_errors=True)
    write_published(MODEL, cache)


def paddleclas_top1(output: Path) -> dict[str, str]:
    rows = re.findall(r"label_names: \[(.+?)\], filename: (.+)", (output / "printed.txt").read_text())
    return {Path(name).name: cast("re.Match[str]", re.match(r"""(['"])(.*?)\1""", labels))[2] for labels, name in rows}


def torchclas_top1(output: Path) -> dict[str, str]:
    with (output / "rows.csv").open(newline="") as file:
        return {Path(row["source"]).name: row["label_1"] for row in csv.DictReader(file)}


def run(command: Command, folder: Path, output: Path) -> Run:
    """Run it to its end; what it prints goes to a file."""
    output.mkdir(parents=True, exist_ok=True)
    words = command.words(folder, output)
    command.before()
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS), **command.environment}
    time.sleep(PAUSE)
    with (output / "printed.txt").open("w") as printed:
        start = time.perf_counter()
        process = subprocess.Popen(words, stdout=printed, stderr=subprocess.STDOUT, env=environment)
        _, status, used = os.wait4(process.pid, 0)  # its children's time included
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command.name} failed: {(output / 'printed.txt').read_text()[-2000:]}")
    return Run(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def agreement(first: dict[str, str], second: dict[str, str]) -> float:
    return sum(first[name] == second.get(name) for name in first) / len(first)


def report(runs: dict[int, dict[str, list[Run]]], peers: Sequence[str]) -> str:
    parts: list[str] = []
    for count, found in runs.items():
        here = [peer for peer in peers if peer in found]
        rows: list[list[str]] = []
        for name, each in found.items():
            seconds = [one.seconds for one in each]
            row = [name, f"{statistics.median(seconds):.2f} [{min(seconds):.2f}–{max(seconds):.2f}]"]
            row.append(f"{statistics.median(one.cpu_seconds for one in each):.2f}")
            row.append(f"{max(one.peak_mib for one in each):.0f}")
            for peer in here:
                ratios = [theirs.seconds / own.seconds for theirs, own in zip(found[peer], each, strict=True)]
                row.append(f"{statistics.median(ratios):.2f} [{min(ratios):.2f}–{max(ratios):.2f}]")
            rows.append(row)
        header = ["command", "seconds", "of CPU", "peak MiB", *(f"× {peer}" for peer in here)]
        parts.append(table(f"{count:,} photograph{'s' * (count > 1)}", header, rows))
    return "\n\n".join(parts)


def stages(folder: Path, cache: Path) -> dict[str, object]:
    words = [sys.executable, str(HERE / "stages.py"), str(folder), MODEL, "--batch-size", str(BATCH)]
    environment = {**os.environ, **offline(cache)}
    done = subprocess.run([*words, "--threads", str(THREADS)], env=environment, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def stages_table(found: dict[str, Any]) -> str:
    times: dict[str, float] = dict(found["ms_per_image"])
    limit = times.pop("limit")
    # The network's time is already that of all threads at once.
    shares = {name: ms * (THREADS if name == "network" else 1) for name, ms in times.items()}
    rows = [[name, f"{times[name]:.3f}", f"{share / sum(shares.values()):.0%}"] for name, share in shares.items()]
    best = sum(shares.values()) / THREADS
    rows.append(["all of it, threads never idle", f"{best:.3f}", ""])
    rows.append(["reading and decoding alone, all threads", f"{limit:.3f}", ""])
    title = f"Milliseconds for each photograph, {THREADS} threads, {found['engine']}"
    return table(title, ["stage", "ms", "share of the CPU"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("paddleclas", "timm", "timm-channels-last", "cold", "warm")
    parser.add_argument("--counts", nargs="+", type=int, default=tuple(ROUNDS), metavar="N")
    parser.add_argument("--commands", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}, for other counts 3")
    parser.add_argument("--timm-script", type=Path, help="inference.py of timm's repository; needs pandas")
    parser.add_argument(
        "--busy", action="store_true", help="let idle OpenMP threads sleep, to try this on a busy machine"
    )
    parser.add_argument("--work", type=Path, default=HERE / ".work/predict", help="photographs, models, outputs")
    parser.add_argument("-o", "--output", type=Path, default=HERE / ".work/predict.json")
    options = parser.parse_args()
    work: Path = options.work.resolve()
    os.environ.pop("GOMP_SPINCOUNT", None)
    if options.busy:
        os.environ["GOMP_SPINCOUNT"] = "0"

    checkpoint = work / "checkpoint.pdparams"
    work.mkdir(parents=True, exist_ok=True)
    golden(MODEL).write(checkpoint)
    if "paddleclas" in options.commands and not (work / "paddle" / "inference.pdiparams").exists():
        if not PADDLE.exists():
            sys.exit("benchmarks/.peers/paddle does not exist: run `make peers`, or leave paddleclas out")
        script = HERE / "contenders" / "paddle_inference.py"
        subprocess.run([PADDLE / "python", script, "--export", MODEL, checkpoint, work / "paddle"], check=True)

    chosen = [one for one in commands(work, options.timm_script) if one.name in options.commands]
    warm = next((one for one in chosen if one.name == "warm"), None)
    if warm is not None:
        fresh_cache(work / "warm")
        run(warm, write_photographs(work / "1", 1), work / "outputs" / "warm-up")  # makes what the next ones find

    runs: dict[int, dict[str, list[Run]]] = {}
    loads: list[float] = []
    agreed: dict[int, float] = {}
    order, start = random.Random(0), time.perf_counter()
    for count in options.counts:
        folder = write_photographs(work / str(count), count)
        found = runs[count] = {one.name: [] for one in chosen}
        for number in range(options.rounds or ROUNDS.get(count, 3)):
            loads.append(load_average() or 0.0)
            for one in order.sample(chosen, len(chosen)):
                found[one.name].append(run(one, folder, work / "outputs" / one.name))
            print(f"{count:,}: round {number + 1}, after {time.perf_counter() - start:.0f} s", file=sys.stderr)
        answers = {one.name: one.top1(work / "outputs" / one.name) for one in chosen if one.top1}
        if "paddleclas" in answers and warm is not None:
            agreed[count] = agreement(answers["paddleclas"], answers["warm"])

    shares = None if warm is None else stages(write_photographs(work / "256", 256), work / "warm")
    options.output.write_text(
        json.dumps(
            {
                "machine": asdict(this_machine()),
                "model": MODEL,
                "batch_size": BATCH,
                "threads": THREADS,
                "load": loads,
                "runs": {
                    count: {name: [asdict(one) for one in each] for name, each in found.items()}
                    for count, found in runs.items()
                },
                "agreement": agreed,
                "stages": shares,
            },
            indent=1,
        )
    )
    print(f"{this_machine()}; load {max(loads):.1f} at most\n")
    print(report(runs, [name for name in names if name not in ("cold", "warm")]))
    for count, share in agreed.items():
        print(f"\nBest class of paddleclas and torchclas: the same for {share:.1%} of {count:,}")
    if shares is not None:
        print(f"\n{stages_table(shares)}")


if __name__ == "__main__":
    main()
