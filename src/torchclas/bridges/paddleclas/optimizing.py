"""`Optimizer`, `Loss`, `AMP` and `EMA`: how a network learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from torchclas.bridges.paddleclas.account import Section, steps
from torchclas.recipes import Distill, Loss, Optimizer, Precision, Schedule, recipes
from torchclas.tables import text
from torchclas.yaml_values import NOTHING, anything, number, numbers, score, truth

_MOST_STEPS = 10_000  # of a learning rate that falls every so many epochs


def optimizer(section: Section, arch: str, epochs: int) -> tuple[Optimizer, Schedule]:
    """The optimizer and the schedule of its learning rate."""
    name = section.take("name", text)
    lr, schedule = _schedule(section, epochs)
    decay = _weight_decay(section, name)
    section.drop("clip_grad", "PaddleClas reads clip_norm alone")
    section.drop("multi_precision", "weights are kept in float32")
    section.drop("use_multi_tensor", "a matter of speed alone")
    settings = Optimizer(lr=lr, weight_decay=decay, clip_each=section.take("clip_norm", number, 0.0))
    if name in ("Momentum", "SGD"):
        momentum = section.take("momentum", score, 0.9) if name == "Momentum" else 0.0
        section.needs("use_nesterov", truth, lambda used: not used, "Nesterov's momentum is not here")
        settings = replace(settings, momentum=momentum, no_decay=built_in_no_decay(arch))
    elif name == "RMSProp":
        settings = replace(
            settings,
            name="rmsprop",
            momentum=section.take("momentum", score, 0.0),
            alpha=section.take("rho", score, 0.95),
            eps=section.take("epsilon", number, 1e-6),
            no_decay=built_in_no_decay(arch),
        )
    elif name in ("AdamW", "Adam"):
        settings = replace(
            settings,
            name="adamw",
            betas=(section.take("beta1", score, 0.9), section.take("beta2", score, 0.999)),
            eps=section.take("epsilon", number, 1e-8),
        )
        if name == "Adam" and decay:
            section.account.refuse(section.path("name"), "Adam with L2 decay is not here: AdamW is", section.stages)
        section.drop("lazy_mode", "it is for sparse gradients")
        words = section.take("no_weight_decay_name", text, "").split()
        one_dim = section.take("one_dim_param_no_weight_decay", truth, False)
        settings = replace(settings, no_decay=tuple(words), decay_one_dim=not one_dim)
    else:
        section.account.refuse(section.path("name"), f"{name} is not here", section.stages)
        section.rest()
    section.close()
    return settings, schedule


def built_in_no_decay(arch: str) -> tuple[str, ...]:
    """What PaddleClas's own code of a network spares from L2 decay, whatever its configurations say."""
    published = recipes()[arch].optimizer if arch in recipes() else Optimizer()
    return published.no_decay if published.name != "adamw" else ()


def _weight_decay(section: Section, name: str) -> float:
    both = section.take("weight_decay", number, None)
    regularizer = section.section("regularizer")
    kind = regularizer.take("name", text, "")
    coefficient = regularizer.take("coeff", number, 0.0)
    regularizer.close()
    if kind == "L2" and name != "AdamW":
        if both is not None:
            section.account.refuse(section.path("weight_decay"), "regularizer stands beside it, and counts", ("train",))
        return coefficient
    if kind:
        why = "AdamW's decay is weight_decay" if name == "AdamW" else f"there is L2 alone, not {kind}"
        section.account.refuse(section.path("regularizer"), why, section.stages)
    usual = 0.01 if name == "AdamW" else 0.0
    return usual if both is None else both


