"""Training recipes: a typed, validated view of `recipes.toml` that needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchclas.catalog import Backend, Interpolation
from torchclas.errors import Error

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]  # Lightning Fabric's names


class RecipeError(Error, ValueError):
    """A recipe that breaks the rules; the message names the recipe and the key."""


@dataclass(frozen=True, slots=True)
class Optimizer:
    """How gradients become steps.

    `weight_decay` is L2 regularisation (added to the gradient) for sgd and rmsprop, decoupled for adamw. `alpha`
    smooths rmsprop's squared gradients. `no_decay` names what is left out: "norm" is the parameters of normalisation
    layers, anything else a part of a parameter's name. Without `decay_one_dim`, vectors and scalars are left out too.
    """

    name: Literal["sgd", "rmsprop", "adamw"] = "sgd"
    lr: float = 0.1
    weight_decay: float = 1e-4
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    alpha: float = 0.9
    eps: float = 1e-8
    no_decay: tuple[str, ...] = ()
    decay_one_dim: bool = True


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate over time: linear warm-up from `warmup_lr`, then half a cosine to `min_lr`, or steps.

    `values` are the learning rates before, between and after the `milestones` (epochs); the first is the optimizer's.
    """

    name: Literal["cosine", "piecewise"] = "cosine"
    warmup_epochs: float = 0.0
    warmup_lr: float = 0.0
    min_lr: float = 0.0
    milestones: tuple[float, ...] = ()
    values: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Augment:
    """What happens to training images, in this order; mean and std are those of the model's preset.

    `scale` and `ratio` are the random crop's share of the area and aspect ratio. `flip` and `erasing` are
    probabilities; erased pixels become noise. `mixup` and `cutmix` are the alphas of the Beta distributions, with the
    probability that a batch is mixed that way.
    """

    interpolation: Interpolation = "bilinear"
    backend: Backend = "opencv"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    policy: Literal["", "autoaugment", "rand-m9-mstd0.5-inc1"] = ""
    erasing: float = 0.0
    mixup: float = 0.0
    mixup_prob: float = 0.0
    cutmix: float = 0.0
    cutmix_prob: float = 0.0


@dataclass(frozen=True, slots=True)
class Loss:
    """Cross entropy; `head_weights` weighs the outputs of a network that has several (the first is the main one)."""

    label_smoothing: float = 0.0
    head_weights: tuple[float, ...] = (1.0,)


@dataclass(frozen=True, slots=True)
class Distill:
    """What a student learns from a teacher.

    `method` is the loss between their logits: "ssld" (symmetric KL), "kl" (soft cross entropy with the teacher), "dkd".
    `label_weight` weighs the cross entropy with the labels beside it; `alpha`, `beta` and `temperature` are DKD's.
    """

    teacher: str
    student: str
    method: Literal["ssld", "ce", "dkd"]
    weight: float = 1.0
    label_weight: float = 0.0
    alpha: float = 1.0
    beta: float = 1.0
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained.

    `source` says where the recipe was published, or, where it was not, why it is what it is. `batch_size` is per
    device, and the learning rates are for `total_batch`; they scale in proportion to the batch that is really used.
    `ema` is the decay of the averaged weights (0: none), `clip` the largest gradient norm (0: any). None leaves
    `drop_path` and `dropout` as the architecture has them.
    """

    name: str
    source: str
    published: bool
    epochs: int
    batch_size: int
    optimizer: Optimizer
    schedule: Schedule
    augment: Augment
    loss: Loss
    devices: int = 4
    input_size: int = 224
    ema: float = 0.0
    clip: float = 0.0
    drop_path: float | None = None
    dropout: float | None = None
    precision: Precision = "32-true"
    distill: Distill | None = None
    note: str = ""

    @property
    def total_batch(self) -> int:
        """Images per step, over all devices."""
        return self.batch_size * self.devices
