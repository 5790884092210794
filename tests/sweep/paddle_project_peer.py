"""What PaddlePaddle and PaddleClas do in a project of PaddleClas; runs in an environment that has them (`make peers`).

    python paddle_project_peer.py tune CONFIG.yaml       train for some steps, write output/ARCH/best_model.pdparams
    python paddle_project_peer.py measure CONFIG.yaml WEIGHTS RESULT.npz
    python paddle_project_peer.py prepare CONFIG.yaml RESULT.npz

`measure` evaluates weights on DataLoader.Eval: prepared images and logits in the order of the list. `prepare` has the
images alone. The operators are those of PaddleClas's wheel, the network is its own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np  # before paddle 2.6, which crashes otherwise
import paddle  # pyright: ignore[reportMissingImports] - in an environment of its own
import yaml
from paddleclas.deploy.python.preprocess import create_operators  # pyright: ignore[reportMissingImports]
from paddleclas.ppcls.arch import backbone  # pyright: ignore[reportMissingImports]

STEPS = 60


def images_of(config: Any, part: str) -> tuple[np.ndarray, np.ndarray]:
    """The images of a list, prepared as `DataLoader.Eval` has it, and their labels."""
    operators = create_operators(config["DataLoader"]["Eval"]["dataset"]["transform_ops"])
    dataset = config["DataLoader"][part]["dataset"]
    prepared, labels = [], []
    for line in Path(dataset["cls_label_path"]).read_text(encoding="utf-8").splitlines():
        name, label = line.split(" ")
        value: Any = (Path(dataset["image_root"]) / name).read_bytes()
        for operator in operators:
            value = operator(value)
        prepared.append(value.transpose(2, 0, 1))
        labels.append(int(label))
    return np.stack(prepared).astype(np.float32), np.array(labels)


def network_of(config: Any) -> Any:
    arch = config["Arch"]
    return getattr(backbone, arch["name"])(pretrained=False, class_num=arch["class_num"])


def tune(config: Any) -> None:
    paddle.seed(0)
    network = network_of(config)
    images, labels = map(paddle.to_tensor, images_of(config, "Train"))
    optimizer = paddle.optimizer.Momentum(0.05, parameters=network.parameters())
    network.train()
    for _ in range(STEPS):
        loss = paddle.nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
    prefix = str(Path(config["Global"]["output_dir"], config["Arch"]["name"], "best_model"))
    paddle.save(network.state_dict(), f"{prefix}.pdparams")
    paddle.save([optimizer.state_dict()], f"{prefix}.pdopt")


def measure(config: Any, weights: str, result: str) -> None:
    network = network_of(config)
    missing, unexpected = network.set_state_dict(paddle.load(weights))
    if missing or unexpected:
        raise SystemExit(f"{weights} does not fit: missing {missing}, unexpected {unexpected}")
    network.eval()
    images, labels = images_of(config, "Eval")
    with paddle.no_grad():
        logits = network(paddle.to_tensor(images)).numpy()
    np.savez(result, images=images, labels=labels, logits=logits)


if __name__ == "__main__":
    what, file, *more = sys.argv[1:]
    settings = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    if what == "tune":
        tune(settings)
    elif what == "measure":
        measure(settings, *more)
    else:
        np.savez(more[0], images=images_of(settings, "Eval")[0])
