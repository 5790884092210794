"""The `recipe` command: how a model is trained, as a file to read, change and train by."""

from __future__ import annotations

from collections.abc import Sequence

from torchclas.recipes import override, recipe


def recipe_file(name: str, settings: Sequence[str] = ()) -> str:
    """The recipe of that name, or of a model, with some settings changed, as TOML under a few words about it."""
    chosen = override(recipe(name), settings)
    whose = "" if chosen.name.lower() == name.lower() else f", for {name}"
    devices = f"on each of {chosen.devices} devices" if chosen.devices > 1 else "on 1 device"
    words = [
        f"{chosen.name}{whose}. {'Published' if chosen.published else 'Not published'}: {chosen.source}.",
        f"Batch: {chosen.batch_size} {devices}, {chosen.total_batch} in total. For another total batch",
        "all learning rates change in proportion.",
    ]
    return "".join(f"# {line}\n" for line in words) + chosen.to_toml()
