"""What a look over labelled images found, for people."""

from __future__ import annotations

from torchclas.data.check import KINDS, DataReport, Item
from torchclas.reporting.console import Console, escape
from torchclas.text import printable

SHOWN = 5  # examples of a kind that are printed; the JSON report has all


def print_report(report: DataReport, console: Console) -> None:
    """Print what was found, harmful kinds first, with a few examples of each."""
    sizes = report.counts.values()
    console.print(
        f"{report.images:,} images for training, {report.val_images:,} for validation, {len(sizes):,} classes of "
        f"{min(sizes, default=0):,} to {max(sizes, default=0):,} training images; {report.seconds:.1f} s",
        soft_wrap=True,
    )
    for note in report.notes:
        console.print(f"[yellow]Note:[/] {escape(printable(note))}", soft_wrap=True)
    for finding in report.findings:
        kind = KINDS[finding.kind]
        style, mark = ("bold red", "✗") if kind.harmful else ("yellow", "·")
        console.print(
            f"[{style}]{mark} {kind.title}: {len(finding.items):,}[/] [dim]({kind.advice})[/]", soft_wrap=True
        )
        for item in finding.items[:SHOWN]:
            console.print(f"    {escape(_describe(item))}", soft_wrap=True, highlight=False)
        if len(finding.items) > SHOWN:
            console.print(f"    … and {len(finding.items) - SHOWN:,} more")
    if report.clean_list:
        path = escape(printable(report.clean_list))
        console.print(f"wrote {path}: {report.kept:,} of the {report.images:,} training images", soft_wrap=True)
    verdict = "[green]Nothing was found that would hurt training.[/]"
    console.print(verdict if report.ok else "[bold red]What is marked ✗ hurts training.[/]")


def _describe(item: Item) -> str:
    names = [printable(name) for name in item.names[:SHOWN]]
    if len(item.names) > SHOWN:
        names.append(f"… {len(item.names) - SHOWN:,} more")
    return ": ".join(part for part in (", ".join(names), printable(item.detail)) if part)