def _schedule(section: Section, epochs: int) -> tuple[float, Schedule]:
    """The learning rate and what becomes of it."""
    written = section.take("lr", anything)
    if isinstance(written, str):  # one rate, from the first step to the last
        rate = Section(section.account, section.key, {"lr": written}, section.stages).take("lr", number)
        return rate, Schedule("piecewise", values=(rate,))
    table = section.account.section(section.path("lr"), written, section.stages)
    name = table.take("name", text, "Constant")
    values = table.take("values", numbers, ()) if name == "Piecewise" else ()
    lr = table.take("learning_rate", number, values[0] if values else None)
    if lr is None:
        raise table.error("learning_rate", "is missing")
    warmup = table.take("warmup_epoch", number, 0.0)
    start = table.take("warmup_start_lr", number, 0.0)
    by_epoch = table.take("by_epoch", truth, False)
    table.needs("last_epoch", number, lambda last: last == -1, "a run begins with its first step")
    table.drop("step_each_epoch", "it follows from the images and their batches")
    table.drop("verbose", "the learning rate is in the run's history")
    if warmup >= epochs:
        table.account.refuse(table.path("warmup_epoch"), f"it must be less than the {epochs} epochs", table.stages)
        warmup = 0.0
    if name == "Cosine":
        least = table.take("eta_min", number, 0.0)
        schedule = Schedule("cosine", warmup, start, least)
    elif name == "Linear":
        least = table.take("end_lr", number, 0.0)
        table.needs("power", number, lambda power: power == 1, "the learning rate falls evenly")
        table.needs("cycle", truth, lambda cycle: not cycle, "the learning rate only falls")
        schedule = Schedule("linear", warmup, start, least)
    else:
        milestones, values = _falls(table, name, lr, values, epochs)
        if values[0] != lr:
            lr = values[0]  # as PaddleClas does, whose learning_rate says nothing beside values
        schedule = Schedule("piecewise", warmup, start, 0.0, milestones, values)
    falls = (*schedule.milestones, warmup)
    whole = schedule.name == "piecewise" and all(each == round(each) for each in falls) and not warmup
    if by_epoch and not whole:
        table.account.refuse(table.path("by_epoch"), "the learning rate changes with every step", table.stages)
    table.close()
    return lr, schedule


