"""What AdamW's decay spares: PaddleClas names parameters by parts of its own names, and so it is checked with those."""

from __future__ import annotations

import torch

from torchclas import models
from torchclas.bridges.paddleclas.account import Section
from torchclas.layers.network import Network
from torchclas.recipes import Optimizer, recipes
from torchclas.training.optimizer import spared
from torchclas.weights.renames import published_names

# What a part of PaddleClas's names is called here.
_WORDS = {
    ".bias": "bias",
    "bias": "bias",
    "relative_position_bias_table": "bias",
    "norm": "norm",
    "pos_embed": "position",
    "absolute_pos_embed": "position",
    "cls_token": "token",
    "dist_token": "token",
}


def in_our_names(settings: Optimizer, arch: str, section: Section) -> tuple[str, ...]:
    """`no_decay` for the parameters whose published names hold one of the words of `settings`.

    Words that the recipe of this architecture has, or that mean the same here, where they spare the same parameters;
    otherwise the parameters by their full names.
    """
    with torch.device("meta"):
        network = models.build(arch)
    wanted = _published(network, settings)
    published = recipes()[arch].optimizer.no_decay if arch in recipes() else ()
    known = tuple(dict.fromkeys(_WORDS[word] for word in settings.no_decay if word in _WORDS))
    flat = {name for name, parameter in network.named_parameters() if parameter.ndim <= 1}
    full = tuple(sorted(wanted if settings.decay_one_dim else wanted - flat))
    for words in (published, known, full):
        if spared(network, words, decay_one_dim=settings.decay_one_dim) == wanted:
            return words
    key = section.path("no_weight_decay_name")
    section.account.refuse(key, "it spares parameters that cannot be told apart here", section.stages)
    return known


def _published(network: Network, settings: Optimizer) -> set[str]:
    rules = models.renames(network.arch)
    layout = rules.get("current", next(iter(rules.values()), ()))
    parameters = dict(network.named_parameters())
    names = published_names(network.state_dict(), layout)
    return {
        name
        for name, parameter in parameters.items()
        if any(word in names[name].name for word in settings.no_decay)
        or (parameter.ndim <= 1 and not settings.decay_one_dim)
    }
