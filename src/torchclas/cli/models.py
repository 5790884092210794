"""What the catalog says: `list`, `info`, `explore`, `recipe`; and `demo`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from torchclas.cli.app import Percent, app, stderr, stdout
from torchclas.completion import NAMES, SERIES
from torchclas.vocabulary import Order

_UNITS = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}


def _amount(kind: type, tokens: Sequence[Any]) -> float:
    """`600k`, `5M`, `1.5G` or a plain number; raises ValueError with what would be right."""
    text = tokens[0].value
    unit = _UNITS.get(text[-1:].lower())
    try:
        value = float(text if unit is None else text[:-1]) * (unit or 1)
    except ValueError:
        value = math.nan
    if 0 < value < math.inf:
        return value
    if re.fullmatch(r"[\d.]+\s*[kmgt]i?b(ytes)?", text.lower()):
        raise ValueError(f"{text} is a size in bytes, and this a number: 5M is five million, 20 MB in float32")
    raise ValueError("it is a number, such as 600k, 5M or 1.5G")


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
    from torchclas.reporting import catalog_rows
    from torchclas.tasks.list import select

    entries = select(
        pattern,
        series=series,
        max_params=max_params,
        max_flops=max_flops,
        min_top1=min_top1,
        order=sort,
        limit=limit,
    )
    if json:
        print(catalog_rows.rows(entries))
    else:
        catalog_rows.print_list(entries, stdout(), stderr(), order=sort)


@app.command
def info(
    name: Annotated[
        str,
        NAMES,
        Parameter(help="A published name or an architecture, in any case; for --card also a file or a run's folder."),
    ],
    /,
    *,
    card: Annotated[
        bool, Parameter(negative="", help="Print a model card in Markdown, for a repository of weights.")
    ] = False,
    compute: Annotated[bool, Parameter(negative="", help="Count parameters and multiply-adds; takes seconds.")] = False,
    json: Json = False,
) -> None:
    """Show what is known about a model: paper, published figures, preprocessing, weights, recipe."""
    from torchclas import catalog
    from torchclas.reporting import catalog_rows

    if card:
        from torchclas.reporting.model_card import model_card
        from torchclas.spec import find_model

        print(model_card(find_model(name)), end="")
        return
    entry = catalog.find(name)
    computed: dict[str, int] = {}
    if compute:
        from torchclas.complexity import complexity

        cost = complexity(entry.arch, num_classes=entry.num_classes, size=entry.preset.size)
        computed = {"parameters": cost.params, "multiply_adds": cost.macs}
    if json:
        from json import dumps

        values = catalog_rows.to_dict(entry) | ({"computed": computed} if computed else {})
        print(dumps(values, ensure_ascii=False, indent=2))
    else:
        lines = [("computed", f"{count:,} {what.replace('_', '-')}") for what, count in computed.items()]
        catalog_rows.print_info(entry, stdout(), computed=lines)


@app.command
def explore(
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"), help="The page.")] = Path("zoo.html"),
) -> None:
    """Write a page that shows the whole zoo: a chart, a table, a card for each model. One file, with all in it."""
    from torchclas.reporting.console import escape
    from torchclas.serving.explorer import write_explorer

    stderr().print(f"wrote {escape(str(write_explorer(output)))}", soft_wrap=True)


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
