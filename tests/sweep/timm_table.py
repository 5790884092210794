"""Compare every network with timm's and torchvision's: `python -m tests.sweep.timm_table [PATTERN …]`.

Both get the same random weights and the same images; their logits are compared in float64 and in float32. Prints a
line for each row of `correspondence.toml` and exits 1 if any differs. With `--write FILE` the tables in a page of the
docs are made anew; with `--results FILE` a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import sys
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from torchclas import models
from torchclas.correspondence import LIBRARIES, Counterpart, Library, counterparts, shown_arguments
from torchclas.data.preprocess import Preprocess
from torchclas.exporting.gate import pictures
from torchclas.exporting.timm import pretrained_config
from torchclas.layers.network import Network
from torchclas.spec import find_model
from torchclas.weights import libraries
from torchclas.weights.naming import OWN, Naming, derived_names
from torchclas.weights.renames import published_names

CLASSES = 10
ALLOWED = {torch.float64: 1e-9, torch.float32: 1e-4}
LEVELS = 1e-3  # of 255, by which equal preprocessing may differ in the mean: rounding of float32
# Nothing bounds the residuals of LeViT: on weights of chance they grow until attention takes one place or another by
# the last bit of a number. Its norms multiply by less.
STEADY = {"levit": 0.2}
MARK = re.compile(r"(<!-- rows of (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Outcome:
    """Differences of logits, relative to the largest one, and of prepared images, in levels of 255."""

    library: Library
    arch: str
    name: str
    only: str
    float64: float
    float32: float
    levels: float

    @property
    def equal(self) -> bool:
        return self.float64 <= ALLOWED[torch.float64] and self.float32 <= ALLOWED[torch.float32]

    def row(self) -> str:
        way = {"": "⇄", "load": "→", "write": "←"}[self.only]
        prepared = "=" if self.levels < LEVELS else f"{self.levels:.1f}"
        return f"| {self.arch} | {way} | {self.name} | {self.float64:.0e} | {self.float32:.0e} | {prepared} |\n"


def built(counterpart: Counterpart, classes: int = CLASSES) -> nn.Module:
    """The library's network with fresh weights."""
    arguments: dict[str, Any] = {"num_classes": classes, **counterpart.arguments}
    if counterpart.library == "torchvision":
        import torchvision

        return torchvision.models.get_model(counterpart.name, **arguments).eval()
    import timm

    return timm.create_model(counterpart.name, **arguments).eval()


@torch.no_grad()
def randomise(network: nn.Module, gain: float = 1.0) -> None:
    """Weights that leave values of about the same size from layer to layer, and norms that multiply by about `gain`."""
    generator = torch.Generator().manual_seed(0)
    tables = {name for name, module in network.named_modules() if hasattr(module, "tables")}
    for name, tensor in network.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        if not tensor.is_floating_point() or (owner in tables and leaf == "mask"):
            continue
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32).to(tensor)
        if leaf == "running_var":
            tensor.copy_(noise.abs() + 0.5)
        elif tensor.ndim >= 2:
            tensor.copy_(noise * (1.6 / tensor[0].numel()) ** 0.5)
        else:
            tensor.copy_(0.1 * noise + gain * (leaf == "weight"))


def check(library: Library, arch: str) -> Outcome:
    counterpart = counterparts(library)[arch]
    network = models.build(arch, num_classes=CLASSES).double().eval()
    theirs = built(counterpart)
    if counterpart.only == "load":
        randomise(theirs.double())
        network.load_state_dict(loaded(network, library, theirs.state_dict()), strict=False)
    else:
        randomise(network, STEADY.get(models.family(arch), 1.0))
        written = libraries.theirs(network, library, theirs.state_dict())
        theirs.load_state_dict(written, assign=True)  # the same memory: the largest networks take 7 GB
        theirs.double()
    preset = find_model(arch).preset
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, *preset.size, generator=generator, dtype=torch.float64)
    if not counterpart.only:  # and back; a bias that a norm takes off again may have moved into its mean
        back = models.build(arch, num_classes=CLASSES).eval()
        back.load_state_dict(loaded(network, library, theirs.state_dict()), strict=False, assign=True)
        back.double()
        assert difference(network, back, images) < ALLOWED[torch.float64]
        del back
    double, single = (difference(network.to(dtype), theirs.to(dtype), images.to(dtype)) for dtype in ALLOWED)
    return Outcome(library, arch, called(counterpart), counterpart.only, double, single, levels(arch))


