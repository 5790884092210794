"""`migrate`: projects of PaddleClas."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from torchclas.cli.app import app, stdout


@app.command
def migrate(
    config: Annotated[Path, Parameter(help="A configuration of PaddleClas 2.3 to 2.6 (YAML).")],
    /,
    *,
    override: Annotated[
        tuple[str, ...],
        Parameter(
            name=("--override", "-o"),
            negative="",
            show_default=False,
            help="Change a key of it, as there: -o Arch.class_num=10; may be repeated.",
        ),
    ] = (),
    devices: Annotated[
        PositiveInt, Parameter(help="GPUs that PaddleClas was started on; its own configurations are for 4.")
    ] = 1,
    recipe: Annotated[Path | None, Parameter(help="Write the recipe to this .toml file.")] = None,
    json: Annotated[bool, Parameter(name="--json", negative="", help="All of it, as JSON.")] = False,
) -> int:
    """Say what a configuration of PaddleClas means here: commands, recipe, data, and each key without a counterpart.

    The exit code is 1 where something in it is not supported.
    """
    from torchclas.tasks import migrate as task

    found = task.migrate(config, override, devices=devices, recipe=recipe)
    if json:
        from json import dumps

        print(dumps(found.to_dict(), ensure_ascii=False, indent=2))
    else:
        task.print_migration(found, stdout())
    return 0 if found.complete else 1
