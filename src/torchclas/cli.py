"""The command line: parses arguments, and imports what a command needs when it runs."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

from cyclopts import App, CycloptsError, Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

import torchclas
from torchclas.errors import Error

if TYPE_CHECKING:
    from rich.console import Console

# Spelled out here as well, because help must not import what the commands do; a test keeps them equal.
Format = Literal["table", "jsonl", "csv", "parquet"]
Order = Literal["catalog", "name", "top1", "params", "flops", "latency-v100", "latency-sd855", "latency-xeon6148"]

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
READER_GONE = 141  # 128 + SIGPIPE

app = App(
    name="torchclas",
    help="The ImageNet model zoo of PaddleClas in PyTorch. `torchclas COMMAND --help` says more about a command.",
    help_epilogue="With --debug, anywhere, errors come with their traceback.",
    version=f"torchclas {torchclas.__version__}",
    help_format="plaintext",
    result_action="return_value",
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
)
app.register_install_completion_command(help="Make the shell complete commands, options and their values.")
weights_app = App(name="weights", help="Fetch, convert and inspect weights.")
app.command(weights_app)
data_app = App(name="data", help="Look over data before training on it.")
app.command(data_app)


def _amount(kind: type, tokens: Sequence[Any]) -> float:
    from torchclas.tasks.listing import amount

    return amount(tokens[0].value)


Model = Annotated[
    str | None,
    Parameter(name=("--model", "-m"), help="Published name, or a .safetensors file. Default: EfficientNet_lite0."),
]
Weights = Annotated[Path | None, Parameter(help="Weights file that takes the place of the model's published ones.")]
Amount = Annotated[float | None, Parameter(converter=_amount)]
BatchSize = Annotated[PositiveInt, Parameter(help="Images the network takes at once.")]
Workers = Annotated[
    NonNegativeInt | None,
    Parameter(help="Threads that read images; 0: the main one does. Default: one per core."),
]
Device = Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, mps …")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Everything the catalog says, as JSON.")]


@app.command(name="list")
def list_models(
    pattern: Annotated[str | None, Parameter(help="A glob such as '*_ssld', or a part of the name.")] = None,
    /,
    *,
    series: Annotated[str | None, Parameter(help="Only this series.")] = None,
    max_params: Annotated[Amount, Parameter(help="At most so many parameters, such as 5M.")] = None,
    max_flops: Annotated[Amount, Parameter(help="At most so many multiply-adds, such as 1G.")] = None,
    min_top1: Annotated[float | None, Parameter(help="At least this top-1 accuracy in percent.")] = None,
    sort: Annotated[Order, Parameter(help="Best first: top1 falls, the others rise.")] = "catalog",
    limit: Annotated[PositiveInt | None, Parameter(help="Show only the first so many.")] = None,
    json: Json = False,
) -> None:
    """List published models: series, accuracy, size, cost, and whether their weights are on this machine."""
    from torchclas.tasks import listing

    entries = listing.select(
        pattern,
        series=series,
        max_params=max_params,
        max_flops=max_flops,
        min_top1=min_top1,
        order=sort,
        limit=limit,
    )
    if json:
        print(listing.rows(entries))
    else:
        listing.print_list(entries, _stdout(), _stderr(), order=sort)


@app.command
def info(
    name: Annotated[str, Parameter(help="A published name or an architecture, in any case.")],
    /,
    *,
    compute: Annotated[bool, Parameter(negative="", help="Count parameters and multiply-adds; takes seconds.")] = False,
    json: Json = False,
) -> None:
    """Show what is known about a model: paper, published figures, preprocessing, weights, recipe."""
    from torchclas import catalog
    from torchclas.tasks import listing

    entry = catalog.find(name)
    computed: dict[str, int] = {}
    if compute:
        from torchclas.complexity import complexity

        cost = complexity(entry.arch, num_classes=entry.num_classes, size=entry.preset.crop_size)
        computed = {"parameters": cost.params, "multiply_adds": cost.macs}
    if json:
        from json import dumps

        values = listing.to_dict(entry) | ({"computed": computed} if computed else {})
        print(dumps(values, ensure_ascii=False, indent=2))
    else:
        lines = [("computed", f"{count:,} {what.replace('_', '-')}") for what, count in computed.items()]
        listing.print_info(entry, _stdout(), computed=lines)


@app.command
def predict(
    *sources: Annotated[
        str,
        Parameter(
            help="Images: files, folders, globs, URLs; - reads such names from standard input.",
            allow_leading_hyphen=True,  # for - itself
        ),
    ],
    model: Model = None,
    weights: Weights = None,
    top_k: Annotated[PositiveInt, Parameter(name=("--top-k", "-k"), help="Classes per image.")] = 5,
    threshold: Annotated[float, Parameter(help="Leave out classes that score less; scores are in 0..1.")] = 0.0,
    lang: Annotated[Literal["en", "zh"], Parameter(help="Language of the class names.")] = "en",
    format: Annotated[  # noqa: A002 - the option's name
        Format | None, Parameter(help="Default: what the output's suffix stands for, or else table.")
    ] = None,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"), help="File instead of standard output.")] = None,
    montage: Annotated[Path | None, Parameter(help="Draw the first 64 images with their classes to this file.")] = None,
    batch_size: BatchSize = 16,
    workers: Workers = None,
    device: Device = "auto",
) -> int:
    """Classify images: one row for each, in order.

    An image that cannot be read has a row that says why; the exit code is then 1. Ctrl-C keeps the rows done so far.
    """
    for name in sources:
        if name.startswith("-") and name != "-":
            raise Error(f"unknown option {name}: see `torchclas predict --help` (a file of this name is ./{name})")

    from torchclas.tasks.classify import classify
    from torchclas.tasks.predict import Classifier

    summary = classify(
        sources,
        lambda: Classifier(
            model,
            weights=weights,
            device=device,
            batch_size=batch_size,
            top_k=top_k,
            lang=lang,
            workers=workers,
        ),
        output=output,
        output_format=format,
        threshold=threshold,
        montage=montage,
    )
    if summary.errors or output is not None:
        where = "" if output is None else f" → {output}"
        print(f"{summary}, {summary.seconds:.1f} s{where}", file=sys.stderr)
    return 1 if summary.errors else 0


@app.command
def evaluate(
    data: Annotated[Path, Parameter(help="Class folders (DATA/class/image), or a list file of `path label` lines.")],
    /,
    *,
    model: Model = None,
    weights: Weights = None,
    delimiter: Annotated[str, Parameter(help="Stands between path and label in a list file.")] = " ",
    root: Annotated[Path | None, Parameter(help="Folder of a list's paths. Default: the list's own.")] = None,
    output: Annotated[
        Path | None,
        Parameter(name=("--output", "-o"), help="Folder for report.json, per_class.csv, errors.csv, confusion.png."),
    ] = None,
    batch_size: BatchSize = 32,
    workers: Workers = None,
    device: Device = "auto",
) -> int:
    """Measure a model on labelled images: accuracy, calibration, what it confuses.

    The exit code is 1 where some images could not be read; the figures are then over the others.
    """
    from torchclas.tasks import evaluate as task

    report = task.evaluate(
        data,
        model=model,
        weights=weights,
        delimiter=delimiter,
        root=root,
        batch_size=batch_size,
        workers=workers,
        device=device,
        output=output,
    )
    task.print_report(report, _stdout())
    return 0 if report.complete else 1


@app.command(name="recipe")
def show_recipe(
    name: Annotated[str, Parameter(help="A model or an architecture, ssld, ssld_finetune, fixres or finetune.")],
    /,
    *,
    set: Annotated[  # noqa: A002 - the option's name
        tuple[str, ...],
        Parameter(negative="", show_default=False, help="Change a setting: --set optimizer.lr=0.05; may be repeated."),
    ] = (),
) -> None:
    """Print the recipe that a model is trained by, as TOML: optimizer, schedule, augmentation, source."""
    from torchclas.tasks.recipe import recipe_file

    print(recipe_file(name, set), end="")


@app.command
def train(
    data: Annotated[
        Path,
        Parameter(help="Class folders, a list file, .tar or .parquet shards; or a folder with train and val."),
    ],
    /,
    *,
    model: Model = None,
    val: Annotated[
        Path | None, Parameter(help="Images for validation. Default: those beside DATA's others, or a fifth of them.")
    ] = None,
    recipe: Annotated[
        str | None, Parameter(help="A recipe's name. Default: finetune from weights, the model's own from scratch.")
    ] = None,
    start: Annotated[
        str | None, Parameter(name="--from", help="pretrained, scratch, or a weights file.", show_default=False)
    ] = None,
    epochs: PositiveInt | None = None,
    batch_size: Annotated[PositiveInt | None, Parameter(help="Images of each step, over all devices.")] = None,
    set: Annotated[  # noqa: A002 - the option's name
        tuple[str, ...],
        Parameter(negative="", show_default=False, help="Change a setting: --set optimizer.lr=0.05; may be repeated."),
    ] = (),
    devices: Annotated[PositiveInt, Parameter(help="GPUs, or processes on the CPU.")] = 1,
    device: Device = "auto",
    precision: Annotated[Literal["fp32", "bf16", "fp16"] | None, Parameter(help="Default: the recipe's.")] = None,
    compile: Annotated[bool, Parameter(negative="", help="Compile the network: slow to start, then faster.")] = False,  # noqa: A002
    accumulate: Annotated[PositiveInt, Parameter(help="Parts to split each step into, to save memory.")] = 1,
    head_epochs: Annotated[
        NonNegativeInt | None,
        Parameter(help="Epochs at the start in which only the last layer learns. Default: 1 where it is new."),
    ] = None,
    early_stop: Annotated[NonNegativeInt, Parameter(help="End after so many epochs without a new best; 0: never.")] = 0,
    fixres: Annotated[
        PositiveInt | None, Parameter(help="Adapt a trained model to this larger image size; only its end learns.")
    ] = None,
    seed: Annotated[NonNegativeInt, Parameter(help="Everything random follows from it.")] = 0,
    workers: Annotated[
        NonNegativeInt | None, Parameter(help="Processes that read images, for each device; 0: none of their own.")
    ] = None,
    checkpoint_steps: Annotated[
        NonNegativeInt, Parameter(help="Save every so many steps, beside every epoch and every five minutes.")
    ] = 0,
    delimiter: Annotated[str, Parameter(help="Stands between path and label in a list file.")] = " ",
    output: Annotated[
        Path | None, Parameter(name=("--output", "-o"), help="The run's folder. Default: runs/MODEL-DATA.")
    ] = None,
) -> int:
    """Train a model, or fine-tune it on your pictures; the same command again goes on where a run was stopped.

    The run's folder gets best.safetensors, which all other commands take as a model, and report.html.
    """
    from torchclas.tasks import train as task

    options = task.Options(
        data=data,
        val=val,
        model=model,
        recipe=recipe,
        start=start,
        epochs=epochs,
        batch_size=batch_size,
        overrides=set,
        devices=devices,
        device=device,
        seed=seed,
        workers=workers,
        precision=precision,
        compile=compile,
        accumulate=accumulate,
        head_epochs=head_epochs,
        early_stop=early_stop,
        fixres=fixres,
        checkpoint_steps=checkpoint_steps,
        delimiter=delimiter,
        output=output,
    )
    summary = task.train(options, _stderr())
    task.print_summary(summary, _stdout())
    return 128 + summary.stopped if summary.stopped else 0


@app.command
def distill(
    data: Annotated[
        Path, Parameter(help="A folder of images, without labels but for DKD; a list file, .tar or .parquet shards.")
    ],
    /,
    *,
    model: Annotated[
        str | None, Parameter(name=("--model", "-m"), help="The student. Default: the recipe's.", show_default=False)
    ] = None,
    teacher: Annotated[
        str | None, Parameter(help="Published name, or a .safetensors file. Default: the recipe's.", show_default=False)
    ] = None,
    method: Annotated[
        Literal["ssld", "ce", "dkd"] | None,
        Parameter(help="Symmetric KL divergence, cross entropy, or DKD (needs labels). Default: the recipe's."),
    ] = None,
    teacher_bn: Annotated[
        Literal["eval", "train"], Parameter(help="Statistics of the teacher's batch norm: its own, or the batch's.")
    ] = "eval",
    val: Annotated[
        Path | None, Parameter(help="Labelled images for validation. Default: a share of DATA, as the teacher sees it.")
    ] = None,
    finetune: Annotated[
        Path | None, Parameter(help="Go on with a short second phase on these images, in OUTPUT/finetune.")
    ] = None,
    cache_logits: Annotated[
        NonNegativeInt, Parameter(help="Keep so many of the teacher's logits on disk, so that it is asked only once.")
    ] = 0,
    cache_views: Annotated[PositiveInt, Parameter(help="Augmented views of each image that the cache holds.")] = 8,
    cache_folder: Annotated[
        Path | None, Parameter(help="Where the cache is, which other runs may use. Default: OUTPUT-logits.")
    ] = None,
    recipe: Annotated[
        str | None, Parameter(help="A recipe's name. Default: the student's published one, or ssld.")
    ] = None,
    start: Annotated[
        str | None, Parameter(name="--from", help="scratch, pretrained, or a weights file.", show_default=False)
    ] = None,
    epochs: PositiveInt | None = None,
    batch_size: Annotated[PositiveInt | None, Parameter(help="Images of each step, over all devices.")] = None,
    set: Annotated[  # noqa: A002 - the option's name
        tuple[str, ...],
        Parameter(negative="", show_default=False, help="Change a setting: --set distill.label_weight=0.5 …"),
    ] = (),
    devices: Annotated[PositiveInt, Parameter(help="GPUs, or processes on the CPU.")] = 1,
    device: Device = "auto",
    precision: Annotated[Literal["fp32", "bf16", "fp16"] | None, Parameter(help="Default: the recipe's.")] = None,
    accumulate: Annotated[PositiveInt, Parameter(help="Parts to split each step into, to save memory.")] = 1,
    early_stop: Annotated[NonNegativeInt, Parameter(help="End after so many epochs without a new best; 0: never.")] = 0,
    seed: Annotated[NonNegativeInt, Parameter(help="Everything random follows from it.")] = 0,
    workers: Annotated[
        NonNegativeInt | None, Parameter(help="Processes that read images, for each device; 0: none of their own.")
    ] = None,
    delimiter: Annotated[str, Parameter(help="Stands between path and label in a list file.")] = " ",
    output: Annotated[
        Path | None, Parameter(name=("--output", "-o"), help="The run's folder. Default: runs/STUDENT-by-TEACHER.")
    ] = None,
) -> int:
    """Let a student learn from a teacher, on images that need no labels (SSLD), or on labelled ones (DKD).

    The same command again goes on where a run was stopped. The run's folder is like that of `torchclas train`.
    """
    from torchclas.tasks import distill as task

    options = task.DistillOptions(
        data=data,
        model=model,
        teacher=teacher,
        method=method,
        teacher_bn=teacher_bn,
        val=val,
        finetune=finetune,
        cache_logits=cache_logits,
        cache_views=cache_views,
        cache_folder=cache_folder,
        recipe=recipe,
        start=start,
        epochs=epochs,
        batch_size=batch_size,
        overrides=set,
        devices=devices,
        device=device,
        precision=precision,
        accumulate=accumulate,
        early_stop=early_stop,
        seed=seed,
        workers=workers,
        delimiter=delimiter,
        output=output,
    )
    summaries = task.distill(options, _stderr())
    task.print_summaries(summaries, _stdout())
    return 128 + summaries[-1].stopped if summaries[-1].stopped else 0


@app.command
def demo(
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"), help="Folder for what it makes.")] = Path("demo"),
) -> None:
    """Show what torchclas does, on images and weights that come with it."""
    from torchclas.tasks import demo as task

    task.demo(output)


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
    delimiter: Annotated[str, Parameter(help="Stands between path and label in a list file.")] = " ",
    workers: Workers = None,
    json: Annotated[bool, Parameter(name="--json", negative="", help="Every finding, as JSON.")] = False,
) -> int:
    """Look for what hurts training: unreadable files, repeated pictures, wrong or missing classes, odd formats.

    The exit code is 1 where something was found that does.
    """
    from torchclas.tasks import data_check

    report = data_check.check(data, val, output=output, delimiter=delimiter, workers=workers)
    if json:
        from json import dumps

        print(dumps(report.to_dict(), indent=2))
    else:
        data_check.print_report(report, _stdout())
    return 0 if report.ok else 1


@weights_app.command
def fetch(
    *names: Annotated[str, Parameter(help="Published names, or globs such as 'PPLCNet*'.")],
    series: Annotated[str | None, Parameter(help="All of this series.")] = None,
    all: Annotated[bool, Parameter(negative="", help="All that were published: over 40 GB.")] = False,  # noqa: A002
) -> int:
    """Fetch published weights and convert them, so that they load at once and without network.

    What is here is not fetched again. The exit code is 1 where some could not be fetched.
    """
    from torchclas.tasks import weights as task

    entries = task.choose(names, everything=all, series=series)
    return 0 if task.fetch(entries, _stdout(), _stderr()) else 1


@weights_app.command
def convert(
    source: Annotated[Path, Parameter(help=".pdparams, .pth, .onnx (exported from Paddle) or .safetensors.")],
    destination: Annotated[Path, Parameter(help="Ends in .safetensors, or in .pdparams for PaddlePaddle.")],
    /,
    *,
    model: Annotated[
        str | None, Parameter(name=("--model", "-m"), help="Whose weights they are; our own files say so themselves.")
    ] = None,
    layout: Annotated[
        Literal["current", "original"], Parameter(help="Tensor names of a .pdparams; some models had others once.")
    ] = "current",
) -> None:
    """Convert weights to a .safetensors file with all that commands need to know, or to a .pdparams file."""
    from torchclas.tasks import weights as task

    task.convert(source, destination, model=model, layout=layout)
    print(f"{source} → {destination}", file=sys.stderr)


@weights_app.command
def inspect(
    file: Path,
    /,
    *,
    model: Annotated[str | None, Parameter(name=("--model", "-m"), help="Say whether it fits this model.")] = None,
    tensors: Annotated[bool, Parameter(negative="", help="List the tensors, with shapes and types.")] = False,
) -> int:
    """Say what a weights file is and what it holds; with a model, whether it fits (exit code 1 if not)."""
    from torchclas.tasks import weights as task

    return 0 if task.inspect(file, _stdout(), model=model, list_tensors=tensors) else 1


@weights_app.command(name="path")
def weights_path(name: Annotated[str | None, Parameter(help="A published name.")] = None, /) -> None:
    """Print where a model's weights are kept, or the folder of all."""
    from torchclas.tasks import weights as task

    path = task.path_of(name)
    print(path)
    if not path.exists():
        hint = "nothing has been fetched yet" if name is None else f"not there yet: `torchclas weights fetch {name}`"
        print(hint, file=sys.stderr)