def loaded(network: Network, library: Library, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a file of the library's tensors makes of ours; all of both must be used."""
    layout = libraries.layout_of(library, network.arch)
    names = published_names(network.state_dict(), models.renames(network.arch)[layout], paddle=False)
    found = Naming(layout, names, libraries.ours(network, names, tensors))
    state = {
        name: found.tensors[names[name].name] for name in network.state_dict() if names[name].name in found.tensors
    }
    missing = {name for name in network.state_dict() if not name.endswith("num_batches_tracked")} - state.keys()
    unused = found.tensors.keys() - {names[name].name for name in state} - derived_names(network, found)
    assert layout != OWN
    assert not missing, sorted(missing)[:3]
    assert not unused, sorted(unused)[:3]
    return state


@torch.no_grad()
def difference(network: nn.Module, theirs: nn.Module, images: Tensor) -> float:
    want, got = network(images), theirs(images)
    return float((got - want).abs().max() / want.abs().max())


def called(counterpart: Counterpart) -> str:
    """What is typed there."""
    arguments = shown_arguments(counterpart)
    return f"`{counterpart.name}`" if not arguments else f"`{counterpart.name}, {arguments}`"


def levels(arch: str) -> float:
    """By how much images differ that timm prepares as the exported configuration says, of 255 in the mean."""
    from timm.data.config import resolve_data_config
    from timm.data.transforms_factory import create_transform

    preset = find_model(arch).preset
    transform: Any = create_transform(**resolve_data_config(pretrained_cfg=pretrained_config(preset, 3)))
    std = np.array(preset.std, np.float32)[:, None, None]
    differences = [
        np.abs(Preprocess(preset).array(picture) - transform(Image.fromarray(picture)).numpy()) * std * 255
        for picture in pictures()
    ]
    return float(np.mean([each.mean() for each in differences]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("patterns", nargs="*", help="architectures, as globs; all by default")
    parser.add_argument("--write", type=Path, action="append", default=[], help="Markdown page whose tables to write")
    parser.add_argument("--results", type=Path, help="file that keeps what was done, for a run that goes on later")
    arguments = parser.parse_args()
    patterns: list[str] = arguments.patterns or ["*"]
    outcomes = _read(arguments.results)
    chosen: list[tuple[Library, str]] = [
        (library, arch)
        for library in LIBRARIES
        for arch in counterparts(library)
        if any(fnmatch(arch, pattern) for pattern in patterns)
    ]
    failed = 0
    for library, arch in chosen:
        try:
            outcome = outcomes.get((library, arch)) or check(library, arch)
            equal, shown = outcome.equal, f"{outcome.float64:.1e} {outcome.float32:.1e}"
            if equal and (library, arch) not in outcomes and arguments.results:
                with arguments.results.open("a") as file:
                    file.write(json.dumps(asdict(outcome)) + "\n")
            outcomes[library, arch] = outcome
        except Exception as error:
            equal, shown = False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        failed += not equal
        print(f"{'equal ' if equal else 'DIFFER'} {library:12} {arch:45} {shown}", flush=True)
        gc.collect()
    print(f"{len(chosen) - failed} passed, {failed} failed")
    if failed or not chosen:
        return 1
    for page in arguments.write:

        def rows(match: re.Match[str]) -> str:
            made = "".join(outcomes[key].row() for key in chosen if key[0] == match[2])
            return f"{match[1]}{made}{match[3]}"

        page.write_text(MARK.sub(rows, page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def _read(path: Path | None) -> dict[tuple[Library, str], Outcome]:
    if path is None or not path.is_file():
        return {}
    outcomes = (Outcome(**json.loads(line)) for line in path.read_text().splitlines())
    return {(outcome.library, outcome.arch): outcome for outcome in outcomes}


if __name__ == "__main__":
    sys.exit(main())
