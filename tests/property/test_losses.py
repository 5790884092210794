"""What must hold of every loss, whatever the logits: sign, symmetry, no NaN, no infinity, finite gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from torchclas.recipes import Distill, Loss
from torchclas.training.losses import classification_loss, cross_entropy, distillation_loss, dkd, symmetric_kl

ROUNDING = 1e-6  # of a float32 divergence of logits near 1; it grows with the logits and with the loss's weights


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Student's and teacher's logits [N, classes] of any scale up to ±1e4, float32 or bfloat16, and classes [N]."""
    images, classes = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    scale = draw(st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e4]))
    value = st.floats(-1, 1, width=32)
    logits = draw(st.lists(value, min_size=2 * images * classes, max_size=2 * images * classes))
    both = (torch.tensor(logits).view(2, images, classes) * scale).to(
        draw(st.sampled_from([torch.float32, torch.bfloat16]))
    )
    labels = torch.tensor(draw(st.lists(st.integers(0, classes - 1), min_size=images, max_size=images)))
    return both[0], both[1], labels


LOSSES = {
    "symmetric_kl": lambda student, teacher, labels: symmetric_kl(student, teacher),
    "dkd": lambda student, teacher, labels: dkd(student, teacher, labels, alpha=1.0, beta=8.0, temperature=4.0),
    "dkd, 1 degree": lambda student, teacher, labels: dkd(student, teacher, labels),
}
WEIGHTS = {"symmetric_kl": 0, "dkd": (1 + 8) * 4**2, "dkd, 1 degree": 2}  # symmetric_kl has no rounding below zero


