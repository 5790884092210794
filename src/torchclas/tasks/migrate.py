"""The `migrate` command: what a configuration of PaddleClas means here."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchclas import catalog
from torchclas.atomic import atomic_path
from torchclas.bridges.paddleclas import Finding, Project, open_project
from torchclas.bridges.paddleclas.comparison import Difference, differences, recipe_here
from torchclas.errors import OutputError
from torchclas.messages import label
from torchclas.reporting.console import Console, Table, escape, verbatim
from torchclas.sizes import show_size

RECIPE = "recipe.toml"


@dataclass(frozen=True)
class Migration:
    """What was found: the project, the commands that follow it, and how its recipe differs from ours.

    `commands` follow the configuration, `without` trains without it (empty where there is nothing to train by).
    `compared` is the name of the recipe here for the same network.
    """

    project: Project
    commands: tuple[tuple[str, ...], ...]
    without: tuple[str, ...]
    preset_differs: bool
    compared: str
    differing: tuple[Difference, ...]

    @property
    def complete(self) -> bool:
        """Whether all of it can be followed."""
        return not any(each.effect == "unsupported" for each in self.project.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        project, recipe = self.project, self.project.recipe
        return {
            "config": str(project.path),
            "network": None if project.network is None else project.network.model,
            "complete": self.complete,
            "commands": [shlex.join(command) for command in self.commands],
            "without_config": shlex.join(self.without),
            "recipe": None if recipe is None else recipe.to_toml(),
            "preset": None if project.preset is None else project.preset.to_dict(),
            "compared_with": self.compared,
            "differences": [{"key": d.key, "config": d.theirs, "here": d.ours} for d in self.differing],
            "findings": [
                {"key": each.key, "effect": each.effect, "why": each.why, "commands": list(each.stages)}
                for each in project.findings
            ],
        }


def migrate(
    config: str | Path, overrides: Sequence[str] = (), *, devices: int = 1, recipe: str | Path | None = None
) -> Migration:
    """Read a configuration of PaddleClas, with what `-o Key.Sub=value` changes there, and say what it means here.

    `devices` are those that PaddleClas was started on. `recipe` is a `.toml` file that its recipe is written to.

    Raises:
        DataError, ConfigError: it is none, or a value is none that its key can have.
        OutputError: there is no recipe to write, or its file cannot be written.
    """
    config, target = Path(config), None if recipe is None else Path(recipe)
    project = open_project(config, overrides, devices=devices)
    found = project.recipe
    if target is not None:
        if found is None:
            raise OutputError(f"{config}: there is no recipe in it that could be written to {target}")
        if target.suffix != ".toml":
            raise OutputError(f"{target}: the name of a recipe's file must end in .toml")
        with atomic_path(target) as path:
            path.write_text(found.to_toml(), encoding="utf-8")
    here = None if found is None else recipe_here(found)
    usual = None if project.network is None else catalog.find(project.network.model).preset
    return Migration(
        project,
        commands=_commands(project, overrides, devices),
        without=_without(project, devices, str(target or RECIPE)),
        preset_differs=project.preset is not None and usual is not None and project.preset != usual,
        compared="" if here is None else here.name,
        differing=() if found is None or here is None else tuple(differences(found, here)),
    )


def _commands(project: Project, overrides: Sequence[str], devices: int) -> tuple[tuple[str, ...], ...]:
    """What follows the configuration, command by command."""
    if project.network is None:
        return ()
    same = ("--config", str(project.path), *(word for change in overrides for word in ("--override", change)))
    published = catalog.find(project.network.model).num_classes
    named = project.weights or (project.network.pretrained and project.network.classes in (None, published))
    run = () if named else (str(project.output),)
    weights = ("-m", *run) if run else ()
    several = ("--devices", str(devices)) if devices > 1 else ()
    verb = "distill" if project.distills else "train"
    commands: list[tuple[str, ...]] = []
    if project.recipe is not None:
        commands.append(("torchclas", verb, *same, *several))
    if project.evaluation is not None:
        commands.append(("torchclas", "evaluate", *same, *weights))
    commands.append(("torchclas", "predict", *(() if project.infer.images else ("IMAGE",)), *same, *weights))
    commands.append(("torchclas", "export", *run, "--to", "onnx", *same))
    return tuple(commands)


def _without(project: Project, devices: int, recipe: str) -> tuple[str, ...]:
    """The command that trains the same by a recipe's file, without the configuration."""
    network, images, found = project.network, project.train, project.recipe
    if network is None or images is None or found is None:
        return ()
    val = project.evaluation
    start = project.weights or network.weights or ("pretrained" if network.pretrained else "scratch")
    names = project.infer.labels
    words = ["torchclas", "distill" if project.distills else "train", str(images.path)]
    if val is not None:
        words += ["--val", str(val.path)]
    words += ["--root", str(images.root)]
    if images.delimiter != " ":
        words += ["--delimiter", r"\t" if images.delimiter == "\t" else images.delimiter]
    if images.relabel:
        words.append("--relabel")
    if names is not None:
        words += ["--labels", str(names)]
    words += ["-m", network.model, "--from", str(start), "--recipe", recipe, "--batch-size", str(found.total_batch)]
    if project.distills:
        words += ["--teacher-bn", "train"]
    if devices > 1:
        words += ["--devices", str(devices)]
    if project.accumulate > 1:
        words += ["--accumulate", str(project.accumulate)]
    return (*words, "-o", str(project.output))


