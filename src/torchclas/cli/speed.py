"""Commands about speed on this machine: `benchmark` and `recommend`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveFloat, PositiveInt

from torchclas.cli.app import SEVERAL, Device, Percent, app, stderr, stdout
from torchclas.cli.models import Amount
from torchclas.completion import MODELS, SERIES
from torchclas.vocabulary import EngineChoice, Precision

Seconds = Annotated[PositiveFloat, Parameter(help="How long to time each case; slow networks take longer.")]


@app.command
def benchmark(
    *models: Annotated[str, MODELS, Parameter(help="Names, globs such as 'PPLCNet_*', or files. Default: all.")],
    series: Annotated[str | None, SERIES, Parameter(help="Only this series.")] = None,
    engine: Annotated[tuple[EngineChoice, ...], SEVERAL, Parameter(help="Several: torch,openvino.")] = ("auto",),
    precision: Annotated[tuple[Precision, ...], SEVERAL] = ("fp32",),
    batch: Annotated[tuple[PositiveInt, ...], SEVERAL, Parameter(help="Images at once: 1,8.")] = (1,),
    threads: Annotated[
        tuple[PositiveInt, ...] | None,
        SEVERAL,
        Parameter(help="Threads of the network: 1,2. Default: one per core.", show_default=False),
    ] = None,
    seconds: Seconds = 3.0,
    device: Device = "auto",
    output: Annotated[
        Path | None,
        Parameter(name=("--output", "-o"), help="Folder for results.csv, charts and a page. Default: only a table."),
    ] = None,
) -> int:
    """Time networks on this machine: every model with every engine, precision, batch size and number of threads.

    Each case runs in a process of its own. The same command goes on where it was interrupted. Networks whose weights
    are not on this machine are timed with random ones. The exit code is 1 where some cases failed.
    """
    from torchclas.benchmarking.bench import cases
    from torchclas.tasks import benchmark as task

    planned = cases(
        models,
        series=series,
        engines=engine,
        precisions=precision,
        batches=batch,
        threads=threads,
        device=device,
    )
    rows = task.benchmark(planned, seconds=seconds, output=output, console=stdout(), notes=stderr())
    return 1 if any(row.timing is None for row in rows) else 0


@app.command
def recommend(
    *,
    max_ms: Annotated[PositiveFloat | None, Parameter(help="Milliseconds a batch may take.")] = None,
    min_top1: Annotated[
        float | None, Percent, Parameter(help="At least this published top-1 accuracy in percent.")
    ] = None,
    max_params: Annotated[Amount, Parameter(help="At most so many parameters, such as 5M.")] = None,
    series: Annotated[str | None, SERIES, Parameter(help="Only this series.")] = None,
    engine: EngineChoice = "auto",
    precision: Precision = "fp32",
    batch: Annotated[PositiveInt, Parameter(help="Images at once.")] = 1,
    threads: Annotated[PositiveInt | None, Parameter(help="Threads of the network. Default: one per core.")] = None,
    device: Device = "auto",
    seconds: Seconds = 1.0,
    results: Annotated[
        Path | None,
        Parameter(help="Folder of an earlier benchmark, to build on. Default: what was measured without one."),
    ] = None,
) -> int:
    """Choose a model for this machine: the most accurate within a time, or the fastest of an accuracy.

    Candidates are timed here, except where it is clear that they cannot be chosen. The exit code is 1 where none fits.
    """
    from torchclas.tasks import recommend as task

    choice = task.recommend(
        task.Bounds(max_ms, min_top1, max_params),
        batch=batch,
        threads=threads,
        engine=engine,
        precision=precision,
        series=series,
        device=device,
        seconds=seconds,
        results=results,
        console=stdout(),
        notes=stderr(),
    )
    return 1 if choice is None else 0
