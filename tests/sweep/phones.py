"""Export one of every family for the runtimes of phones and compare: `python -m tests.sweep.phones [PATTERN …]`.

Each gets a reference checkpoint's weights; the files, as `torchclas export` writes them, must give the logits that
PaddlePaddle gave (PyTorch for EfficientNet_lite0). Prints a line per architecture. With `--write FILE` the table in a
page of the docs is made anew, with what a runtime cannot do and what it says; with `--results FILE` a run that was
stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.networks import REPRESENTATIVES
from tests.sweep.exports import REFERENCED, Case, published, referenced
from torchclas.exporting import formats
from torchclas.exporting.formats import FORMATS, Options
from torchclas.exporting.gate import TOLERANCE_HALF, relative_error
from torchclas.exporting.onnx import write_onnx
from torchclas.layers.fold import fold_batch_norms
from torchclas.layers.network import Network
from torchclas.spec import find_model
from torchclas.vocabulary import ExportFormat, ExportPrecision
from torchclas.weights.metadata import Metadata

MARK = re.compile(r"(<!-- rows of phones -->\n).*?(<!-- end -->)", re.DOTALL)
COLUMNS: dict[str, tuple[ExportFormat, ExportPrecision]] = {
    "ncnn": ("ncnn", "fp32"),
    "ncnn fp16": ("ncnn", "fp16"),
    "MNN": ("mnn", "fp32"),
    "MNN fp16": ("mnn", "fp16"),
    "ExecuTorch": ("executorch", "fp32"),
}


@dataclass
class Outcome:
    """Of each column the error, relative to the largest logit, or why there is no file."""

    arch: str
    size: int
    errors: dict[str, float] = field(default_factory=dict[str, float])
    reasons: dict[str, str] = field(default_factory=dict[str, str])
    cpu_seconds: float = 0.0

    def row(self) -> str:
        cells = [f"{self.errors[column]:.0e}" if column in self.errors else "–" for column in COLUMNS]
        return f"| {' | '.join((self.arch, str(self.size), *cells))} |\n"


def check(arch: str, columns: tuple[str, ...]) -> Outcome:
    """Write and run an architecture's files."""
    start = time.process_time()
    network, case = referenced(arch) if arch in REFERENCED else published(arch)
    outcome = Outcome(arch, case.images.shape[-1])
    metadata = Metadata(arch, network.num_classes, find_model(arch).preset)
    fold_batch_norms(network.fuse())
    with TemporaryDirectory() as folder:
        formats.write_onnx = partial(_traced_once, Path(folder))
        for column in columns:
            try:
                outcome.errors[column] = _error(network, metadata, case, *COLUMNS[column], Path(folder))
            except Exception as error:  # of the runtimes, too: what they say stands in the table
                outcome.reasons[column] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    outcome.cpu_seconds = round(time.process_time() - start, 1)
    return outcome


def _traced_once(folder: Path, network: Network, path: Path, metadata: Metadata, **options: Any) -> None:
    kept = folder / f"batch-{options['batch']}.onnx"
    if not kept.exists():
        write_onnx(network, kept, metadata, **options)
    shutil.copy(kept, path)


def _error(
    network: Network, metadata: Metadata, case: Case, to: ExportFormat, precision: ExportPrecision, folder: Path
) -> float:
    kind = FORMATS[to]
    path, options = folder / f"{precision}{kind.suffix}", Options(kind.default_batch, precision=precision)
    kind.write(network, path, metadata, options)
    file = kind.open(path, options)
    chosen = ([0], [1, 0, 1]) if kind.default_batch is None else ([0], [1])
    error = max(relative_error(file(case.images[which])["logits"], case.logits[which]) for which in chosen)
    allowed = case.allowed if precision == "fp32" else TOLERANCE_HALF
    if not error <= allowed:
        raise ValueError(f"logits differ by {error:.1e} of the largest, {allowed:.0e} are allowed")
    return error


def alone(arch: str) -> Outcome:
    """`check` in a process of its own; where a runtime ends it, each column in one."""
    try:
        return _in_process(check, arch, tuple(COLUMNS))
    except RuntimeError:
        outcome = Outcome(arch, find_model(arch).preset.size[0])
    for column in COLUMNS:
        try:
            part = _in_process(check, arch, (column,))
            outcome.errors |= part.errors
            outcome.reasons |= part.reasons
        except RuntimeError:
            outcome.reasons[column] = "the runtime ended its process"
    return outcome


def _in_process(function: Callable[..., Outcome], *arguments: object) -> Outcome:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()  # BrokenProcessPool is a RuntimeError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("patterns", nargs="*", help="architectures, as globs; one of every family by default")
    parser.add_argument("--write", type=Path, help="Markdown page whose table to write")
    parser.add_argument("--results", type=Path, help="file that keeps what was done, for a run that goes on later")
    arguments = parser.parse_args()
    patterns: list[str] = arguments.patterns or ["*"]
    chosen = [arch for arch in REPRESENTATIVES if any(fnmatch(arch, pattern) for pattern in patterns)]
    outcomes = _read(arguments.results)
    for arch in chosen:
        if arch not in outcomes:
            outcomes[arch] = alone(arch)
            if arguments.results:
                with arguments.results.open("a") as file:
                    file.write(json.dumps(asdict(outcomes[arch])) + "\n")
        outcome = outcomes[arch]
        print(
            outcome.row().rstrip(), *(f"{column}: {reason}" for column, reason in outcome.reasons.items()), flush=True
        )
    if arguments.write:
        table = page([outcomes[arch] for arch in chosen])
        text = arguments.write.read_text(encoding="utf-8")
        arguments.write.write_text(MARK.sub(lambda found: found[1] + table + found[2], text), encoding="utf-8")
    return 0 if chosen else 1


def page(outcomes: list[Outcome]) -> str:
    """The table, and what stands below it: why a file is missing."""
    head = f"| {' | '.join(('architecture', 'size', *COLUMNS))} |\n|---|--:|{'--:|' * len(COLUMNS)}\n"
    reasons = "".join(
        f"- {outcome.arch}, {column}: {reason.removeprefix('Error: ').removeprefix('ValueError: ')}\n"
        for outcome in outcomes
        for column, reason in outcome.reasons.items()
    )
    return head + "".join(outcome.row() for outcome in outcomes) + (f"\n{reasons}" if reasons else "")


def _read(path: Path | None) -> dict[str, Outcome]:
    if path is None or not path.is_file():
        return {}
    outcomes = (Outcome(**json.loads(line)) for line in path.read_text().splitlines())
    return {outcome.arch: outcome for outcome in outcomes}


if __name__ == "__main__":
    sys.exit(main())