def print_migration(migration: Migration, console: Console) -> None:
    """Say all of it."""
    project = migration.project
    if project.network is not None:
        _print_network(project, console)
        _heading("Commands", console)
        for command in migration.commands:
            console.print(f"  {verbatim(shlex.join(command))}", soft_wrap=True, highlight=False)
    if (recipe := project.recipe) is not None:
        _heading("The same without the configuration", console)
        console.print(f"  {verbatim(shlex.join(migration.without))}", soft_wrap=True, highlight=False)
        if migration.preset_differs:
            console.print("Images are then prepared for evaluation as the model has it, not as the configuration.")
        _heading("Recipe", console)
        console.print(_lines(recipe.to_toml()), soft_wrap=True, highlight=False, end="")
        if migration.compared and not migration.differing:
            console.print()
            console.print(f"This is the recipe {escape(migration.compared)} of `torchclas recipe`.")
        elif migration.compared:
            table = Table(title="What the recipe here has for the same network and batch")
            for column in ("setting", "configuration", "here"):
                table.add_column(column)
            for key, theirs, ours in migration.differing:
                table.add_row(verbatim(key), verbatim(str(theirs)), verbatim(str(ours)))
            console.print()
            console.print(table)
    _print_findings("Of no effect here", [each for each in project.findings if each.effect == "none"], console)
    left = [each for each in project.findings if each.effect == "unsupported"]
    _print_findings("Not supported", left, console)
    if not left:
        console.print()
        console.print("All of it is followed.")


def _heading(text: str, console: Console) -> None:
    console.print()
    console.print(f"[bold]{label(text)}[/]")


def _lines(text: str) -> str:
    """Lines as they are to be seen."""
    return "".join(f"  {verbatim(line)}\n" if line else "\n" for line in text.splitlines())


def _print_network(project: Project, console: Console) -> None:
    network = project.network
    assert network is not None
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    start = project.weights or network.weights or ("published weights" if network.pretrained else "random weights")
    rows: list[tuple[str, str]] = [("network", network.model), ("start", str(start))]
    if project.teacher is not None:
        rows.append(("teacher", str(project.teacher.weights or project.teacher.model)))
    if network.classes is not None:
        rows.append(("classes", str(network.classes)))
    for title, images in (("training", project.train), ("validation", project.evaluation)):
        if images is not None:
            rows.append((title, f"{images.path}, paths from {images.root}"))
    if (preset := project.preset) is not None:
        how = {
            "crop": f"short side to {preset.resize_short}, centre of {show_size(preset.size)} px",
            "squeeze": f"both sides to {show_size(preset.size)} px",
            "pad": f"into {show_size(preset.size)} px",
        }[preset.fit]
        rows += [("evaluation", how), ("resizing", f"{preset.interpolation} ({preset.backend})")]
    for title, value in rows:
        table.add_row(label(title), escape(value))
    console.print(table)


def _print_findings(title: str, findings: Sequence[Finding], console: Console) -> None:
    if not findings:
        return
    _heading(title, console)
    for each in findings:
        where = "" if len(each.stages) == 4 else f" ({', '.join(each.stages)})"
        console.print(f"  {verbatim(each.key)}: {escape(each.why)}{where}", soft_wrap=True, highlight=False)
