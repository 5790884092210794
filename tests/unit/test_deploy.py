"""What is deployed is what the command takes and the service answers; the images themselves are not built here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers import running, write_model
from torchclas.cli import app
from torchclas.serving.options import ServeOptions

DEPLOY = Path(__file__).parents[2] / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
(CONTAINER,) = MANIFESTS[0]["spec"]["template"]["spec"]["containers"]
ENTRYPOINT: list[str] = json.loads(re.findall(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE)[0])


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["kind"])
def test_manifests_are_valid(manifest: dict[str, Any]) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="schemas of Kubernetes come with the group `dev`")
    validate.validate(manifest, "1.31", strict=True)


def test_the_command_takes_what_the_container_says() -> None:
    assert ENTRYPOINT[0] == "torchclas"
    _, bound, _ = app.parse_args([*ENTRYPOINT[1:], *CONTAINER["args"]], exit_on_error=False, print_error=False)
    assert bound.arguments["host"] == "0.0.0.0"
    assert bound.args == ("EfficientNet_lite0",)


def test_extras_exist() -> None:
    from importlib.metadata import metadata

    (extras,) = re.findall(r"'\.\[(.*)\]'", DOCKERFILE)
    assert set(extras.split(",")) <= set(metadata("torchclas").get_all("Provides-Extra") or [])


def test_nobody_is_root() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("FROM ") :]
    uid = int(re.findall(r"^USER (\d+)$", last, re.MULTILINE)[0])
    context = MANIFESTS[0]["spec"]["template"]["spec"]["securityContext"]
    assert uid == context["runAsUser"] > 0
    assert f"--uid {uid} " in last
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"]


def test_probes_need_no_token(tmp_path: Path) -> None:
    (token := tmp_path / "token").write_text("a-very-secret-word")
    model = write_model(tmp_path / "pets.safetensors")
    with running(ServeOptions((str(model),), port=0, engine="torch", threads=1, token_file=token)) as service:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert service.client.get(CONTAINER[probe]["httpGet"]["path"]).status_code == 200, probe
        program: str
        _, option, program = json.loads(re.findall(r"HEALTHCHECK .*\n +CMD (.*)", DOCKERFILE)[0])
        command = [sys.executable, option, program.replace("http://127.0.0.1:8000", service.url)]
        assert command[2] != program
        subprocess.run(command, check=True, timeout=20)
    assert subprocess.run(command, check=False, timeout=20, stderr=subprocess.DEVNULL).returncode == 1
