"""The `list` command: which published models meet the conditions. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable

from torchclas import catalog
from torchclas.catalog import Entry
from torchclas.errors import UnknownNameError
from torchclas.vocabulary import Order


def select(
    pattern: str | None = None,
    *,
    series: str | None = None,
    max_params: float | None = None,
    max_flops: float | None = None,
    min_top1: float | None = None,
    order: Order = "catalog",
    limit: int | None = None,
) -> list[Entry]:
    """The published models that meet every condition; what has no published figure meets none about it.

    `pattern` is a glob, or a part of the name, in any case. `order` is best first: accuracy falls, the rest rises.
    Raises `UnknownNameError` where nothing has a name like that, or for an unknown series.
    """
    glob = pattern if pattern is None or any(character in pattern for character in "*?[") else f"*{pattern}*"
    names = catalog.names(glob, series=series)
    if not names:
        where = "" if series is None else f" of {series}"
        raise UnknownNameError(f"model{where}", pattern or "", catalog.names(series=series))
    entries = [
        entry
        for entry in map(catalog.find, names)
        if _at_most(entry.params_m, max_params, 1e6)
        and _at_most(entry.gflops, max_flops, 1e9)
        and (min_top1 is None or (entry.top1 is not None and entry.top1 >= min_top1))
    ]
    if order != "catalog":
        entries.sort(key=_sort_key(order))
    return entries[:limit]


def _at_most(published: float | None, limit: float | None, unit: float) -> bool:
    return limit is None or (published is not None and published * unit <= limit)


def _sort_key(order: Order) -> Callable[[Entry], tuple[bool, float | str, str]]:
    def key(entry: Entry) -> tuple[bool, float | str, str]:
        if order == "name":
            return False, entry.name.lower(), ""
        value = _value(entry, order)
        return value is None, (-(value or 0) if order == "top1" else (value or 0)), entry.name.lower()

    return key


def _value(entry: Entry, order: Order) -> float | None:
    match order:
        case "top1":
            return entry.top1
        case "params":
            return entry.params_m
        case "flops":
            return entry.gflops
        case _:
            return next(iter(entry.latency.get(order.removeprefix("latency-"), ())), None)
