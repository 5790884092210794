"""Commands that train, and look over the data for it: `train`, `distill`, `data check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from torchclas.cli.app import Device, Model, Workers, app, stderr, stdout

data_app = App(name="data", help="Look over data before training on it.")
app.command(data_app)


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
    summary = task.train(options, stderr())
    task.print_summary(summary, stdout())
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
    summaries = task.distill(options, stderr())
    task.print_summaries(summaries, stdout())
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
        data_check.print_report(report, stdout())
    return 0 if report.ok else 1
