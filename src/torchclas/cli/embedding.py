"""Commands that make vectors of images, and search them: `embed`, `gallery`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from torchclas.cli.app import (
    BatchSize,
    Device,
    Engine,
    MaxPixels,
    Model,
    OnePrecision,
    Threads,
    Verbose,
    Weights,
    Workers,
    app,
    start_lean,
)
from torchclas.cli.spellings import refuse_options
from torchclas.messages import say
from torchclas.text import printable
from torchclas.vocabulary import VectorType


@app.command
def embed(
    *sources: Annotated[
        str | Path,
        Parameter(
            help="Images: files, folders, globs, URLs; - reads such names from standard input.",
            allow_leading_hyphen=True,  # for - itself
        ),
    ],
    output: Annotated[
        Path, Parameter(name=("--output", "-o"), help="File for the vectors: .parquet, .npz or .safetensors.")
    ],
    model: Model = None,
    weights: Weights = None,
    normalize: Annotated[
        bool, Parameter(negative="", help="Scale vectors to unit length (L2), so that products are cosines.")
    ] = False,
    dtype: Annotated[VectorType, Parameter(help="Type of the vectors' numbers.")] = "fp32",
    batch_size: BatchSize = None,
    workers: Workers = None,
    max_pixels: MaxPixels = 100_000_000,
    device: Device = "auto",
    engine: Engine = "auto",
    precision: OnePrecision = "fp32",
    threads: Threads = None,
    verbose: Verbose = False,
) -> int:
    """Write a vector for each image, one row each, in order: what a model knows of it before it names a class.

    An image that cannot be read has a row that says why; the exit code is then 1. Ctrl-C keeps the rows done so far.
    """
    refuse_options(app, "embed", sources)
    start_lean(verbose)

    from torchclas.inference.embedder import Embedder
    from torchclas.tasks.embed import embed as task

    summary = task(
        list(map(str, sources)),
        lambda: Embedder(
            model,
            weights=weights,
            device=device,
            batch_size=batch_size or 16,
            workers=workers,
            engine=engine,
            precision=precision,
            threads=threads,
            max_pixels=max_pixels,
            normalize=normalize,
            dtype=dtype,
        ),
        output,
    )
    print(f"{say(str(summary))}, {summary.seconds:.1f} s → {printable(str(output))}", file=sys.stderr)
    return 1 if summary.errors else 0
