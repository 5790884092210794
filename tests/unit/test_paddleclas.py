"""Configurations of PaddleClas: what they mean here, and that no key of one is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.paddleclas_configs import (
    DECODE,
    FLIP,
    MIXES,
    NORMALIZE,
    PILLOW,
    RANDAUGMENT,
    SEEN,
    config,
    transformer,
    write,
)
from torchclas.bridges.paddleclas import ConfigError, Project, open_project
from torchclas.bridges.paddleclas.comparison import differences, recipe_here
from torchclas.errors import DataError
from torchclas.recipes import Schedule

NOTHING_LOST = {
    "Global.print_batch_step",
    "DataLoader.Train.loader.num_workers",
    "DataLoader.Train.loader.use_shared_memory",
    "DataLoader.Eval.loader.num_workers",
    "DataLoader.Eval.loader.use_shared_memory",
}


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    def open_one(content: object, *overrides: str, devices: int = 1) -> Project:
        return open_project(write(tmp_path / "config.yaml", content), overrides, devices=devices)

    return open_one


def unsupported(project: Project) -> list[str]:
    return [each.key for each in project.findings if each.effect == "unsupported"]


TRICKS: dict[str, Any] = {
    "Global__epochs": 200,
    "Loss__Train": [{"CELoss": {"weight": 1.0, "epsilon": 0.1}}],
    "Optimizer__lr": {"name": "Cosine", "learning_rate": 0.1},
    "Optimizer__regularizer__coeff": 0.00007,
    "DataLoader__Train__dataset__batch_transform_ops": [{"MixupOperator": {"alpha": 0.2}}],
}
MOBILE: dict[str, Any] = {
    "Global__epochs": 360,
    "Loss__Train": [{"CELoss": {"weight": 1.0, "epsilon": 0.1}}],
    "Optimizer__lr": {"name": "Cosine", "learning_rate": 0.8, "warmup_epoch": 5},
    "Optimizer__regularizer__coeff": 0.00003,
    "DataLoader__Train__sampler__batch_size": 512,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "ResNet50": config(),
    "ResNet50_vd": config("ResNet50_vd", **TRICKS),
    "PPLCNet_x1_0": config("PPLCNet_x1_0", **MOBILE),
    "EfficientNetB0": config(
        "EfficientNetB0",
        Global__epochs=360,
        Loss__Train=[{"CELoss": {"weight": 1.0, "epsilon": 0.1}}],
        Optimizer={
            "name": "RMSProp",
            "momentum": 0.9,
            "rho": 0.9,
            "epsilon": 0.001,
            "lr": {"name": "Cosine", "learning_rate": 0.032, "warmup_epoch": 5, "warmup_start_lr": 0.0},
            "regularizer": {"name": "L2", "coeff": 0.00001},
        },
        DataLoader__Train__dataset__transform_ops=[
            DECODE, {"RandCropImage": {"size": 224}}, FLIP, {"AutoAugment": None}, NORMALIZE,
        ],
        DataLoader__Train__sampler__batch_size=128,
    ),
    "SwinTransformer_tiny_patch4_window7_224": transformer("SwinTransformer_tiny_patch4_window7_224"),
    "DeiT_tiny_patch16_224": transformer(
        "DeiT_tiny_patch16_224",
        Arch__drop_path_rate=0.1,
        Arch__drop_rate=0.0,
        Optimizer__no_weight_decay_name="norm cls_token pos_embed dist_token",
        Optimizer__lr={
            "name": "Cosine", "learning_rate": "1e-3", "eta_min": "1e-5", "warmup_epoch": 5, "warmup_start_lr": "1e-6",
        },
        DataLoader__Train__sampler__batch_size=256,
    ),
    "GoogLeNet": config(
        "GoogLeNet",
        Global__epochs=200,
        Loss__Train=[{"GoogLeNetLoss": {"weight": 1.0}}],
        Optimizer__lr={"name": "Cosine", "learning_rate": 0.01, "warmup_epoch": 5},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_are_the_ones_here(name: str, opened: Any) -> None:
    project = opened(PUBLISHED[name], devices=4)
    assert not unsupported(project)
    assert {each.key for each in project.findings} - NOTHING_LOST <= {
        "DataLoader.Train.dataset.transform_ops.3.TimmAutoAugment.img_size"
    }
    assert project.recipe is not None
    ours = recipe_here(project.recipe)
    assert ours is not None
    assert differences(project.recipe, ours) == []


def test_a_difference_is_found(opened: Any) -> None:
    project = opened(config(Optimizer__momentum=0.8, Global__epochs=100, Optimizer__lr__learning_rate=0.1), devices=8)
    ours = recipe_here(project.recipe)
    assert ours is not None
    assert [each.key for each in differences(project.recipe, ours)] == ["epochs", "optimizer.lr", "optimizer.momentum"]
    rate = differences(project.recipe, ours)[1]
    assert (rate.theirs, rate.ours) == (0.1, 0.2), "of twice as many devices"


def test_distillation(opened: Any) -> None:
    content = config(
        "DistillationModel",
        **MOBILE,
        Arch={
            "name": "DistillationModel",
            "class_num": 1000,
            "pretrained_list": None,
            "freeze_params_list": [True, False],
            "infer_model_name": "Student",
            "models": [
                {"Teacher": {"name": "ResNet50_vd", "class_num": 1000, "pretrained": True, "use_ssld": True}},
                {"Student": {"name": "PPLCNet_x1_0", "class_num": 1000, "pretrained": False, "dropout_prob": 0.0}},
            ],
        },
    )
    content["Loss"]["Train"] = [{"DistillationDMLLoss": {"weight": 1.0, "model_name_pairs": [["Student", "Teacher"]]}}]
    content["Metric"]["Eval"] = [{"DistillationTopkAcc": {"model_key": "Student", "topk": [1, 5]}}]
    project = opened(content)
    assert not unsupported(project)
    assert project.distills
    recipe = project.recipe
    assert recipe.distill.teacher == "ResNet50_vd_ssld"
    assert (recipe.distill.student, recipe.distill.method, recipe.dropout) == ("PPLCNet_x1_0", "ssld", 0.0)
    content["Arch"]["models"][0]["Teacher"]["pretrained"] = False
    content["Arch"]["freeze_params_list"] = [False, False]
    assert unsupported(opened(content)) == ["Arch.freeze_params_list", "Arch.models.0.Teacher.pretrained"]


SCHEDULES: dict[str, tuple[dict[str, Any], Schedule]] = {
    "cosine": (
        {"name": "Cosine", "learning_rate": 0.1, "eta_min": "1e-5", "warmup_epoch": 2, "warmup_start_lr": "1e-6"},
        Schedule("cosine", 2.0, 1e-6, 1e-5),
    ),
    "linear": ({"name": "Linear", "learning_rate": 0.1, "end_lr": 0.01}, Schedule("linear", min_lr=0.01)),
    "constant": ({"name": "Constant", "learning_rate": 0.1}, Schedule("piecewise", values=(0.1,))),
    "no name": ({"learning_rate": 0.1}, Schedule("piecewise", values=(0.1,))),
    "steps": (
        {"name": "Step", "learning_rate": 0.1, "step_size": 50, "gamma": 0.5},
        Schedule("piecewise", milestones=(50.0, 100.0), values=(0.1, 0.05, 0.025)),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name: str, opened: Any) -> None:
    written, expected = SCHEDULES[name]
    project = opened(config(Optimizer__lr=written))
    assert not unsupported(project)
    assert (project.recipe.optimizer.lr, project.recipe.schedule) == (0.1, expected)


def test_milestones_fall_by_gamma(opened: Any) -> None:
    written = {"name": "MultiStepDecay", "learning_rate": 0.1, "milestones": [30, 60], "gamma": 0.1, "by_epoch": True}
    schedule = opened(config(Optimizer__lr=written)).recipe.schedule
    assert schedule.milestones == (30, 60)
    assert schedule.values == pytest.approx((0.1, 0.01, 0.001))


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ({"name": "Cosine", "learning_rate": 0.1, "by_epoch": True}, "Optimizer.lr.by_epoch"),
        ({"name": "Linear", "learning_rate": 0.1, "power": 2}, "Optimizer.lr.power"),
        ({"name": "CosineFixmatch", "learning_rate": 0.1}, "Optimizer.lr.name"),
        ({"name": "Cosine", "learning_rate": 0.1, "warmup_epoch": 120}, "Optimizer.lr.warmup_epoch"),
        ({"name": "Cosine", "learning_rate": 0.1, "warmup_epochs": 5}, "Optimizer.lr.warmup_epochs"),
    ],
)
def test_schedules_that_are_not_here(written: dict[str, Any], key: str, opened: Any) -> None:
    project = opened(config(Optimizer__lr=written))
    assert unsupported(project) == [key]


NOT_HERE: list[tuple[dict[str, Any], str, tuple[str, ...]]] = [
    ({"Arch__stride_list": [2, [2, 1], 2, 2, 2]}, "Arch.stride_list", ("train", "evaluate", "predict", "export")),
    ({"Arch__lr_mult_list": [0.0, 0.4, 0.4, 0.8, 0.8, 1.0]}, "Arch.lr_mult_list", ("train",)),
    ({"Arch__no_such_key": 1}, "Arch.no_such_key", ("train", "evaluate", "predict", "export")),
    ({"Global__eval_mode": "retrieval"}, "Global.eval_mode", ("train", "evaluate")),
    ({"Global__checkpoints": "output/x/latest"}, "Global.checkpoints", ("train",)),
    ({"Global__device": "npu"}, "Global.device", ("train",)),
    ({"Global__image_shape": [1, 224, 224]}, "Global.image_shape", ("train", "evaluate", "predict", "export")),
    ({"Loss__Train": [{"MultiLabelLoss": {"weight": 1.0}}]}, "Loss.Train.0.MultiLabelLoss", ("train",)),
    ({"Loss__Train": [{"CELoss": {"weight": 0.5}}]}, "Loss.Train.0.CELoss.weight", ("train",)),
    ({"Optimizer__name": "Lamb"}, "Optimizer.name", ("train",)),
    ({"Optimizer__clip_norm": 10, "AMP": {"level": "O1"}}, "Optimizer.clip_norm", ("train",)),
    ({"Optimizer__use_nesterov": True}, "Optimizer.use_nesterov", ("train",)),
    ({"Optimizer__regularizer__name": "L1"}, "Optimizer.regularizer", ("train",)),
    ({"DataLoader__Train__dataset__name": "CompCars"}, "DataLoader.Train.dataset.name", ("train",)),
    ({"Global__use_multilabel": True}, "Global.use_multilabel", ("train", "evaluate")),
    ({"Loss__Eval": [{"MultiLabelLoss": None}]}, "Loss.Eval.0.MultiLabelLoss", ("train", "evaluate")),
    ({"DataLoader__Eval__dataset__name": "VeriWild"}, "DataLoader.Eval.dataset.name", ("train", "evaluate")),
    ({"DataLoader__Train__sampler__name": "PKSampler"}, "DataLoader.Train.sampler.name", ("train",)),
    ({"DataLoader__Train__sampler__shuffle": False}, "DataLoader.Train.sampler.shuffle", ("train",)),
    ({"Infer__PostProcess__name": "GenderAge"}, "Infer.PostProcess.name", ("predict",)),
    ({"Metric__Eval": [{"mAP": {}}]}, "Metric.Eval.0.mAP", ("evaluate",)),
    ({"Slim": {"quant": {"name": "pact"}}}, "Slim", ("train", "evaluate", "predict", "export")),
    ({"SomethingElse": 1}, "SomethingElse", ("train", "evaluate", "predict", "export")),
    ({"Infer__transforms": [{"ThingElse": None}]}, "Infer.transforms", ("predict",)),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "key", "stages"), NOT_HERE, ids=[key for _, key, _ in NOT_HERE])
def test_what_is_not_here_is_named(changes: dict[str, Any], key: str, stages: tuple[str, ...], opened: Any) -> None:
    project = opened(config(**changes))
    found = [each for each in project.findings if each.effect == "unsupported"]
    assert [(each.key, each.stages) for each in found] == [(key, stages)]
    for stage in stages:
        with pytest.raises(ConfigError, match=rf"{key} is not supported: .*--lenient"):
            project.require(stage)
        assert project.require(stage, lenient=True).arch == "ResNet50"


def test_a_network_that_is_not_here(opened: Any) -> None:
    project = opened(config("VAN_B0"))
    assert (project.network, unsupported(project)) == (None, ["Arch.name"])
    with pytest.raises(ConfigError, match="the network VAN_B0 is not here"):
        project.require("train", lenient=True)
    assert unsupported(opened(config("RecModel", Arch={"name": "RecModel", "Head": {"name": "FC"}}))) == ["Arch.name"]


def several(**changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "Global__use_multilabel": True,
        "Loss": {"Train": [{"MultiLabelLoss": {"weight": 1.0, "size_sum": True}}], "Eval": [{"MultiLabelLoss": None}]},
        "DataLoader__Train__dataset__name": "MultiLabelDataset",
        "DataLoader__Eval__dataset__name": "MultiLabelDataset",
        "Metric": {"Eval": [{"ATTRMetric": None}]},
    }
    return config(**{**usual, **changes})


def test_any_number_of_classes(opened: Any) -> None:
    project = opened(several())
    assert not unsupported(project)
    assert project.multi_label
    assert (project.train.delimiter, project.train.multi_label) == ("\t", True)
    assert (project.recipe.loss.name, project.recipe.loss.head_weights) == ("bce", (1.0,))
    for changes, key in (
        ({"Loss__Train": [{"MultiLabelAsymmetricLoss": None}]}, "Loss.Train.0.MultiLabelAsymmetricLoss"),
        ({"DataLoader__Eval__dataset__name": "ImageNetDataset"}, "Global.use_multilabel"),
        ({"Metric__Eval": [{"TprAtFpr": None}]}, "Metric.Eval.0.TprAtFpr"),
    ):
        assert unsupported(opened(several(**changes))) == [key]
    ratio: dict[str, Any] = {
        "Loss__Train": [{"MultiLabelLoss": {"weight_ratio": True, "size_sum": True}}],
        "DataLoader__Train__dataset__label_ratio": True,
        "Metric__Eval": [{"HammingDistance": None}, {"AccuracyScore": {"base": "sample"}}],
    }
    weighed = opened(several(**ratio))
    assert not unsupported(weighed)
    assert weighed.recipe.loss.class_weights == "exponential"
    assert [each.why.split(",")[0] for each in weighed.findings if each.key.startswith("Metric")] == [
        "it is called 1 minus labels right here",
        "it is called all classes right here",
    ]


def test_what_has_no_effect_is_said(opened: Any) -> None:
    changes: dict[str, Any] = {
        "Global__use_dali": True,
        "Global__save_interval": 5,
        "Global__eval_during_train": False,
        "Optimizer__multi_precision": True,
        "AMP": {"use_amp": True, "scale_loss": 128.0, "use_dynamic_loss_scaling": True, "level": "O2"},
        "EMA": {"decay": 0.9998},
    }
    project = opened(config(**changes))
    assert not unsupported(project)
    assert {each.key for each in project.findings} - NOTHING_LOST == {
        "Global.use_dali",
        "Global.save_interval",
        "Global.eval_during_train",
        "Optimizer.multi_precision",
        "AMP.scale_loss",
        "AMP.use_dynamic_loss_scaling",
        "AMP.level",
        "EMA.decay",
    }
    assert all(each.why for each in project.findings)
    assert (project.recipe.precision, project.recipe.ema) == ("16-mixed", 0.9998)


def test_images_that_are_squeezed(opened: Any) -> None:
    normalize = {"NormalizeImage": {"scale": 1.0, "mean": [127.5, 127.5, 127.5], "std": [127.5] * 3, "order": ""}}
    seen = [DECODE, {"ResizeImage": {"size": [160, 80]}}, normalize]
    policy = {"TimmAutoAugment": {"prob": 0.5, "config_str": "rand-m9-mstd0.5-inc1", "interpolation": "bicubic"}}
    project = opened(
        config(
            Global__image_shape=[3, 80, 160],
            DataLoader__Train__dataset__transform_ops=[*seen[:2], policy, normalize],
            DataLoader__Eval__dataset__transform_ops=seen,
        )
    )
    assert not unsupported(project)
    assert (project.preset.size, project.preset.fit, project.preset.mean) == ((80, 160), "squeeze", (0.5, 0.5, 0.5))
    recipe = project.recipe
    assert (recipe.size, recipe.fit, recipe.augment.crop, recipe.augment.flip) == ((80, 160), "squeeze", "center", 0.0)
    assert (recipe.augment.policy_prob, recipe.augment.policy_interpolation) == (0.5, "bicubic")


def test_pictures_of_attributes(opened: Any) -> None:
    """PULC pads them, crops what it padded, and flips them last."""
    seen: list[Any] = [DECODE, {"ResizeImage": {"size": [192, 256]}}, NORMALIZE]
    policy = {"TimmAutoAugment": {"prob": 0.8, "config_str": "rand-m9-mstd0.5-inc1", "interpolation": "bicubic"}}
    border, crop = {"size": [212, 276], "pad_mode": 1, "fill_value": 0}, {"RandomCropImage": {"size": [192, 256]}}

    def steps(*ops: object) -> Any:
        both: dict[str, Any] = {"Train": [*seen[:2], *ops, NORMALIZE], "Eval": seen}
        return opened(config(**{f"DataLoader__{side}__dataset__transform_ops": ops for side, ops in both.items()}))

    project = steps(policy, {"Padv2": border}, crop, FLIP)
    assert not unsupported(project)
    augment = project.recipe.augment
    assert (augment.shift, augment.flip, augment.policy_prob) == ((10, 10), 0.5, 0.8)
    assert (project.recipe.size, project.recipe.fit, augment.crop) == ((256, 192), "squeeze", "center")
    where = "DataLoader.Train.dataset.transform_ops"
    for ops, key in (
        (({"Padv2": {**border, "fill_value": [127.5] * 3}}, crop), f"{where}.2.Padv2"),
        (({"Padv2": {**border, "pad_mode": 0}}, crop), f"{where}.2.Padv2"),
        (({"Padv2": {**border, "size": [213, 276]}}, crop), f"{where}.3.RandomCropImage"),
        ((crop,), f"{where}.2.RandomCropImage"),
        (({"Padv2": border},), where),
        (({"AutoAugment": None}, FLIP), f"{where}.3.RandFlipImage"),
    ):
        assert unsupported(steps(*ops))[0] == key


def _crop(**options: object) -> dict[str, Any]:
    return {"RandCropImage": {"size": 224, **options}}


@pytest.mark.parametrize(
    ("steps", "key"),
    [
        ([DECODE, _crop(), NORMALIZE, {"RandomRot90": None}], "3.RandomRot90"),
        ([DECODE, {"HideAndSeek": None}, {"RandCropImage": {"size": 224}}, NORMALIZE], "1.HideAndSeek"),
        ([DECODE, NORMALIZE, {"RandCropImage": {"size": 224}}], "2.RandCropImage"),
        ([DECODE, _crop(interpolation="random"), NORMALIZE], "1.RandCropImage.interpolation"),
        ([DECODE, _crop(), {"RandFlipImage": {"flip_code": 0}}, NORMALIZE], "2.RandFlipImage.flip_code"),
        ([DECODE, _crop(), {"TimmAutoAugment": {"config_str": "rand-m7"}}, NORMALIZE], "2.TimmAutoAugment.config_str"),
        ([DECODE, _crop(use_log_aspect=True), NORMALIZE], "1.RandCropImage.use_log_aspect"),
        ([DECODE, _crop(crop=3), NORMALIZE], "1.RandCropImage.crop"),
    ],
)  # fmt: skip
def test_steps_of_training_that_are_not_here(steps: list[Any], key: str, opened: Any) -> None:
    project = opened(config(DataLoader__Train__dataset__transform_ops=steps))
    assert unsupported(project)[0] == f"DataLoader.Train.dataset.transform_ops.{key}"


def test_erasing(opened: Any) -> None:
    where = "DataLoader.Train.dataset.transform_ops.3.RandomErasing"
    for erasing, expected, keys in (
        ({"EPSILON": 0.0, "sh": 0.4, "mode": "rand"}, (0.0, (0.02, 1 / 3), "log", "noise"), []),
        ({}, (0.5, (0.02, 0.4), "even", "mean"), []),
        ({"EPSILON": 0.25, "sh": "1.0/3.0", "use_log_aspect": True, "mode": "pixel", "mean": [0.0, 0.0, 0.0]},
         (0.25, (0.02, pytest.approx(1 / 3)), "log", "noise"), []),
        ({"mean": [0.5, 0.0, 0.0], "r1": 0.2}, (0.5, (0.02, 0.4), "even", "mean"), ["r1", "mode"]),
        ({"mode": "rand"}, (0.5, (0.02, 0.4), "even", "mean"), ["mode"]),
    ):  # fmt: skip
        steps = [DECODE, _crop(), NORMALIZE, {"RandomErasing": erasing}]
        project = opened(config(DataLoader__Train__dataset__transform_ops=steps))
        assert unsupported(project) == [f"{where}.{key}" for key in keys]
        found = project.recipe.augment
        assert (found.erasing, found.erasing_area, found.erasing_ratio, found.erasing_fill) == expected


def test_other_augmentations(opened: Any) -> None:
    def steps(before: Any, after: Any) -> Project:
        ops = [DECODE, _crop(), *([before] if before else []), NORMALIZE, *([after] if after else [])]
        return opened(config(DataLoader__Train__dataset__transform_ops=ops))

    project = steps({"RandAugment": {"num_layers": 2, "magnitude": 5}}, {"Cutout": {"n_holes": 1, "length": 100}})
    assert not unsupported(project)
    assert project.recipe is not None
    assert (project.recipe.augment.policy, project.recipe.augment.cutout) == ("randaugment", 100)
    project = steps({"RandAugment": {"num_layers": 3}}, {"HideAndSeek": None})
    assert [key.rpartition("ops.")[2] for key in unsupported(project)] == ["2.RandAugment.num_layers", "4.HideAndSeek"]
    project = steps(None, {"GridMask": {"d1": 96, "d2": 224, "rotate": 1, "ratio": 0.5, "mode": 0}})
    assert not unsupported(project)
    assert "stays 0" in next(each.why for each in project.findings if each.key.endswith("GridMask"))


def test_clip_norm_is_that_of_each_tensor(opened: Any) -> None:
    project = opened(config(Optimizer__clip_norm=10))
    assert not unsupported(project)
    assert (project.recipe.optimizer.clip_each, project.recipe.clip) == (10, 0)


def test_recall_at_a_false_positive_rate_is_for_two_classes(opened: Any) -> None:
    metric = {"Eval": [{"TprAtFpr": {"max_fpr": 0.01}}, {"TopkAcc": {"topk": [1, 2]}}]}
    project = opened(config(Arch__class_num=2, Metric=metric))
    assert not unsupported(project)
    assert project.max_fpr == 0.01
    assert opened(config(Arch__class_num=2, Metric={"Eval": [{"TprAtFpr": None}]})).max_fpr == 0.001
    assert unsupported(opened(config(Arch__class_num=3, Metric=metric))) == ["Metric.Eval.0.TprAtFpr"]


def test_what_becomes_of_the_scores_of_attributes(opened: Any) -> None:
    def after(**options: object) -> Any:
        return opened(several(Infer__PostProcess=options))

    project = after(name="VehicleAttribute", color_threshold=0.4, type_threshold=0.4)
    assert not unsupported(project)
    assert project.infer.threshold == 0.4
    assert any("one by one" in each.why for each in project.findings)
    assert unsupported(after(name="PersonAttribute")) == ["Infer.PostProcess.glasses_threshold"]
    project = after(name="PersonAttribute", threshold=0.5, glasses_threshold=0.5, hold_threshold=0.6)
    assert unsupported(project) == ["Infer.PostProcess.hold_threshold"]
    assert project.unsupported("train") == ()


def test_one_statistic_for_training_and_evaluation(opened: Any) -> None:
    other = {"NormalizeImage": {"scale": "1.0/255.0", "mean": [0.5] * 3, "std": [0.5] * 3, "order": ""}}
    steps = [DECODE, {"RandCropImage": {"size": 224}}, FLIP, other]
    project = opened(config(DataLoader__Train__dataset__transform_ops=steps))
    assert unsupported(project) == ["DataLoader.Train.dataset.transform_ops"]


def test_training_at_a_smaller_size(opened: Any) -> None:
    steps = [DECODE, {"RandCropImage": {"size": 192}}, FLIP, NORMALIZE]
    project = opened(config(DataLoader__Train__dataset__transform_ops=steps))
    assert not unsupported(project)
    assert (project.recipe.size, project.preset.size) == ((192, 192), (224, 224))
    one_size = transformer("SwinTransformer_tiny_patch4_window7_224", DataLoader__Train__dataset__transform_ops=steps)
    assert unsupported(opened(one_size)) == ["DataLoader.Train.dataset.transform_ops"]


def test_decay_is_checked_by_the_names_of_paddleclas(opened: Any) -> None:
    """Words of PaddleClas's names spare the same parameters under ours, or these are named one by one."""
    vit = transformer("DeiT_tiny_patch16_224", Optimizer__no_weight_decay_name="pos_embed cls_token .bias")
    assert opened(vit).recipe.optimizer.no_decay == ("norm", "token", "position"), "the recipe's words spare the same"
    odd = transformer(
        "DeiT_tiny_patch16_224",
        Optimizer__no_weight_decay_name="blocks.3.mlp.fc1",
        Optimizer__one_dim_param_no_weight_decay=False,
    )
    found = opened(odd).recipe.optimizer
    assert found.decay_one_dim
    assert len(found.no_decay) == 2
    assert {name.rpartition(".")[2] for name in found.no_decay} == {"weight", "bias"}