@weights_app.command
def clear(
    *names: Annotated[str, Parameter(help="Published names, or globs such as 'PPLCNet*'.")],
    all: Annotated[bool, Parameter(negative="", help="Everything in the cache.")] = False,  # noqa: A002
) -> None:
    """Delete fetched weights; they can be fetched again."""
    from torchclas.tasks import weights as task

    freed = task.clear(names, everything=all)
    print(f"{freed:,} bytes freed", file=sys.stderr)


def main() -> NoReturn:
    """Run the command that the process was started with."""
    # A worker that decodes images should not compete with idle threads of torch that spin.
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    for stream in (sys.stdout, sys.stderr):  # file names may hold what the terminal's encoding does not
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    code = run(sys.argv[1:])
    if code in (INTERRUPTED, READER_GONE):
        # Not sys.exit: it would wait for threads, and those may be waiting for a server.
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code: 0, 1 (done, but not for every input), 2 (an error), 130 (Ctrl-C)."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in options
    if debug:
        arguments = [*(option for option in options if option != "--debug"), *arguments[len(options) :]]
    try:
        code = app(arguments)
        sys.stdout.flush()
        return code or 0
    except (Error, CycloptsError) as error:
        if debug:
            raise
        _report(str(error))
        return 2
    except KeyboardInterrupt:
        if debug:
            raise
        return INTERRUPTED
    except OSError as error:
        if debug or error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EDQUOT):
            raise
        # Python flushes standard output once more at exit; let it go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            return READER_GONE
        _report(f"{error.filename or 'the output'} cannot be written: {error.strerror}")
        return 2


def _report(message: str) -> None:
    print(f"torchclas: {' '.join(message.split())}", file=sys.stderr)


def _stdout() -> Console:
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))  # for `run`; the default is to exit with 1

    return Output()


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True)
