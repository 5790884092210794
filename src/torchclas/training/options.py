"""What can be asked of `train` and `distill`. A field is an option of the command line as well, spelled beside it.

Imports no torch: the command line reads this to print its help.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from torchclas.completion import MODELS
from torchclas.data.stores import place
from torchclas.sizes import to_size
from torchclas.vocabulary import BatchNormMode, DistillationMethod, Fit, Strategy, TrainingPrecision


@dataclass(frozen=True)
class Start:
    """Where the weights come from that a run begins with; `path` is the file's."""

    kind: Literal["published", "scratch", "file"]
    path: Path | None = None

    @classmethod
    def of(cls, word: str | Path) -> Start:
        """What `--from` says: `pretrained`, `scratch`, or a file of weights or the folder of a run."""
        if word == "pretrained":
            return cls("published")
        return cls("scratch") if word == "scratch" else cls("file", Path(word))

    def __str__(self) -> str:
        return "pretrained" if self.kind == "published" else str(self.path or self.kind)


def _option(help: str, *names: str) -> Parameter:  # noqa: A002 - cyclopts' name
    """A parameter that has no default worth showing."""
    return Parameter(name=names or None, help=help, show_default=False)


ARGUMENT = Parameter(group="Arguments")
TUNING = Parameter(group="Fine-tuning")
DISTILLATION = Parameter(group="Distillation")
PADDLECLAS = Parameter(group="PaddleClas")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What every training run has.

    `data` and `val` are what `torchclas.data.opening` reads: class folders, list files, shards. `labels`, `root` and
    `delimiter` are for lists: names of classes, the folder of relative paths. `overrides` change the recipe
    (`optimizer.lr=0.05`). `size` is that of the images, one number or (height, width) in Python, `fit` how they come to
    it. `batch_size` counts the images of a step over all `devices`; published learning rates follow it. `output` is the
    run's folder. `config` is a configuration of PaddleClas, which says what is not said here; `config_overrides` change
    it (`Arch.class_num=10`), and with `lenient` what it has that is not supported is left out.
    """

    data: Annotated[
        str | Path | None,
        ARGUMENT,
        Parameter(help="Class folders, a list file, .tar or .parquet shards; or a folder with train and val."),
    ] = field(default=None, kw_only=False)
    model: Annotated[
        str | None, MODELS, _option("Published name, a checkpoint, or a run's folder.", "--model", "-m")
    ] = None
    val: Annotated[str | Path | None, _option("Images for validation.")] = None
    recipe: Annotated[str | None, _option("A recipe's name, or its file (.toml).")] = None
    start: Annotated[
        str | None,
        _option(
            "pretrained, scratch, a weights file of any number of classes, or a run's folder.", "--from", "--weights"
        ),
    ] = None
    epochs: Annotated[PositiveInt | None, _option("Default: the recipe's.")] = None
    size: Annotated[str | None, _option("Image size: 224, or 80x160, height first. Default: the recipe's.")] = None
    fit: Annotated[
        Fit | None, _option("How images come to it: cropped, squeezed or padded. Default: as the weights had it.")
    ] = None
    batch_size: Annotated[PositiveInt | None, _option("Images of each step, over all devices.")] = None
    overrides: Annotated[
        Sequence[str],
        Parameter(negative=""),
        _option("Change a setting: --set optimizer.lr=0.05; may be repeated.", "--set"),
    ] = ()
    devices: Annotated[PositiveInt, Parameter(help="GPUs, or processes on the CPU.")] = 1
    strategy: Annotated[
        Strategy, Parameter(help="Each device holds the whole network (ddp), or they share it, as large ones need.")
    ] = "ddp"
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, mps …")] = "auto"
    precision: Annotated[TrainingPrecision | None, Parameter(help="Default: the recipe's.")] = None
    compile: Annotated[bool, Parameter(negative="", help="Compile the network: slow to start, then faster.")] = False
    accumulate: Annotated[
        PositiveInt | None, _option("Parts to split each step into. Default: as few as the free memory allows for.")
    ] = None
    early_stop: Annotated[NonNegativeInt, Parameter(help="End after so many epochs without a new best; 0: never.")] = 0
    seed: Annotated[NonNegativeInt, Parameter(help="Everything random follows from it.")] = 0
    workers: Annotated[
        NonNegativeInt | None, Parameter(help="Processes that read images, for each device; 0: none of their own.")
    ] = None
    checkpoint_steps: Annotated[
        NonNegativeInt, Parameter(help="Save every so many steps, beside every epoch and every five minutes.")
    ] = 0
    labels: Annotated[
        Path | None, _option("File that names the classes: a line for each, in order, such as `cat` or `0 cat`.")
    ] = None
    root: Annotated[str | Path | None, _option("Folder of a list's paths. Default: the list's own.")] = None
    delimiter: Annotated[str, Parameter(help=r"Stands between path and label in a list file; '\t' is a tab.")] = " "
    relabel: Annotated[
        bool, Parameter(negative="", help="A list's labels begin anywhere or leave gaps: number them anew.")
    ] = False
    config: Annotated[
        Path | None, PADDLECLAS, _option("A configuration of PaddleClas (YAML), to be followed.", "--config", "-c")
    ] = None
    config_overrides: Annotated[
        Sequence[str],
        PADDLECLAS,
        Parameter(negative=""),
        _option("Change a key of it, as -o does there: --override Arch.class_num=10; may be repeated.", "--override"),
    ] = ()
    lenient: Annotated[
        bool, PADDLECLAS, Parameter(negative="", help="Leave out what of it is not supported, and say so.")
    ] = False
    output: Annotated[Path | None, _option("The run's folder.", "--output", "-o")] = None

    def __post_init__(self) -> None:
        """Let callers in Python name files by strings, names by paths, and one override alone."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("data", "val", "root"):
            if isinstance(values.get(name), str):
                object.__setattr__(self, name, place(values[name]))
        for name in ("output", "config", "finetune", "cache_folder"):
            if isinstance(values.get(name), str):
                object.__setattr__(self, name, Path(values[name]))
        for name in ("model", "recipe", "start", "teacher"):
            if isinstance(values.get(name), Path):
                object.__setattr__(self, name, str(values[name]))
        size: Any = self.size  # in Python also one number, or a pair
        if isinstance(size, (int, tuple, list)):
            object.__setattr__(self, "size", "x".join(map(str, to_size(size))))
        for name in ("overrides", "config_overrides"):
            if isinstance(values.get(name), str):
                object.__setattr__(self, name, (values[name],))


