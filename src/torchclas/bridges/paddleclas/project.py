"""A project of PaddleClas as what it is here: network, recipe, data, preset, and what of it has no counterpart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torchclas.bridges.paddleclas.account import STAGES, Account, ConfigError, Finding, Section, Stage, steps
from torchclas.bridges.paddleclas.config import read_config
from torchclas.bridges.paddleclas.data import ImageList, Inference, image_list, inference
from torchclas.bridges.paddleclas.network import NetworkSettings, network_settings, weights_path
from torchclas.bridges.paddleclas.optimizing import averaging, losses, optimizer, precision
from torchclas.bridges.paddleclas.transforms import TrainingSteps, mixing, preset, training_steps
from torchclas.catalog import Preset
from torchclas.recipes import Distill, Recipe, RecipeError, recipes
from torchclas.sizes import Size, show_size
from torchclas.tables import sequence, text
from torchclas.yaml_values import anything, count, integer, score, side, truth

_LABELLED: tuple[Stage, ...] = ("train", "evaluate")
_DISTILLATION = "DistillationModel"
_USUAL_FPR = 1e-3  # of TprAtFpr
_PAIR = ("Teacher", "Student")


@dataclass(frozen=True)
class Project:
    """What a configuration says, in our terms.

    `name` is what `Arch.name` says. `network` is None where it is none of ours; in a distillation it is the student,
    and `teacher` is not None. `recipe` is for a run on the devices that were asked for, each step of which is computed
    in `accumulate` parts. `weights` is the file of `Global.pretrained_model`. `preset` is how images are prepared for
    evaluation, `infer_preset` for prediction. `max_fpr` is the false positive rate of `TprAtFpr`. `findings` are the
    keys without a counterpart.
    """

    path: Path
    name: str
    network: NetworkSettings | None
    teacher: NetworkSettings | None
    weights: Path | None
    recipe: Recipe | None
    accumulate: int
    preset: Preset | None
    infer_preset: Preset | None
    export_size: Size | None
    train: ImageList | None
    evaluation: ImageList | None
    infer: Inference
    device: str
    seed: int
    output: Path
    export_folder: Path
    multi_label: bool
    max_fpr: float | None
    findings: tuple[Finding, ...]

    @property
    def distills(self) -> bool:
        """Whether a student learns from a teacher."""
        return self.name == _DISTILLATION

    def unsupported(self, stage: Stage) -> tuple[Finding, ...]:
        """The keys that keep a command from doing what PaddleClas does."""
        return tuple(each for each in self.findings if each.effect == "unsupported" and stage in each.stages)

    def require(self, stage: Stage, *, lenient: bool = False) -> NetworkSettings:
        """The network, where this stage can be gone through as PaddleClas would.

        Raises ConfigError: keys are not supported, unless it is `lenient`; or there is no such network.
        """
        found = self.unsupported(stage)
        if self.network is None or (found and not lenient):
            first, more = found[0], len(found) - 1
            others = f", and so are {more} others" if more > 1 else f", and so is {found[1].key}" if more else ""
            hint = f"`torchclas migrate {self.path}` lists all"
            if self.network is not None:
                hint += "; --lenient goes on without them"
            raise ConfigError(f"{self.path}: {first.key} is not supported{others}: {first.why} ({hint})")
        return self.network


def open_project(path: str | Path, overrides: Sequence[str] = (), *, devices: int = 1) -> Project:
    """Read a configuration of PaddleClas 2.3 to 2.6, with what its `-o Key.Sub=value` would change in it.

    `devices` are those that it is trained on: batch sizes are for each of them there, learning rates for all together.

    Raises:
        DataError, ConfigError: it cannot be read, or a value is none that its key can have.
        MissingDependencyError: PyYAML is not installed.
    """
    path = Path(path)
    account = Account(str(path))
    top = Section(account, "", read_config(path, overrides, devices), STAGES)
    common = _common(top)
    networks = _networks(top.section("Arch"), devices, common.classes)
    loader = top.section("DataLoader", _LABELLED)
    train_table, eval_table = loader.section("Train", ("train",)), loader.section("Eval")
    train_images, eval_images = train_table.section("dataset"), eval_table.section("dataset")
    infer = top.section("Infer", ("predict",))
    evaluation, prediction = preset(eval_images, "transform_ops"), preset(infer, "transforms")
    training = training_steps(train_images, evaluation)
    training = replace(training, augment=mixing(train_images, training.augment))
    train, val = image_list(train_table, train_images), image_list(eval_table, eval_images)
    pictures = inference(infer)
    loader.close()
    several = {each.multi_label for each in (train, val) if each is not None} or {common.multi_label}
    if several != {common.multi_label} or (common.multi_label and networks.distills):
        why = "images have any number of classes where both lists are of MultiLabelDataset, and nothing is distilled"
        account.refuse("Global.use_multilabel", why, _LABELLED)
    try:
        recipe = _recipe(top, common, networks, training, train, evaluation, devices)
    except RecipeError as error:
        raise ConfigError(f"{path}: {error}") from None
    two = networks.student is not None and networks.student.classes == 2 and not common.multi_label
    max_fpr = _metrics(top.section("Metric", _LABELLED), multi_label=common.multi_label, two=two)
    _rest(top)
    return Project(
        path=path,
        name=networks.name,
        network=networks.student,
        teacher=networks.teacher,
        weights=common.weights,
        recipe=recipe,
        accumulate=common.update_freq,
        preset=evaluation or prediction,
        infer_preset=prediction or evaluation,
        export_size=common.size or training.size,
        train=train,
        evaluation=val,
        infer=pictures,
        device=common.device,
        seed=common.seed,
        output=common.output / networks.name,
        export_folder=common.export_folder,
        multi_label=common.multi_label,
        max_fpr=max_fpr,
        findings=tuple(account.findings),
    )


@dataclass(frozen=True)
class _Common:
    """`Global`."""

    epochs: int
    classes: int | None
    size: Size | None
    weights: Path | None
    output: Path
    export_folder: Path
    device: str
    seed: int
    update_freq: int
    multi_label: bool


def _common(top: Section) -> _Common:
    table = top.section("Global")
    why = "a run of PaddleClas's is not gone on with: name its weights in Global.pretrained_model"
    table.refuse("checkpoints", why, stages=("train",))
    for key, usual, why in (
        ("save_interval", "1", "each epoch is saved; the last and the best are kept"),
        ("eval_interval", "1", "each epoch is validated"),
        ("start_eval_epoch", "0", "each epoch is validated"),
        ("print_batch_step", "", "a bar, and a line for each epoch, tell of the progress"),
        ("use_visualdl", "False", "the run's folder has report.html and its figures"),
        ("to_static", "False", "PyTorch computes as the network is written; --compile compiles it"),
        ("use_dali", "False", "images are decoded by OpenCV, on the CPU"),
        ("log_ranks", "", "the first process writes"),
        ("max_num_latest_checkpoint", "", "the last and the best are kept"),
        ("enable_ce", "", "it is for PaddleClas's own tests"),
    ):
        table.drop(key, why, usual=usual, stages=("train",))
    if not table.take("eval_during_train", truth, True):
        why = "each epoch is validated, to know which is the best"
        table.account.note(table.path("eval_during_train"), why, ("train",))
    device = table.take("device", text, "gpu")
    if device not in ("gpu", "cpu"):
        table.account.refuse(table.path("device"), f"PyTorch is not run on {device} here: gpu or cpu", ("train",))
    if table.take("eval_mode", text, "classification") != "classification":
        table.account.refuse(table.path("eval_mode"), "retrieval is not measured here", _LABELLED)
    if table.take("train_mode", text, "") not in ("", "classification"):
        table.account.refuse(table.path("train_mode"), "there is supervised training alone", ("train",))
    several = table.take("use_multilabel", truth, False)
    for key in ("feature_normalize", "feature_binarize", "re_ranking", "retrieval_feature_from"):
        if table.take(key, text, "False").lower() != "false":
            table.account.refuse(table.path(key), "images are classified, not compared", _LABELLED)
    shape = table.take("image_shape", _shape, None)
    if shape is not None and shape[0] != 3:
        table.account.refuse(table.path("image_shape"), f"images have 3 channels here, not {shape[0]}", table.stages)
    weights = table.take("pretrained_model", text, None)
    if weights is not None and "://" in weights:
        table.account.refuse(table.path("pretrained_model"), "fetch the file and name it here", table.stages)
        weights = None
    found = _Common(
        epochs=table.take("epochs", count, 1),
        classes=table.take("class_num", count, None),
        size=None if shape is None else (shape[1], shape[2]),
        weights=None if weights is None else weights_path(weights),
        output=Path(table.take("output_dir", text, "output")),
        export_folder=Path(table.take("save_inference_dir", text, "inference")),
        device="cpu" if device == "cpu" else "auto",
        seed=table.take("seed", integer, 0),
        update_freq=table.take("update_freq", count, 1),
        multi_label=several,
    )
    table.close()
    return found


def _shape(value: object) -> tuple[int, int, int]:
    sides = [side(each) for each in sequence(value)]
    if len(sides) != 3:
        raise ValueError("channels, height and width")
    return sides[0], sides[1], sides[2]


@dataclass(frozen=True)
class _Networks:
    name: str
    student: NetworkSettings | None
    teacher: NetworkSettings | None = None

    @property
    def distills(self) -> bool:
        return self.name == _DISTILLATION


def _networks(arch: Section, devices: int, classes: int | None) -> _Networks:
    name = arch.take("name", text)
    if name != _DISTILLATION:
        if name in ("RecModel", "AttentionModel"):
            arch.account.refuse(arch.path("name"), f"{name} is not here: networks that name classes are", STAGES)
            arch.rest()
            return _Networks(name, None)
        return _Networks(name, network_settings(name, arch, devices, classes))
    arch.take("use_sync_bn", truth, False)  # said for each network as well
    usual = arch.take("class_num", count, classes)
    arch.take("infer_model_name", text, "Student")
    frozen = arch.take("freeze_params_list", sequence, ())
    for each in arch.take("pretrained_list", sequence, ()):
        if each not in ("", "null", "None"):
            arch.account.refuse(arch.path("pretrained_list"), "Arch.models says what weights are", ("train",))
    found: dict[str, NetworkSettings | None] = {}
    for each in steps(arch, "models"):
        role = each.key.rpartition(".")[2]
        inner = each.take("name", text)
        if role not in _PAIR or role in found:
            each.account.refuse(each.key, "there are one Teacher and one Student", STAGES)
            each.rest()
            continue
        found[role] = network_settings(inner, each, devices, usual)
    arch.close()
    teacher = found.get("Teacher")
    if [str(each).lower() for each in frozen] != ["true", "false"]:
        why = "the teacher does not learn: [True, False] is followed"
        arch.account.refuse(arch.path("freeze_params_list"), why, ("train",))
    if teacher is not None and not teacher.pretrained:
        why = "the teacher has no weights: name them by --override Arch.models.0.Teacher.pretrained=FILE"
        arch.account.refuse(arch.path("models.0.Teacher.pretrained"), why, ("train",))
    return _Networks(name, found.get("Student"), teacher)


def _recipe(
    top: Section,
    common: _Common,
    networks: _Networks,
    training: TrainingSteps,
    train: ImageList | None,
    evaluation: Preset | None,
    devices: int,
) -> Recipe | None:
    """The recipe; None where the configuration does not say how to train, or what."""
    amp, ema = precision(top), averaging(top.section("EMA", ("train",)))
    learning, loss = top.take("Optimizer", anything, None), top.section("Loss", ("train",))
    network = networks.student
    heads = recipes()[network.arch].loss.head_weights if network and network.arch in recipes() else (1.0,)
    several = train is not None and train.multi_label
    found = losses(
        loss,
        mixed=bool(training.augment.mixup or training.augment.cutmix),
        heads=heads,
        distilled=networks.distills,
        multi_label=several,
        classes=(network.classes if network else None) or 1000,
    )
    if learning is None or isinstance(learning, list):
        why = "no optimizer is given" if learning is None else "there is one optimizer for the whole network"
        top.account.refuse("Optimizer", why, ("train",))
        return None
    section = top.account.section("Optimizer", learning, ("train",))
    settings, schedule = optimizer(section, network.arch if network else "", common.epochs)
    size = training.size or (None if evaluation is None else evaluation.size) or common.size
    if network is None or train is None or size is None:
        return None
    if settings.clip_each and amp == "16-mixed":
        why = "gradients are not clipped one by one in fp16: leave one of them out (AMP.use_amp=False)"
        section.account.refuse(section.path("clip_norm"), why, ("train",))
    if settings.name == "adamw" and settings.no_decay:
        from torchclas.bridges.paddleclas.decay import in_our_names  # which imports torch

        settings = replace(settings, no_decay=in_our_names(settings, network.arch, section))
    if evaluation is not None and evaluation.size != size and _fixed(network.arch):
        sizes = f"{show_size(size)} px in training, {show_size(evaluation.size)} px in evaluation"
        why = f"{network.arch} is made for one image size ({sizes})"
        top.account.refuse("DataLoader.Train.dataset.transform_ops", why, ("train",))
    teacher = networks.teacher
    distill: Distill | None = None
    if networks.distills and found.distill is not None:
        names = "" if teacher is None else str(teacher.weights or teacher.model)
        distill = replace(found.distill, teacher=names, student=network.arch)
    height, width = size
    recipe = Recipe(
        name=networks.name if not networks.distills else f"{network.arch}_distilled",
        source=f"{Path(top.account.path).name}, a configuration of PaddleClas",
        published=False,
        epochs=common.epochs,
        batch_size=train.batch_size * common.update_freq,
        devices=devices,
        input_size=height if height == width else size,
        fit="squeeze" if training.whole else "",
        precision=amp,
        ema=ema,
        drop_path=network.drop_path,
        dropout=network.dropout,
        drop_last=train.drop_last,
        optimizer=settings,
        schedule=schedule,
        augment=training.augment,
        loss=found.loss,
        distill=distill,
    )
    return Recipe.from_toml(recipe.to_toml())  # which a file can hold, with numbers of sizes that make sense


def _fixed(arch: str) -> bool:
    """Whether a network has something that is made for one image size."""
    import torch

    from torchclas import models

    with torch.device("meta"):
        return models.build(arch).input_size is not None


def _metrics(metric: Section, *, multi_label: bool, two: bool) -> float | None:
    """`Metric`: what is measured; the false positive rate at which recall is asked for, of `two` classes."""
    max_fpr = None
    metric.take("Train", anything, "")  # top-1 and loss of validation are followed, not of training
    for each in steps(metric, "Eval"):
        name = each.key.rpartition(".")[2]
        if name == "ATTRMetric":
            each.account.note(each.key, "mA is among what is measured; the best epoch is the one with the best mAP")
        elif multi_label and name in ("AccuracyScore", "HammingDistance"):
            found = "all classes right" if each.take("base", text, "label") == "sample" else "labels right"
            figure = found if name == "AccuracyScore" else "1 minus labels right"
            each.account.note(each.key, f"it is called {figure} here, at the thresholds of the model")
        elif two and name == "TprAtFpr":
            max_fpr = each.take("max_fpr", score, _USUAL_FPR)
            each.account.note(each.key, "the best epoch is the one with the best top-1", ("train",))
        elif name not in ("TopkAcc", "DistillationTopkAcc"):
            each.account.note(each.key, "the best epoch is the one with the best top-1, or mAP", ("train",))
            each.account.refuse(each.key, "top-1 and top-5 are measured, among others", ("evaluate",))
        each.rest()
    metric.close()
    return max_fpr


def _rest(top: Section) -> None:
    """What is left: what is not done here."""
    for key, why in {
        "Slim": "`torchclas quantize` makes int8 models; nothing is pruned",
        "Optimizer_metric": "one optimizer is for the whole network",
        "UDTrain": "there is supervised training alone",
        "RecModel": "networks that name classes are here",
    }.items():
        top.refuse(key, why)
    top.drop("profiler_options", "nothing is profiled")
    top.drop("mode", "the command says it", usual="train")  # this and what follows: of PaddleClas 2.0
    top.drop("total_images", "the list says how many there are", usual="")
    top.drop("is_distributed", "--devices says it", usual="True")
    top.drop("load_static_weights", "weights are read from the .pdparams of this name")
    top.close()
