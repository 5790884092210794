"""Sizes, times and figures for people."""

from __future__ import annotations


def mebibytes(size: int) -> str:
    """A number of bytes, for people."""
    return f"{size / 2**20:,.1f} MiB"


def figure(value: float) -> str:
    """Three digits at least, which is what a measurement is good for."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def duration(seconds: float) -> str:
    """About how long, for people."""
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
