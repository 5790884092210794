"""Models on the Hugging Face Hub, which is a server of the tests' own."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants

import torchclas
from tests.hub_server import TOKEN, Hub, as_the_hub, hub_server
from tests.servers import picture, write_model
from torchclas import models
from torchclas.cli import run
from torchclas.errors import CheckpointError, DownloadError, Error
from torchclas.spec import find_model
from torchclas.tasks import weights as pushing
from torchclas.weights import hub as the_hub
from torchclas.weights.hub import Address, address_of
from torchclas.weights.renames import published_names

CLASSES = ("cat", "dog", "eel")


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_model(tmp_path_factory.mktemp("mine") / "pets.safetensors").read_bytes()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Hub, None, None]:
    with hub_server() as server, as_the_hub(server, tmp_path / "hub", monkeypatch):
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hub"


# Addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf://me/pets", Address("me/pets")),
        ("hf://me/pets@v1.0", Address("me/pets", "v1.0")),
        ("hf://timm/resnet50d.ra2_in1k", Address("timm/resnet50d.ra2_in1k")),
        ("hf://me/pets@refs/pr/7", Address("me/pets", "refs/pr/7")),
        ("hf://me/pets@refs/pr/7/a/b.pth", Address("me/pets", "refs/pr/7", "a/b.pth")),
        ("hf://me/pets@my%2Fbranch/b.pth", Address("me/pets", "my/branch", "b.pth")),
        ("hf://me/pets/a/b.pth", Address("me/pets", "main", "a/b.pth")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert address_of(text) == address
    assert address_of(Path(text)) == address  # an option that takes files
    assert str(address) == text


@pytest.mark.parametrize("name", [None, "ResNet50_vd", "runs/mine", Path("runs/mine"), "hf/mine.pth", "./hf:mine"])
def test_no_addresses(name: str | Path | None) -> None:
    assert address_of(name) is None


@pytest.mark.parametrize(
    "name",
    ["hf://pets", "hf://", "hf:///pets", "hf://me/pets@", "hf://me/pets/../x", "hf://me/pets@v 1", "hf://me//pets/",
     "hf://-me/pets"],
)  # fmt: skip
def test_what_begins_as_an_address(name: str) -> None:
    with pytest.raises(CheckpointError, match="is called hf://OWNER/NAME, with @REVISION"):
        find_model(name)


@pytest.mark.parametrize("name", ["hf-hub:me/pets", "hf_hub:me/pets", "https://huggingface.co/me/pets"])
def test_addresses_of_others(name: str) -> None:
    with pytest.raises(CheckpointError, match="is called hf://me/pets here"):
        find_model(name)


def test_a_name_that_may_be_one() -> None:
    with pytest.raises(CheckpointError, match="no such file; a model of the Hugging Face Hub is called hf://you/pets"):
        find_model("you/pets")


# Fetching


def test_a_model_by_its_address(hub: Hub, pets: bytes) -> None:
    commit = hub.add("me/pets", {"model.safetensors": pets, "README.md": b"Pets", "notes.txt": b"..."})
    spec = find_model("hf://me/pets")
    assert (spec.arch, spec.classes.names(), spec.file_name) == ("PPLCNet_x0_25", CLASSES, "pets")
    assert str(spec.address) == f"hf://me/pets@{commit}/model.safetensors"
    assert spec.path is not None
    assert spec.path.read_bytes() == pets
    assert not hub.asked("README") + hub.asked("notes")  # what is not needed stays there
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    want = torchclas.create_model(spec.path).eval()(images)
    torch.testing.assert_close(torchclas.create_model("hf://me/pets").eval()(images), want)
    by_weights = torchclas.create_model("PPLCNet_x0_25", weights=Path("hf://me/pets"))
    torch.testing.assert_close(by_weights.eval()(images), want)
    assert torchclas.preprocess_for("hf://me/pets").preset == spec.preset


def test_a_file_is_fetched_once(hub: Hub, pets: bytes) -> None:
    hub.add("me/pets", {"model.safetensors": pets, "config.json": b"{}"})
    address = find_model("hf://me/pets").address
    assert len(hub.asked("/storage/")) == 1
    hub.requests.clear()
    find_model("hf://me/pets")
    assert not hub.asked("/storage/")
    hub.requests.clear()
    assert find_model(str(address)).address == address
    assert not hub.requests  # a commit does not change


def test_revisions(hub: Hub, pets: bytes, tmp_path: Path) -> None:
    first = hub.add("me/pets", {"model.safetensors": pets})
    hub.repositories["me/pets"].refs |= {"v1": first, "of/anna": first, "refs/pr/1": first}
    other = write_model(tmp_path / "other.safetensors", ("ant", "bee")).read_bytes()
    second = hub.add("me/pets", {"model.safetensors": other})
    for revision, commit, classes in (
        ("", second, ("ant", "bee")),
        ("@v1", first, CLASSES),
        (f"@{first}", first, CLASSES),
        ("@of%2Fanna", first, CLASSES),
        ("@refs/pr/1", first, CLASSES),
    ):
        spec = find_model(f"hf://me/pets{revision}")
        assert spec.address is not None
        assert (spec.address.revision, spec.classes.names()) == (commit, classes)


def test_files_of_a_repository(hub: Hub, pets: bytes, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other.safetensors", ("ant", "bee")).read_bytes()
    hub.add("me/one", {"pets-v3.safetensors": pets, "events.log": b"..."})
    assert find_model("hf://me/one").file_name == "pets-v3"
    hub.add("me/run", {"best.safetensors": pets, "last.safetensors": other})
    assert find_model("hf://me/run").num_classes == 3
    hub.add("me/both", {"a.safetensors": pets, "more/b.safetensors": other, "c.safetensors": other})
    with pytest.raises(CheckpointError, match=r"say which weights: hf://me/both/a.safetensors \(a.safetensors, c.sa"):
        find_model("hf://me/both")
    assert find_model("hf://me/both/more/b.safetensors").num_classes == 2
    hub.add("me/none", {"README.md": b"soon"})
    with pytest.raises(CheckpointError, match=r"holds no weights that are read here \(README.md\)"):
        find_model("hf://me/none")
    with pytest.raises(DownloadError, match=r"hf://me/one/x.pth: the repository has no file x.pth"):
        find_model("hf://me/one/x.pth")


def test_what_belongs_to_weights_comes_with_them(hub: Hub, tmp_path: Path) -> None:
    """timm has its classes in `config.json`, beside weights under its own names."""
    network = torchclas.create_model("PPLCNet_x0_35", num_classes=3).state_dict()
    names = published_names(network, models.renames("PPLCNet_x0_35")["timm"], paddle=False)
    weights = tmp_path / "pytorch_model.bin"
    torch.save({names[name].name: tensor for name, tensor in network.items()}, weights)
    config: dict[str, object] = {
        "architecture": "lcnet_035",
        "model_args": {"head_bias": False},
        "label_names": CLASSES,
    }
    files = {"config.json": json.dumps(config).encode(), "pytorch_model.bin": weights.read_bytes()}
    hub.add("timm/lcnet_035.mine", files)
    spec = find_model("hf://timm/lcnet_035.mine")
    assert (spec.arch, spec.classes.names(), spec.file_name) == ("PPLCNet_x0_35", CLASSES, "lcnet_035.mine")
    assert spec.metadata().origin["hub"] == str(spec.address)


def test_no_pickle_is_executed(hub: Hub, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"weight": Attack()}, tmp_path / "model.bin")
    hub.add("me/bad", {"pytorch_model.bin": (tmp_path / "model.bin").read_bytes()})
    hub.add("me/worse", {"x.pdparams": pickle.dumps({"weight": Attack()})})
    for name in ("hf://me/bad", "hf://me/worse"):
        with pytest.raises(CheckpointError):
            find_model(name)
    assert not (tmp_path / "executed").exists()


# What goes wrong


def test_what_is_not_there(hub: Hub, pets: bytes) -> None:
    hub.add("me/pets", {"model.safetensors": pets})
    with pytest.raises(
        DownloadError, match=rf"^hf://me/cats: there is no such model at {hub.url}, or it is private and no"
    ):
        find_model("hf://me/cats")
    with pytest.raises(DownloadError, match=r"^hf://me/pets@v9: the repository has no revision v9: name a branch"):
        find_model("hf://me/pets@v9")
    with pytest.raises(DownloadError, match="me/pe--ts"):
        find_model("hf://me/pe--ts")


def test_tokens(hub: Hub, pets: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("me/private", {"model.safetensors": pets}, private=True)
    hub.add("me/gated", {"model.safetensors": pets}, gated=True)
    with pytest.raises(
        DownloadError, match=r"it is private and no token is here that would open it: .*`hf auth login`"
    ):
        find_model("hf://me/private")
    with pytest.raises(DownloadError, match=rf"its owner decides who may have it: ask at {hub.url}/me/gated"):
        find_model("hf://me/gated")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(DownloadError, match=r"does not accept the token \(Invalid credentials.*`hf auth login`"):
        find_model("hf://me/private")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert find_model("hf://me/private").num_classes == 3
    with pytest.raises(DownloadError, match="the token of this machine does not open it"):
        find_model("hf://me/cats")


def test_offline(hub: Hub, pets: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "hf://me/pets"
    hub.add("me/pets", {"model.safetensors": pets})
    for switch in ("TORCHCLAS_OFFLINE", "HF_HUB_OFFLINE"):
        with monkeypatch.context() as patch:
            patch.setattr(constants, "HF_HUB_OFFLINE", switch == "HF_HUB_OFFLINE")
            patch.setenv("TORCHCLAS_OFFLINE", str(int(switch == "TORCHCLAS_OFFLINE")))
            with pytest.raises(DownloadError, match=f"is not in the cache of huggingface_hub, and {switch} is set"):
                find_model(address)
    assert not hub.requests
    spec = find_model(address)
    hub.requests.clear()
    monkeypatch.setenv("TORCHCLAS_OFFLINE", "1")
    assert find_model(address).address == spec.address
    with pytest.raises(DownloadError, match=r"hf://me/pets/x.pth is not in the cache"):
        find_model(f"{address}/x.pth")
    assert not hub.requests


def test_without_network_what_is_here_is_taken(hub: Hub, pets: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.add("me/pets", {"model.safetensors": pets})
    find_model("hf://me/pets")
    hub.refused = 503
    with pytest.warns(
        UserWarning, match=rf"answers 503 .*what was fetched of it before is taken, commit {commit[:12]}"
    ):
        assert find_model("hf://me/pets").num_classes == 3
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    with pytest.warns(UserWarning, match=r"http://127.0.0.1:9 cannot be reached \(.*refused.*\): check the connection"):
        find_model("hf://me/pets")
    with pytest.raises(DownloadError, match=r"^hf://me/cats: http://127.0.0.1:9 cannot be reached"):
        find_model("hf://me/cats")


def test_what_is_no_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.refused = 200
    with pytest.raises(DownloadError, match="does not answer as a Hugging Face Hub does: is HF_ENDPOINT right"):
        find_model("hf://me/pets")
    hub.refused = 418
    with pytest.raises(DownloadError, match="answers 418"):
        find_model("hf://me/pets")


def test_hashes_are_compared(hub: Hub, pets: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("me/pets", {"model.safetensors": pets})
    hub.tampered = lambda content: content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(DownloadError, match=r"model.safetensors is not what .* says that it is: its hash differs"):
        find_model("hf://me/pets")
    hub.tampered = lambda content: content
    spec = find_model("hf://me/pets")  # what was wrong is fetched again
    assert spec.path is not None
    assert spec.path.read_bytes() == pets
    with spec.path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(bytes([pets[-1] ^ 1]))
    find_model("hf://me/pets")
    assert spec.path.read_bytes() == pets
    with spec.path.open("ab") as file:
        file.write(b"more")
    monkeypatch.setenv("TORCHCLAS_OFFLINE", "1")
    with pytest.raises(DownloadError, match="damaged since it was fetched: delete it, and fetch it again"):
        find_model("hf://me/pets")


def test_a_repository_that_changes_meanwhile(hub: Hub, pets: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("me/pets", {"model.safetensors": pets})
    listing = the_hub._listing

    def slow(address: Address) -> Any:
        found = listing(address)
        hub.add("me/pets", {"README.md": b"new"})
        return found

    with monkeypatch.context() as patch:
        patch.setattr(the_hub, "_listing", slow)
        with pytest.raises(DownloadError, match="changed while it was being fetched: run the same again"):
            find_model("hf://me/pets")
    find_model("hf://me/pets")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(Error, match=r"pip install 'torchclas\[hub\]'"):
        find_model("hf://me/pets")


# Pushing


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def test_a_pushed_model_is_one_of_timm_and_one_of_ours(
    hub: Hub, token: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import timm

    network = torchclas.create_model("PPLCNet_x0_35", num_classes=3)
    mine = torchclas.save_checkpoint(
        network,
        tmp_path / "pets.safetensors",
        class_names=CLASSES,
        origin={"from": "/home/anna/x.pth", "val_top1": 0.9},
    )
    assert run(["weights", "push", str(mine), "me/pets"]) == 0
    files = hub.repositories["me/pets"].files()
    assert files.keys() == {".gitattributes", "README.md", "config.json", "model.safetensors"}
    commit = hub.repositories["me/pets"].refs["main"]
    said = capsys.readouterr()
    assert said.out == f"{hub.url}/me/pets/commit/{commit}\n"
    assert f"hf://me/pets@{commit} (" in said.err
    assert "timm's logits differ by " in said.err
    create: Any = timm.create_model
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    want = network.eval()(images)
    theirs = create("hf-hub:me/pets", pretrained=True).eval()
    torch.testing.assert_close(theirs(images), want)
    torch.testing.assert_close(torchclas.create_model("hf://me/pets").eval()(images), want)
    spec = find_model("hf://me/pets")
    assert (spec.classes.names(), spec.preset) == (CLASSES, find_model(mine).preset)
    card = files["README.md"].decode()
    assert card.startswith(
        "---\nlibrary_name: timm\npipeline_tag: image-classification\ntags:\n- image-classification\n"
    )
    assert 'timm.create_model("hf-hub:me/pets", pretrained=True)' in card
    assert "torchclas predict photos/ -m hf://me/pets\n" in card
    assert "of 255 levels in the mean" in card
    assert f"SHA-256 {hashlib.sha256(files['model.safetensors']).hexdigest()}" in card
    assert b"anna" not in b"".join(files.values())  # folders of the machine stay there
    assert spec.path is not None
    assert run(["weights", "push", str(spec.path), "me/pets"]) == 0  # nothing has changed but the page
    assert "README.md was there already, and stays as it is" in capsys.readouterr().err


def test_networks_that_timm_lacks(hub: Hub, pets: bytes, token: None, tmp_path: Path) -> None:
    (tmp_path / "pets.safetensors").write_bytes(pets)  # PPLCNet_x0_25
    first = pushing.push(tmp_path / "pets.safetensors", "hf://me/tiny")
    assert first.error is None
    assert hub.repositories["me/tiny"].files().keys() == {".gitattributes", "README.md", "model.safetensors"}
    assert hub.repositories["me/tiny"].messages[-1].startswith("pets, pushed by torchclas ")
    spec = find_model(first.address)
    assert (spec.arch, spec.classes.names(), spec.file_name) == ("PPLCNet_x0_25", CLASSES, "tiny")
    hub.repositories["me/tiny"].commit({"README.md": b"My own words"})
    again = pushing.push("hf://me/tiny", "me/tiny", message="again")
    assert again.card_kept
    assert hub.repositories["me/tiny"].files()["README.md"] == b"My own words"
    again = pushing.push("hf://me/tiny", "me/tiny", message="again", new_card=True)
    card = hub.repositories["me/tiny"].files()["README.md"].decode()
    assert "library_name: torchclas\n" in card
    assert "torchclas predict photos/ -m hf://me/tiny\n" in card
    assert "timm" not in card


def test_what_cannot_be_pushed(hub: Hub, pets: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "pets.safetensors"
    mine.write_bytes(pets)
    with pytest.raises(Error, match="me/pets: pushing takes a token that may write: log in with `hf auth login`"):
        pushing.push(mine, "me/pets")
    with pytest.raises(Error, match="pets: a repository of the Hugging Face Hub is called OWNER/NAME"):
        pushing.push(mine, "pets")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(DownloadError, match=r"does not accept the token \(Invalid credentials"):
        pushing.push(mine, "me/pets")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(
        DownloadError, match=r"^hf://others/pets: the token may not do this \(.*rights to create a model"
    ):
        pushing.push(mine, "others/pets")
    hub.add("me/public", {"README.md": b"..."})
    with pytest.raises(Error, match=rf"me/public exists, and is public: change that at {hub.url}/me/public/settings"):
        pushing.push(mine, "me/public", private=True)
    assert hub.repositories["me/public"].files().keys() == {"README.md"}
    pushing.push(mine, "me/secret", private=True)
    assert hub.repositories["me/secret"].private
    with monkeypatch.context() as patch:
        patch.setenv("TORCHCLAS_OFFLINE", "1")
        with pytest.raises(Error, match="nothing can be pushed while TORCHCLAS_OFFLINE is set"):
            pushing.push(mine, "me/pets")
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_DISABLE_XET", False)
        with pytest.raises(DownloadError, match=r"does not take files by Xet \(.*\): set HF_HUB_DISABLE_XET=1"):
            pushing.push(mine, "me/pets")
        assert hub.repositories.pop("me/pets").files().keys() == {".gitattributes"}
        patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(DownloadError, match=r"http://127.0.0.1:9 cannot be reached"):
            pushing.push(mine, "me/pets")
    assert "me/pets" not in hub.repositories


# Wherever a model is named


def test_a_copy_of_a_classifier_has_the_same_weights(hub: Hub, pets: bytes, tmp_path: Path) -> None:
    hub.add("me/pets", {"model.safetensors": pets})
    classifier = torchclas.Classifier("hf://me/pets", engine="torch", workers=0)
    hub.add("me/pets", {"model.safetensors": write_model(tmp_path / "x.safetensors", ("ant", "bee")).read_bytes()})
    again = pickle.loads(pickle.dumps(classifier))
    want, got = next(iter(classifier.predict(picture(1)))), next(iter(again.predict(picture(1))))
    assert got.labels == want.labels
    np.testing.assert_allclose(got.scores, want.scores)


def test_a_service_stays_with_a_commit(hub: Hub, pets: bytes, tmp_path: Path) -> None:
    from torchclas.serving.options import ServeOptions
    from torchclas.serving.sources import pinned, sources

    commit = hub.add("me/pets", {"model.safetensors": pets})
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(pets)
    options = pinned(ServeOptions(("hf://me/pets", "cats=hf://me/pets", str(mine))))
    address = f"hf://me/pets@{commit}/model.safetensors"
    assert options.models == (f"pets={address}", f"cats={address}", str(mine))
    assert [source.name for source in sources(options)] == ["pets", "cats", "mine"]
    assert sources(options)[0].snapshot() == (address, ())
    assert pinned(ServeOptions()).models == ()


def test_training_says_where_it_began(hub: Hub, pets: bytes, tmp_path: Path) -> None:
    from PIL import Image

    from torchclas.training.options import TrainOptions
    from torchclas.training.train_plan import make_plan

    commit = hub.add("me/pets", {"model.safetensors": pets})
    for name in ("ant", "bee"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for place in range(10):
            Image.new("RGB", (8, 8), (place, 0, 0)).save(tmp_path / "data" / name / f"{place}.png")
    address = f"hf://me/pets@{commit}/model.safetensors"
    for options in (
        TrainOptions(data=tmp_path / "data", model="hf://me/pets"),
        TrainOptions(data=tmp_path / "data", model="PPLCNet_x0_25", start="hf://me/pets"),
    ):
        plan = make_plan(options)
        assert (plan.identity["model"], plan.identity["from"]) == (address, address)
        assert plan.metadata.origin["from"] == address
        assert "hub" not in plan.metadata.origin


def test_commands(hub: Hub, pets: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    hub.add("me/pets", {"model.safetensors": pets})
    assert run(["weights", "inspect", "hf://me/pets"]) == 0
    assert "PPLCNet_x0_25" in capsys.readouterr().out
    assert run(["export", "hf://me/cats", "--to", "onnx"]) == 2
    assert capsys.readouterr().err.startswith("torchclas: hf://me/cats: there is no such model at ")


def test_a_process_of_its_own(hub: Hub, pets: bytes, tmp_path: Path) -> None:
    """With huggingface_hub's settings from the environment; nothing else is asked of the Hub, and nothing reported."""
    hub.add("me/pets", {"model.safetensors": pets})
    (tmp_path / "x.jpg").write_bytes(picture(1))
    environment = {
        **{name: value for name, value in os.environ.items() if name != "TORCHCLAS_OFFLINE"},
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "OMP_NUM_THREADS": "1",
    }

    command = ["predict", str(tmp_path / "x.jpg"), "-m", "hf://me/pets", "--engine", "torch", "--format", "jsonl"]
    done = subprocess.run(
        [sys.executable, "-m", "torchclas", *command], env=environment, capture_output=True, text=True
    )
    assert json.loads(done.stdout)["status"] == "ok", done.stderr
    asked, *files = hub.requests
    assert asked == "GET /api/models/me/pets/revision/main"
    assert {file.rpartition("/")[0] for file in files} == {"HEAD /me/pets/resolve/main", "GET /storage"}
