"""How fast are the engines beside what people run today? Every contender in one run, measured in turn.

    make peers                                    # once: the peers' environments, in benchmarks/.peers
    python benchmarks/engines.py                  # ten networks, every contender
    python benchmarks/engines.py --networks PPLCNet_x1_0 --contenders paddle timm-eager auto --rounds 3
    python benchmarks/engines.py --list           # the contenders

Ten networks at 224 × 224, batch 1 and 8, two threads. Each contender is a process that holds the network and waits; in
every round each is asked once, in an order that is drawn anew, for one burst of runs, and its median counts. What slows
the machine for a while so slows all of them, and a ratio is taken within its round: the tables give the median of the
rounds' ratios, and in brackets the least and the greatest.

Paddle and torchclas run the same weights, and their logits must agree with PaddlePaddle's in float64; timm's networks
have weights of their own. The contenders start with nobody else at work, and nobody else should be at work on the
machine at all: the load at each round is kept with the results.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from contenders.protocol import MATRIX, Case  # noqa: E402
from markdown import table  # noqa: E402

from tests.parity.golden import golden, relative_error  # noqa: E402
from torchclas.complexity import complexity  # noqa: E402
from torchclas.engines.machine import load_average, this_machine  # noqa: E402

HERE = ROOT / "benchmarks"
PEERS = HERE / ".peers"
PAUSE = 0.25  # seconds between bursts: OpenMP's idle threads still spin for 0.2 s

NETWORKS = (
    *("PPLCNet_x1_0", "MobileNetV3_large_x1_0", "ResNet50_vd", "EfficientNetB0", "GhostNet_x1_0"),
    *("DeiT_tiny_patch16_224", "SwinTransformer_tiny_patch4_window7_224", "HRNet_W18_C", "RepVGG_A0", "DenseNet121"),
)
BATCHES = (1, 8)


@dataclass(frozen=True)
class Contestant:
    """One way to run a network: a script, and what it is told."""

    name: str
    script: str
    engine: str
    precision: str = "fp32"
    environment: str | None = None  # one of `PEERS`; otherwise this one

    @property
    def python(self) -> str:
        return sys.executable if self.environment is None else str(PEERS / self.environment / "bin/python")

    @property
    def is_peer(self) -> bool:
        return self.script != "torchclas_engines"


def ours(engine: str, *precisions: str) -> list[Contestant]:
    return [Contestant(f"{engine}-{precision}", "torchclas_engines", engine, precision) for precision in precisions]


CONTESTANTS = [
    Contestant("paddle", "paddle_inference", "oneDNN", environment="paddle"),
    Contestant("timm-eager", "timm_networks", "eager"),
    Contestant("timm-channels-last", "timm_networks", "channels_last"),
    Contestant("timm-compile", "timm_networks", "compile"),
    Contestant("timm-onnxruntime", "timm_networks", "onnxruntime"),
    *ours("auto", "fp32", "bf16", "int8"),
    *ours("openvino", "fp32", "bf16", "int8"),
    *ours("onnxruntime", "fp32", "int8"),
    *ours("torch", "fp32", "bf16"),
    *ours("compile", "fp32", "bf16"),
]


@dataclass
class Result:
    """What one contender did with one network."""

    network: str
    contender: str
    error: str = ""
    setup_seconds: float = 0.0
    difference: float | None = None  # of the logits from the reference's, over the largest
    about: dict[str, str] = field(default_factory=dict)
    ms: dict[str, list[float]] = field(default_factory=dict)  # batch → the median of each round
    matrix_gflops: list[float] = field(default_factory=list)  # of each round

    def gflops(self, batch: int, macs: int) -> float:
        return 2 * macs * batch / statistics.median(self.ms[str(batch)]) / 1e6


class Process:
    """A contender at work."""

    def __init__(self, contestant: Contestant, case: Case, log: Path, environment: dict[str, str]) -> None:
        self.log = log.open("w")
        self.process = subprocess.Popen(
            [contestant.python, str(HERE / "contenders" / f"{contestant.script}.py"), json.dumps(asdict(case))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment,
        )

    def answer(self) -> dict[str, Any]:
        """The next answer; `error` where there is none to come."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        said = Path(self.log.name).read_text().strip().splitlines()
        return {"error": f"died: {said[-1] if said else 'without a word'} ({self.log.name})"}

    def burst(self, batch: int, seconds: float) -> dict[str, Any]:
        """Ask for one burst of a batch size; 0 stands for the matrix product."""
        assert self.process.stdin is not None
        time.sleep(PAUSE)
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"batch": batch, "seconds": seconds}) + "\n")
            self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()


