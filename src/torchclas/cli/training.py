"""Commands that train, and look over the data for it: `train`, `distill`, `data check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from torchclas.cli.app import FLAT, MaxPixels, Weights, Workers, app, stderr, stdout
from torchclas.completion import MODELS
from torchclas.training.options import DistillOptions, TrainOptions

if TYPE_CHECKING:
    from torchclas.inference.embedder import Embedder

TRAIN, DISTILL = TrainOptions(), DistillOptions()  # where nothing is said

data_app = App(name="data", help="Look over data before training on it.")
app.command(data_app)


@app.command
def train(options: Annotated[TrainOptions, FLAT] = TRAIN) -> int:
    """Train a model, or fine-tune it on your pictures; the same command again goes on where a run was stopped.

    The run's folder gets best.safetensors, which all other commands take as a model, and report.html.
    """
    from torchclas.reporting.training_display import print_summary
    from torchclas.tasks import train as task

    summary = task.train(options, stderr())
    print_summary(summary, stdout())
    return 128 + summary.stopped if summary.stopped else 0


@app.command
def distill(options: Annotated[DistillOptions, FLAT] = DISTILL) -> int:
    """Let a student learn from a teacher, on images that need no labels (SSLD), or on labelled ones (DKD).

    The same command again goes on where a run was stopped. The run's folder is like that of `torchclas train`.
    """
    from torchclas.reporting.training_display import print_summary
    from torchclas.tasks import distill as task

    summaries = task.distill(options, stderr())
    for summary in summaries:
        print_summary(summary, stdout())
    return 128 + summaries[-1].stopped if summaries[-1].stopped else 0


@data_app.command(name="check")
def check_data(
    data: Annotated[
        str, Parameter(help="Class folders, a list file, .tar or .parquet shards; or a folder with train and val.")
    ],
    /,
    *,
    val: Annotated[str | None, Parameter(help="Images for validation. Default: those beside the others.")] = None,
    output: Annotated[
        Path | None,
        Parameter(name=("--output", "-o"), help="List file of the training images without the bad and repeated ones."),
    ] = None,
    labels: Annotated[
        Path | None, Parameter(help="File that names the classes: a line for each, in order, such as `cat` or `0 cat`.")
    ] = None,
    root: Annotated[Path | None, Parameter(help="Folder of a list's paths. Default: the list's own.")] = None,
    delimiter: Annotated[str, Parameter(help=r"Stands between path and label in a list file; '\t' is a tab.")] = " ",
    model: Annotated[
        str | None,
        MODELS,
        Parameter(
            name=("--model", "-m"),
            help="Also look with this model's eyes: labels that it doubts, and pictures that it takes for the same.",
        ),
    ] = None,
    weights: Weights = None,
    workers: Workers = None,
    max_pixels: MaxPixels = 100_000_000,
    json: Annotated[bool, Parameter(name="--json", negative="", help="Every finding, as JSON.")] = False,
) -> int:
    """Look for what hurts training: unreadable files, repeated pictures, wrong or missing classes, odd formats.

    The exit code is 1 where something was found that does.
    """
    from torchclas.reporting.data_report import print_report
    from torchclas.tasks.check_data import check_data as task

    def embedder() -> Embedder:
        from torchclas.inference.embedder import Embedder

        return Embedder(model, weights=weights, normalize=True, workers=workers, max_pixels=max_pixels)

    report = task(
        data,
        val,
        output=output,
        labels=labels,
        root=root,
        delimiter=delimiter,
        workers=workers,
        max_pixels=max_pixels,
        make_embedder=None if model is None and weights is None else embedder,
    )
    if json:
        from json import dumps

        print(dumps(report.to_dict(), indent=2))
    else:
        print_report(report, stdout())
    return 0 if report.ok else 1
