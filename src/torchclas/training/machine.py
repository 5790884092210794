"""What a run asks of this machine: devices, processes, and memory for its steps."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch

from torchclas import models
from torchclas.compat import BatchNorm
from torchclas.errors import Error
from torchclas.layers.network import Network
from torchclas.recipes import Recipe
from torchclas.spec import ModelSpec
from torchclas.training.memory import StepMemory, free_memory, step_memory
from torchclas.training.options import RunOptions
from torchclas.training.run import stored

LARGEST_SEED = 2**63 - 1  # of PyTorch's generators
LARGEST_PROCESSES = 1024


def check_machine(options: RunOptions) -> None:
    """Raise `Error` where the options ask for what this machine, or any, does not have."""
    for name, value, most in (
        ("seed", options.seed, LARGEST_SEED),
        ("workers", options.workers or 0, LARGEST_PROCESSES),
        ("devices", options.devices, LARGEST_PROCESSES),
    ):
        if value > most:
            raise Error(f"--{name} is {most} at most")
    kind, colon, index = options.device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (colon and not (kind == "cuda" and index.isdecimal())):
        hint = "did you mean cuda?" if kind == "gpu" else "there are auto, cpu, cuda, cuda:1 (the second GPU) …, mps"
        raise Error(f"--device {options.device} is not known: {hint}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise Error("--device mps: PyTorch finds no GPU of Apple's here: try --device cpu")
    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and not here:
        raise Error(f"--device {options.device}: PyTorch finds no CUDA GPU here: try --device cpu, or auto")
    if colon and options.devices > 1:
        raise Error(
            f"--device {options.device} is one GPU, and --devices asks for {options.devices}: use --device cuda"
        )
    wanted = int(index) + 1 if colon else processes(options.devices)[1]
    if wanted > here and (kind == "cuda" or (kind == "auto" and here)):
        raise Error(f"--device {options.device} --devices {options.devices}: this machine has {here} GPUs")


def parts_of_a_step(
    options: RunOptions, output: Path, spec: ModelSpec, classes: int, recipe: Recipe, total: int
) -> tuple[int, list[str]]:
    """How many parts a step of `total` images is computed in, and what to say about it.

    Those that were asked for, those that the run began with, or as few as the memory that is free allows for. Raises
    `Error` where the network cannot take images of the recipe's size, or so few of them.
    """
    with torch.device("meta"):
        network = models.build(spec.arch, num_classes=classes, in_channels=spec.in_channels)
    world, here = processes(options.devices)
    least = 2 if any(isinstance(module, BatchNorm) for module in network.modules()) else 1
    if total // world < least:
        why = "batch norm needs at least 2 images at once" if least == 2 else "each process needs an image"
        where = f" in each of {world} processes" if world > 1 and least == 2 else ""
        raise Error(f"{why}{where}, and a batch has {total}: use --batch-size {least * world} or more")
    step = _step_memory(network, recipe)
    if chosen := options.accumulate or stored(output).get("accumulate"):
        return chosen, []
    free = free_memory(options.device, here)
    if free is None:
        return 1, []
    if options.strategy == "fsdp":
        step = replace(step, fixed=step.fixed // world)
    images, fitting = -(-total // world), step.images(free)
    if images <= fitting:
        return 1, []
    parts = -(-images // max(1, fitting))
    doubt = "" if fitting else "; even so it may run out of memory"
    return parts, [
        f"{images} images at once would take about {step.of(images) / 2**30:.1f} GiB, and {free / 2**30:.1f} are free: "
        f"each step is computed in {parts} parts (--accumulate chooses otherwise){doubt}"
    ]


def processes(devices: int) -> tuple[int, int]:
    """How many train, and how many of them on this machine: `devices`, unless torchrun started them."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    return devices, devices


def _step_memory(network: Network, recipe: Recipe) -> StepMemory:
    try:
        network.set_input_size(recipe.size)
        return step_memory(network, recipe.size, recipe.precision)
    except ValueError as error:
        raise Error(f"input_size: {error}") from error
