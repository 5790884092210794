"""`quantize`: models in 8-bit integers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from torchclas.cli.app import Weights, app, stdout
from torchclas.completion import MODELS


@app.command
def quantize(
    model: Annotated[
        str | None,
        MODELS,
        Parameter(help="Published name, or a checkpoint or exported model. Default: EfficientNet_lite0."),
    ] = None,
    /,
    *,
    calibration: Annotated[
        Path, Parameter(help="Folder of pictures such as the model will see, a list file, .tar or .parquet shards.")
    ],
    weights: Weights = None,
    val: Annotated[
        Path | None,
        Parameter(help="Labelled images, as `train` takes them: accuracy decides, rather than agreement."),
    ] = None,
    labels: Annotated[
        Path | None, Parameter(help="File that names the classes in the order of the model's outputs.")
    ] = None,
    root: Annotated[Path | None, Parameter(help="Folder of a list's paths. Default: the list's own.")] = None,
    delimiter: Annotated[str, Parameter(help=r"Stands between path and label in a list file; '\t' is a tab.")] = " ",
    max_drop: Annotated[
        float | None,
        Parameter(
            help="Percentage points that may be lost: of accuracy (default 0.5), or without --val of top-1 agreement "
            "with fp32 (default 2)."
        ),
    ] = None,
    images: Annotated[PositiveInt, Parameter(help="Pictures to calibrate with; up to 500 others are to check.")] = 300,
    output: Annotated[
        Path | None,
        Parameter(
            name=("--output", "-o"), help="ONNX file to write. Default: in the cache, for `predict --precision int8`."
        ),
    ] = None,
) -> None:
    """Write a model in 8-bit integers; layers that do not bear it are found by measurement and stay in float."""
    from torchclas.reporting.quantization_report import print_report
    from torchclas.tasks import quantize as task

    report = task.quantize(
        model,
        calibration=calibration,
        weights=weights,
        val=val,
        labels=labels,
        root=root,
        delimiter=delimiter,
        max_drop=max_drop,
        images=images,
        output=output,
    )
    print_report(report, stdout())
