"""What it costs to keep rows in parts, in CPU seconds and memory: numbering names, comparing them, joining parts.

python benchmarks/parts.py [NAMES]
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from torchclas.data.listing import Listing
from torchclas.inference.classifier import Prediction
from torchclas.inference.parts import open_parts
from torchclas.reporting.rows import PredictionFiles
from torchclas.vocabulary import RowFormat

PART = 512  # rows, some seconds of work
LABELS = ("tabby, tabby cat", "tiger cat", "Egyptian cat", "lynx, catamount", "Persian cat")
IDS = ("n02123045", "n02123159", "n02124075", "n02127052", "n02123394")


def memory() -> float:
    """The most memory that this process had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def names(count: int) -> Iterator[str]:
    for number in range(count):
        yield f"/data/pictures/of/some/camera/{number // 1000:05}/IMG_{number:09}.jpg"


def main(count: int) -> None:
    print(f"before: {memory():.0f} MB")
    with tempfile.TemporaryDirectory() as folder:
        for step in ("numbering", "comparing"):
            start = time.process_time()
            with Listing(Path(folder, "inputs.jsonl"), names(count)) as listing:
                listing.read_all()
            print(f"{step} {count:,} names: {time.process_time() - start:.1f} s, {memory():.0f} MB")
        formats: tuple[RowFormat, ...] = ("csv", "jsonl", "parquet")
        for kind in formats:
            files = PredictionFiles(kind, 5, 16)
            with open_parts(Path(folder, f"rows.{kind}"), names(count)) as parts:
                parts.begin({"format": kind}, files, batch_size=16)
                start = time.process_time()
                for first in range(0, count, PART):
                    with parts.add(first) as part:
                        rows = [row(name) for name in names(min(PART, count - first))]
                        for batch in range(0, len(rows), 16):
                            part.write(rows[batch : batch + 16], 0)
                written = time.process_time()
                parts.finish()
                joined = time.process_time()
            size = Path(folder, f"rows.{kind}").stat().st_size / 2**20
            print(
                f"{kind}: {count:,} rows in {-(-count // PART):,} parts written in {written - start:.1f} s, joined in "
                f"{joined - written:.1f} s to {size:.0f} MB; {memory():.0f} MB of memory"
            )


def row(name: str) -> Prediction:
    return Prediction(name, "ok", LABELS, (0.75, 0.12, 0.06, 0.01, 0.002), IDS, None, "openvino fp32")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
