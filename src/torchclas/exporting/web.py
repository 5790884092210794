"""Networks as web sites: a folder of static files whose page runs the network on the device of whoever visits it.

The page is the part of the service's page that tries pictures. What answers it here is a worker in `site/`, which
decodes and prepares pictures as `torchclas.data` does and runs the network in ONNX Runtime. Before it answers anything
it computes the logits of a picture, and compares them with those that were written beside the network.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image

from torchclas.data.decode import MAX_PIXELS
from torchclas.data.preprocess import MAX_ASPECT, Preprocess
from torchclas.errors import Error
from torchclas.exporting.gate import clouds
from torchclas.exporting.onnx import write_onnx
from torchclas.exporting.web_runtime import BINARIES, CDN, PARTS, SCRIPTS, Part, Runtime, integrity
from torchclas.layers.network import Network
from torchclas.metrics.scores import DEFAULT_THRESHOLD
from torchclas.weights.metadata import Metadata

MODEL = "model.onnx"
_SITE, _LABELS, _CHECK = "site.json", "labels.json", "check.png"
_OWN_FOLDER = Path(__file__).parent / "site"
_SERVICE = Path(__file__).parents[1] / "serving" / "static"  # whose page this is, but for who answers
_PAGE, _WORKER = "index.html", "offline.js"  # the two that are made from templates
_OF_SERVICE = (
    "csv.js",
    "dom.js",
    "frame.js",
    "icon.svg",
    "pictures.js",
    "sheet.js",
    "style.css",
    "text.js",
    "try.js",
)
_OWN = ("app.js", "classify.js", "decode.js", "preprocess.js", "site.css", "words.js", "worker.js")

SITE_FILES = frozenset(
    (MODEL, _SITE, _LABELS, _CHECK, _PAGE, _WORKER, *_OF_SERVICE, *_OWN, *(part.name for part in PARTS))
)


def write_web(network: Network, path: str | Path, metadata: Metadata) -> None:
    """Write a network in evaluation mode as a folder that lacks nothing but `add_runtime`.

    Raises:
        DataError: the network takes other images than those of one or three channels.
        Error: it is larger than what a browser opens.
        MissingDependencyError: onnx or onnxscript is not installed.
    """
    path = Path(path)
    prepare = Preprocess(metadata.preset, channels=metadata.in_channels)
    path.mkdir(parents=True)
    write_onnx(network, path / MODEL, metadata)
    if (path / f"{MODEL}.data").exists():
        raise Error(f"{metadata.name or metadata.arch} has more than 2 GB, which browsers do not open")
    picture = clouds(seed=0, height=160, width=213)
    Image.fromarray(picture).save(path / _CHECK)
    with torch.no_grad():
        logits = network(torch.from_numpy(prepare.array(picture)[None]))[0]
    _write_json(path / _LABELS, _labels(metadata))
    model = (path / MODEL).read_bytes()
    facts = {
        "name": metadata.name or metadata.arch,
        "model": {"address": MODEL, "integrity": integrity(model), "bytes": len(model)},
        "preset": metadata.preset.to_dict(),
        "channels": metadata.in_channels,
        "activation": metadata.activation,
        "thresholds": list(metadata.thresholds or _default_thresholds(metadata)),
        "max_pixels": MAX_PIXELS,
        "max_aspect": MAX_ASPECT,
        # `predict` on this machine does so as well; published accuracies were measured before.
        "pillow_may_begin_with_columns": int(PIL.__version__.split(".")[0]) >= 13,
        "check": {"address": _CHECK, "logits": np.asarray(logits, np.float64).tolist()},
    }
    _write_json(path / _SITE, facts)
    for file in _static():
        (path / file.name).write_bytes(file.read_bytes())


def add_runtime(path: Path, runtime: Runtime) -> None:
    """Put what runs the network into a folder of `write_web`, or its address; and the pages, which know all of it."""
    for name, content in (runtime.files or {}).items():
        (path / name).write_bytes(content)
    facts = json.loads((path / _SITE).read_text(encoding="utf-8"))
    local = runtime.files is not None
    facts["runtime"] = {
        provider: {
            "script": _address(SCRIPTS[provider], local=local),
            "wasm": {**_address(BINARIES[provider], local=False), "address": _place(BINARIES[provider], local=local)},
        }
        for provider in SCRIPTS
    }
    _write_json(path / _SITE, facts)
    policy = _policy(local=local)
    page = _render(_PAGE, {"policy": policy, "name": facts["name"]})
    (path / _PAGE).write_text(page, encoding="utf-8")
    late = [MODEL, *(_place(part, local=local) for part in PARTS)]
    shell = sorted({"./", *(file.name for file in path.iterdir())} - {_PAGE, *late})
    values = {"version": _version(path), "policy": policy, "shell": json.dumps(shell), "rest": json.dumps(late)}
    (path / _WORKER).write_text(_render(_WORKER, values), encoding="utf-8")


def _static() -> list[Path]:
    return [*(_SERVICE / name for name in _OF_SERVICE), *(_OWN_FOLDER / name for name in _OWN)]


def _default_thresholds(metadata: Metadata) -> list[float]:
    return [DEFAULT_THRESHOLD] * metadata.num_classes if metadata.activation == "sigmoid" else []


def _labels(metadata: Metadata) -> list[dict[str, object]]:
    classes = metadata.classes("")
    named = {language: classes.names(language) for language in classes.languages}
    return [
        {"id": key, "names": {language: names[place] for language, names in named.items()}}
        for place, key in enumerate(classes.ids)
    ]


def _place(part: Part, *, local: bool) -> str:
    return part.name if local else part.cdn


def _address(part: Part, *, local: bool) -> dict[str, Any]:
    """Where a file is; what another host sends is compared with what it should be."""
    if local:
        return {"address": part.name}
    return {"address": part.cdn, "integrity": part.integrity, "bytes": part.size}


def _policy(*, local: bool) -> str:
    """What the page may load and do; a script of another host is run from memory, once it has been compared."""
    scripts, hosts = (("'self'",), ("'self'",)) if local else (("'self'", "blob:"), ("'self'", CDN))
    directives = (
        ("default-src", "'none'"),
        ("script-src", *scripts, "'wasm-unsafe-eval'"),
        ("connect-src", *hosts),
        ("style-src", "'self'"),
        ("img-src", "'self'", "blob:"),
        ("worker-src", "'self'"),
        ("base-uri", "'none'"),
        ("form-action", "'none'"),
    )
    return "; ".join(map(" ".join, directives))


def _version(path: Path) -> str:
    """What changes whenever any file does."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        digest.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def _render(name: str, values: Mapping[str, str]) -> str:
    import jinja2

    text = (_OWN_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    template = jinja2.Template(
        text, autoescape=name == _PAGE, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    return template.render(values)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