def run(
    network: str, contestants: Sequence[Contestant], options: argparse.Namespace
) -> tuple[list[Result], list[float]]:
    """Measure every contender on `network`; also return the machine's load at the start of each round."""
    folder = options.work / network
    folder.mkdir(parents=True, exist_ok=True)
    reference = golden(network)
    if not (folder / "checkpoint.pdparams").exists():
        reference.write(folder / "checkpoint.pdparams")
    np.save(folder / "images.npy", reference.images())
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(options.threads),
        "TORCHCLAS_CACHE": str(options.work / "cache"),
    }
    environment.pop("GOMP_SPINCOUNT", None)
    if options.busy:  # would slow PyTorch on a free machine
        environment["GOMP_SPINCOUNT"] = "0"

    results: list[Result] = []
    at_work: dict[str, tuple[Result, Process]] = {}
    for one in contestants:
        result = Result(network, one.name)
        results.append(result)
        case = Case(network, one.engine, one.precision, options.threads, options.batches, str(folder))
        process = Process(one, case, folder / f"{one.name}.log", environment)
        ready = process.answer()
        print(f"  {one.name}:", ready.get("error") or f"ready after {ready['seconds']:.1f} s", file=sys.stderr)
        if "error" in ready:
            result.error = ready["error"]
            process.close()
            continue
        result.setup_seconds, result.about = ready["seconds"], ready["about"]
        # timm has weights of its own, and what int8 makes of weights that nobody trained says nothing.
        if ready["logits"] is not None and one.precision != "int8" and not one.script.startswith("timm"):
            result.difference = relative_error(np.array(ready["logits"]), reference.logits())
        at_work[one.name] = result, process

    order, load = random.Random(network), list[float]()
    for _ in range(options.rounds):
        load.append(load_average() or 0.0)
        for batch in (*options.batches, 0):
            for name in order.sample(list(at_work), len(at_work)):
                result, process = at_work[name]
                answer = process.burst(batch, options.seconds)
                if "error" in answer:
                    result.error = answer["error"]
                    process.close()
                    del at_work[name]
                    continue
                median = statistics.median(answer["ms"])
                if batch:
                    result.ms.setdefault(str(batch), []).append(median)
                else:
                    result.matrix_gflops.append(2 * MATRIX**3 / median / 1e6)
    for _, process in at_work.values():
        process.close()
    return results, load


@dataclass(frozen=True)
class Spread:
    """A figure of each round: their median, least and greatest."""

    middle: float
    least: float
    greatest: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} [{self.least:.2f}–{self.greatest:.2f}]"


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def geometric_mean(values: Iterable[float]) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


