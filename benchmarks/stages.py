"""Where the time of predicting a photograph goes, and what decoding alone would allow; prints JSON.

    python benchmarks/stages.py FOLDER MODEL [--batch-size 8] [--threads 2] [--engine auto]

Each stage by itself over all the photographs: reading, decoding, resize with crop and normalization on one thread, the
network on all threads. The limit is what the threads reach when they do nothing but read and decode.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from torchclas.data.decode import decode
from torchclas.data.preprocess import Preprocess
from torchclas.engines import open_engine
from torchclas.spec import find_model

ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("model")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engine", default="auto")
    options = parser.parse_args()
    cv2.setNumThreads(1)

    spec = find_model(options.model, weights=options.weights)
    paths = sorted(options.folder.iterdir())
    files = [path.read_bytes() for path in paths]
    pictures = [decode(file) for file in files]
    preprocess = Preprocess(spec.preset)
    arrays = [preprocess.array(picture) for picture in pictures]
    batches = [
        np.stack(arrays[start : start + options.batch_size])
        for start in range(0, len(arrays) - options.batch_size + 1, options.batch_size)
    ]
    engine = open_engine(spec, options.engine, threads=options.threads, batch_size=options.batch_size)
    engine(batches[0])

    def milliseconds(function: Callable[..., object], items: Iterable[object], images: int = len(files)) -> float:
        """Per image."""

        def once() -> float:
            start = time.perf_counter()
            for item in items:
                function(item)
            return time.perf_counter() - start

        return 1000 * statistics.median(once() for _ in range(ROUNDS)) / images

    def limit() -> float:
        with ThreadPoolExecutor(options.threads) as pool:
            return milliseconds(lambda _: list(pool.map(decode, paths)), [None])

    print(
        json.dumps(
            {
                "engine": engine.name,
                "threads": options.threads,
                "batch_size": options.batch_size,
                "ms_per_image": {
                    "read": milliseconds(Path.read_bytes, paths),
                    "decode": milliseconds(decode, files),
                    "resize, crop, normalize": milliseconds(preprocess.array, pictures),
                    "network": milliseconds(engine, batches, len(batches) * options.batch_size),
                    "limit": limit(),
                },
            }
        )
    )


if __name__ == "__main__":
    main()
