"""What checking the files of the cache costs a start: the processor time to open an engine with and without it.

Both take turns; the figures are the least of all rounds.

    python benchmarks/opening.py [MODEL …] [--rounds 30]
"""

from __future__ import annotations

import argparse
import time
from unittest.mock import patch

from torchclas.engines import open_engine
from torchclas.spec import ModelSpec, find_model
from torchclas.vocabulary import EngineName
from torchclas.weights import cache

ENGINES: tuple[EngineName, ...] = ("openvino", "onnxruntime")


def milliseconds(spec: ModelSpec, engine: EngineName) -> float:
    start = time.process_time()
    open_engine(spec, engine, batch_size=16).close()
    return 1e3 * (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=["EfficientNet_lite0"])
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    print("| model | engine | unchecked, ms | checked, ms |")
    print("| --- | --- | --: | --: |")
    for model in arguments.models:
        spec = find_model(model)
        for engine in ENGINES:
            milliseconds(spec, engine)  # exports and compiles it where that has not been done
            checked, unchecked = float("inf"), float("inf")
            for _ in range(arguments.rounds):
                checked = min(checked, milliseconds(spec, engine))
                with (
                    patch.object(cache, "is_intact", lambda path: True),
                    patch.object(cache, "is_as_recorded", lambda path, content: True),
                ):
                    unchecked = min(unchecked, milliseconds(spec, engine))
            print(f"| {model} | {engine} | {unchecked:.0f} | {checked:.0f} |")


if __name__ == "__main__":
    main()
