"""Losses: for one class per image or any number, for one or several heads, and what a student learns from a teacher.

All take logits [N, classes], compute in float32 whatever their type, and return the mean over N as a scalar.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from torchclas.recipes import Distill, Loss


def classification_loss(
    outputs: Tensor | Sequence[Tensor], targets: Tensor, settings: Loss, class_weights: Tensor | None = None
) -> Tensor:
    """The recipe's loss with smoothed labels, summed over the heads with their weights.

    `outputs` are the logits, or those of every head; `targets` are classes [N], or probabilities [N, classes];
    `class_weights` are [classes], or [2, classes] of what an image is not of and is of.
    """
    heads = [outputs] if isinstance(outputs, Tensor) else outputs
    if len(heads) != len(settings.head_weights):
        raise ValueError(f"{len(heads)} outputs for the {len(settings.head_weights)} head weights of the recipe")
    losses = [_loss(head, targets, settings, class_weights) for head in heads]
    return torch.stack([weight * loss for weight, loss in zip(settings.head_weights, losses, strict=True)]).sum()


def _loss(logits: Tensor, targets: Tensor, settings: Loss, class_weights: Tensor | None) -> Tensor:
    if settings.name == "cross_entropy":
        return cross_entropy(logits, targets, settings.label_smoothing, class_weights)
    if settings.name == "bce":
        return binary_cross_entropy(logits, targets, settings.label_smoothing, class_weights)
    return asymmetric_loss(logits, targets, settings, class_weights)


def binary_cross_entropy(
    logits: Tensor, targets: Tensor, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Binary cross entropy with targets [N, classes] in 0..1, summed over the classes.

    The sum, and not the mean, gives each logit the gradient that cross entropy gives it, so learning rates of one serve
    the other. `label_smoothing` takes targets that far towards a half. `class_weights` [classes] multiply the loss of
    what is of a class; if they are [2, classes], the first row that of targets up to a half, the second of all above.
    """
    targets = targets.float().lerp(torch.full_like(targets, 0.5, dtype=torch.float32), label_smoothing)
    weights = None if class_weights is None else class_weights.to(logits.device)
    positive = weights if weights is None or weights.ndim == 1 else None
    losses = F.binary_cross_entropy_with_logits(logits.float(), targets, pos_weight=positive, reduction="none")
    if weights is not None and weights.ndim == 2:
        losses = losses * torch.where(targets > 0.5, weights[1], weights[0])
    return losses.sum(-1).mean()


def asymmetric_loss(logits: Tensor, targets: Tensor, settings: Loss, class_weights: Tensor | None = None) -> Tensor:
    """The asymmetric loss (arXiv 2009.14119) with targets [N, classes] in 0..1, summed over the classes.

    The factors (1 − p)^γ only weigh, as in the authors' setting for training: no gradient flows through them.
    """
    logits = logits.float()
    targets = targets.float().lerp(torch.full_like(targets, 0.5, dtype=torch.float32), settings.label_smoothing)
    negative = (1 - logits.sigmoid() + settings.margin).clamp(max=1)  # of being not of the class, easy ones forgiven
    gains = targets * F.logsigmoid(logits), (1 - targets) * negative.clamp(min=torch.finfo(torch.float32).tiny).log()
    with torch.no_grad():
        positive = logits.sigmoid()
        hard = (1 - positive) ** settings.gamma_positive, (1 - negative) ** settings.gamma_negative
    weights = 1.0 if class_weights is None else class_weights.to(logits.device)
    return -(weights * hard[0] * gains[0] + hard[1] * gains[1]).sum(-1).mean()


def cross_entropy(
    logits: Tensor, targets: Tensor, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Cross entropy with classes [N] or probabilities [N, classes], of which `label_smoothing` is spread evenly.

    With `class_weights` [classes] it is divided by N all the same, not by the sum of the weights: so a batch that is
    computed in parts, or by several processes, has the loss of the whole.
    """
    targets = targets.float() if targets.ndim > 1 else targets
    if class_weights is None:
        return F.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing)
    weights = class_weights.to(logits.device)
    return F.cross_entropy(logits.float(), targets, weights, label_smoothing=label_smoothing, reduction="none").mean()


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    targets: Tensor | None,
    settings: Distill,
    loss: Loss,
    class_weights: Tensor | None = None,
) -> Tensor:
    """What the student's logits lack towards the teacher's and, with a `label_weight`, towards the labels.

    `targets` are classes [N]; they may be None where nothing needs them, as in SSLD. `class_weights` [classes] weigh
    the loss of the labels.
    """
    needs_labels = settings.method == "dkd" or settings.label_weight > 0
    if needs_labels and targets is None:
        raise ValueError(f"distillation with method {settings.method!r} and this label_weight needs labels")
    if settings.method == "ssld":
        total = symmetric_kl(student, teacher)
    elif settings.method == "ce":
        total = cross_entropy(student, teacher.float().softmax(-1))
    else:
        assert targets is not None
        total = dkd(student, teacher, targets, settings.alpha, settings.beta, settings.temperature)
    if settings.label_weight > 0:
        assert targets is not None
        total = total + settings.label_weight * cross_entropy(student, targets, loss.label_smoothing, class_weights)
    return total


def symmetric_kl(first: Tensor, second: Tensor) -> Tensor:
    """Mean of the Kullback–Leibler divergences in both directions, the loss of SSLD (arXiv 2103.05959)."""
    log_p, log_q = first.float().log_softmax(-1), second.float().log_softmax(-1)
    # Both factors have the same sign, so that rounding cannot make it negative; and no 0 · log 0 can occur.
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1).mean() / 2


def dkd(
    student: Tensor, teacher: Tensor, targets: Tensor, alpha: float = 1.0, beta: float = 1.0, temperature: float = 1.0
) -> Tensor:
    """Decoupled knowledge distillation (arXiv 2203.08679), which weighs two divergences from the teacher by themselves.

    `alpha` is for target or not, `beta` for which of the other classes; `targets` are classes [N].
    """
    log_p, other_p = _decouple(teacher, targets, temperature)
    log_q, other_q = _decouple(student, targets, temperature)
    return (alpha * _kl(log_p, log_q) + beta * _kl(other_p, other_q)) * temperature**2


def _decouple(logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of target and non-target [N, 2], and of the others among themselves [N, classes − 1]."""
    logits = logits.float() / temperature
    is_target = F.one_hot(targets, logits.shape[-1]).bool()
    target, others = logits[is_target], logits[~is_target].unflatten(0, (len(logits), -1))
    return torch.stack([target, others.logsumexp(-1)], -1).log_softmax(-1), others.log_softmax(-1)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
