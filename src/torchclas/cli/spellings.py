"""What was likely meant by options and commands that other tools have, and these do not.

One table for all commands: how timm, torchvision, PaddleClas and Ultralytics spell it, and what says the same here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from cyclopts import App, CycloptsError
from cyclopts.exceptions import UnknownCommandError, UnknownOptionError, UnusedCliTokensError

from torchclas.errors import Error

CUTOFF = 0.65  # how alike two names must be
TRAINING = ("train", "distill")
DATA_FILES = (".yaml", ".yml", ".json")

COMMANDS = {
    "bench": "benchmark",
    "classify": "predict",
    "convert": "weights convert",
    "detect": "predict",
    "download": "weights fetch",
    "eval": "evaluate",
    "fetch": "weights fetch",
    "finetune": "train",
    "fit": "train",
    "infer": "predict",
    "inference": "predict",
    "inspect": "weights inspect",
    "models": "list",
    "quant": "quantize",
    "show": "info",
    "test": "evaluate",
    "val": "evaluate",
    "validate": "evaluate",
}

# An option, without its dashes and with - for _, and what is meant: an option, or a sentence of advice. Where several
# say the same of different commands, the first that the command has is taken.
OPTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("arch", "model-name", "net", "network", "architecture"), ("--model",)),
    **dict.fromkeys(
        ("checkpoint", "ckpt", "model-path", "model-file", "model-dir", "inference-model-dir"),
        ("--model", "--from", "--weights"),
    ),
    **dict.fromkeys(("initial-checkpoint", "finetune-from", "init"), ("--from",)),
    "pretrained": (
        "--from",
        "published weights are the default; your own are a --model",
    ),
    "pretrained-model": ("--from", "--model"),
    **dict.fromkeys(
        ("b", "bs", "batch", "batchsize", "train-batch-size", "val-batch-size"), ("--batch-size", "--batch")
    ),
    "batch-size": ("--batch",),
    **dict.fromkeys(("j", "jobs", "num-workers", "n-workers", "nworkers"), ("--workers",)),
    **dict.fromkeys(("num-threads", "cpu-threads", "cpu-num-threads", "intra-op"), ("--threads",)),
    **dict.fromkeys(("topk", "k", "top"), ("--top-k", "--limit")),
    **dict.fromkeys(("conf", "conf-thres", "confidence", "score-thresh", "thresh"), ("--threshold",)),
    **dict.fromkeys(("gpu", "use-gpu", "cuda"), ("--device cuda",)),
    **dict.fromkeys(("gpus", "num-gpus", "nproc-per-node", "world-size"), ("--devices", "--device cuda")),
    **dict.fromkeys(
        ("out", "output-dir", "outdir", "output-path", "out-dir", "save", "save-dir", "save-path", "project", "dest"),
        ("--output",),
    ),
    **dict.fromkeys(("results-file", "csv", "save-csv", "results"), ("--output",)),
    **dict.fromkeys(("name", "experiment", "run-name"), ("--output",)),
    **dict.fromkeys(("half", "fp16", "amp", "use-fp16", "dtype", "int8"), ("--precision",)),
    **dict.fromkeys(("language", "locale"), ("--lang",)),
    **dict.fromkeys(("class-id-map-file", "label-list", "classes"), ("--labels",)),
    "save-inference-dir": ("--output",),
    **dict.fromkeys(("img-list", "file-list", "val-list", "val-path", "valid", "val-dir", "test"), ("--val",)),
    **dict.fromkeys(
        ("source", "image", "images", "input", "infer-imgs", "image-file", "data", "data-path", "data-dir", "dataset"),
        ("the images stand without an option: `torchclas {command} PATH`",),
    ),
    **dict.fromkeys(("backend", "runtime", "use-onnx", "enable-mkldnn"), ("--engine",)),
    **dict.fromkeys(("format", "target", "include"), ("--to",)),
    # Settings of the recipe.
    **dict.fromkeys(("lr", "lr0", "learning-rate", "base-lr", "blr"), ("--set optimizer.lr=0.01",)),
    **dict.fromkeys(("wd", "weight-decay", "decay"), ("--set optimizer.weight_decay=0.05",)),
    "momentum": ("--set optimizer.momentum=0.9",),
    **dict.fromkeys(("opt", "optimizer", "optim"), ("--set optimizer.name=adamw",)),
    **dict.fromkeys(("sched", "scheduler", "lr-scheduler"), ("--set schedule.name=cosine",)),
    **dict.fromkeys(
        ("warmup", "warmup-epochs", "lr-warmup-epochs", "warmup-epoch"), ("--set schedule.warmup_epochs=5",)
    ),
    **dict.fromkeys(("min-lr", "lr-min", "lrf"), ("--set schedule.min_lr=1e-6",)),
    **dict.fromkeys(
        ("imgsz", "img-size", "image-size", "input-size", "train-crop-size", "size", "crop-size", "resolution"),
        ("--size", "--set input_size=224"),
    ),
    **dict.fromkeys(("smoothing", "label-smoothing"), ("--set loss.label_smoothing=0.1",)),
    **dict.fromkeys(("mixup", "mixup-alpha"), ("--set augment.mixup=0.2 --set augment.mixup_prob=1",)),
    **dict.fromkeys(("cutmix", "cutmix-alpha"), ("--set augment.cutmix=1.0 --set augment.cutmix_prob=1",)),
    **dict.fromkeys(("aa", "auto-augment", "autoaugment"), ("--set augment.policy=rand-m9-mstd0.5-inc1",)),
    **dict.fromkeys(("reprob", "random-erase", "random-erasing", "erasing"), ("--set augment.erasing=0.25",)),
    **dict.fromkeys(("hflip", "fliplr", "flip"), ("--set augment.flip=0.5",)),
    **dict.fromkeys(("scale", "crop-scale"), ("--set 'augment.scale=[0.35,1.0]'",)),
    **dict.fromkeys(("ema", "model-ema", "ema-decay", "model-ema-decay"), ("--set ema=0.999",)),
    **dict.fromkeys(("clip-grad", "clip", "clip-grad-norm", "grad-clip"), ("--set clip=1.0",)),
    **dict.fromkeys(("drop", "dropout"), ("--set dropout=0.2",)),
    **dict.fromkeys(("drop-path", "drop-path-rate"), ("--set drop_path=0.1",)),
    "freeze": ("--head-epochs",),
    **dict.fromkeys(("grad-accum", "grad-accum-steps", "accum-iter", "accum", "update-freq"), ("--accumulate",)),
    "patience": ("--early-stop",),
    **dict.fromkeys(("epoch", "num-epochs", "max-epochs", "n-epochs"), ("--epochs",)),
    "distributed": ("--devices",),
    **dict.fromkeys(
        ("resume", "auto-resume", "resume-from", "continue"), ("the same command again goes on with its run",)
    ),
    **dict.fromkeys(("num-classes", "nb-classes", "class-num", "nc"), ("the number of classes follows from the data",)),
    **dict.fromkeys(
        ("c", "config", "cfg", "hyp"),
        (
            "a configuration of PaddleClas is followed by train, distill, evaluate, predict and export (--config), and "
            "`torchclas migrate FILE` says what it means",
        ),
    ),
    **dict.fromkeys(("teacher-model", "teacher-path"), ("--teacher",)),
    # Figures of the catalog.
    **dict.fromkeys(("max-latency", "latency", "max-time"), ("--max-ms",)),
    **dict.fromkeys(("min-acc", "min-accuracy", "accuracy", "acc", "top1"), ("--min-top1",)),
    **dict.fromkeys(("params", "max-size", "max-parameters"), ("--max-params",)),
    **dict.fromkeys(("flops", "max-macs", "macs"), ("--max-flops",)),
    **dict.fromkeys(("filter", "pattern", "grep"), ("a part of a name stands without an option: `torchclas list vd`",)),
    **dict.fromkeys(("order", "sort-by"), ("--sort",)),
}


def check(app: App, arguments: Sequence[str]) -> None:
    """Raise `Error` for what would be taken for something else than it is meant to be."""
    command, rest = _split(app, arguments)
    if not command:
        return
    for place, token in enumerate(rest):
        after = rest[place + 1] if place + 1 < len(rest) else ""
        if not token.strip():  # Path("") would be the current folder
            before = f"after {rest[place - 1]} " if place else ""
            raise Error(f"{before}there is an empty word: name something, or see whether a shell variable is not set")
        if token == "--":
            return
        if token == "--set" and after and "=" not in after:
            value = rest[place + 2] if place + 2 < len(rest) and not rest[place + 2].startswith("-") else "VALUE"
            raise Error(f"a setting is one word with its value: --set {after}={value}")
        if token in ("-o", "--output") and re.match(r"[A-Z]\w*(\.\w+)+=", after) and "-o" in options(app, command):
            _check_output(options(app, command), after)
        if not token.startswith("-") and (place == 0 or rest[place - 1] == "" or not rest[place - 1].startswith("-")):
            _check_word(app, command, token)


def _check_output(known: Sequence[str], setting: str) -> None:
    """-o of PaddleClas, where the command has another one, and follows configurations or does not."""
    if "--override" not in known:
        raise Error(f"-o is the output here; settings are changed by --set, such as --set epochs=20, not {setting}")
    if "--output" in known:
        raise Error(
            f"-o is the output here: what it is in PaddleClas is --override {setting}, beside --config FILE; without a "
            "configuration, settings are changed by --set, such as --set epochs=20"
        )


def _check_word(app: App, command: str, word: str) -> None:
    """A word that is no option's value may be a data set's description, or an option in the manner of Ultralytics."""
    name, equals, value = word.partition("=")
    if equals and re.fullmatch(r"[a-z_]\w*", name) and not Path(word).exists():
        meant = _meant(options(app, command), command, name)
        if meant:
            example = meant if "=" in meant or " " in meant else f"{meant} {value}"
            raise Error(f"{word}: {_advice(example)}")
    if command in (*TRAINING, "evaluate") and Path(word).suffix.lower() in DATA_FILES and "://" not in word:
        raise Error(
            f"{word}: a file that describes a data set is not read: name the folder of its images (class folders, or "
            "train and val of them) or a list file of `path label` lines; settings are changed by --set, and a "
            "configuration of PaddleClas is named by --config"
        )


def explain(app: App, error: CycloptsError, arguments: Sequence[str]) -> str:
    """What is wrong and what was likely meant."""
    command, _ = _split(app, arguments)
    match error:
        case UnknownOptionError():
            return unknown_option(app, command, error.token.keyword or error.token.value)
        case UnknownCommandError() if error.unused_tokens:
            name = error.unused_tokens[0]
            meant = COMMANDS.get(name.lower())
            group = " ".join(error.command_chain or ())
            names = [f"{group} {each}".strip() for each in _commands(error.app or app)]
            near = difflib.get_close_matches(f"{group} {name}".strip().lower(), names, n=1, cutoff=CUTOFF)
            near = [meant] if meant and not group else near
            hint = f"did you mean `torchclas {near[0]}`?" if near else f"the commands are {', '.join(names)}"
            return f"unknown command {name!r}: {hint}"
        case UnusedCliTokensError() if error.unused_tokens:
            word = error.unused_tokens[0]
            return f"nothing here takes {word!r}: see `torchclas {command} --help`"
        case _:
            return str(error)


def refuse_options(app: App, command: str, sources: Iterable[object]) -> None:
    """Raise `Error` for a misspelt option among the names of images, where `-` stands for standard input."""
    for name in map(str, sources):
        if name.startswith("-") and name != "-":
            raise Error(f"{unknown_option(app, command, name)} (a file of this name is ./{name})")


def unknown_option(app: App, command: str, option: str) -> str:
    """The message for an option that a command does not have."""
    name = option.partition("=")[0]
    meant = _meant(options(app, command), command, name)
    hint = _advice(meant) if meant else f"see `torchclas {command} --help`"
    return f"{name} is no option of `torchclas {command}`: {hint}"


def _meant(known: Iterable[str], command: str, option: str) -> str | None:
    """An option that the command has, with a value where that helps, or a sentence of advice."""
    known = list(known)
    name = option.lstrip("-").lower().replace("_", "-")
    letters = {each.replace("-", ""): each for each in known if each.startswith("--")}
    if (same := letters.get(name.replace("-", ""))) is not None:
        return same
    for meant in OPTIONS.get(name, ()):
        if not meant.startswith("--"):
            return meant.format(command=command)
        if meant.partition(" ")[0] in known:
            return meant
    close = difflib.get_close_matches(name, [each.lstrip("-") for each in known if len(each) > 2], n=1, cutoff=CUTOFF)
    return f"--{close[0]}" if close else None


def _advice(meant: str) -> str:
    return f"did you mean {meant}?" if meant.startswith("--") else meant


def _split(app: App, arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The command's name, of one word or of two, and what follows it."""
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if len(arguments) >= words and arguments[words - 1].strip() and _command(app, name) is not None:
            return name, arguments[words:]
    return "", arguments


def _command(app: App, name: str) -> App | None:
    for word in name.split():
        if word.startswith("-") or word not in _commands(app):
            return None
        app = app[word]
    return app


def with_language(app: App, arguments: Sequence[str], language: str) -> Sequence[str]:
    """The arguments with `--lang`, where the command has such an option."""
    command, rest = _split(app, arguments)
    if "--lang" not in options(app, command):
        return arguments
    return [*arguments[: len(arguments) - len(rest)], "--lang", language, *rest]


def _commands(app: App) -> list[str]:
    return [name for name in app if not name.startswith("-")]


def options(app: App, command: str) -> list[str]:
    """The options that a command has, in all their spellings."""
    found = _command(app, command) if command else None
    if found is None or found.default_command is None:
        return []
    return [name for argument in found.assemble_argument_collection() for name in argument.names if name[0] == "-"]
