"""What `evaluate --knn` measured, for people."""

from __future__ import annotations

from torchclas.messages import label
from torchclas.metrics.single_label import Proportion
from torchclas.reporting.console import Console, Table, escape
from torchclas.retrieval.measurement import RetrievalReport

SHOWN = 10  # files that cannot be read


def print_report(report: RetrievalReport, console: Console) -> None:
    """Print the figures, and what could not be read."""
    figures = Table(show_header=False, box=None, pad_edge=False)
    among = "each among the others" if report.leave_one_out else f"among {report.pictures:,} of {report.against}"
    rows = [
        ("model", report.model),
        ("engine", report.engine),
        ("images", f"{report.queries:,}, {among}"),
        ("classes", f"{report.classes:,}"),
        *((f"recall@{k}", _percent(share)) for k, share in report.recall.items()),
        ("mAP", f"{100 * report.mean_average_precision:.2f} %"),
        *((f"{k}-NN", _percent(share)) for k, share in report.accuracy.items()),
        ("time", f"{report.seconds:.1f} s"),
    ]
    for title, text in rows:
        figures.add_row(label(title), escape(text))
    console.print(figures)
    for note in report.notes:
        console.print(f"[yellow]Note:[/] {escape(note)}", soft_wrap=True)
    if report.alone:
        note = f"{report.alone:,} images have no other of their class: recall and mAP are over the others"
        console.print(f"[yellow]Note:[/] {escape(note)}", soft_wrap=True)
    if report.unreadable:
        console.print(
            f"[bold red]{len(report.unreadable):,} images could not be read;[/] the figures are over the others:"
        )
        for source, error in report.unreadable[:SHOWN]:
            console.print(f"  {escape(source)}: {escape(error)}", soft_wrap=True)
        if len(report.unreadable) > SHOWN:
            console.print(f"  … and {len(report.unreadable) - SHOWN:,} more")
    for path in report.written:
        console.print(f"wrote {escape(str(path))}", soft_wrap=True)


def _percent(share: Proportion) -> str:
    low, high = share.interval
    return f"{100 * share.value:.2f} %  (95 % interval {100 * low:.2f} – {100 * high:.2f})"
