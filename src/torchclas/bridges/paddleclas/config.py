"""A configuration file of PaddleClas, with what `-o Key.Sub=value` changes in it."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from torchclas.bridges.paddleclas.account import ConfigError
from torchclas.bridges.paddleclas.old_form import in_new_form, is_old
from torchclas.yaml_text import Yaml, read_yaml

_MOST_ITEMS = 10_000  # that an override may add to a list


def read_config(path: Path, overrides: Sequence[str] = (), devices: int = 1) -> dict[str, Yaml]:
    """The tables of a configuration, its values as they are written.

    An override changes the value of a key, or adds it; numbers count the items of lists
    (`DataLoader.Train.dataset.transform_ops.1.RandCropImage.size=192`). One of PaddleClas 2.0 is brought into the
    form of 2.3 after that, for so many devices.

    Raises:
        DataError: the file cannot be read, or is no YAML that is read (see `torchclas.yaml_text`).
        ConfigError: it is no configuration of PaddleClas 2.x, or an override leads nowhere.
        MissingDependencyError: PyYAML is not installed.
    """
    config = read_yaml(path)
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: no configuration of PaddleClas: it has no tables such as Global and Arch")
    if "search_dict" in config or "base_config_file" in config:
        raise ConfigError(
            f"{path}: a search over configurations, which is not done here: give the configuration that it searches "
            "from (base_config_file)"
        )
    if "PreProcess" in config or "inference_model_dir" in str(config.get("Global", "")):
        raise ConfigError(
            f"{path}: of PaddleClas's deployment, not of its training: it is read where it lies beside an inference "
            "model (-m FOLDER of the model)"
        )
    old = is_old(config)
    if not isinstance(config.get("ARCHITECTURE" if old else "Arch"), dict):
        raise ConfigError(f"{path}: no configuration of PaddleClas: it has no table Arch that names the network")
    # Aliases share what they stand for; each place gets its own.
    config = cast("dict[str, Yaml]", _copied(config))
    for change in overrides:
        _override(path, config, change)
    return in_new_form(config, devices) if old else config


def _copied(value: Yaml) -> Yaml:
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value


def _override(path: Path, config: dict[str, Yaml], change: str) -> None:
    key, equals, written = change.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise ConfigError(f"{change!r} is no setting of PaddleClas: write Key.Sub=value, such as Arch.class_num=10")
    place: Yaml = config
    for depth, part in enumerate(parts):
        if isinstance(place, str):
            raise ConfigError(f"{path}: {'.'.join(parts[:depth])} is no table: {part} cannot be set in it")
        if isinstance(place, list) and (not part.isdecimal() or int(part) >= len(place)):
            where = ".".join(parts[:depth])
            raise ConfigError(f"{path}: {where} is a list of {len(place)}: {part} is none of its items, from 0")
        if depth == len(parts) - 1:
            _set(place, part, _value(written))
        else:
            place = _get(place, part)


def _get(place: list[Yaml] | dict[str, Yaml], part: str) -> Yaml:
    """What stands at a place; a table begins where there is nothing."""
    if isinstance(place, list):
        return place[int(part)]
    if place.get(part, "") == "":
        place[part] = {}
    return place[part]


def _set(place: list[Yaml] | dict[str, Yaml], part: str, value: Yaml) -> None:
    if isinstance(place, list):
        place[int(part)] = value
    else:
        place[part] = value


def _value(written: str) -> Yaml:
    """The value in the form that a file has: text for scalars."""
    try:
        return _plain(ast.literal_eval(written.strip()))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return written.strip()


def _plain(value: object) -> Yaml:
    if isinstance(value, (list, tuple)):
        items = cast("list[object] | tuple[object, ...]", value)
        if len(items) > _MOST_ITEMS:
            raise ConfigError(f"a setting of {len(items):,} items is more than any configuration has")
        return [_plain(item) for item in items]
    if isinstance(value, dict):
        table = cast("dict[object, object]", value)
        return {str(key): _plain(item) for key, item in table.items()}
    return "" if value is None else str(value)
