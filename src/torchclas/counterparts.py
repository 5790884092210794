"""Words of timm, torchvision and PaddleClas that people try here, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torchclas.errors import UnknownArgumentError

_FEATURES = (
    "every network has it: `model.features(images)` returns maps at several scales, `model.feature_info` lists them; "
    "`torchclas.create_backbone(name, out_indices=…)` has nothing else"
)
_SIZE = "call `model.set_input_size(size)`; most networks take images of any size"
_RECIPE = "it belongs to a recipe: `torchclas train --set {}=…`, or set it in the network's modules"
_OUTPUTS = (
    "num_classes=0 returns pooled vectors, `model.forward_features(images)` the map before pooling; the pooling itself "
    "is the architecture's"
)
_ENGINE = "networks run as they are; `torchclas.exporting` writes them for other runtimes"
_PREPARED = "`torchclas.preprocess_for(model)` is the preprocessing that belongs to the weights"
_CACHE = "set the variable TORCHCLAS_CACHE; `torchclas.model_info(name)` says what is published"
_SSLD = 'they are models of their own: `list_models("*_ssld*")` names them'

_ARGUMENTS: dict[str, dict[str, str]] = {
    "create_model": {
        "features_only": _FEATURES,
        "out_indices": _FEATURES,
        "output_stride": "strides are the architecture's: `model.feature_info` lists them",
        "in_chans": "in_channels=…",
        "in_chs": "in_channels=…",
        "class_num": "num_classes=…",
        "n_classes": "num_classes=…",
        "classes": "num_classes=…",
        "checkpoint_path": "weights=FILE",
        "checkpoint": "weights=FILE",
        "ckpt_path": "weights=FILE",
        "pretrained_path": "weights=FILE",
        "pretrained_cfg": "weights=FILE for weights of your own",
        "pretrained_cfg_overlay": "weights=FILE for weights of your own",
        "state_dict": "`model.load_state_dict(…)`, or weights=FILE",
        "drop_rate": _RECIPE.format("dropout"),
        "dropout": _RECIPE.format("dropout"),
        "drop_path_rate": _RECIPE.format("drop_path"),
        "stochastic_depth_prob": _RECIPE.format("drop_path"),
        "global_pool": _OUTPUTS,
        "img_size": _SIZE,
        "image_size": _SIZE,
        "input_size": _SIZE,
        "scriptable": _ENGINE,
        "exportable": _ENGINE,
        "jit": _ENGINE,
        "cache_dir": _CACHE,
        "progress": "nothing: a bar is shown on terminals",
        "device": "`model.to(device)`",
        "use_ssld": _SSLD,
    },
    "create_backbone": {
        "features_only": "nothing: a backbone returns maps and nothing else",
        "output_stride": "strides are the architecture's: `backbone.strides` lists them",
        "in_chans": "in_channels=…",
        "in_chs": "in_channels=…",
        "return_layers": "out_indices=…",
        "returned_layers": "out_indices=…",
        "return_nodes": "out_indices=…",
        "out_features": "out_indices=…",
        "checkpoint_path": "weights=FILE",
        "num_classes": "a backbone has no classes: `torchclas.create_model(name, num_classes=…)` makes a classifier",
        "img_size": _SIZE.replace("model", "backbone"),
        "image_size": _SIZE.replace("model", "backbone"),
        "input_size": _SIZE.replace("model", "backbone"),
        "drop_path_rate": _RECIPE.format("drop_path"),
        "trainable_layers": "freeze what should stay: `module.requires_grad_(False)`",
        "trainable_backbone_layers": "freeze what should stay: `module.requires_grad_(False)`",
    },
    "list_models": {
        "filter": "the pattern comes first: `list_models('ResNet*')`",
        "name_filter": "the pattern comes first: `list_models('ResNet*')`",
        "include": "the pattern comes first: `list_models('ResNet*')`",
        "module": "series=…: `torchclas list` shows them",
        "exclude_filters": "names are plain strings: leave out those you do not want",
        "exclude": "names are plain strings: leave out those you do not want",
    },
    "train": {
        "weights": "start=FILE",
        "pretrained": "start='pretrained', or start='scratch'",
        "lr": "overrides=['optimizer.lr=0.001']",
        "learning_rate": "overrides=['optimizer.lr=0.001']",
        "input_size": "overrides=['input_size=320']",
        "image_size": "overrides=['input_size=320']",
        "set": "overrides=[…]",
        "batch": "batch_size=…",
        "num_workers": "workers=…",
        "output_dir": "output=…",
        "save_dir": "output=…",
        "project": "output=…",
        "resume": "nothing: the same call again goes on where the run was stopped",
        "num_classes": "nothing: the data say how many there are",
        "in_chans": "in_channels=…",
    },
    "Classifier": {
        "model": "the model comes first: `Classifier('ResNet50_vd')`",
        "model_name": "the model comes first: `Classifier('ResNet50_vd')`",
        "name": "the model comes first: `Classifier('ResNet50_vd')`",
        "checkpoint": "weights=FILE",
        "checkpoint_path": "weights=FILE",
        "topk": "top_k=…",
        "use_gpu": "device='cuda' or device='cpu'",
        "class_names": "labels=…, names or a file of them",
        "class_id_map_file": "labels=FILE",
        "num_classes": "nothing: the weights say how many there are",
        "batch": "batch_size=…",
        "num_workers": "workers=…",
        "num_threads": "threads=…",
        "cpu_num_threads": "threads=…",
        "language": "lang='en' or lang='zh'",
        "transform": _PREPARED,
    },
}

_ATTRIBUTES = {
    "get_model": "create_model",
    "create_feature_extractor": "create_backbone",
    "list_pretrained": "list_models(pretrained=True)",
    "is_model": "list_models",
    "create_transform": "preprocess_for",
    "resolve_data_config": "preprocess_for",
    "resolve_model_data_config": "preprocess_for",
    "load_checkpoint": "load_weights",
    "load_model": "create_model",
    "save_model": "save_checkpoint",
    "PaddleClas": "Classifier",
    "Predictor": "Classifier",
    "fit": "train",
    "Trainer": "train",
    "validate": "evaluate",
    "export_model": "export",
    "get_model_weights": "model_info",
}


def refuse(function: str, arguments: Mapping[str, object], known: Iterable[str] = ()) -> None:
    """Raise `UnknownArgumentError` for the first argument, if there is one, with the word that is used here."""
    for name in arguments:
        raise UnknownArgumentError(function, name, _ARGUMENTS.get(function, {}).get(name), known)


def attribute(name: str) -> str:
    """What to say after `module 'torchclas' has no attribute …`."""
    return f"; here it is torchclas.{_ATTRIBUTES[name]}" if name in _ATTRIBUTES else ""
