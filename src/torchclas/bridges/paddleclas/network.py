"""`Arch`: the network, and the weights that it begins with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torchclas import catalog
from torchclas.bridges.paddleclas.account import ConfigError, Section
from torchclas.tables import sequence, text
from torchclas.weights.location import BEST
from torchclas.yaml_values import anything, count, number, truth

PARAMS = ".pdparams"
_BEST = "best_model"  # what PaddleClas calls the best weights of a run


@dataclass(frozen=True)
class NetworkSettings:
    """One network: `model` is what to call it here, with the published weights that it begins with.

    `weights` is the file of others, `pretrained` whether there are published ones or a file. None leaves `classes`,
    `dropout` and `drop_path` as they are.
    """

    arch: str
    model: str
    classes: int | None = None
    pretrained: bool = False
    weights: Path | None = None
    dropout: float | None = None
    drop_path: float | None = None


def network_settings(name: str, arch: Section, devices: int, classes: int | None) -> NetworkSettings | None:
    """What a table with this `name` of a network says; None where that is no network of ours.

    `classes` is their number where the table does not say it.
    """
    known = {entry.arch.lower(): entry.arch for entry in catalog.entries()}
    found = known.get(name.lower())
    if found is None:
        arch.account.refuse(
            arch.path("name"), f"the network {name} is not here: `torchclas list` prints all", arch.stages
        )
        arch.rest()
        return None
    classes = arch.take("class_num", count, classes)
    dropouts = [arch.take(key, number, None) for key in ("drop_rate", "dropout_prob")]
    ssld = arch.take("use_ssld", truth, False)
    pretrained, weights, model = _pretrained(arch, found, ssld=ssld)
    settings = NetworkSettings(
        arch=found,
        model=model,
        classes=classes,
        pretrained=pretrained,
        weights=weights,
        dropout=next((value for value in dropouts if value is not None), None),
        drop_path=arch.take("drop_path_rate", number, None),
    )
    for key in ("use_fused_attn", "use_fused_linear"):
        arch.drop(key, "kernels are chosen by PyTorch")
    if arch.take("use_sync_bn", truth, False):
        note = arch.account.refuse if devices > 1 else arch.account.note
        why = "each device has batch statistics of its own" if devices > 1 else "one device has all images of a batch"
        note(arch.path("use_sync_bn"), why, ("train",))
    arch.drop("data_format", "how tensors lie in memory is PyTorch's")
    if set(_flat(arch.take("lr_mult_list", anything, ["1"]))) - {"1"}:
        arch.account.refuse(arch.path("lr_mult_list"), "all layers learn at one rate", ("train",))
    for key in ("stride_list", "override_params", "use_last_conv", "return_patterns", "return_stages"):
        arch.refuse(key, f"it makes another network than the published {found}")
    arch.close()
    return settings


def _pretrained(arch: Section, name: str, *, ssld: bool) -> tuple[bool, Path | None, str]:
    """Whether the network begins with weights, their file where they are not the published ones, and their name."""
    written = arch.take("pretrained", text, "False")
    if written.lower() == "false":
        return False, None, name
    if written.lower() != "true":
        if "://" in written:
            arch.account.refuse(arch.path("pretrained"), "fetch the file and name it here", arch.stages)
            return True, None, name
        return True, weights_path(written), name
    if not ssld:
        return True, None, name
    if f"{name}_ssld" not in {entry.name for entry in catalog.entries()}:
        arch.account.refuse(arch.path("use_ssld"), f"no SSLD weights of {name} were published", arch.stages)
        return True, None, name
    return True, None, f"{name}_ssld"


def weights_path(written: str) -> Path:
    """The file that PaddleClas means by a path, which it writes without the suffix.

    Where a run of ours has taken the place of PaddleClas's (`output/ResNet50/best_model`), it is the folder of that.
    """
    path = Path(written)
    if not path.name or "\0" in written:
        raise ConfigError(f"{written!a} is no name of a file of weights")
    if path.suffix == PARAMS or path.exists():
        return path
    file = path.with_name(f"{path.name}{PARAMS}")
    ours = path.name == _BEST and not file.is_file() and (path.parent / BEST).is_file()
    return path.parent if ours else file


def _flat(value: object) -> list[str]:
    """Numbers of a list as they would be written without zeros behind the point."""
    items = sequence(value) if isinstance(value, (list, tuple)) else [value]
    return [f"{number(item):g}" for item in items]
