"""What was likely meant: options as other tools spell them, values of another unit, words in the wrong place."""

from __future__ import annotations

from pathlib import Path

import pytest

from torchclas.cli import app, run, spellings
from torchclas.recipes import override, recipe


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("train d --lr 0.1", "did you mean --set optimizer.lr=0.01?"),
        ("train d --weight_decay 0.1", "did you mean --set optimizer.weight_decay=0.05?"),
        ("distill d --imgsz 64", "did you mean --size?"),
        ("export --to onnx --imgsz 64", "did you mean --size?"),
        ("train d --batchsize 8", "did you mean --batch-size?"),
        ("benchmark --batch-size 8", "did you mean --batch?"),
        ("train d --resume", "the same command again goes on with its run"),
        ("train d --cfg config.yaml", "a configuration of PaddleClas is followed by train"),
        ("quantize -c config.yaml", "a configuration of PaddleClas is followed by train"),
        ("train d --override Arch.class_num=3", "--config FILE does"),
        ("evaluate d --override Arch.class_num=3", "--config FILE names one"),
        ("train -c config.yaml -o Arch.class_num=3", "what it is in PaddleClas is --override Arch.class_num=3"),
        ("train", "which images? Name a folder"),
        ("evaluate", "which images? Name class folders"),
        ("train d --num_classes 5", "follows from the data"),
        ("train d --output_dir x", "did you mean --output?"),
        ("train d --modle x", "did you mean --model?"),
        ("train d --frobnicate x", "see `torchclas train --help`"),
        ("predict x.jpg --topk 3", "did you mean --top-k?"),
        ("predict x.jpg --inference_model_dir d", "did you mean --model?"),
        ("predict x.jpg --class_id_map_file f", "did you mean --labels?"),
        ("export --to onnx --save_inference_dir d", "did you mean --output?"),
        ("predict x.jpg --conf 0.5", "did you mean --threshold?"),
        ("predict --source x.jpg", "the images stand without an option: `torchclas predict PATH`"),
        ("evaluate d --checkpoint x", "did you mean --model?"),
        ("weights fetch x --al", "did you mean --all?"),
        ("train d epochs=3", "did you mean --epochs 3?"),
        ("train d lr0=0.1", "did you mean --set optimizer.lr=0.01?"),
        ("train data.yaml", "name the folder of its images"),
        ("train config.yaml", "a configuration of PaddleClas is named by --config"),
        ("evaluate coco.yml", "name the folder of its images"),
        ("train d --set optimizer.lr 0.1", "--set optimizer.lr=0.1"),
        ("train d --set optimizer.lr", "--set optimizer.lr=VALUE"),
        ("train d -o Arch.name=ResNet50", "settings are changed by --set"),
        ("list --max-params 5MB", "5MB is a size in bytes"),
        ("list --max-flops fast", "such as 600k, 5M or 1.5G"),
        ("list --min-top1 0.8", "in percent: write 80"),
        ("recommend --min-top1 0.755", "in percent: write 75.5"),
        ("list --min-top1 800", "in percent: 0 to 100"),
        ("predict x.jpg --threshold 50", "from 0 to 1: write 0.5"),
        ("val d", "did you mean `torchclas evaluate`?"),
        ("trian d", "did you mean `torchclas train`?"),
        ("weights fetc x", "did you mean `torchclas weights fetch`?"),
        ("frobnicate", "the commands are"),
        ("info ResNet50 ResNet18", "nothing here takes 'ResNet18'"),
    ],
)
def test_the_likeliest_meaning(arguments: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments.split()) == 2
    [line] = capsys.readouterr().err.strip().split("\n")
    assert said in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict", ""], "there is an empty word"),
        (["predict", "x.jpg", "-o", ""], "after -o there is an empty word"),
        (["train", "d", "-m", "", "-o", "run"], "after -m there is an empty word"),
    ],
)
def test_an_empty_word_is_not_the_current_folder(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("arguments", ["list --min-top1 80 --limit 1", "list --max-params 5M --limit 1"])
def test_what_is_right_is_left_alone(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments.split()) == 0


def test_an_image_whose_name_has_an_equals_sign_is_an_image(tmp_path: Path) -> None:
    name = str(tmp_path / "lr=1.jpg")
    spellings.check(app, ["predict", name])
    spellings.check(app, ["predict", "unknown=1.jpg"])


def test_every_option_of_the_table_exists_somewhere() -> None:
    commands = [name for name in app if not name.startswith("-")]
    groups = [f"{group} {name}" for group in ("weights", "data") for name in app[group] if not name.startswith("-")]
    known = {option for command in [*commands, *groups] for option in spellings.options(app, command)}
    for meant in (meant for meanings in spellings.OPTIONS.values() for meant in meanings if meant.startswith("--")):
        assert meant.partition(" ")[0] in known, meant
        override(recipe("finetune"), [setting.strip("' ") for setting in meant.split("--set ")[1:]])
    for command in spellings.COMMANDS.values():
        assert command in [*commands, *groups]
