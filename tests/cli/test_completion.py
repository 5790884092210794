"""What the scripts of shells ask for when the tab key is pressed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import cyclopts
import pytest

from torchclas.cli import app, run

pytestmark = pytest.mark.skipif(int(cyclopts.__version__.partition(".")[0]) < 5, reason="cyclopts 4 asks for nothing")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["predict", "-m", "PPLCNet_x0_7"], ["PPLCNet_x0_75"]),
        (["info", "AlexN"], ["AlexNet"]),
        (["train", "photos", "--model", "RedNet15"], ["RedNet152"]),
        (["distill", "photos", "--teacher", "RedNet15"], ["RedNet152"]),
        (["weights", "fetch", "AlexN"], ["AlexNet"]),
        (["list", "--series", "MobileNetV"], ["MobileNetV3", "MobileNetV2", "MobileNetV1"]),
        (["predict", "-m", "runs/b"], ["runs/best.onnx", "runs/big/"]),
    ],
)
def test_names_of_models_and_series_and_files(
    words: list[str],
    found: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "runs" / "big").mkdir(parents=True)
    (tmp_path / "runs" / "best.onnx").touch()
    monkeypatch.chdir(tmp_path)
    assert run(["__complete", *words]) == 0
    lines = [line.partition("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line and not line.startswith("\x1f")] == found


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_the_images_of_predict(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    asked = 'COMP_WORDS=(torchclas predict ph); COMP_CWORD=2; _torchclas; printf "%s" "${COMPREPLY[@]}"'
    script = f"{app.generate_completion(shell='bash')}\n{asked}"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "photo.jpg"
