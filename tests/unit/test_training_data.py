"""Training batches: the same for every number of processes and workers, and after every interruption."""

from collections import Counter
from collections.abc import Generator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies._internal.core import DataObject

from torchclas.catalog import Preset
from torchclas.data.augment import TrainTransform
from torchclas.data.datasets import Dataset, Sample
from torchclas.data.folders import class_folders
from torchclas.data.preprocess import Preprocess
from torchclas.data.training import (
    EpochBatches,
    ImageData,
    Loader,
    TrainingBatches,
    class_weights,
    sampling_weights,
    split_by_hash,
)
from torchclas.errors import DataError
from torchclas.recipes import Augment, Sampling

PRESET = Preset(16, (16, 16), "bilinear", "opencv", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TRANSFORM = TrainTransform(Augment(erasing=0.25), PRESET, 16)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Eleven images of two classes, the fifth of which is broken."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(11):
        folder = root / ("cat" if number < 7 else "dog")
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"{number:02}.png"), rng.integers(0, 256, (20, 24, 3), np.uint8))
    (root / "cat" / "04.png").write_bytes(b"\x89PNG\r\n")
    return class_folders(root)


def same(first: Sequence[Sequence[torch.Tensor]], second: Sequence[Sequence[torch.Tensor]]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in zip(first, second, strict=True)
    )


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_processes_share_each_batch_and_resume(data: DataObject) -> None:
    count = data.draw(st.integers(1, 60), "images")
    options: dict[str, Any] = dict(
        batch_size=data.draw(st.integers(1, 40), "batch size"),
        seed=data.draw(st.integers(0, 2**40), "seed"),
        shuffle=data.draw(st.booleans(), "shuffle"),
        drop_last=data.draw(st.booleans(), "drop last"),
        weights=data.draw(st.sampled_from([None, np.arange(1.0, count + 1)]), "weights"),
    )
    epoch, world = data.draw(st.integers(0, 3), "epoch"), data.draw(st.integers(1, 9), "processes")
    whole = list(EpochBatches(count, **options, epoch=epoch))
    assert len(whole) == len(EpochBatches(count, **options))

    shares = [list(EpochBatches(count, **options, epoch=epoch, rank=rank, world_size=world)) for rank in range(world)]
    assert [list(chain(*parts)) for parts in zip(*shares, strict=True)] == whole
    for parts in zip(*shares, strict=True):
        assert max(map(len, parts)) - min(map(len, parts)) <= 1

    start = data.draw(st.integers(0, len(whole)), "start")
    batches = EpochBatches(count, **options)
    batches.go_to(epoch, start)
    assert list(batches) == whole[start:]
    assert len(batches) == len(whole) - start