@pytest.mark.parametrize("name", LOSSES)
@settings(deadline=None, max_examples=60)
@given(pairs())
def test_identical_logits_lose_nothing(name: str, drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    student, _, labels = drawn
    assert float(LOSSES[name](student, student.clone(), labels)) == 0


@pytest.mark.parametrize("name", LOSSES)
@settings(deadline=None, max_examples=60)
@given(pairs())
def test_is_finite_and_not_negative_and_so_are_its_gradients(name: str, drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher, labels = drawn
    student.requires_grad_()
    loss = LOSSES[name](student, teacher, labels)
    loss.backward()
    assert loss.dtype == torch.float32
    value = loss.item()
    assert math.isfinite(value)
    assert value >= -ROUNDING * WEIGHTS[name] * max(1, float(torch.stack([student, teacher]).detach().abs().max()))
    assert student.grad is not None
    assert bool(student.grad.isfinite().all())


@settings(deadline=None, max_examples=60)
@given(pairs())
def test_symmetric_kl_is_symmetric(drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    first, second, _ = drawn
    assert float(symmetric_kl(first, second)) == float(symmetric_kl(second, first))


@settings(deadline=None, max_examples=60)
@given(pairs())
def test_symmetric_kl_is_its_definition(drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    log_p, log_q = (logits.double().log_softmax(-1) for logits in drawn[:2])
    there = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    back = F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
    assert float(symmetric_kl(*drawn[:2])) == pytest.approx(float(there + back) / 2, rel=1e-4, abs=1e-5)


@settings(deadline=None, max_examples=60)
@given(pairs())
def test_dkd_with_the_classic_weights_is_kl(drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    """Equation 7 of the paper: with beta = the teacher's probability of non-target, it is the plain divergence."""
    student, teacher, labels = (tensor[:1] for tensor in drawn)
    log_p, log_q = teacher.double().log_softmax(-1), student.double().log_softmax(-1)
    plain = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    beta = 1 - float(log_p.exp()[0, labels[0]])
    assert float(dkd(student, teacher, labels, 1.0, beta)) == pytest.approx(float(plain), rel=1e-3, abs=1e-4)


@settings(deadline=None, max_examples=60)
@given(pairs(), st.floats(0, 0.9))
def test_cross_entropy_is_finite_and_never_below_the_targets_entropy(
    drawn: tuple[Tensor, Tensor, Tensor], smoothing: float
) -> None:
    student, teacher, labels = drawn
    student.requires_grad_()
    targets = teacher.float().softmax(-1)
    entropy = torch.distributions.Categorical(targets).entropy().mean()
    for loss, least in (
        (cross_entropy(student, labels, smoothing), 0.0),
        (cross_entropy(student, targets), float(entropy)),
    ):
        (gradient,) = torch.autograd.grad(loss, student)
        assert math.isfinite(loss.item())
        assert loss.item() >= least - 1e-5
        assert bool(gradient.isfinite().all())


def test_smoothing_is_the_published_one() -> None:
    """Labels are smoothed first: (1 − ε) · one-hot + ε / classes."""
    logits = torch.tensor([[2.0, -1.0, 0.5, 0.0], [0.0, 3.0, 1.0, -2.0]])
    smoothed = torch.tensor([[0.925, 0.025, 0.025, 0.025], [0.025, 0.025, 0.925, 0.025]])
    expected = -(smoothed * logits.log_softmax(-1)).sum(-1).mean()
    for targets in (torch.tensor([0, 2]), F.one_hot(torch.tensor([0, 2]), 4)):
        assert cross_entropy(logits, targets, 0.1) == pytest.approx(float(expected), rel=1e-6)


def test_heads_have_their_weights() -> None:
    labels = torch.tensor([1, 0])
    heads = [torch.randn(2, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    expected = sum(weight * F.cross_entropy(head, labels) for weight, head in zip((1.0, 0.3, 0.3), heads, strict=True))
    loss = classification_loss(heads, labels, Loss(head_weights=(1.0, 0.3, 0.3)))
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    with pytest.raises(ValueError, match="3 outputs for the 1 head weights"):
        classification_loss(heads, labels, Loss())


def test_distillation_by_recipe() -> None:
    labels = torch.tensor([1, 0])
    student, teacher = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(
        distillation_loss(student, teacher, None, Distill(method="ssld"), Loss()), symmetric_kl(student, teacher)
    )
    by_teacher = -(teacher.softmax(-1) * student.log_softmax(-1)).sum(-1).mean()
    found = distillation_loss(student, teacher, None, Distill(method="ce"), Loss())
    assert float(found) == pytest.approx(float(by_teacher), rel=1e-6)
    both = distillation_loss(student, teacher, labels, Distill(method="dkd", beta=2.0, label_weight=0.5), Loss(0.1))
    parts = dkd(student, teacher, labels, 1.0, 2.0) + 0.5 * cross_entropy(student, labels, 0.1)
    assert float(both) == pytest.approx(float(parts), rel=1e-6)
    with pytest.raises(ValueError, match="needs labels"):
        distillation_loss(student, teacher, None, Distill(method="dkd"), Loss())


def test_weights_of_classes_count_for_each_image_whatever_the_parts_of_a_batch() -> None:
    torch.manual_seed(0)
    logits, labels, weights = torch.randn(6, 3), torch.tensor([0, 0, 0, 0, 1, 2]), torch.tensor([0.5, 1.0, 4.0])
    whole = classification_loss(logits, labels, Loss(), weights)
    torch.testing.assert_close(whole, (weights[labels] * F.cross_entropy(logits, labels, reduction="none")).mean())
    parts = [classification_loss(logits[part], labels[part], Loss(), weights) for part in (slice(4), slice(4, 6))]
    torch.testing.assert_close(whole, parts[0] * 4 / 6 + parts[1] * 2 / 6)
    soft = classification_loss(logits, F.one_hot(labels), Loss(), weights)
    torch.testing.assert_close(soft, whole)
    method = Distill(method="ce", label_weight=1.0)
    taught = distillation_loss(logits, logits, labels, method, Loss(), weights)
    torch.testing.assert_close(taught, distillation_loss(logits, logits, None, Distill(method="ce"), Loss()) + whole)
