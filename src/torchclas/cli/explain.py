"""The command that shows what a model looks at: `explain`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from torchclas.cli.app import Device, Labels, MaxPixels, Model, Weights, app
from torchclas.cli.spellings import refuse_options
from torchclas.messages import say
from torchclas.text import printable
from torchclas.vocabulary import Language


@app.command
def explain(
    *sources: Annotated[
        str | Path,
        Parameter(
            help="Images: files, folders, globs, URLs; - reads such names from standard input.",
            allow_leading_hyphen=True,  # for - itself
        ),
    ],
    output: Annotated[
        Path,
        Parameter(
            name=("--output", "-o"),
            help="A sheet (.png, .jpg), a page (.html), or the maps at the size of the pictures (.npz).",
        ),
    ],
    model: Model = None,
    weights: Weights = None,
    labels: Labels = None,
    classes: Annotated[
        tuple[str, ...],
        Parameter(
            name="--class",
            negative="",
            show_default=False,
            help="A class to explain, by id, name or number; may be repeated. Default: the likeliest of each image.",
        ),
    ] = (),
    lang: Annotated[Language, Parameter(help="Language of the class names and the messages.")] = "en",
    max_pixels: MaxPixels = 100_000_000,
    device: Device = "auto",
) -> int:
    """Show where in images a model sees its classes: a heat map of the likeliest, and of the runner-up.

    An image that cannot be read is shown with the reason; the exit code is then 1.
    """
    refuse_options(app, "explain", sources)

    from torchclas.explanation.explainer import Explainer
    from torchclas.tasks.explain import explain as task

    summary = task(
        list(map(str, sources)),
        lambda: Explainer(model, weights=weights, labels=labels, lang=lang, max_pixels=max_pixels, device=device),
        output,
        classes=classes,
    )
    print(f"{say(str(summary))}, {summary.seconds:.1f} s → {printable(str(output))}", file=sys.stderr)
    return 1 if summary.errors else 0
