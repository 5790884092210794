"""Configurations as PaddleClas's users write them; JSON is YAML, too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NORMALIZE = {
    "NormalizeImage": {
        "scale": "1.0/255.0",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "order": "",
    }
}
DECODE = {"DecodeImage": {"to_rgb": True, "channel_first": False}}
SEEN = [DECODE, {"ResizeImage": {"resize_short": 256}}, {"CropImage": {"size": 224}}, NORMALIZE]
PILLOW = {"interpolation": "bicubic", "backend": "pil"}
RANDAUGMENT = {"TimmAutoAugment": {"config_str": "rand-m9-mstd0.5-inc1", "interpolation": "bicubic", "img_size": 224}}
ERASING = {
    "RandomErasing": {
        "EPSILON": 0.25,
        "sl": 0.02,
        "sh": "1.0/3.0",
        "r1": 0.3,
        "attempt": 10,
        "use_log_aspect": True,
        "mode": "pixel",
    }
}
FLIP = {"RandFlipImage": {"flip_code": 1}}
MIXES = [{"OpSampler": {"MixupOperator": {"alpha": 0.8, "prob": 0.5}, "CutmixOperator": {"alpha": 1.0, "prob": 0.5}}}]


def config(name: str = "ResNet50", **changes: Any) -> dict[str, Any]:
    """The configuration of a classifier by ResNet's classic recipe; changes are paths with __ for the dots."""
    images = {"name": "ImageNetDataset", "image_root": "./data/", "cls_label_path": "./data/train_list.txt"}
    seen = {**images, "cls_label_path": "./data/val_list.txt", "transform_ops": SEEN}
    loader = {"num_workers": 4, "use_shared_memory": True}
    found: dict[str, Any] = {
        "Global": {
            "checkpoints": None,
            "pretrained_model": None,
            "output_dir": "./output/",
            "device": "gpu",
            "save_interval": 1,
            "eval_during_train": True,
            "eval_interval": 1,
            "epochs": 120,
            "print_batch_step": 10,
            "use_visualdl": False,
            "image_shape": [3, 224, 224],
            "save_inference_dir": "./inference",
        },
        "Arch": {"name": name, "class_num": 1000},
        "Loss": {"Train": [{"CELoss": {"weight": 1.0}}], "Eval": [{"CELoss": {"weight": 1.0}}]},
        "Optimizer": {
            "name": "Momentum",
            "momentum": 0.9,
            "lr": {
                "name": "Piecewise",
                "learning_rate": 0.1,
                "decay_epochs": [30, 60, 90],
                "values": [0.1, 0.01, 0.001, 0.0001],
            },
            "regularizer": {"name": "L2", "coeff": 0.0001},
        },
        "DataLoader": {
            "Train": {
                "dataset": {**images, "transform_ops": [DECODE, {"RandCropImage": {"size": 224}}, FLIP, NORMALIZE]},
                "sampler": {
                    "name": "DistributedBatchSampler",
                    "batch_size": 64,
                    "drop_last": False,
                    "shuffle": True,
                },
                "loader": loader,
            },
            "Eval": {
                "dataset": seen,
                "sampler": {"name": "DistributedBatchSampler", "batch_size": 64, "drop_last": False, "shuffle": False},
                "loader": loader,
            },
        },
        "Infer": {
            "infer_imgs": "docs/demo.jpg",
            "batch_size": 10,
            "transforms": [*SEEN, {"ToCHWImage": None}],
            "PostProcess": {"name": "Topk", "topk": 5, "class_id_map_file": "ppcls/utils/imagenet1k_label_list.txt"},
        },
        "Metric": {"Train": [{"TopkAcc": {"topk": [1, 5]}}], "Eval": [{"TopkAcc": {"topk": [1, 5]}}]},
    }
    found = json.loads(json.dumps(found))
    for path, value in changes.items():
        *tables, last = path.split("__")
        place = found
        for table in tables:
            place = place.setdefault(table, {})
        if value is Ellipsis:
            del place[last]
        else:
            place[last] = value
    return found


def transformer(name: str, **changes: Any) -> dict[str, Any]:
    """The configuration of a vision transformer with AdamW and heavy augmentation."""
    settings: dict[str, Any] = {
        "Global__epochs": 300,
        "Loss__Train": [{"CELoss": {"weight": 1.0, "epsilon": 0.1}}],
        "Optimizer": {
            "name": "AdamW",
            "beta1": 0.9,
            "beta2": 0.999,
            "epsilon": "1e-8",
            "weight_decay": 0.05,
            "no_weight_decay_name": "absolute_pos_embed relative_position_bias_table .bias norm",
            "one_dim_param_no_weight_decay": True,
            "lr": {
                "name": "Cosine",
                "learning_rate": "5e-4",
                "eta_min": "1e-5",
                "warmup_epoch": 20,
                "warmup_start_lr": "1e-6",
            },
        },
        "DataLoader__Train__dataset__transform_ops": [
            DECODE, {"RandCropImage": {"size": 224, **PILLOW}}, FLIP, RANDAUGMENT, NORMALIZE, ERASING,
        ],
        "DataLoader__Train__dataset__batch_transform_ops": MIXES,
        "DataLoader__Train__sampler__batch_size": 128,
        "DataLoader__Eval__dataset__transform_ops": [
            DECODE, {"ResizeImage": {"resize_short": 256, **PILLOW}}, *SEEN[2:],
        ],
    }  # fmt: skip
    return config(name, **{**settings, **changes})


def write(path: Path, content: object) -> Path:
    """The file, with a configuration in it."""
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path
