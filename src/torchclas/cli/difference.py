"""The command that compares two deployments: `why-different`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from torchclas.cli.app import MaxPixels, Verbose, app, log_to_stderr, stderr, stdout


@app.command
def why_different(
    a: Annotated[str, Parameter(help="Published name, a checkpoint, a run's folder, or an exported model.")],
    b: Annotated[
        str,
        Parameter(help="The same, or what another program computed: outputs or input tensors as .npy, .npz or .csv."),
    ],
    /,
    *pictures: Annotated[
        str | Path, Parameter(help="Images: files, folders, globs, URLs; a file of numbers has a row for each.")
    ],
    set_a: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            show_default=False,
            help="Change A: --set-a engine=onnxruntime; may be repeated. How it runs (engine, precision, weights, "
            "labels, activation, threshold), or prepares images (size, resize_short, interpolation, backend, fit, "
            "mean, std).",
        ),
    ] = (),
    set_b: Annotated[
        tuple[str, ...],
        Parameter(negative="", show_default=False, help="Change B, as in --set-b interpolation=bicubic."),
    ] = (),
    output: Annotated[Path | None, Parameter(name=("--output", "-o"), help="JSON file of all that was found.")] = None,
    max_pixels: MaxPixels = 100_000_000,
    verbose: Verbose = False,
) -> int:
    """Say where two deployments of what should be one model part, and the first cause.

    The exit code is 1 where they differ.
    """
    if verbose:
        log_to_stderr()

    from torchclas.reporting.console import escape
    from torchclas.reporting.difference_report import print_report
    from torchclas.tasks import why_different as task

    found = task.why_different(
        a, b, [*map(str, pictures)], set_a=set_a, set_b=set_b, max_pixels=max_pixels, output=output
    )
    print_report(found, stdout())
    if output is not None:
        stderr().print(f"wrote {escape(str(output))}", soft_wrap=True)
    return 0 if found.same else 1
