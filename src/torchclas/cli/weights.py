"""`weights fetch`, `convert`, `push`, `inspect`, `path` and `clear`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from torchclas.cli.app import Labels, Weights, app, stderr, stdout
from torchclas.completion import MODELS, NAMES, SERIES
from torchclas.messages import say
from torchclas.text import printable

weights_app = App(name="weights", help="Fetch, convert and inspect weights.")
app.command(weights_app)


@weights_app.command
def fetch(
    *names: Annotated[str, NAMES, Parameter(help="Published names, or globs such as 'PPLCNet*'.")],
    series: Annotated[str | None, SERIES, Parameter(help="All of this series.")] = None,
    all: Annotated[bool, Parameter(negative="", help="All that were published: over 40 GB.")] = False,  # noqa: A002
) -> int:
    """Fetch published weights and convert them, so that they load at once and without network.

    What is here is not fetched again. The exit code is 1 where some could not be fetched.
    """
    from torchclas.tasks import weights as task

    entries = task.choose(names, everything=all, series=series)
    return 0 if task.fetch(entries, stdout(), stderr()) else 1


@weights_app.command
def convert(
    source: Annotated[Path, Parameter(help=".pdparams, .pth, .onnx (exported from Paddle) or .safetensors.")],
    destination: Annotated[Path, Parameter(help="Ends in .safetensors, or in .pdparams for PaddlePaddle.")],
    /,
    *,
    model: Annotated[
        str | None,
        NAMES,
        Parameter(name=("--model", "-m"), help="Whose weights they are, where the file does not say it."),
    ] = None,
    labels: Labels = None,
    layout: Annotated[
        Literal["current", "original"], Parameter(help="Tensor names of a .pdparams; some models had others once.")
    ] = "current",
) -> None:
    """Convert weights to a .safetensors file with all that commands need to know, or to a .pdparams file."""
    from torchclas.tasks import weights as task

    task.convert(source, destination, model=model, layout=layout, labels=labels)
    print(printable(f"{source} → {destination}"), file=sys.stderr)


@weights_app.command
def push(
    model: Annotated[str, MODELS, Parameter(help="A checkpoint, the folder of a run, or a published name.")],
    repository: Annotated[str, Parameter(help="OWNER/NAME; made if it does not exist.")],
    /,
    *,
    weights: Weights = None,
    labels: Labels = None,
    message: Annotated[str | None, Parameter(help="Of the commit. Default: the model's name.")] = None,
    license: Annotated[  # noqa: A002 - the Hub's word
        str | None, Parameter(help="SPDX identifier for the page. Default: that of published weights, else none.")
    ] = None,
    private: Annotated[bool, Parameter(negative="", help="Make a repository that only its owner sees.")] = False,
    new_card: Annotated[
        bool, Parameter(negative="", help="Write the page (README.md) anew, where there is one already.")
    ] = False,
) -> None:
    """Upload a model to the Hugging Face Hub: weights, a page of facts, and where timm has the network its config.json.

    timm opens the files and must give equal logits before they are uploaded, in one commit.
    """
    from torchclas.reporting.amounts import mebibytes
    from torchclas.tasks import weights as task

    done = task.push(
        model,
        repository,
        weights=weights,
        labels=labels,
        message=message,
        license=license,
        private=private,
        new_card=new_card,
    )
    print(done.url)
    print(f"{done.address} ({mebibytes(done.size)})", file=sys.stderr)
    if done.error is None:
        print(say("timm has no such network: the weights are a checkpoint of torchclas"), file=sys.stderr)
    else:
        print(say(f"timm's logits differ by {done.error:.0e} of the largest"), file=sys.stderr)
    if done.card_kept:
        print(say("README.md was there already, and stays as it is (--new-card writes it anew)"), file=sys.stderr)


@weights_app.command
def inspect(
    file: Path,
    /,
    *,
    model: Annotated[
        str | None, NAMES, Parameter(name=("--model", "-m"), help="Say whether it fits this model.")
    ] = None,
    tensors: Annotated[bool, Parameter(negative="", help="List the tensors, with shapes and types.")] = False,
) -> int:
    """Say what a weights file is and what it holds; with a model, whether it fits (exit code 1 if not)."""
    from torchclas.tasks import weights as task

    return 0 if task.inspect(file, stdout(), model=model, list_tensors=tensors) else 1


@weights_app.command(name="path")
def weights_path(name: Annotated[str | None, NAMES, Parameter(help="A published name.")] = None, /) -> None:
    """Print where a model's weights are kept, or the folder of all."""
    from torchclas.tasks import weights as task

    path = task.path_of(name)
    print(path)
    if not path.exists():
        hint = "nothing has been fetched yet" if name is None else f"not there yet: `torchclas weights fetch {name}`"
        print(say(hint), file=sys.stderr)


@weights_app.command
def clear(
    *names: Annotated[str, NAMES, Parameter(help="Published names, or globs such as 'PPLCNet*'.")],
    all: Annotated[bool, Parameter(negative="", help="Everything in the cache.")] = False,  # noqa: A002
) -> None:
    """Delete fetched weights; they can be fetched again."""
    from torchclas.tasks import weights as task

    freed = task.clear(names, everything=all)
    print(say(f"{freed:,} bytes freed"), file=sys.stderr)
