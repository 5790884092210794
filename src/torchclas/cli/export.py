"""`export`: models for other runtimes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from torchclas.cli.app import SEVERAL, Config, Labels, Lenient, Overrides, Weights, app, follow
from torchclas.completion import MODELS
from torchclas.messages import say
from torchclas.sizes import parse_size
from torchclas.text import printable
from torchclas.vocabulary import ExportFormat, ExportInput, ExportPrecision, Output


def _batch(kind: type, tokens: Sequence[Any]) -> int | None:
    text = tokens[0].value
    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("it is a number of images, or dynamic")
    return int(text)


@app.command
def export(
    model: Annotated[
        str | None,
        MODELS,
        Parameter(help="Published name, a checkpoint, or a run's folder. Default: EfficientNet_lite0."),
    ] = None,
    /,
    *,
    to: Annotated[ExportFormat, Parameter(help="Format of the file.")],
    weights: Weights = None,
    labels: Labels = None,
    output: Annotated[
        Path | None,
        Parameter(name=("--output", "-o"), help="File to write. Default: the name of the model, or of its checkpoint."),
    ] = None,
    batch: Annotated[
        int | None, Parameter(converter=_batch, help="Images at once: a number, or dynamic, the default.")
    ] = None,
    input: Annotated[  # noqa: A002 - the option's name
        ExportInput, Parameter(help="uint8: the file takes pixels of images of any size and prepares them itself.")
    ] = "float32",
    size: Annotated[str | None, Parameter(help="Image size: 224, or HEIGHTxWIDTH. Default: the model's own.")] = None,
    outputs: Annotated[
        tuple[Output, ...],
        SEVERAL,
        Parameter(help="logits,embedding: also the vector before the classifier."),
    ] = ("logits",),
    runtime: Annotated[
        str | None,
        Parameter(help="Where a web site has onnxruntime-web from: npm (fetched once), cdn, or a path."),
    ] = None,
    precision: Annotated[
        ExportPrecision, Parameter(help="fp16: half as large, right to 0.01 of the largest logit (onnx, ncnn, mnn).")
    ] = "fp32",
    opset: Annotated[
        int | None, Parameter(help="Version of the operators in an ONNX file, 11 to 20. Default: 20.")
    ] = None,
    config: Config = None,
    config_overrides: Overrides = (),
    lenient: Lenient = False,
) -> None:
    """Write a model as a file for another runtime; it is run and compared with the model before it gets its name."""
    from torchclas.exporting.formats import FORMATS
    from torchclas.reporting.amounts import mebibytes
    from torchclas.tasks import export as task

    pixels = None if size is None else parse_size(size)
    used = follow(config, config_overrides, "export", model=model, weights=weights, lenient=lenient)
    if used is not None:
        model, weights, pixels = used.model, used.weights, pixels or used.size
        output = output or used.output / f"inference{FORMATS[to].suffix}"
    done = task.export(
        model,
        to=to,
        weights=weights,
        labels=labels or (used and used.labels),
        preset=used and used.preset,
        activation=used and used.activation,
        output=output,
        batch=batch,
        input=input,
        size=pixels,
        outputs=outputs,
        runtime=runtime,
        precision=precision,
        opset=opset,
    )
    how = f"{mebibytes(done.size)}, logits within {done.error:.0e} of the model's, {done.seconds:.1f} s"
    print(f"{printable(str(done.path))}: {say(how)}", file=sys.stderr)
