"""What the catalog says: `list`, `info`, `recipe`; and `demo`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from torchclas.cli.app import Percent, app, stderr, stdout
from torchclas.completion import NAMES, SERIES
from torchclas.vocabulary import Order


def _amount(kind: type, tokens: Sequence[Any]) -> float:
    from torchclas.tasks.listing import amount

    return amount(tokens[0].value)


Amount = Annotated[float | None, Parameter(converter=_amount)]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Everything the catalog says, as JSON.")]


@app.command(name="list")
def list_models(
    pattern: Annotated[str | None, NAMES, Parameter(help="A glob such as '*_ssld', or a part of the name.")] = None,
    /,
    *,
    series: Annotated[str | None, SERIES, Parameter(help="Only this series.")] = None,
    max_params: Annotated[Amount, Parameter(help="At most so many parameters, such as 5M.")] = None,
    max_flops: Annotated[Amount, Parameter(help="At most so many multiply-adds, such as 1G.")] = None,
    min_top1: Annotated[float | None, Percent, Parameter(help="At least this top-1 accuracy in percent.")] = None,
    sort: Annotated[Order, Parameter(help="Best first: top1 falls, the others rise.")] = "catalog",
    limit: Annotated[PositiveInt | None, Parameter(help="Show only the first so many.")] = None,
    json: Json = False,
) -> None:
    """List published models: series, accuracy, size, cost, and whether their weights are on this machine."""
    from torchclas.tasks import listing

    entries = listing.select(
        pattern,
        series=series,
        max_params=max_params,
        max_flops=max_flops,
        min_top1=min_top1,
        order=sort,
        limit=limit,
    )
    if json:
        print(listing.rows(entries))
    else:
        listing.print_list(entries, stdout(), stderr(), order=sort)


@app.command
def info(
    name: Annotated[str, NAMES, Parameter(help="A published name or an architecture, in any case.")],
    /,
    *,
    compute: Annotated[bool, Parameter(negative="", help="Count parameters and multiply-adds; takes seconds.")] = False,
    json: Json = False,
) -> None:
    """Show what is known about a model: paper, published figures, preprocessing, weights, recipe."""
    from torchclas import catalog
    from torchclas.tasks import listing

    entry = catalog.find(name)
    computed: dict[str, int] = {}
    if compute:
        from torchclas.complexity import complexity

        cost = complexity(entry.arch, num_classes=entry.num_classes, size=entry.preset.size)
        computed = {"parameters": cost.params, "multiply_adds": cost.macs}
    if json:
        from json import dumps

        values = listing.to_dict(entry) | ({"computed": computed} if computed else {})
        print(dumps(values, ensure_ascii=False, indent=2))
    else:
        lines = [("computed", f"{count:,} {what.replace('_', '-')}") for what, count in computed.items()]
        listing.print_info(entry, stdout(), computed=lines)


@app.command(name="recipe")
def show_recipe(
    name: Annotated[str, NAMES, Parameter(help="A model or an architecture, ssld, ssld_finetune, fixres or finetune.")],
    /,
    *,
    set: Annotated[  # noqa: A002 - the option's name
        tuple[str, ...],
        Parameter(negative="", show_default=False, help="Change a setting: --set optimizer.lr=0.05; may be repeated."),
    ] = (),
) -> None:
    """Print the recipe that a model is trained by, as TOML: optimizer, schedule, augmentation, source."""
    from torchclas.tasks.recipe import recipe_file

    print(recipe_file(name, set), end="")


@app.command
def demo(
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"), help="Folder for what it makes.")] = Path("demo"),
) -> None:
    """Show what torchclas does, on images and weights that come with it."""
    from torchclas.tasks import demo as task

    task.demo(output)