def _falls(
    table: Section, name: str, lr: float, values: tuple[float, ...], epochs: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The epochs at which a learning rate falls, and what it is before, between and after them."""
    if name == "Constant":
        return (), (lr,)
    if name == "Piecewise":
        milestones = table.take("decay_epochs", numbers)
        if len(values) != len(milestones) + 1:
            raise table.error("values", f"must be {len(milestones) + 1}, one more than decay_epochs")
        return milestones, values
    if name == "MultiStepDecay":
        milestones = table.take("milestones", numbers)
    elif name == "Step":
        size = table.take("step_size", number)
        if size <= 0 or epochs / size > _MOST_STEPS:
            raise table.error("step_size", "must be a number of epochs above 0, and not so small")
        milestones = tuple(round(size * k, 6) for k in range(1, int(epochs / size) + 1) if size * k < epochs)
    else:
        table.account.refuse(table.path("name"), f"{name} is not here", table.stages)
        table.rest()
        return (), (lr,)
    gamma = table.take("gamma", number, 0.1)
    return milestones, tuple(accumulate(milestones, lambda rate, _: rate * gamma, initial=lr))


@dataclass(frozen=True)
class Losses:
    """What is minimised: the loss of labels, and what is learnt from a teacher."""

    loss: Loss
    distill: Distill | None = None


def losses(
    section: Section, *, mixed: bool, heads: Sequence[float], distilled: bool, multi_label: bool, classes: int
) -> Losses:
    """`Loss.Train` and `Loss.Eval`; the names of teacher and student are filled in elsewhere."""
    for step in steps(section, "Eval"):
        name = step.key.rpartition(".")[2]
        usual = ("MultiLabelLoss",) if multi_label else ("CELoss", "DistillationGTCELoss", "GoogLeNetLoss", "MixCELoss")
        if name not in usual:
            step.account.refuse(step.key, "the loss of validation is cross entropy", ("train", "evaluate"))
        step.rest()
    train = list(steps(section, "Train"))
    section.close()
    if distilled:
        found = _distilled(train)
    elif multi_label:
        found = Losses(_binary(train, heads=heads, classes=classes))
    else:
        found = Losses(_cross_entropy(train, mixed=mixed, heads=heads))
    if not train:
        section.account.refuse(section.path("Train"), "no loss is given", ("train",))
    return found


def _cross_entropy(train: Sequence[Section], *, mixed: bool, heads: Sequence[float]) -> Loss:
    loss = Loss()
    for place, step in enumerate(train):
        name = step.key.rpartition(".")[2]
        if place:
            step.account.refuse(step.key, "one loss is minimised", step.stages)
            step.rest()
        elif name in ("CELoss", "MixCELoss"):
            step.needs("weight", number, lambda weight: weight == 1, "a loss alone has the weight 1")
            smoothing = step.take("epsilon", number, 0.0)
            loss = replace(loss, label_smoothing=smoothing if 0 < smoothing < 1 else 0.0)
            if mixed and not loss.label_smoothing and name == "CELoss":
                why = (
                    "PaddleClas takes the softmax of mixed labels where nothing is smoothed, which makes them nearly "
                    "even; here they are taken as they are"
                )
                step.account.note(step.key, why, step.stages)
        elif name == "GoogLeNetLoss":
            step.take("weight", anything, "")
            loss = replace(loss, head_weights=tuple(heads))
        else:
            step.account.refuse(step.key, "there is cross entropy, of one class per image", step.stages)
            step.rest()
        step.close()
    return replace(loss, head_weights=tuple(heads)) if len(heads) > 1 else loss


def _binary(train: Sequence[Section], *, heads: Sequence[float], classes: int) -> Loss:
    """Binary cross entropy, which PaddleClas divides by the number of classes unless `size_sum` is set."""
    scale, weighed = 1.0, False
    for place, step in enumerate(train):
        if place or step.key.rpartition(".")[2] != "MultiLabelLoss":
            step.account.refuse(
                step.key, "there is binary cross entropy, of any number of classes (MultiLabelLoss)", step.stages
            )
            step.rest()
            continue
        step.needs("weight", number, lambda weight: weight == 1, "a loss alone has the weight 1")
        step.needs("epsilon", number, lambda epsilon: not 0 < epsilon < 1, "0 and 1 are not smoothed")
        weighed = step.take("weight_ratio", truth, False)
        scale = 1.0 if step.take("size_sum", truth, False) else 1 / classes
        step.close()
    return Loss(
        name="bce",
        head_weights=tuple(weight * scale for weight in heads),
        class_weights="exponential" if weighed else "",
    )


def _distilled(train: Sequence[Section]) -> Losses:
    loss, distill, methods = Loss(), Distill(), 0
    for step in train:
        name = step.key.rpartition(".")[2]
        weight = step.take("weight", number, 1.0)
        step.take("key", anything, "")
        for key in ("model_name_pairs", "model_names"):
            step.take(key, anything, "")
        if name == "DistillationGTCELoss":
            loss = replace(loss, label_smoothing=step.take("epsilon", number, 0.0))
            distill = replace(distill, label_weight=weight)
        elif name in ("DistillationDMLLoss", "DistillationCELoss", "DistillationDKDLoss"):
            methods += 1
            if weight != 1:
                step.account.refuse(step.path("weight"), "the teacher's loss has the weight 1", step.stages)
            if name == "DistillationDMLLoss":
                distill = replace(distill, method="ssld")
                step.needs("act", text, lambda act: act == "softmax", "the divergence is of probabilities", "softmax")
            elif name == "DistillationCELoss":
                distill = replace(distill, method="ce")
            else:
                temperature = step.take("temperature", number, 1.0)
                alpha, beta = step.take("alpha", number, 1.0), step.take("beta", number, 1.0)
                distill = replace(distill, method="dkd", temperature=temperature, alpha=alpha, beta=beta)
                step.needs("use_target_as_gt", truth, lambda used: not used, "the labels say which class is the target")
        else:
            step.account.refuse(step.key, "there are DML, CE and DKD between logits, and labels", step.stages)
            step.rest()
        step.close()
    if train and methods != 1:
        first = train[0]
        why = f"one loss between teacher and student is minimised, not {methods}"
        first.account.refuse(first.key.rpartition(".")[0], why, first.stages)
    return Losses(loss, distill)


def precision(top: Section) -> Precision:
    """`AMP`: the precision of training; older configurations use it by having the table."""
    table = top.take("AMP", anything, "")
    section = top.account.section("AMP", table, ("train",))
    used = section.take("use_amp", truth, table not in NOTHING)
    level = section.take("level", text, "O1").upper()
    for key in ("scale_loss", "use_dynamic_loss_scaling", "use_promote"):
        if not used:
            section.take(key, anything, "")  # all of it is off
        section.drop(key, "gradients of fp16 are scaled as they need it, by PyTorch")
    section.drop("use_fp16_test", "figures are measured in float32")
    section.close()
    if used and level == "O2":
        why = "weights stay in float32, and what gains from it is computed in fp16, as in O1"
        section.account.note(section.path("level"), why, ("train",))
    return "16-mixed" if used else "32-true"


def averaging(section: Section) -> float:
    """`EMA`: the decay of the averaged weights; 0 where there are none."""
    decay = section.take("decay", score, None)
    if decay is not None:
        why = "the average forgets its start sooner: decay rises to this number over the first steps"
        section.account.note(section.path("decay"), why, ("train",))
    section.close()
    return decay or 0.0
