"""Configurations of PaddleClas 2.0 (ARCHITECTURE, TRAIN …) in the form of 2.3 and later, in which they are read.

What is not known of the old form stays where it is, so that it is named like all that is not followed.
"""

from __future__ import annotations

from torchclas.yaml_text import Yaml

Table = dict[str, Yaml]

# Functions of the learning rate; others keep their names.
_SCHEDULES = {"CosineWarmup": "Cosine", "Piecewise": "MultiStepDecay"}
_WARMUP = "5"  # epochs of CosineWarmup, where it does not say
_RENAMED = {"lr": "learning_rate", "decay_epochs": "milestones", "factor": "coeff"}
_GLOBAL = {
    "epochs": "epochs",
    "pretrained_model": "pretrained_model",
    "model_save_dir": "output_dir",
    "image_shape": "image_shape",
    "save_interval": "save_interval",
    "validate": "eval_during_train",
    "valid_interval": "eval_interval",
    "checkpoints": "checkpoints",
    "use_dali": "use_dali",
}


def is_old(config: Table) -> bool:
    """Whether a configuration has the tables of 2.0."""
    return "ARCHITECTURE" in config or "TRAIN" in config


def in_new_form(config: Table, devices: int) -> Table:
    """The same in the form of 2.3; batches are of all devices in the old form, and of each in the new one."""
    old = dict(config)
    common = {new: old.pop(key) for key, new in _GLOBAL.items() if key in old}
    if str(old.pop("use_gpu", "True")).lower() == "false":
        common["device"] = "cpu"
    arch = _table(old.pop("ARCHITECTURE", {}))
    arch |= _table(arch.pop("params", {}))
    if "classes_num" in old:
        arch["class_num"] = old.pop("classes_num")
    smoothing, mixed = old.pop("ls_epsilon", "0"), str(old.pop("use_mix", "False")).lower() == "true"
    topk = old.pop("topk", "5")
    train, valid = _table(old.pop("TRAIN", {})), _table(old.pop("VALID", {}))
    mixes = train.pop("mix", [])
    loaders: Table = {"Train": _loader(train, devices, training=True), "Eval": _loader(valid, devices, training=False)}
    if mixed:
        _table(_table(loaders["Train"])["dataset"])["batch_transform_ops"] = mixes
    return {
        "Global": common,
        "Arch": arch,
        "Loss": {
            "Train": [{"MixCELoss" if mixed else "CELoss": {"epsilon": smoothing}}],
            "Eval": [{"CELoss": ""}],
        },
        "Optimizer": _optimizer(_table(old.pop("OPTIMIZER", {})), _table(old.pop("LEARNING_RATE", {}))),
        "DataLoader": loaders,
        "Metric": {"Eval": [{"TopkAcc": {"topk": ["1", topk]}}]},
        **old,
    }


def _loader(old: Table, devices: int, *, training: bool) -> Table:
    images: Table = {"name": "ImageNetDataset", "transform_ops": old.pop("transforms", [])}
    for key, new in (("data_dir", "image_root"), ("file_list", "cls_label_path"), ("delimiter", "delimiter")):
        if key in old:
            images[new] = old.pop(key)
    batch = str(old.pop("batch_size", "64"))
    sampler: Table = {
        "batch_size": str(int(batch) // devices) if batch.isdecimal() else batch,
        "shuffle": str(training),
    }
    reader: Table = {key: old.pop(key) for key in ("num_workers", "shuffle_seed") if key in old}
    return {"dataset": images, "sampler": sampler, "loader": reader, **old}


def _optimizer(old: Table, rate: Table) -> Table:
    function = str(rate.pop("function", "Constant"))
    schedule: Table = {"name": _SCHEDULES.get(function, function), **_renamed(_table(rate.pop("params", {})))}
    if function == "CosineWarmup":
        schedule.setdefault("warmup_epoch", _WARMUP)
    new: Table = {"name": old.pop("function", "Momentum"), "lr": {**schedule, **rate}, **_table(old.pop("params", {}))}
    regularizer = _table(old.pop("regularizer", {}))
    if regularizer:
        new["regularizer"] = {"name": regularizer.pop("function", "L2"), **_renamed(regularizer)}
    return {**new, **old}


def _renamed(table: Table) -> Table:
    return {_RENAMED.get(key, key): value for key, value in table.items()}


def _table(value: Yaml) -> Table:
    return value if isinstance(value, dict) else {}
