"""What `quantize` made, for people."""

from __future__ import annotations

from torchclas.messages import label
from torchclas.quantization.report import QuantizationReport
from torchclas.reporting.amounts import mebibytes
from torchclas.reporting.console import Console, Table, escape
from torchclas.reporting.rows import printable
from torchclas.text import many_images

SHOWN = 10  # rows of a printed list; the file has all


def print_report(report: QuantizationReport, console: Console) -> None:
    """Print what was kept of the float network, what was not quantized, size and speed."""
    quantized = report.operations - len(report.in_float)
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = [
        ("model", report.model),
        ("images", f"{report.calibration_images} to calibrate, {report.checking_images} others to check"),
        ("int8", f"{quantized} of {report.operations} operations"),
        ("agreement", f"{report.int8.agreement:.2f} % with fp32 (all in int8: {report.all_int8.agreement:.2f} %)"),
        ("top-1" if report.int8.mean_average_precision is None else "mAP", _accuracies(report)),
        ("logits", f"cosine {report.int8.cosine:.4f}{_decibels(report.int8.psnr_db)}"),
        ("size", f"{mebibytes(report.fp32_size)} → {mebibytes(report.int8_size)}"),
    ]
    for title, text in rows:
        if text:
            table.add_row(label(title), escape(text))
    console.print(table)
    if report.in_float:
        shown = Table(title=f"{len(report.in_float)} left in float")
        shown.add_column("operation")
        shown.add_column("noise of its int8", justify="right")
        for operation in report.in_float[:SHOWN]:
            shown.add_row(escape(operation.name), f"{operation.noise_db:.1f} dB")
        console.print(shown)
        if len(report.in_float) > SHOWN:
            console.print(f"  … and {len(report.in_float) - SHOWN} more")
    speed = Table(title=f"Milliseconds, {report.threads} threads")
    for column in ("engine", "images", "fp32", "int8", "faster"):
        speed.add_column(column, justify="left" if column == "engine" else "right")
    for row in report.speed:
        ratio = f"{row.fp32_ms / row.int8_ms:.2f}×"
        speed.add_row(row.engine, str(row.batch), f"{row.fp32_ms:.2f}", f"{row.int8_ms:.2f}", ratio)
    console.print(speed)
    for note in report.notes:
        console.print(f"[yellow]Note:[/] {escape(printable(note))}", soft_wrap=True)
    if report.unreadable:
        console.print(f"[yellow]Note:[/] {many_images(report.unreadable)} could not be read: left out")
    console.print(f"wrote {escape(str(report.path))}", soft_wrap=True)


def _accuracies(report: QuantizationReport) -> str:
    if report.fp32 is None:
        return ""
    before, after, all_int8 = (figures.accuracy for figures in (report.fp32, report.int8, report.all_int8))
    return f"{after:.2f} %, fp32 {before:.2f} % (all in int8: {all_int8:.2f} %)"


def _decibels(value: float | None) -> str:
    return "" if value is None else f", PSNR {value:.1f} dB"
