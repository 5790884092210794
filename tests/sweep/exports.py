"""Export every architecture to ONNX and OpenVINO and compare: `python -m tests.sweep.exports [PATTERN …]`.

Each gets a reference checkpoint's weights; the written files, run by ONNX Runtime and OpenVINO, must give the logits
that PaddlePaddle gave (PyTorch for EfficientNet_lite0), for one and three images at once. Prints a line per
architecture and exits 1 if any differs. With `--write FILE` the table in a page of the docs is made anew; with
`--results FILE` a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import sys
import time
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from tests.parity.check import loaded
from tests.parity.golden import cases, golden, mosaic
from torchclas import models
from torchclas.exporting.gate import TOLERANCE, Array, ExportedFile, compute, relative_error
from torchclas.exporting.onnx import OnnxFile, write_onnx
from torchclas.exporting.openvino import OpenVinoFile, write_openvino
from torchclas.layers.fold import fold_batch_norms
from torchclas.layers.network import Network
from torchclas.spec import find_model
from torchclas.weights.metadata import Metadata
from torchclas.zoo import load_model

REFERENCED = {arch for arch, _ in cases()}

MARK = re.compile(r"(<!-- rows of architectures -->\n).*?(<!-- end -->)", re.DOTALL)
TABLE = """| architecture | size | ONNX Runtime | OpenVINO | nodes | MB |
|---|--:|--:|--:|--:|--:|
"""


@dataclass(frozen=True)
class Outcome:
    """Errors of both files, relative to the largest logit, and what is allowed."""

    arch: str
    size: int
    onnx: float
    openvino: float
    allowed: float
    nodes: int
    megabytes: float
    cpu_seconds: float

    @property
    def equal(self) -> bool:
        return self.onnx <= self.allowed and self.openvino <= self.allowed

    def row(self) -> str:
        errors = f"{self.onnx:.0e} | {self.openvino:.0e}"
        return f"| {self.arch} | {self.size} | {errors} | {self.nodes:,} | {self.megabytes:.1f} |\n"


@dataclass(frozen=True)
class Case:
    """What an architecture is compared on."""

    images: Array
    logits: Array
    allowed: float = TOLERANCE


def check(arch: str) -> Outcome:
    start = time.process_time()
    network, case = referenced(arch) if arch in REFERENCED else published(arch)
    metadata = Metadata(arch, network.num_classes, find_model(arch).preset)
    size = case.images.shape[-1]
    with TemporaryDirectory() as name:
        path = Path(name) / "network.onnx"
        write_onnx(fold_batch_norms(network.fuse()), path, metadata)
        del network  # the largest has 3 GB
        gc.collect()
        nodes = len(onnx.load(str(path), load_external_data=False).graph.node)
        error_of_onnx = _error(OnnxFile(path), case)
        gc.collect()
        write_openvino(path, path.with_suffix(".xml"), metadata)
        megabytes = sum(file.stat().st_size for file in path.parent.glob("network.onnx*")) / 1e6
        error_of_openvino = _error(OpenVinoFile(path.with_suffix(".xml")), case)
    seconds = time.process_time() - start
    return Outcome(
        arch, size, error_of_onnx, error_of_openvino, case.allowed, nodes, round(megabytes, 1), round(seconds, 1)
    )


def referenced(arch: str) -> tuple[Network, Case]:
    case = golden(arch)
    with TemporaryDirectory() as folder:
        weights = Path(folder) / f"{arch}_pretrained.pdparams"
        case.write(weights)
        network, _ = loaded(arch, weights)
    return network, Case(case.images(), case.logits(), case.tolerance("float32"))


def published(arch: str) -> tuple[Network, Case]:
    spec = find_model(arch)
    network, images = load_model(spec), mosaic((2, 3, *spec.preset.size), seed=1)
    return network, Case(images, compute(network, spec.preset, images)["logits"])


def _error(file: ExportedFile, case: Case) -> float:
    images, expected = case.images, case.logits
    return max(relative_error(file(images[chosen])["logits"], expected[chosen]) for chosen in ([0], [1, 0, 1]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("patterns", nargs="*", help="architectures, as globs; all by default")
    parser.add_argument("--write", type=Path, help="Markdown page to write")
    parser.add_argument("--results", type=Path, help="file that keeps what was done, for a run that goes on later")
    arguments = parser.parse_args()
    patterns: list[str] = arguments.patterns or ["*"]
    chosen = [arch for arch in sorted(models.architectures()) if any(fnmatch(arch, pattern) for pattern in patterns)]
    outcomes = _read(arguments.results)
    failed = 0
    for arch in chosen:
        try:
            outcome = outcomes[arch] if arch in outcomes else check(arch)
            equal, shown = outcome.equal, f"{outcome.onnx:.1e} {outcome.openvino:.1e} ({outcome.cpu_seconds:.0f} s)"
            if equal and arch not in outcomes and arguments.results:
                with arguments.results.open("a") as file:
                    file.write(json.dumps(asdict(outcome)) + "\n")
            outcomes[arch] = outcome
        except Exception as error:
            equal, shown = False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        failed += not equal
        print(f"{'equal ' if equal else 'DIFFER'} {arch:45} {shown}", flush=True)
        gc.collect()
    print(f"{len(chosen) - failed} passed, {failed} failed")
    if failed or not chosen:
        return 1
    if arguments.write:
        table = TABLE + "".join(outcomes[arch].row() for arch in chosen)
        text = arguments.write.read_text(encoding="utf-8")
        arguments.write.write_text(MARK.sub(lambda found: found[1] + table + found[2], text), encoding="utf-8")
    return 0


def _read(path: Path | None) -> dict[str, Outcome]:
    if path is None or not path.is_file():
        return {}
    outcomes = (Outcome(**json.loads(line)) for line in path.read_text().splitlines())
    return {outcome.arch: outcome for outcome in outcomes}


if __name__ == "__main__":
    sys.exit(main())
