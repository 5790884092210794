import copy

import pytest
import torch
from torch import nn

from torchclas.models import build
from torchclas.recipes import Optimizer, RecipeError, recipe
from torchclas.training.optimizer import RMSProp, build_optimizer, clip_each

# Five steps of PaddlePaddle 2.6.2 on the loss ½ Σ c·x² from the same start, with the same settings.
START, CURVATURE = (1.0, -2.0, 0.5), (1.0, 2.0, 3.0)
PADDLE = {
    "rmsprop": (
        Optimizer("rmsprop", lr=0.032, weight_decay=1e-2, momentum=0.9, alpha=0.9, eps=1e-3),
        [
            (0.8992995023727417, -1.8988384008407593, 0.39902976155281067),
            (0.7392507195472717, -1.7362233400344849, 0.24310769140720367),
            (0.5435132384300232, -1.532873272895813, 0.06416945159435272),
            (0.3301086723804474, -1.3028786182403564, -0.10755547881126404),
            (0.11484336853027344, -1.057021141052246, -0.2435605227947235),
        ],
    ),
    "sgd": (
        Optimizer("sgd", lr=0.1, weight_decay=1e-2, momentum=0.9),
        [
            (0.8989999890327454, -1.5980000495910645, 0.34950000047683716),
            (0.7173010110855103, -0.9150020480155945, 0.10885049402713776),
            (0.48132452368736267, -0.11638844013214111, -0.1404980719089508),
            (0.22033190727233887, 0.6257578730583191, -0.3226218521595001),
            (-0.03681495785713196, 1.167912244796753, -0.38942408561706543),
        ],
    ),
    "adamw": (
        Optimizer("adamw", lr=1e-2, weight_decay=0.05, betas=(0.9, 0.999), eps=1e-8),
        [
            (0.9894999861717224, -1.9889999628067017, 0.4897499978542328),
            (0.979008138179779, -1.9780070781707764, 0.4795110821723938),
            (0.9685264229774475, -1.967022180557251, 0.46928736567497253),
            (0.9580567479133606, -1.9560461044311523, 0.45908302068710327),
            (0.9476011395454407, -1.945080041885376, 0.44890233874320984),
        ],
    ),
}


class Quadratic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(START))

    def forward(self) -> torch.Tensor:
        return (torch.tensor(CURVATURE) * self.x * self.x).sum() / 2


@pytest.mark.parametrize("name", PADDLE)
def test_steps_equal_paddles(name: str) -> None:
    settings, expected = PADDLE[name]
    model = Quadratic()
    optimizer = build_optimizer(model, settings)
    for position in expected:
        optimizer.zero_grad()
        model().backward()
        optimizer.step()
        assert model.x.tolist() == pytest.approx(position, rel=2e-5, abs=2e-6)


def test_rmsprop_goes_on_from_its_saved_state() -> None:
    def steps(model: Quadratic, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            model().backward()
            optimizer.step()

    whole = Quadratic()
    steps(whole, RMSProp(whole.parameters(), 0.03), 6)
    half = Quadratic()
    before = RMSProp(half.parameters(), 0.03)
    steps(half, before, 3)
    after = RMSProp(half.parameters(), 0.5)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    steps(half, after, 3)
    assert torch.equal(whole.x, half.x)


def spared(model: nn.Module, settings: Optimizer) -> set[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_optimizer(model, settings).param_groups
    assert sum(len(group["params"]) for group in groups) == len(names)
    assert all(group["weight_decay"] in (0, settings.weight_decay) for group in groups)
    return {names[id(p)] for group in groups if group["weight_decay"] == 0 for p in group["params"]}


def test_everything_decays_where_nothing_else_was_published() -> None:
    assert spared(build("ResNet18"), recipe("ResNet18").optimizer) == set()


@pytest.mark.parametrize("arch", ["PPLCNet_x0_25", "MobileNetV3_small_x0_35", "GhostNet_x0_5"])
def test_batch_norms_of_mobile_networks_are_spared(arch: str) -> None:
    with torch.device("meta"):
        model = build(arch)
    norms = {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for name, _ in module.named_parameters()
    }
    assert spared(model, recipe(arch).optimizer) == norms != set()


@pytest.mark.parametrize(
    ("arch", "embeddings"),
    [
        ("DeiT_tiny_distilled_patch16_224", {"stem.class_token", "stem.distillation_token", "stem.position"}),
        ("SwinTransformer_tiny_patch4_window7_224", {"stages.0.0.attention.biases", "stages.3.2.attention.biases"}),
        ("pcpvt_small", {"stages.0.1.weight", "stages.3.2.weight"}),
    ],
)
def test_transformers_spare_vectors_and_embeddings(arch: str, embeddings: set[str]) -> None:
    with torch.device("meta"):
        model = build(arch)
    shapes = {name: parameter.ndim for name, parameter in model.named_parameters()}
    found = spared(model, recipe(arch).optimizer)
    assert {name for name, ndim in shapes.items() if ndim == 1} < found
    assert embeddings <= found
    matrices = {name for name in found if shapes[name] > 1} - embeddings
    assert all("biases" in name or name.split(".")[2] in "12" for name in matrices)
    assert "classifier.weight" not in found


def test_levits_attention_biases_are_spared() -> None:
    with torch.device("meta"):
        model = build("LeViT_128S")
    found = spared(model, recipe("LeViT_128S").optimizer)
    assert found
    assert all(name.endswith("biases") for name in found)


def test_frozen_parameters_are_left_out() -> None:
    model = build("PPLCNet_x0_25").requires_grad_(False)
    model.classifier.requires_grad_(True)
    groups = build_optimizer(model, Optimizer()).param_groups
    assert [len(group["params"]) for group in groups] == [2]
    with pytest.raises(RecipeError, match="nothing to train"):
        build_optimizer(model.requires_grad_(False), Optimizer())


def test_shared_parameters_count_once() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    groups = build_optimizer(nn.Sequential(first, second), Optimizer(decay_one_dim=False)).param_groups
    assert [len(group["params"]) for group in groups] == [1, 2]


def test_each_gradient_is_clipped_by_itself_as_paddlepaddle_does() -> None:
    """`ClipGradByNorm(1.5)` of PaddlePaddle 2.6.2."""
    expected = {
        (3.0, -4.0): (0.9000000357627869, -1.2000000476837158),
        (0.5, 0.25, -1.0): (0.5, 0.25, -1.0),
        (0.0, 0.0): (0.0, 0.0),
    }
    parameters = [nn.Parameter(torch.zeros(len(gradient))) for gradient in expected]
    for parameter, gradient in zip(parameters, expected, strict=True):
        parameter.grad = torch.tensor(gradient)
    clip_each([*parameters, nn.Parameter(torch.zeros(1))], 1.5)
    for parameter, clipped in zip(parameters, expected.values(), strict=True):
        torch.testing.assert_close(parameter.grad, torch.tensor(clipped))