class Report:
    """The tables that come of the results."""

    def __init__(self, results: Sequence[Result], networks: Sequence[str], batches: Sequence[int]) -> None:
        self.results = {(one.network, one.contender): one for one in results if not one.error}
        self.failed = [one for one in results if one.error]
        self.networks, self.batches = networks, batches
        self.contenders = [one for one in CONTESTANTS if any(name == one.name for _, name in self.results)]
        self.peers = [one.name for one in self.contenders if one.is_peer]
        self.macs = {network: complexity(network).macs for network in networks}

    def __str__(self) -> str:
        parts = [self.times(), self.ratios(), self.means(), self.utilisation(), self.agreement(), self.failures()]
        return "\n\n".join(part for part in parts if part)

    def rounds(self, network: str, contender: str, batch: int) -> list[float]:
        return self.results[network, contender].ms[str(batch)]

    def fastest_peer(self, network: str, batch: int) -> str | None:
        here = [peer for peer in self.peers if (network, peer) in self.results]
        return min(here, key=lambda peer: statistics.median(self.rounds(network, peer, batch)), default=None)

    def ratio(self, network: str, contender: str, peer: str | None, batch: int) -> list[float] | None:
        """How many times faster than the peer, each round."""
        if peer is None or (network, contender) not in self.results or (network, peer) not in self.results:
            return None
        pairs = zip(self.rounds(network, peer, batch), self.rounds(network, contender, batch), strict=True)
        return [theirs / own for theirs, own in pairs]

    def times(self) -> str:
        """Milliseconds of a batch."""

        def cell(network: str, contender: str) -> str:
            if (network, contender) not in self.results:
                return "–"
            medians = (statistics.median(self.rounds(network, contender, batch)) for batch in self.batches)
            return " / ".join(f"{median:.3g}" for median in medians)

        return self.table(f"Milliseconds, batch {' / '.join(map(str, self.batches))}", self.contenders, cell)

    def ratios(self) -> str:
        """Every contender of ours against the fastest peer of each case."""

        def cell(network: str, contender: str) -> str:
            cells: list[str] = []
            for batch in self.batches:
                found = self.ratio(network, contender, self.fastest_peer(network, batch), batch)
                cells.append("–" if found is None else str(spread(found)))
            return " / ".join(cells)

        return self.table("Times as fast as the fastest peer of the case", self.own(), cell) if self.peers else ""

    def means(self) -> str:
        """Geometric means over networks and batch sizes; of a round's ratios each, so that they have a spread too."""
        if not self.peers or not self.own():
            return ""
        rows: list[list[str]] = []
        for one in self.own():
            rows.append([one.name, *(self.mean(one.name, peer) for peer in (None, *self.peers))])
        title = f"Times as fast, geometric mean over {self.cases} cases (networks × batch sizes)"
        return table(title, ["contender", "fastest peer", *self.peers], rows)

    def mean(self, contender: str, peer: str | None) -> str:
        """Against one peer, or in each case the fastest; with the number of cases where some are missing."""
        found = [
            self.ratio(network, contender, peer or self.fastest_peer(network, batch), batch)
            for network in self.networks
            for batch in self.batches
        ]
        cases = [case for case in found if case is not None]
        if not cases:
            return "–"
        means = spread([geometric_mean(rounds) for rounds in zip(*cases, strict=True)])
        return str(means) if len(cases) == self.cases else f"{means}, {len(cases)} cases"

    def utilisation(self) -> str:
        """How close to the machine: GFLOP/s achieved, and as a share of what a large matrix product reaches."""
        batch = max(self.batches)

        def cell(network: str, contender: str) -> str:
            if (network, contender) not in self.results:
                return "–"
            one = self.results[network, contender]
            achieved, most = one.gflops(batch, self.macs[network]), statistics.median(one.matrix_gflops)
            return f"{achieved:.0f} ({achieved / most:.0%})"

        products = ["matrix product"]
        for one in self.contenders:
            found = [result.matrix_gflops for (_, name), result in self.results.items() if name == one.name]
            products.append(f"{statistics.median(chain.from_iterable(found)):.0f}")
        title = f"GFLOP/s, batch {batch}, and its share of what a product of {MATRIX}² matrices reaches"
        return self.table(title, self.contenders, cell, products)

    def agreement(self) -> str:
        """That everyone computes the same network, and which engine `auto` took."""

        def cell(network: str, contender: str) -> str:
            one = self.results.get((network, contender))
            if one is None:
                return "–"
            engines = [name for name in dict.fromkeys(one.about.values()) if name and not contender.startswith(name)]
            return " ".join(["–" if one.difference is None else f"{one.difference:.0e}", *engines])

        same = [one for one in self.contenders if not one.script.startswith("timm")]
        title = "Largest difference of the logits from PaddlePaddle's in float64, over the largest logit"
        return self.table(title, same, cell)

    def failures(self) -> str:
        return "\n".join(f"- {one.network}, {one.contender}: {one.error}" for one in self.failed)

    @property
    def cases(self) -> int:
        return len(self.networks) * len(self.batches)

    def own(self) -> list[Contestant]:
        return [one for one in self.contenders if not one.is_peer]

    def table(
        self,
        title: str,
        columns: Sequence[Contestant],
        cell: Callable[[str, str], str],
        last: Sequence[str] = (),
    ) -> str:
        rows: list[Sequence[str]] = [
            [network, *(cell(network, one.name) for one in columns)] for network in self.networks
        ]
        if last:
            rows.append(last)
        return table(title, ["network", *(one.name for one in columns)], rows)


def main() -> None:
    names = [one.name for one in CONTESTANTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS, metavar="NAME")
    parser.add_argument("--contenders", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each burst; three runs at least")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--busy", action="store_true", help="let idle OpenMP threads sleep, to try this on a busy machine"
    )
    parser.add_argument("--work", type=Path, default=HERE / ".work", help="weights and exported networks")
    parser.add_argument("-o", "--output", type=Path, default=HERE / ".work/engines.json")
    parser.add_argument("--report", type=Path, help="print the tables of an earlier run's JSON instead")
    parser.add_argument("--list", action="store_true", help="print the contenders")
    options = parser.parse_args()
    options.work = options.work.resolve()
    if options.list:
        print("\n".join(names))
        return
    if options.report:
        earlier = json.loads(options.report.read_text())
        print(Report([Result(**one) for one in earlier["results"]], earlier["networks"], earlier["batches"]))
        return

    contestants = [one for one in CONTESTANTS if one.name in options.contenders]
    for one in contestants:
        if not Path(one.python).exists():
            sys.exit(f"{one.python} does not exist: run `make peers`, or leave {one.name} out with --contenders")
    results: list[Result] = []
    loads: dict[str, list[float]] = {}
    start = time.perf_counter()
    for network in options.networks:
        print(f"{network}, after {time.perf_counter() - start:.0f} s", file=sys.stderr)
        found, loads[network] = run(network, contestants, options)
        results += found
        options.output.write_text(  # after every network: what is measured is kept
            json.dumps(
                {
                    "machine": asdict(this_machine()),
                    "threads": options.threads,
                    "networks": list(loads),
                    "batches": list(options.batches),
                    "rounds": options.rounds,
                    "load": loads,
                    "results": [asdict(one) for one in results],
                },
                indent=1,
            )
        )
    print(f"{this_machine()}\n")
    print(Report(results, options.networks, options.batches))
    most = max(chain.from_iterable(loads.values()))
    print(f"\nTook {time.perf_counter() - start:.0f} s; load {most:.1f} at most → {options.output}")


if __name__ == "__main__":
    main()