def test_batches_and_devices(opened: Any) -> None:
    project = opened(config(Global__update_freq=4), devices=2)
    assert (project.recipe.batch_size, project.recipe.devices, project.accumulate) == (256, 2, 4)
    assert project.recipe.total_batch == 512
    assert project.recipe.optimizer.lr == 0.1, "as it is written, whatever the devices"


def test_published_weights(opened: Any) -> None:
    assert opened(config("PPLCNet_x1_0", Arch__pretrained=True)).network.model == "PPLCNet_x1_0"
    ssld = config("PPLCNet_x1_0", Arch__pretrained=True, Arch__use_ssld=True)
    assert opened(ssld).network.model == "PPLCNet_x1_0_ssld"
    assert unsupported(opened(config("ResNet18", Arch__pretrained=True, Arch__use_ssld=True))) == ["Arch.use_ssld"]
    file = opened(config(Arch__pretrained="weights/mine")).network
    assert (file.pretrained, file.weights) == (True, Path("weights/mine.pdparams"))


def test_overrides(opened: Any) -> None:
    project = opened(
        config(),
        "Arch.class_num=10",
        "Optimizer.lr={'name': 'Cosine', 'learning_rate': 0.2}",
        "DataLoader.Train.dataset.transform_ops.1.RandCropImage.scale=[0.5, 1.0]",
        "Global.pretrained_model=output/ResNet50/best_model",
        "EMA.decay=0.99",
    )
    assert project.network.classes == 10
    assert (project.recipe.schedule.name, project.recipe.optimizer.lr) == ("cosine", 0.2)
    assert project.recipe.augment.scale == (0.5, 1.0)
    assert project.weights == Path("output/ResNet50/best_model.pdparams")
    assert project.recipe.ema == 0.99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("Arch.class_num", "is no setting of PaddleClas: write Key.Sub=value"),
        ("DataLoader.Train.dataset.transform_ops.9.RandCropImage.size=3", "is a list of 4: 9 is none"),
        ("DataLoader.Train.dataset.transform_ops.x=3", "is a list of 4: x is none"),
        ("Arch.name.x=3", "Arch.name is no table"),
        ("Arch.class_num=many", "class_num: must be a whole number above 0|class_num: must be a number"),
        ("Global.epochs=0", "epochs: must be a whole number above 0"),
        ("Optimizer.lr.values=[0.1]", "values: must be 4"),
        ("Optimizer.momentum=2", "momentum: must be a score in 0..1"),
        ("Optimizer.lr.values=[0.1, 0.0, 0.1, 0.1]", "values: must be 4 positive numbers"),
    ],
)
def test_values_that_cannot_be(change: str, message: str, opened: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        opened(config(), change)


BOMB = "a: &a [x,x,x,x,x,x,x,x]\n" + "".join(
    f"{after}: &{after} [{','.join([f'*{before}'] * 8)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n- b", "it has no tables"),
        ("Global: {epochs: 1}", "no table Arch"),
        ("ARCHITECTURE: ResNet50", "no table Arch"),
        ("Global: {inference_model_dir: x}\nPreProcess: {}", "of PaddleClas's deployment"),
        ("base_config_file: x.yaml\nsearch_dict: []", "a search over configurations"),
        ("Arch: !!python/object/apply:os.system ['true']", "tag"),
        ("Arch: {name: ResNet50", "no readable YAML"),
        (BOMB, "more than 1,000,000"),
    ],
)  # fmt: skip
def test_files_that_are_none(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        open_project(write(tmp_path / "config.yaml", content))


def test_aliases_are_places_of_their_own(opened: Any) -> None:
    text = (
        "Arch: {name: ResNet50, class_num: &n 7}\nInfer: &i {transforms: &t [], batch_size: 1}\nGlobal: {class_num: *n}"
    )
    project = opened(text, "Arch.class_num=9")
    assert project.network.classes == 9
    assert project.infer.batch_size == 1


def test_names_of_two_classes(opened: Any) -> None:
    after = {"name": "ThreshOutput", "threshold": 0.5, "label_0": "nobody", "label_1": "someone"}
    project = opened(config(Infer__PostProcess=after))
    assert not unsupported(project)
    assert project.infer.pair == ("nobody", "someone")
    assert unsupported(opened(config(Infer__PostProcess={**after, "threshold": 0.9}))) == [
        "Infer.PostProcess.threshold"
    ]


def test_without_a_way_to_train(opened: Any) -> None:
    """A configuration for inference alone says how images are prepared; training wants more."""
    project = opened({"Arch": {"name": "ResNet50"}, "Infer": {"transforms": SEEN}})
    assert (project.preset, project.recipe) == (project.infer_preset, None)
    assert project.require("predict").arch == "ResNet50"
    with pytest.raises(ConfigError):
        project.require("train")


def test_mixing(opened: Any) -> None:
    for operators, expected in (
        (MIXES, (0.8, 0.5, 1.0, 0.5)),
        ([{"CutmixOperator": {"alpha": 0.2}}], (0.0, 0.0, 0.2, 1.0)),
        ([{"OpSampler": {"MixupOperator": {"alpha": 0.2, "prob": 0.25}}}], (0.2, 0.25, 0.0, 0.0)),
    ):
        augment = opened(config(DataLoader__Train__dataset__batch_transform_ops=operators)).recipe.augment
        assert (augment.mixup, augment.mixup_prob, augment.cutmix, augment.cutmix_prob) == expected
    project = opened(config(DataLoader__Train__dataset__batch_transform_ops=[{"FmixOperator": {"alpha": 1}}]))
    assert unsupported(project) == ["DataLoader.Train.dataset.batch_transform_ops.0.FmixOperator"]


def test_pillow_is_taken_for_pillow(opened: Any) -> None:
    seen = [DECODE, {"ResizeImage": {"resize_short": 256, **PILLOW}}, *SEEN[2:]]
    project = opened(
        config(
            DataLoader__Eval__dataset__transform_ops=seen,
            DataLoader__Train__dataset__transform_ops=[
                {"DecodeImage": {"to_rgb": True, "backend": "pil"}}, {"RandCropImage": {"size": 224, **PILLOW}},
                FLIP, RANDAUGMENT, NORMALIZE,
            ],
        )
    )  # fmt: skip
    assert (project.preset.backend, project.preset.interpolation) == ("pillow", "bicubic")
    assert (project.recipe.augment.backend, project.recipe.augment.policy_interpolation) == ("pillow", "")
    assert "DataLoader.Train.dataset.transform_ops.0.DecodeImage.backend" in {each.key for each in project.findings}


OLD = """
mode: 'train'
ARCHITECTURE:
    name: "ResNet50_vd"
    params: {drop_rate: 0.2}
pretrained_model: "./pretrained/ResNet50_vd_pretrained"
load_static_weights: true
model_save_dir: "./runs/"
classes_num: 102
total_images: 1020
save_interval: 1
validate: True
epochs: 20
topk: 5
image_shape: [3, 224, 224]
use_mix: True
ls_epsilon: 0.1
LEARNING_RATE:
    function: 'CosineWarmup'
    params: {lr: 0.1, warmup_epoch: 2}
OPTIMIZER:
    function: 'Momentum'
    params: {momentum: 0.8}
    regularizer: {function: 'L2', factor: 0.00007}
TRAIN:
    batch_size: 64
    num_workers: 4
    file_list: "./flowers/train_list.txt"
    data_dir: "./flowers/"
    shuffle_seed: 3
    transforms:
        - DecodeImage: {to_rgb: True, channel_first: False}
        - RandCropImage: {size: 224}
        - NormalizeImage: {scale: 1./255., mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], order: ''}
        - ToCHWImage:
    mix:
        - MixupOperator: {alpha: 0.2}
VALID:
    batch_size: 20
    file_list: "./flowers/val_list.txt"
    data_dir: "./flowers/"
    transforms:
        - DecodeImage: {to_rgb: True, channel_first: False}
        - ResizeImage: {resize_short: 256}
        - CropImage: {size: 224}
        - NormalizeImage: {scale: 1.0/255.0, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], order: ''}
        - ToCHWImage:
"""


def test_the_form_of_paddleclas_2_0(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(OLD, encoding="utf-8")
    project = open_project(path, devices=4)
    assert not unsupported(project)
    assert project.network is not None
    assert (project.network.arch, project.network.classes, project.network.dropout) == ("ResNet50_vd", 102, 0.2)
    assert project.weights == Path("pretrained/ResNet50_vd_pretrained.pdparams")
    assert project.output == Path("runs/ResNet50_vd")
    recipe = project.recipe
    assert recipe is not None
    assert (recipe.epochs, recipe.batch_size, recipe.devices) == (20, 16, 4), "its batch is that of all devices"
    assert (recipe.optimizer.lr, recipe.optimizer.momentum, recipe.optimizer.weight_decay) == (0.1, 0.8, 7e-5)
    assert (recipe.schedule.name, recipe.schedule.warmup_epochs) == ("cosine", 2)
    assert (recipe.loss.label_smoothing, recipe.augment.mixup, recipe.augment.flip) == (0.1, 0.2, 0.0)
    assert project.train is not None
    assert (project.train.path, project.train.root) == (Path("flowers/train_list.txt"), Path("flowers"))
    assert project.preset is not None
    assert (project.preset.resize_short, project.preset.size) == (256, (224, 224))
    said = {each.key for each in project.findings}
    assert said >= {"total_images", "load_static_weights", "DataLoader.Train.loader.shuffle_seed"}


def test_what_is_not_known_of_the_form_of_2_0_is_named(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(OLD + "use_se: True\n", encoding="utf-8")
    changes = ["LEARNING_RATE.function=Piecewise", "LEARNING_RATE.params={'lr': 0.1, 'decay_epochs': [5, 10]}"]
    project = open_project(path, [*changes, "TRAIN.fancy=1", "OPTIMIZER.params.nesterov=1"])
    assert unsupported(project) == ["DataLoader.Train.fancy", "Optimizer.nesterov", "use_se"]
    assert project.recipe is not None
    assert project.recipe.schedule.milestones == (5, 10)
    assert project.recipe.schedule.values == pytest.approx((0.1, 0.01, 0.001))
