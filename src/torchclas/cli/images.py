"""Commands that run a model on images: `predict` and `evaluate`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from torchclas.cli.app import (
    SEVERAL,
    BatchSize,
    Config,
    Device,
    Engine,
    Labels,
    Lenient,
    MaxPixels,
    Model,
    OnePrecision,
    Overrides,
    Relabel,
    Share,
    Threads,
    Verbose,
    Weights,
    Workers,
    app,
    follow,
    start_lean,
    stderr,
    stdout,
)
from torchclas.cli.spellings import refuse_options
from torchclas.completion import MODELS, SERIES
from torchclas.errors import Error
from torchclas.messages import say
from torchclas.text import printable
from torchclas.vocabulary import Language, RowFormat, TestTimeAugmentation

if TYPE_CHECKING:
    from torchclas.inference.accuracy_table import Settings
    from torchclas.inference.evaluation import EvaluationReport

TABLE = "Many models"  # a group of options
FastDecode = Annotated[
    bool,
    Parameter(
        negative="",
        help="Decode large JPEG files to 1/2, 1/4 or 1/8, if that is 4 times what the model takes: faster, not exact.",
    ),
]
MaxFpr = Annotated[
    float | None,
    Parameter(help="Of two classes: share of images of the first that may be taken for the second. Default: 0.001."),
]
Tta = Annotated[
    TestTimeAugmentation | None,
    Parameter(help="Average the scores of several views: flip has the mirror image, too, five-crop the corners."),
]


@app.command
def predict(
    *sources: Annotated[
        str | Path,  # which says to a shell that files complete it; all values are str
        Parameter(
            help="Images: files, folders, globs, URLs, s3://BUCKET/FOLDER (gs, az, hf); - reads such names from "
            "standard input.",
            allow_leading_hyphen=True,  # for - itself
        ),
    ],
    model: Model = None,
    weights: Weights = None,
    labels: Labels = None,
    top_k: Annotated[
        PositiveInt | None,
        Parameter(
            name=("--top-k", "-k"),
            help="Classes per image at most. Default: 5, or any number if images have several.",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        Share,
        Parameter(
            help="Leave out classes that score less, in 0..1. Default: a class's own, where images have several."
        ),
    ] = None,
    lang: Annotated[Language, Parameter(help="Language of the class names and the messages.")] = "en",
    format: Annotated[  # noqa: A002 - the option's name
        RowFormat | None, Parameter(help="Default: what the output's suffix stands for, or else table.")
    ] = None,
    output: Annotated[
        str | Path | None,  # which says to a shell that files complete it; all values are str, and may end in /
        Parameter(
            name=("--output", "-o"),
            help="File instead of standard output; FOLDER/: Parquet files in a folder.",
            allow_leading_hyphen=True,  # for - alone, which is standard output
        ),
    ] = None,
    restart: Annotated[
        bool, Parameter(negative="", help="Drop what an interrupted command left for this output, and begin anew.")
    ] = False,
    montage: Annotated[Path | None, Parameter(help="Draw the first 64 images with their classes to this file.")] = None,
    cluster: Annotated[
        str | None,
        Parameter(
            help="Let the workers of a Ray cluster do it: its HOST:PORT, or auto, which begins one if none runs."
        ),
    ] = None,
    tta: Tta = None,
    fast_decode: FastDecode = False,
    batch_size: BatchSize = None,
    workers: Workers = None,
    max_pixels: MaxPixels = 100_000_000,
    device: Device = "auto",
    engine: Engine = "auto",
    precision: OnePrecision = "fp32",
    threads: Threads = None,
    config: Config = None,
    config_overrides: Overrides = (),
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> int:
    """Classify images: one row for each, in order.

    An image that cannot be read has a row that says why; the exit code is then 1. What is stopped before its end, the
    same command goes on with.
    """
    refuse_options(app, "predict", sources)
    start_lean(verbose)

    from torchclas.distributed.workers import Cluster
    from torchclas.inference.classifier import Classifier
    from torchclas.tasks.predict import classify

    used = follow(config, config_overrides, "predict", model=model, weights=weights, lenient=lenient)
    if used is not None:
        sources = sources or used.sources
        model, weights, batch_size = used.model, used.weights, batch_size or used.batch_size
        threshold = used.threshold if threshold is None else threshold
        top_k, device = top_k or used.top_k, used.device if device == "auto" else device
    destination, folder = _destination(output)
    if cluster is not None:  # as many workers as there are cores, rather than one with as many threads
        threads, workers = threads or 1, 1 if workers is None else workers
    make_classifier = partial(
        Classifier,
        model,
        weights=weights,
        labels=labels or (used and used.labels),
        preset=used and used.preset,
        activation=used and used.activation,
        device=device,
        batch_size=batch_size or 16,
        top_k=top_k,
        threshold=threshold,
        lang=lang,
        tta=tta,
        fast_decode=fast_decode,
        workers=workers,
        engine=engine,
        precision=precision,
        threads=threads,
        max_pixels=max_pixels,
    )
    summary = classify(
        list(map(str, sources)),
        make_classifier,
        output=destination,
        output_format=format,
        folder=folder,
        restart=restart,
        montage=montage,
        cluster=None if cluster is None else Cluster(cluster, threads or 1, device),
        note=lambda remark: print(say(printable(remark)), file=sys.stderr),
    )
    if summary.errors or destination is not None:
        where = "" if destination is None else f" → {printable(str(output))}"
        print(f"{say(str(summary))}, {summary.seconds:.1f} s{where}", file=sys.stderr)
    return 1 if summary.errors else 0


@app.command
def evaluate(
    data: Annotated[
        str | Path | None,  # which says to a shell that files complete it; the value is a str
        Parameter(
            help="Class folders (DATA/class/image), a list file of `path label` lines, .tar or .parquet shards; or "
            "such at s3://BUCKET/FOLDER (gs, az, hf)."
        ),
    ] = None,
    /,
    *,
    model: Model = None,
    weights: Weights = None,
    models: Annotated[
        tuple[str, ...],
        MODELS,
        SEVERAL,
        Parameter(
            show_default=False,
            group=TABLE,
            help="Names, globs such as 'PPLCNet_*', or files, separated by commas: a table of all.",
        ),
    ] = (),
    series: Annotated[
        str | None, SERIES, Parameter(group=TABLE, help="All of this series with a published accuracy.")
    ] = None,
    all: Annotated[  # noqa: A002 - the option's name
        bool, Parameter(group=TABLE, negative="", help="All models with a published accuracy.")
    ] = False,
    labels: Annotated[
        Path | None,
        Parameter(help="File that names the classes in the order of a list's numbers, or of the model's outputs."),
    ] = None,
    delimiter: Annotated[str, Parameter(help=r"Stands between path and label in a list file; '\t' is a tab.")] = " ",
    root: Annotated[str | Path | None, Parameter(help="Folder of a list's paths. Default: the list's own.")] = None,
    relabel: Relabel = False,
    output: Annotated[
        Path | None,
        Parameter(
            name=("--output", "-o"),
            help="Folder for figures, a row for each image, mistakes and charts; of many models for the table.",
        ),
    ] = None,
    tta: Tta = None,
    fast_decode: FastDecode = False,
    classes: Annotated[
        str | None,
        Parameter(
            help="Classes that a prediction is chosen from, where not all: imagenet-a, imagenet-r, data for those that "
            "occur, or a file of ids or names."
        ),
    ] = None,
    real: Annotated[
        Path | None, Parameter(help="ReaL's real.json: count the validation images of ImageNet by its labels, too.")
    ] = None,
    max_fpr: MaxFpr = None,
    explain: Annotated[
        bool, Parameter(negative="", help="Draw what the model looked at beside each mistake on the sheet.")
    ] = False,
    knn: Annotated[
        bool,
        Parameter(
            negative="",
            help="Measure the embeddings instead, on any classes: recall@k, mAP, accuracy of the nearest neighbours.",
        ),
    ] = False,
    against: Annotated[
        Path | None,
        Parameter(
            help="With --knn: labelled images among which those of DATA are looked for. Default: those for training "
            "beside them, or else the others of DATA."
        ),
    ] = None,
    batch_size: BatchSize = None,
    workers: Workers = None,
    max_pixels: MaxPixels = 100_000_000,
    device: Device = "auto",
    engine: Engine = "auto",
    precision: OnePrecision = "fp32",
    threads: Threads = None,
    config: Config = None,
    config_overrides: Overrides = (),
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> int:
    """Measure a model on labelled images: accuracy, calibration, what it confuses. Or many: their accuracies.

    The exit code is 1 where some images could not be read; the figures are then over the others. Of many models, it is
    also 1 where one could not be measured, or a published figure is not within the 95 % interval of the measured one.
    """
    start_lean(verbose)
    if models or series is not None or all:
        alone = {"--model": model, "--weights": weights, "--tta": tta, "--real": real, "--config": config}
        switches = {"--explain": explain, "--fast-decode": fast_decode, "--knn": knn}
        _refuse_with_many({**alone, "--against": against, **{name: given or None for name, given in switches.items()}})

        from torchclas.inference.accuracy_table import Settings, selected

        settings = Settings(
            labels=labels,
            delimiter=delimiter,
            root=root,
            relabel=relabel,
            classes=classes,
            max_pixels=max_pixels,
            precision=precision,
            batch_size=batch_size or 32,
            workers=workers,
            device=device,
            engine=engine,
            threads=threads,
        )
        return _evaluate_many(selected(models, series=series, everything=all), data, settings, output)

    from torchclas.metrics.multi_label import FALSE_POSITIVE_RATE
    from torchclas.tasks import evaluate as task

    used = follow(config, config_overrides, "evaluate", model=model, weights=weights, lenient=lenient)
    if used is not None:
        model, weights, batch_size = used.model, used.weights, batch_size or used.batch_size
        device = used.device if device == "auto" else device
        if data is None and used.images is not None:
            data, root, relabel = used.images.path, root or used.images.root, used.images.relabel
            delimiter = used.images.delimiter if delimiter == " " else delimiter
    if data is None:
        raise Error("which images? Name class folders, a list file, or a configuration of PaddleClas (--config FILE)")
    running: dict[str, Any] = {
        "weights": weights,
        "preset": used and used.preset,
        "tta": tta,
        "fast_decode": fast_decode,
        "batch_size": batch_size or 32,
        "workers": workers,
        "device": device,
        "engine": engine,
        "precision": precision,
        "threads": threads,
        "max_pixels": max_pixels,
    }
    opening: dict[str, Any] = {"delimiter": delimiter, "root": root, "relabel": relabel, "output": output}
    if knn:
        for name, given in (("classes", classes), ("real", real), ("explain", explain)):
            if given:
                raise Error(f"--{name} is of classes that the model names; --knn measures its embeddings: leave it out")
        return _evaluate_knn(data, against, model, running, {**opening, "labels": labels})
    if against is not None:
        raise Error("--against goes with --knn, which looks for images among those")
    measure = partial(
        task.evaluate,
        data,
        model=model,
        labels=labels or (used and used.labels),
        activation=used and used.activation,
        classes=classes,
        real=real,
        max_fpr=max_fpr or (used and used.max_fpr) or FALSE_POSITIVE_RATE,
        explain=explain,
        **running,
        **opening,
    )
    return _reported(measure)


def _reported(measure: Callable[[], EvaluationReport]) -> int:
    """Print what is measured, even where its files cannot be written."""
    from torchclas.inference.evaluation import UnwrittenError
    from torchclas.reporting.evaluation_report import print_report

    try:
        report = measure()
    except UnwrittenError as error:
        print_report(error.report, stdout())
        raise
    print_report(report, stdout())
    return 0 if report.complete else 1


def _destination(output: str | Path | None) -> tuple[Path | None, bool]:
    """Where rows go, None for standard output; and whether that is named as a folder."""
    if output is None or str(output) == "-":
        return None, False
    return Path(output), str(output).endswith(("/", os.sep))


def _evaluate_many(models: Sequence[str], data: str | Path | None, settings: Settings, output: Path | None) -> int:
    from torchclas.tasks.accuracy_table import accuracy_table

    if data is None:
        raise Error("which images? Name class folders, a list file, or shards")
    table = accuracy_table(models, data, settings, output=output, console=stdout(), notes=stderr())
    return 0 if table.passed else 1


def _refuse_with_many(options: dict[str, object]) -> None:
    """Raise `Error` for an option that goes with one model alone."""
    for name, value in options.items():
        if value is not None:
            raise Error(f"{name} goes with one model: leave it out, or --models, --series and --all")


def _evaluate_knn(
    data: str | Path, against: Path | None, model: str | None, running: dict[str, Any], opening: dict[str, Any]
) -> int:
    from torchclas.inference.embedder import Embedder
    from torchclas.reporting.retrieval_report import print_report
    from torchclas.tasks.evaluate_knn import evaluate_knn

    report = evaluate_knn(data, lambda: Embedder(model, **running, normalize=True), against=against, **opening)
    print_report(report, stdout())
    return 1 if report.unreadable else 0
