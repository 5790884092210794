"""How the driver talks to a contender: one JSON object a line, over the contender's standard input and output.

A contender is a process of its own, so that it can have its own environment and nobody else's threads. It sleeps until
it is asked for one burst of measurements and answers when the burst is over. Standard library and NumPy alone: this
file also runs in the peers' environments.
"""

import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

MATRIX = 2048  # rows and columns of the large matrix product
SETTLE = 0.05  # seconds without timing at the start of a burst: caches and clocks are still another contender's


@dataclass
class Case:
    """What a contender is to run; the driver's request, from the command line."""

    network: str
    engine: str  # what it means is the contender's affair
    precision: str
    threads: int
    batches: list[int]
    folder: str  # of this network: checkpoint.pdparams, images.npy, and room for files of one's own


class Contender(ABC):
    """One network in one framework."""

    def __init__(self, case: Case) -> None:
        self.case = case

    @abstractmethod
    def open(self, batch: int) -> Callable[[np.ndarray], np.ndarray]:
        """The network for batches of this size, ready to be called: float32 [batch, 3, H, W] → logits."""

    @abstractmethod
    def matrix_product(self) -> Callable[[], object]:
        """The product of two square matrices of `MATRIX` rows, in this framework and precision."""

    def about(self, batch: int) -> str:
        """What was chosen for this batch size, where there was something to choose."""
        return ""


def serve(contender: type[Contender]) -> None:
    """Answer the driver until it closes standard input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # frameworks print

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    case = Case(**json.loads(sys.argv[1]))
    try:
        start = time.perf_counter()
        one = contender(case)
        given = np.load(f"{case.folder}/images.npy")
        networks, about, logits = {}, {}, None
        for batch in case.batches:
            images = np.ascontiguousarray(np.resize(given, (batch, *given.shape[1:])))
            network = one.open(batch)
            found = np.asarray(network(images))
            networks[batch] = lambda network=network, images=images: network(images)
            about[batch] = one.about(batch)
            if batch >= len(given):
                logits = found[: len(given)].astype(float).tolist()
        product = one.matrix_product()
        product()
        answer(seconds=time.perf_counter() - start, logits=logits, about=about)
        for line in sys.stdin:
            request = json.loads(line)
            run = networks[request["batch"]] if request["batch"] else product
            answer(ms=burst(run, request["seconds"]))
    except Exception as error:
        import traceback

        traceback.print_exc()
        answer(error=f"{type(error).__name__}: {error}".splitlines()[0][:300])
        sys.exit(1)


def burst(run: Callable[[], object], seconds: float) -> list[float]:
    """Milliseconds of each run, for `seconds`, but three at least."""
    start = time.perf_counter()
    run()
    while time.perf_counter() - start < SETTLE:
        run()
    times: list[float] = []
    start = before = time.perf_counter()
    while before - start < seconds or len(times) < 3:
        run()
        now = time.perf_counter()
        times.append((now - before) * 1000)
        before = now
    return times


def matrices() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, MATRIX, MATRIX), dtype=np.float32)
    return first, second