@dataclass(frozen=True, kw_only=True)
class TrainOptions(RunOptions):
    """What can be asked of `train`.

    Where nothing is said of validation, a fifth of the images of each class is held out. Without `recipe`, pretrained
    weights are fine-tuned with settings for few images, and a start from scratch follows the model's published recipe.
    Weights of other classes than the data's lose their last layer. In the first `head_epochs` only the classifier
    learns (by default one where it is new). `fixres` adapts a trained model to this image size.
    """

    model: Annotated[
        str | None,
        MODELS,
        _option("Published name, a checkpoint, or a run's folder. Default: EfficientNet_lite0.", "--model", "-m"),
    ] = None
    val: Annotated[
        str | Path | None, _option("Images for validation. Default: those beside DATA's others, or a fifth of them.")
    ] = None
    recipe: Annotated[
        str | None,
        _option("A recipe's name, or its file (.toml). Default: finetune from weights, the model's own from scratch."),
    ] = None
    in_channels: Annotated[
        Literal[1, 3] | None,
        _option("1: images become gray, and the network's first layer takes one channel. Default: the weights'."),
    ] = None
    head_epochs: Annotated[
        NonNegativeInt | None,
        TUNING,
        Parameter(help="Epochs at the start in which only the last layer learns. Default: 1 where it is new."),
    ] = None
    fixres: Annotated[
        PositiveInt | None,
        TUNING,
        Parameter(help="Adapt a trained model to this larger image size; only its end learns."),
    ] = None
    output: Annotated[Path | None, _option("The run's folder. Default: runs/MODEL-DATA.", "--output", "-o")] = None


@dataclass(frozen=True, kw_only=True)
class DistillOptions(RunOptions):
    """What can be asked of `distill`.

    `data` may be a folder of images without class folders, unless the method needs labels. Without `val`, some images
    are held out and, where they have no labels, the score is how often the student agrees with the teacher. `finetune`
    is the data of the second phase. `cache_logits` keeps so many of the teacher's logits for `cache_views` views of
    each image.
    """

    data: Annotated[
        str | Path | None,
        ARGUMENT,
        Parameter(help="A folder of images, without labels but for DKD; a list file, .tar or .parquet shards."),
    ] = field(default=None, kw_only=False)
    model: Annotated[str | None, MODELS, _option("The student. Default: the recipe's.", "--model", "-m")] = None
    val: Annotated[
        str | Path | None, _option("Labelled images for validation. Default: a share of DATA, as the teacher sees it.")
    ] = None
    recipe: Annotated[
        str | None, _option("A recipe's name, or its file (.toml). Default: the student's published one, or ssld.")
    ] = None
    teacher: Annotated[
        str | None,
        MODELS,
        DISTILLATION,
        _option("Published name, a checkpoint, or a run's folder. Default: the recipe's.", "--teacher"),
    ] = None
    method: Annotated[
        DistillationMethod | None,
        DISTILLATION,
        Parameter(help="Symmetric KL divergence, cross entropy, or DKD (needs labels). Default: the recipe's."),
    ] = None
    teacher_bn: Annotated[
        BatchNormMode, DISTILLATION, Parameter(help="The teacher's mode; train: batch norm by the batch, and dropout.")
    ] = "eval"
    finetune: Annotated[
        Path | None, DISTILLATION, _option("Go on with a short second phase on these images, in OUTPUT/finetune.")
    ] = None
    cache_logits: Annotated[
        NonNegativeInt,
        DISTILLATION,
        Parameter(help="Keep so many of the teacher's logits on disk, so that it is asked only once."),
    ] = 0
    cache_views: Annotated[
        PositiveInt, DISTILLATION, Parameter(help="Augmented views of each image that the cache holds.")
    ] = 8
    cache_folder: Annotated[
        Path | None, DISTILLATION, _option("Where the cache is, which other runs may use. Default: OUTPUT-logits.")
    ] = None
    output: Annotated[Path | None, _option("The run's folder. Default: runs/STUDENT-by-TEACHER.", "--output", "-o")] = (
        None
    )
