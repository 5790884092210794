"""Where two deployments part, for people."""

from __future__ import annotations

from torchclas.comparison.difference import Difference
from torchclas.messages import label
from torchclas.reporting.console import Console, Table, escape, verbatim
from torchclas.text import many_images

SHOWN = 10  # images with another class; the file has all


def print_report(found: Difference, console: Console) -> None:
    """Print the stations, the causes, the images with another class, and the verdict last."""
    console.print(f"A  {verbatim(found.a)}", soft_wrap=True, highlight=False)
    console.print(f"B  {verbatim(found.b)}", soft_wrap=True, highlight=False)
    table = Table(title="Where they part")
    table.add_column("step")
    table.add_column("difference", justify="right")
    table.add_column("note", overflow="fold")
    for step in found.steps:
        colour = "green" if step.same else "red"
        measured = "–" if step.difference is None else f"{step.difference:.1e}"
        table.add_row(label(step.stage), f"[{colour}]{measured}[/]", escape(step.note))
    console.print(table)
    if len(found.causes) > 1:
        causes = Table(title="Causes")
        causes.add_column("cause", overflow="fold")
        causes.add_column("left", justify="right")
        for cause in found.causes:
            causes.add_row(escape(cause.text), "–" if cause.left == float("inf") else f"{cause.left:.1e}")
        console.print(causes)
    console.print(f"another class for {len(found.changed)} of {found.images} images")
    for each in found.changed[:SHOWN]:
        console.print(
            f"  {verbatim(each.source)}: {verbatim(each.a)} → {verbatim(each.b)}", soft_wrap=True, highlight=False
        )
    if len(found.changed) > SHOWN:
        console.print(f"  … and {len(found.changed) - SHOWN} more")
    if found.unreadable:
        console.print(f"[yellow]Note:[/] {many_images(found.unreadable)} could not be read: left out")
    console.print(f"[bold]{escape(found.verdict)}[/]", soft_wrap=True, highlight=False)