@given(st.integers(1, 60), st.integers(1, 40), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_an_epoch_has_every_image_once(count: int, batch_size: int, epoch: int) -> None:
    drawn = [draw.index for batch in EpochBatches(count, batch_size, epoch=epoch, drop_last=False) for draw in batch]
    assert sorted(drawn) == list(range(count))
    complete = list(EpochBatches(count, batch_size, epoch=epoch, drop_last=True))
    assert {len(batch) for batch in complete} == {min(batch_size, count)}
    assert len({draw.index for batch in complete for draw in batch}) == sum(map(len, complete))


def test_order_changes_with_seed_and_epoch() -> None:
    orders = {
        tuple(draw.index for batch in EpochBatches(20, 20, seed=seed, epoch=epoch) for draw in batch)
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def test_what_makes_no_sense_is_refused() -> None:
    for arguments in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="batches of"):
            EpochBatches(*arguments)
    with pytest.raises(ValueError, match="process 2 of 2"):
        EpochBatches(4, 2, rank=2, world_size=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_after_resuming_are_bit_equal(images: Dataset, workers: int) -> None:
    def run(**options: Any) -> TrainingBatches:
        return TrainingBatches(images, TRANSFORM, 4, seed=5, **options)

    reference = run()
    epochs = [list(reference.epoch(epoch)) for epoch in range(2)]
    assert not same(*epochs)

    resumed = run(workers=workers)
    assert same(list(resumed.epoch(0, 1)), epochs[0][1:])
    abandoned = cast("Generator[Any]", resumed.epoch(1))
    next(abandoned)
    abandoned.close()
    assert same(list(resumed.epoch(1, 2)), epochs[1][2:])

    shares = [list(run(rank=rank, world_size=2, workers=workers if rank else 0).epoch(1)) for rank in range(2)]
    joined = [tuple(torch.cat(pair) for pair in zip(*parts, strict=True)) for parts in zip(*shares, strict=True)]
    assert same(joined, epochs[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_is_left_out_and_listed(images: Dataset, workers: int) -> None:
    batches = TrainingBatches(images, TRANSFORM, 4, workers=workers, drop_last=False)
    assert sum(len(labels) for _, labels in batches.epoch(0)) == 10
    [(name, reason)] = batches.skipped.items()
    assert name.endswith("04.png")
    assert "PNG" in reason
    assert name not in reason

    loader = Loader(images, Preprocess(PRESET), EpochBatches(11, 3, shuffle=False, drop_last=False))
    read = list(loader)
    assert [batch.indices.tolist() for batch in read] == [[0, 1, 2], [3, 5], [6, 7, 8], [9, 10]]
    assert torch.cat([batch.labels for batch in read]).tolist() == [0] * 6 + [1] * 4
    torch.testing.assert_close(read[0].images[1], Preprocess(PRESET)(images.name(1)), rtol=0, atol=0)


def test_a_batch_of_bad_files_is_empty(tmp_path: Path) -> None:
    dataset = Dataset([Sample(str(tmp_path / f"{number}.jpg"), 0) for number in range(2)])
    batches = TrainingBatches(dataset, TRANSFORM, 2)
    [(images, labels)] = batches.epoch(0)
    assert len(images) == len(labels) == 0
    assert set(batches.skipped.values()) == {"no such file"}


def test_images_without_a_class_are_refused() -> None:
    with pytest.raises(DataError, match=r"1 image without a class, the first is b\.jpg"):
        ImageData(Dataset([Sample("a.jpg", 0), Sample("b.jpg", -1)]), TRANSFORM)


@pytest.mark.parametrize(("sampling", "shares"), [("balanced", (1, 1, 1)), ("sqrt", (30, 9.5, 3.2))])
def test_sampling_draws_classes_as_asked(
    sampling: Sampling, shares: tuple[int, float, float] | tuple[int, int, int]
) -> None:
    labels = np.array([0] * 900 + [1] * 90 + [3] * 10)
    batches = EpochBatches(1000, 100, weights=sampling_weights(labels, sampling))
    counts = Counter(int(labels[draw.index]) for batch in batches for draw in batch)
    assert set(counts) == {0, 1, 3}
    for label, share in zip((0, 1, 3), shares, strict=True):
        assert counts[label] == pytest.approx(1000 * share / sum(shares), abs=60)
    assert sampling_weights(labels, "") is None


def test_class_weights() -> None:
    labels = np.array([0, 0, 0, 1, 3, 3])
    weights = class_weights(labels, 5)
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 2, 0, 1, 0]))
    for chosen in (None, [1, 2, 3, 4, 5], [10, 20, 30, 40, 50]):
        weights = class_weights(labels, 5, chosen)
        assert float(weights[torch.from_numpy(labels)].mean()) == pytest.approx(1)
    torch.testing.assert_close(class_weights(labels, 5, [1, 2, 3, 4, 5]), weights)
    with pytest.raises(DataError, match="no class with a weight above 0"):
        class_weights(labels, 5, [0, 0, 1, 0, 1])


def listed(names: list[str], root: str = "/data") -> Dataset:
    return Dataset([Sample(f"{root}/{name}", name.startswith("dog")) for name in names], root=root)


NAMES = [f"{kind}/{number}.jpg" for kind, count in (("cat", 40), ("dog", 20)) for number in range(count)]


@pytest.mark.parametrize("stratified", [True, False])
def test_split_is_the_same_in_another_place_and_order(stratified: bool) -> None:
    train, val = split_by_hash(listed(NAMES), 0.25, stratified=stratified)
    assert sorted([*train.indices, *val.indices]) == list(range(60))
    _, moved = split_by_hash(listed(NAMES[::-1], "/mnt/elsewhere"), 0.25, stratified=stratified)
    assert {val.key(index) for index in range(len(val))} == {moved.key(index) for index in range(len(moved))}
    assert val.name(0).startswith("/data/cat/")
    assert val.labels.tolist() == [int(val.key(index).startswith("dog")) for index in range(len(val))]


def test_stratified_split_takes_the_share_of_every_class() -> None:
    train, val = split_by_hash(listed([*NAMES, "bird.jpg"]), 0.25)
    assert Counter(val.labels.tolist()) == {0: 10, 1: 5}
    pair = Dataset([Sample("a.jpg", 0), Sample("b.jpg", 0), Sample("c.jpg", 1)])
    train, val = split_by_hash(pair, 0.01)
    assert (len(train), len(val), val.labels.tolist()) == (2, 1, [0])


def test_added_images_move_no_other() -> None:
    _, before = split_by_hash(listed(NAMES[:50]), 0.3, stratified=False)
    _, after = split_by_hash(listed(NAMES), 0.3, stratified=False)
    assert after.indices[after.indices < 50].tolist() == before.indices.tolist()


def test_split_that_leaves_nothing() -> None:
    with pytest.raises(DataError, match="cannot be divided"):
        split_by_hash(Dataset([Sample("a.jpg", 0)]), 0.5)
    for fraction in (0.0, 1.0):
        with pytest.raises(DataError, match="between 0 and 1"):
            split_by_hash(listed(NAMES), fraction)
