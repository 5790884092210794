import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from torchclas.recipes import Augment, recipe
from torchclas.training.mixing import mix

MIXUP = Augment(mixup=0.2, mixup_prob=1.0)
CUTMIX = Augment(cutmix=1.0, cutmix_prob=1.0)
BOTH = recipe("DeiT_tiny_patch16_224").augment


def batch(images: int = 8, size: tuple[int, int] = (12, 20)) -> tuple[Tensor, Tensor]:
    """Image number i is i everywhere and of class i, so that pixels and targets tell what they were mixed from."""
    numbers = torch.arange(images)
    return numbers.float().view(-1, 1, 1, 1).expand(-1, 3, *size).clone(), F.one_hot(numbers, images).float()


def test_nothing_is_mixed_without_settings() -> None:
    images, targets = batch()
    mixed, soft = mix(images, targets, Augment(), seed=0, step=0)
    assert torch.equal(mixed, images)
    assert torch.equal(soft, targets)


@pytest.mark.parametrize("settings", [MIXUP, CUTMIX, BOTH], ids=["mixup", "cutmix", "either"])
@pytest.mark.parametrize("step", range(20))
def test_targets_are_in_the_shares_of_the_pixels(settings: Augment, step: int) -> None:
    images, targets = batch()
    mixed, soft = mix(images, targets, settings, seed=3, step=step)
    torch.testing.assert_close(soft.sum(1), torch.ones(8))
    torch.testing.assert_close(mixed.mean((1, 2, 3)), soft @ torch.arange(8.0))
    partners = torch.arange(8) ^ 1
    pair = soft[torch.arange(8), torch.arange(8)] + soft[torch.arange(8), partners]
    torch.testing.assert_close(pair, torch.ones(8))
    original, labels = batch()
    assert torch.equal(images, original)
    assert torch.equal(targets, labels)


def test_mixup_blends_and_cutmix_pastes_a_box() -> None:
    blended, _ = mix(*batch(), Augment(mixup=8.0, mixup_prob=1.0), seed=0, step=0)
    assert all(len(image.unique()) == 1 and 0 < image[0, 0, 0] % 1 < 1 for image in blended)
    pasted, soft = mix(*batch(), CUTMIX, seed=0, step=0)
    assert pasted[0].unique().tolist() == [0, 1]
    rows, columns = torch.nonzero(pasted[0, 0] == 1).T
    box = pasted[0, :, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert bool((box == 1).all())
    assert soft[0, 1] == pytest.approx(box[0].numel() / 240)


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("step", range(10))
def test_processes_do_together_what_one_does(processes: int, step: int) -> None:
    images, targets = batch()
    alone = mix(images, targets, BOTH, seed=7, step=step)
    shares = zip(images.chunk(processes), targets.chunk(processes), strict=True)
    together = [mix(*share, BOTH, seed=7, step=step) for share in shares]
    assert torch.equal(torch.cat([share[0] for share in together]), alone[0])
    assert torch.equal(torch.cat([share[1] for share in together]), alone[1])


def test_depends_on_seed_and_step_and_nothing_else() -> None:
    def targets(seed: int, step: int) -> Tensor:
        return mix(*batch(), MIXUP, seed=seed, step=step)[1]

    first = targets(1, 23)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(first, targets(1, 23))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, targets(12, 3))
    assert not torch.equal(first, targets(1, 24))


def test_each_way_has_its_probability() -> None:
    settings = Augment(mixup=1.0, mixup_prob=0.3, cutmix=1.0, cutmix_prob=0.5)
    ways = {"mixup": 0, "cutmix": 0, "none": 0}
    images, targets = batch(2, (64, 64))
    for step in range(2000):
        mixed, _ = mix(images, targets, settings, seed=0, step=step)
        if mixed is images:
            ways["none"] += 1
        else:
            ways["cutmix" if set(mixed[0].unique().tolist()) <= {0.0, 1.0} else "mixup"] += 1
    assert ways["mixup"] == pytest.approx(600, abs=80)
    assert ways["cutmix"] == pytest.approx(1000, abs=80)
    assert ways["none"] == pytest.approx(400, abs=80)


def test_shares_follow_beta() -> None:
    """Beta(0.2, 0.2) has mean 1/2 and variance 1/(4 · 1.4)."""
    images, targets = batch(2, (1, 1))
    shares = torch.stack([mix(images, targets, MIXUP, seed=0, step=step)[1][0, 0] for step in range(2000)])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.04)
    assert float(shares.var()) == pytest.approx(1 / 5.6, abs=0.02)


@pytest.mark.parametrize("settings", [MIXUP, CUTMIX], ids=["mixup", "cutmix"])
@pytest.mark.parametrize("images", [1, 3])
def test_the_last_of_an_odd_number_stays(settings: Augment, images: int) -> None:
    originals, targets = batch(images)
    mixed, soft = mix(originals, targets, settings, seed=0, step=1)
    torch.testing.assert_close(mixed[-1], originals[-1])
    torch.testing.assert_close(soft[-1], targets[-1])
