"""The pages of reference name everything that there is, and what they quote is said."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import torchclas
from torchclas import messages, recipes
from torchclas.cli import EPILOGUE, app, run
from torchclas.messages import translate
from torchclas.vocabulary import Language
from torchclas.weights.metadata import Metadata

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports] - installed where Python has none

DOCS = Path(__file__).parents[2] / "docs"
BOTH = pytest.mark.parametrize("language", ["en", "zh"])


def page(name: str, language: str) -> str:
    return (DOCS / f"{name}{'.zh-CN' if language == 'zh' else ''}.md").read_text(encoding="utf-8")


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec
    assert spec.loader
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
    return found


@BOTH
def test_every_command_and_option_is_on_the_page(language: Language) -> None:
    text = module("commands_page").commands(language)
    names = [(), *((name,) for name in app.resolved_commands() if not name.startswith("-"))]
    for name in names[1:]:
        assert f" torchclas {' '.join(name)}\n" in text
    for option in ("--calibration PATH", "--card", "--epochs INT", "--tensors"):
        assert f"`{option}`" in text
    assert "default: `False`" not in text
    assert ("**参数**" in text) is (language == "zh")


def test_every_paragraph_of_help_has_its_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    said: set[str] = set()

    def record(text: str, language: Language) -> str:
        said.add(text)
        return text

    made = module("commands_page")
    monkeypatch.setattr(made, "help_text", record)
    made.commands("zh")
    known = tomllib.loads(Path(messages.__file__).with_name("zh.toml").read_text(encoding="utf-8"))["help"]
    # What only a terminal shows: of the whole application, and of its own options.
    others = {app.help, EPILOGUE, "PaddleClas", "Commands"}
    others |= {text for text in known if re.search("[Cc]ompletion|shell complete|^Display ", text)}
    assert said - {""} - others - set(known) == set()
    assert set(known) - said - others == set()


@pytest.mark.parametrize("language", ["zh", "en"])
def test_help_is_in_the_language_of_messages(language: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quantize", "--help", "--lang", language]) == 0
    text = capsys.readouterr().out
    assert ("把模型写成 8 位整数" in text, "任何命令都可以加" in text) == ((language == "zh",) * 2)
    assert ("Write a model in 8-bit integers" in text) is (language == "en")
    assert "--calibration" in text
    assert ("[必需]" in text, "[默认: 300]" in text) == ((language == "zh",) * 2)
    assert ("[required]" in text, "[default: 300]" in text) == ((language == "en",) * 2)


def public_names(text: str) -> set[str]:
    return {name.rpartition(".")[2] for name in re.findall(r"^\.\. auto\w+:: ([\w.]+)", text, re.MULTILINE)}


@BOTH
def test_every_public_name_is_on_the_page(language: Language) -> None:
    assert {*torchclas.__all__} - {"__version__"} <= public_names(page("api", language))


def keys(cls: type, prefix: str = "") -> Iterator[tuple[str, object]]:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(typing.cast("Any", cls)):
        options = (hints[field.name], *typing.get_args(hints[field.name]))
        nested = next((option for option in options if dataclasses.is_dataclass(option)), None)
        if nested is not None:
            yield from keys(typing.cast("type", nested), f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field.default


def shown(default: object) -> str:
    if default is dataclasses.MISSING:
        return ""
    return f"`{recipes._toml(default)}`" if default not in (None, "") else "–"


@BOTH
def test_every_key_of_a_recipe_has_its_default(language: Language) -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| (.*?) ?\| .*\|$", page("settings", language), re.MULTILINE)
    recipe = dict(keys(recipes.Recipe))
    assert {key: default.strip() for key, default in rows if key in recipe} == {
        key: shown(default) for key, default in recipe.items()
    }


@BOTH
def test_every_key_of_the_catalog_is_explained(language: Language) -> None:
    source = (DOCS.parent / "src" / "torchclas" / "catalog.py").read_text(encoding="utf-8")
    taken = set(re.findall(r'row\.take\("(\w+)"', source)) | {"resize_short", "size", "backend", "mean", "std", "fit"}
    assert taken <= set(re.findall(r"`(\w+)`", page("settings", language)))


@BOTH
def test_every_key_of_the_metadata_is_explained(language: Language) -> None:
    text = page("formats", language)
    assert {field.name for field in dataclasses.fields(Metadata)} <= set(re.findall(r"`(\w+)`", text))


def test_errors_are_quoted_as_they_are_said() -> None:
    english, chinese = (re.findall(r"```text\n(.*?)\n```", page("errors", language)) for language in ("en", "zh"))
    assert len(english) >= 20
    for message, words in zip(english, chinese, strict=True):
        assert translate(message, "zh") == words != message
