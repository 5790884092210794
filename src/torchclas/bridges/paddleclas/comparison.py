"""How a recipe differs from the one of `recipes.toml` for the same network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import NamedTuple

from torchclas.recipes import Recipe, recipes

_NAMES = ("name", "source", "published", "note", "devices")  # say nothing of how a network learns
_ROUNDING = 1e-6


class Difference(NamedTuple):
    """A setting, what the configuration has, and what the recipe here has for the same batch."""

    key: str
    theirs: object
    ours: object


def recipe_here(recipe: Recipe) -> Recipe | None:
    """The recipe that `recipes.toml` has for what this one trains; None where it has none."""
    if recipe.distill is None:
        return recipes().get(recipe.name)
    return next(
        (
            each
            for each in recipes().values()
            if each.distill is not None
            and (each.distill.teacher, each.distill.student, each.distill.method)
            == (recipe.distill.teacher, recipe.distill.student, recipe.distill.method)
            and each.published
            and each.source.startswith("PaddleClas 2")
        ),
        None,
    )


def differences(recipe: Recipe, ours: Recipe) -> list[Difference]:
    """What differs once both are for the same batch, to which learning rates are in proportion."""
    if (ours.batch_size, ours.devices) != (recipe.batch_size, recipe.devices):
        scaled = ours.with_batch(recipe.batch_size, recipe.devices)
        same = ours.batch_size == recipe.batch_size
        batch = [] if same else [Difference("batch_size", recipe.batch_size, ours.batch_size)]
        ours = scaled
    else:
        batch = []
    if _rates_alone(recipe, ours):  # values of a piecewise schedule count by their ratio to the first
        ours = replace(ours, schedule=replace(ours.schedule, values=recipe.schedule.values))
    return [*batch, *(_differing("", recipe, ours))]


def _rates_alone(recipe: Recipe, ours: Recipe) -> bool:
    theirs, own = recipe.schedule.values, ours.schedule.values
    if not theirs or len(theirs) != len(own):
        return False
    return all(abs(a / theirs[0] - b / own[0]) < _ROUNDING for a, b in zip(theirs, own, strict=True))


def _differing(prefix: str, theirs: object, ours: object) -> Iterator[Difference]:
    for field in fields(theirs):  # pyright: ignore[reportArgumentType] - both are dataclasses
        if not prefix and field.name in _NAMES:
            continue
        first: object = getattr(theirs, field.name)
        second: object = getattr(ours, field.name)
        if is_dataclass(first) and is_dataclass(second):
            yield from _differing(f"{prefix}{field.name}.", first, second)
        elif not _same(first, second):
            yield Difference(f"{prefix}{field.name}", first, second)


def _same(first: object, second: object) -> bool:
    if isinstance(first, float) and isinstance(second, (float, int)):
        return abs(first - second) <= _ROUNDING * max(abs(first), abs(second))
    if isinstance(first, tuple) and isinstance(second, tuple) and len(first) == len(second):
        return all(_same(a, b) for a, b in zip(first, second, strict=True))
    return first == second
