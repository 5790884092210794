"""Check every architecture in every layout against the reference: `python -m tests.parity.sweep [PATTERN …]`.

Prints a line per case and exits 1 if any differs. With `--write FILE` the result becomes a page of the docs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

import torch

from tests.parity.check import Outcome, check
from tests.parity.golden import cases, golden
from torchclas.complexity import complexity

PAGE = """# Parity

Every architecture, in every layout in which its weights were published, against logits that PaddlePaddle 2.6.2 computes
from the same checkpoint. An error is the largest absolute difference over the largest absolute logit. Equal means at
most 5e-6 in float64 (RepVGG 1e-5, whose reference runs in float32) and 1e-4 in float32 (five times the reference's own
error on the same images for the few networks that amplify rounding more). The second pair of errors is for three images
instead of two, at another size where the original takes one.

One training step is compared in the same way, for 25 architectures, by `python -m tests.parity.training`. The largest
errors are 2e-8 of a loss, 5e-7 of a gradient's norm and 5e-7 of the norm of a batch norm's statistics.

GFLOPs are 10⁹ multiply–accumulates at the first size. This page is written by `make parity`.

| architecture | layout | size | float64 | float32 | other size | float64 | float32 | params (M) | GFLOPs |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|
"""


PROCESSES = 2  # the largest network holds 7 GB in float64


def row(outcome: Outcome) -> str:
    case = golden(outcome.arch, outcome.layout)
    cost = complexity(outcome.arch, num_classes=case.num_classes, size=outcome.size)
    if outcome.other_errors:
        other = f"{outcome.other_size} | {outcome.other_errors['float64']:.0e} | {outcome.other_errors['float32']:.0e}"
    else:
        other = " | | "
    return (
        f"| {outcome.arch} | {outcome.layout} | {outcome.size} "
        f"| {outcome.errors['float64']:.0e} | {outcome.errors['float32']:.0e} | {other} "
        f"| {cost.params / 1e6:.2f} | {cost.macs / 1e9:.3f} |\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("patterns", nargs="*", help="architectures, as globs; all by default")
    parser.add_argument("--write", type=Path, help="Markdown page to write")
    arguments = parser.parse_args()
    patterns: list[str] = arguments.patterns or ["*"]
    chosen = [case for case in cases() if any(fnmatch(case[0], pattern) for pattern in patterns)]
    page, failed = PAGE, 0
    cores = os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    # Small networks gain little from threads: with one process per core the whole takes less time.
    threads = max(1, cores // PROCESSES)
    with ProcessPoolExecutor(min(PROCESSES, cores), context, torch.set_num_threads, (threads,)) as pool:
        for (arch, layout), (outcome, shown, seconds) in zip(chosen, pool.map(_checked, chosen), strict=True):
            equal = outcome is not None and outcome.equal
            failed += not equal
            if outcome is not None:
                page += row(outcome)
            print(f"{'equal ' if equal else 'DIFFER'} {arch:45} {layout:9} {shown}  ({seconds:.0f} s)", flush=True)
    print(f"{len(chosen) - failed} passed, {failed} failed")
    if failed or not chosen:
        return 1
    if arguments.write:
        arguments.write.write_text(page)
    return 0


def _checked(case: tuple[str, str]) -> tuple[Outcome | None, str, float]:
    """The outcome of an architecture in a layout, None where it fails; what to print of it; and its seconds."""
    start = time.perf_counter()
    try:
        outcome = check(*case)
        shown = f"{_shown(outcome.errors)}   {_shown(outcome.other_errors)}"
    except Exception as error:
        outcome, shown = None, f"{type(error).__name__}: {error}"
    return outcome, shown, time.perf_counter() - start


def _shown(errors: dict[str, float]) -> str:
    return "  ".join(f"{dtype} {error:.1e}" for dtype, error in errors.items())


if __name__ == "__main__":
    sys.exit(main())
