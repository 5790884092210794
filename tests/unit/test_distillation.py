"""Distillation: what the student learns, what the cache holds, and that neither depends on what happened before."""

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from lightning_fabric.fabric import Fabric
from PIL import Image
from torch.testing import assert_close

from torchclas import create_model
from torchclas.catalog import find
from torchclas.data.augment import TrainTransform
from torchclas.data.datasets import Dataset, Sample
from torchclas.data.preprocess import Preprocess
from torchclas.errors import DataError, Error, OutputError
from torchclas.layers.network import Network
from torchclas.recipes import Augment, Distill, Loss
from torchclas.tasks.distill import distill
from torchclas.training import distillation
from torchclas.training.distill_plan import make_plan
from torchclas.training.distillation import (
    CachedLogits,
    DistillationBatches,
    DistillationError,
    DistillationLoss,
    LogitCache,
    Teacher,
    predicted_classes,
)
from torchclas.training.options import DistillOptions
from torchclas.weights.checkpoint import read_tensors, save_checkpoint
from torchclas.weights.metadata import Metadata, read_metadata

pytestmark = pytest.mark.usefixtures("one_thread")

pytest.importorskip("lightning_fabric")

CLASSES, SIZE, IMAGES = ("blue", "green", "red"), 32, 12
PRESET = find("PPLCNet_x0_25").preset.at(SIZE)
SMALL = ("input_size=32", "schedule.warmup_epochs=0", "optimizer.lr=0.01", "batch_size=4", "devices=1")


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    from lightning_fabric import Fabric

    return Fabric(accelerator="cpu", devices=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """`flat` holds pictures without class folders, `sorted` the same in three, `teacher` knows the classes."""
    folder = tmp_path_factory.mktemp("distill")
    rng = np.random.default_rng(0)
    for index in range(IMAGES):
        name = CLASSES[index % 3]
        pixels = rng.integers(0, 120, (40, 40, 3)) + 130 * (np.arange(3) == 2 - index % 3)
        for place in (folder / "flat", folder / "sorted" / name):
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(place / f"{index:02}.png")
    metadata = Metadata("PPLCNet_x0_25", 3, PRESET, name="teacher", class_ids=CLASSES, class_names=CLASSES)
    save_checkpoint(network(), folder / "teacher.safetensors", metadata)
    return SimpleNamespace(flat=folder / "flat", sorted=folder / "sorted", teacher=folder / "teacher.safetensors")


def network(seed: int = 0) -> Network:
    """Untrained, but with opinions: its batch norms have seen something, and its classifier is not that small."""
    torch.manual_seed(seed)
    built = create_model("PPLCNet_x0_25", num_classes=3).train()
    with torch.no_grad():
        for _ in range(20):
            built(torch.randn(16, 3, SIZE, SIZE))
        assert isinstance(built.classifier, torch.nn.Linear)
        built.classifier.weight.mul_(20)
    return built.eval()


@pytest.fixture
def images(files: SimpleNamespace) -> Dataset:
    paths = sorted(files.flat.iterdir())
    return Dataset([Sample(str(path), 0) for path in paths], root=str(files.flat))


@pytest.fixture(scope="module")
def transform() -> TrainTransform:
    return TrainTransform(Augment(), PRESET, SIZE)


@pytest.fixture(scope="module")
def teacher(fabric: Fabric) -> Teacher:
    return Teacher(fabric, network(), PRESET, PRESET)


def cache(folder: Path, **changes: Any) -> LogitCache:
    chosen: dict[str, Any] = {"key": {"teacher": "a"}, "images": IMAGES, "views": 2, "classes": 3, "k": 3, **changes}
    return LogitCache(folder, **chosen)


def fill(cache: LogitCache, teacher: Teacher, images: Dataset, transform: TrainTransform) -> list[int]:
    return list(cache.fill(teacher, images, transform, batch_size=5))


def options(files: SimpleNamespace, **changes: Any) -> DistillOptions:
    chosen: dict[str, Any] = {
        "data": files.flat, "teacher": str(files.teacher), "model": "PPLCNet_x0_25", "epochs": 2, "batch_size": 4,
        "overrides": SMALL, "workers": 0, "device": "cpu",
    }  # fmt: skip
    return DistillOptions(**{**chosen, **changes})


# Views


def test_a_view_comes_back_whatever_the_seed_and_the_number_of_processes(
    images: Dataset, transform: TrainTransform
) -> None:
    def pictures(epoch: int, **how: Any) -> dict[int, torch.Tensor]:
        found: dict[int, torch.Tensor] = {}
        for rank in range(how.get("world_size", 1)):
            batches = DistillationBatches(images, transform, 4, views=2, rank=rank, **how)
            for part, targets in batches.epoch(epoch):
                found |= zip(targets[:, 1].tolist(), part, strict=True)
        return found

    first, again, second = pictures(0), pictures(2, seed=5, world_size=2), pictures(1)
    assert sorted(first) == list(range(IMAGES))
    assert sorted(second) == list(range(IMAGES, 2 * IMAGES))
    assert sorted(again) == sorted(first)
    assert all(torch.equal(first[row], again[row]) for row in first)
    assert not any(torch.equal(first[row], second[row + IMAGES]) for row in first)


def test_without_a_cache_every_epoch_has_views_of_its_own(images: Dataset, transform: TrainTransform) -> None:
    batches = DistillationBatches(images, transform, IMAGES)
    epochs = []
    for epoch in (0, 2):
        (part, targets) = next(batches.epoch(epoch))
        epochs.append(part[targets[:, 1].argsort()])
    assert not torch.equal(*epochs)


# The teacher


def test_the_teacher_sees_what_its_own_preprocessing_would_show_it(fabric: Fabric, files: SimpleNamespace) -> None:
    other = replace(PRESET, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    path = files.flat / "00.png"
    taught = Teacher(fabric, network(), other, PRESET)(Preprocess(PRESET)(path)[None])
    assert_close(taught, network()(Preprocess(other)(path)[None]), atol=1e-4, rtol=1e-4)


def test_batch_norm_in_training_mode_takes_the_statistics_of_the_batch_and_learns_nothing(fabric: Fabric) -> None:
    """And drops out, as upstream's teachers do."""
    batch = torch.randn(8, 3, SIZE, SIZE) * 2 + 1
    live = Teacher(fabric, network(), PRESET, PRESET, "train")
    built = [network() for _ in range(2)]  # the same weights
    for seed, training in enumerate(built):
        torch.manual_seed(seed)
        expected = training.train()(batch)
        torch.manual_seed(seed)
        # Maps of one pixel have eight values per channel: small deviations amplify rounding.
        assert_close(live(batch), expected, atol=1e-3, rtol=1e-3)
    assert not torch.equal(live(batch), live(batch))
    frozen = Teacher(fabric, network(), PRESET, PRESET)
    assert_close(frozen(batch), network()(batch), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(frozen(batch), live(batch), atol=0.1)


def test_each_head_of_the_student_learns_from_the_teacher(teacher: Teacher) -> None:
    batch, targets = torch.randn(4, 3, SIZE, SIZE), torch.zeros(4, 2, dtype=torch.long)
    right, wrong = teacher(batch), torch.zeros(4, 3, requires_grad=True)
    loss = DistillationLoss(teacher, Distill(), Loss(head_weights=(1.0, 0.5)))
    assert loss(batch, (right, right), targets).item() == 0
    main, side = loss(batch, (wrong, right), targets), loss(batch, (right, wrong), targets)
    assert_close(side, main / 2)
    main.backward()
    assert wrong.grad is not None
    assert wrong.grad.abs().sum() > 0


def test_what_the_teacher_predicts_labels_the_validation_images(teacher: Teacher, images: Dataset) -> None:
    expected = [network()(Preprocess(PRESET)(images.read(index))[None]).argmax().item() for index in range(IMAGES)]
    assert predicted_classes(teacher, images, PRESET, batch_size=5).tolist() == expected


# The cache


def test_a_cache_of_all_logits_teaches_what_the_teacher_does(
    tmp_path: Path, teacher: Teacher, images: Dataset, transform: TrainTransform
) -> None:
    kept = cache(tmp_path)
    assert fill(kept, teacher, images, transform)[-1] == kept.rows == 2 * IMAGES
    assert kept.file.stat().st_size == kept.bytes == 2 * IMAGES * (4 * 2 + 3 * 4)
    source = kept.source()
    batches = DistillationBatches(images, transform, 5, views=2)
    for epoch in range(3):
        for part, targets in batches.epoch(epoch):
            assert_close(source(part, targets[:, 1]).softmax(-1), teacher(part).softmax(-1), atol=1e-3, rtol=1e-3)


def test_the_classes_left_out_share_evenly_what_is_left() -> None:
    logits = torch.randn(20, 10, dtype=torch.float64) * 3
    values, classes = distillation._pack(logits, 4)
    restored = distillation._unpack(values.float(), classes.long(), 10).softmax(-1)
    wanted = logits.softmax(-1)
    best = wanted.topk(4)
    assert torch.equal(classes.long(), best.indices)
    assert_close(restored.gather(1, best.indices), best.values.float(), rtol=5e-3, atol=1e-4)
    rest = torch.ones(20, 10).scatter(1, best.indices, 0)
    assert_close((restored * rest).amax(1), (wanted.float() * rest).sum(1) / 6, rtol=1e-2, atol=1e-5)


def test_a_teacher_that_is_sure_of_itself_leaves_no_infinity() -> None:
    logits = torch.tensor([[300.0, 0.0, -300.0], [0.0, 5e5, 0.0]], requires_grad=True)
    student = torch.zeros(2, 3, requires_grad=True)
    for k in (1, 2, 3):
        values, classes = distillation._pack(logits.detach(), k)
        taught = distillation._unpack(values.float(), classes.long(), 3)
        distillation.distillation_loss(student, taught, None, Distill(), Loss()).backward()
        assert student.grad is not None
    assert student.grad.isfinite().all()


def test_filling_goes_on_where_it_was_stopped(
    tmp_path: Path, teacher: Teacher, images: Dataset, transform: TrainTransform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation, "SHARD", 6)
    whole, parts = cache(tmp_path / "whole"), cache(tmp_path / "parts")
    fill(whole, teacher, images, transform)
    filling = cast("Generator[int]", parts.fill(teacher, images, transform, batch_size=5))
    assert [next(filling) for _ in range(3)] == [5, 10, 12]
    filling.close()
    assert parts.done() == 10  # what came after the last shard does not count
    with pytest.raises(DistillationError, match="10 of 24 rows"):
        parts.source()
    assert fill(parts, teacher, images, transform)[0] == 12
    assert parts.file.read_bytes() == whole.file.read_bytes()
    assert fill(parts, teacher, images, transform) == []


def test_a_cache_made_for_something_else_is_refused(
    tmp_path: Path, teacher: Teacher, images: Dataset, transform: TrainTransform
) -> None:
    fill(cache(tmp_path), teacher, images, transform)
    with pytest.raises(DistillationError, match="another teacher, k:"):
        cache(tmp_path, key={"teacher": "b"}, k=2).done()
    with cache(tmp_path).file.open("ab") as file:
        file.write(b"x")
    with pytest.raises(DistillationError, match="missing or not of 480 bytes"):
        cache(tmp_path).source()
    cache(tmp_path).index.write_text("{")
    with pytest.raises(DistillationError, match="damaged"):
        cache(tmp_path).done()
    with pytest.raises(DistillationError, match=r"4 logits of 3: give 1\.\.3"):
        cache(tmp_path, k=4)


def test_a_cache_for_which_the_disk_has_no_room_is_not_begun(
    tmp_path: Path, teacher: Teacher, images: Dataset, transform: TrainTransform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation.shutil, "disk_usage", lambda _: SimpleNamespace(free=479))
    with pytest.raises(OutputError, match="takes 480 bytes, the disk has 479"):
        fill(cache(tmp_path / "new"), teacher, images, transform)
    assert not list((tmp_path / "new").iterdir())


def test_an_image_that_cannot_be_read_has_no_logits(
    tmp_path: Path, teacher: Teacher, images: Dataset, transform: TrainTransform
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    broken = replace(images, samples=[*images.samples[:3], Sample(str(bad), 0), *images.samples[4:]])
    kept = cache(tmp_path)
    fill(kept, teacher, broken, transform)
    source = kept.source()
    batches = DistillationBatches(broken, transform, 4, views=2)
    parts = list(batches.epoch(0))
    assert sum(len(part) for part, _ in parts) == IMAGES - 1
    assert list(batches.skipped) == [str(bad)]
    assert all(source(part, targets[:, 1]).isfinite().all() for part, targets in parts)
    with pytest.raises(DistillationError, match="could not be read when it was made"):
        source(torch.empty(1), torch.tensor([3]))


# Whole runs


def test_a_student_comes_to_agree_with_its_teacher_without_any_label(files: SimpleNamespace, tmp_path: Path) -> None:
    [summary] = distill(options(files, epochs=12, output=tmp_path / "run"))
    scores = [float(line.split(",")[3]) for line in (tmp_path / "run" / "log.csv").read_text().splitlines()[1:]]
    assert scores[-1] < 0.7 * scores[0]
    best = read_metadata(summary.output / "best.safetensors")
    assert best.class_ids == CLASSES
    assert best.preset == PRESET
    assert best.origin["teacher"] == best.origin["labels_by"] == "teacher"
    assert "agrees with its teacher teacher" in (summary.output / "README.md").read_text(encoding="utf-8")
    [again] = distill(options(files, epochs=12, output=tmp_path / "run"))
    assert again.was_finished


@pytest.mark.parametrize("cached", [0, 3])
def test_a_run_that_was_killed_ends_as_one_that_was_not(
    files: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: int
) -> None:
    whole, killed = (
        options(files, epochs=3, cache_logits=cached, cache_views=2, output=tmp_path / name)
        for name in ("whole", "killed")
    )
    distill(whole)
    learn, steps = DistillationLoss.__call__, iter(range(5))

    def fail(self: DistillationLoss, *arguments: Any) -> torch.Tensor:
        if next(steps, None) is None:
            raise RuntimeError("killed")
        return learn(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(DistillationLoss, "__call__", fail)
        with pytest.raises(RuntimeError, match="killed"):
            distill(killed)
    distill(killed)
    first, second = (read_tensors(tmp_path / name / "best.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first.keys() == second.keys()


def test_with_a_cache_training_never_asks_the_teacher(
    files: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    ask = Teacher.__call__
    monkeypatch.setattr(
        Teacher, "__call__", lambda self, images, *rest: (asked.append(len(images)), ask(self, images))[1]
    )
    looked_up = []
    look_up = CachedLogits.__call__
    monkeypatch.setattr(
        CachedLogits,
        "__call__",
        lambda self, images, rows: (looked_up.append(len(rows)), look_up(self, images, rows))[1],
    )
    chosen = options(files, epochs=2, val=files.sorted, cache_logits=2, cache_views=1, cache_folder=tmp_path / "cache")
    distill(replace(chosen, output=tmp_path / "one"))
    assert (sum(asked), sum(looked_up)) == (IMAGES, 2 * IMAGES)
    distill(replace(chosen, output=tmp_path / "two", seed=1))  # other seeds share the cache
    assert (sum(asked), sum(looked_up)) == (IMAGES, 4 * IMAGES)


def test_the_second_phase_starts_from_the_first_with_its_own_recipe(files: SimpleNamespace, tmp_path: Path) -> None:
    chosen = options(files, epochs=12, finetune=files.sorted, val=files.sorted, output=tmp_path / "run")
    first, second = distill(chosen)
    assert second.output == first.output / "finetune"
    assert (first.epochs, second.epochs) == (12, 1)  # 360 and 30, cut in proportion
    recipe = (second.output / "recipe.toml").read_text()
    assert 'name = "ssld_finetune"' in recipe
    assert "lr = 0.004" in recipe
    origin = read_metadata(second.output / "best.safetensors").origin
    assert origin["from"] == str(first.output / "best.safetensors")


def test_dkd_learns_from_teacher_and_labels(files: SimpleNamespace, tmp_path: Path) -> None:
    plan = make_plan(options(files, data=files.sorted, method="dkd", output=tmp_path))
    assert (plan.distill.method, plan.distill.label_weight) == ("dkd", 1.0)
    assert not plan.validates_agreement
    assert sorted(set(plan.train.labels)) == [0, 1, 2]
    [summary] = distill(options(files, data=files.sorted, method="dkd", output=tmp_path / "run"))
    assert summary.best is not None
    with pytest.raises(DataError):
        make_plan(options(files, method="dkd"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": None}, "names no teacher"),
        ({"model": None}, "which model is the student"),
        ({"cache_logits": 2, "teacher_bn": "train"}, "without --cache-logits"),
        ({"overrides": (*SMALL, "augment.mixup=0.2", "augment.mixup_prob=1")}, "mixes images"),
        ({"start": "pretrained"}, "PPLCNet_x0_25 has 1000 classes, its teacher teacher 3"),
    ],
)
def test_what_does_not_go_together_is_said_at_once(files: SimpleNamespace, changes: Any, message: str) -> None:
    with pytest.raises(Error, match=message):
        make_plan(options(files, **changes))


def test_the_published_recipe_names_student_and_teacher(files: SimpleNamespace) -> None:
    plan = make_plan(options(files, model=None, teacher=None, recipe="MobileNetV3_small_x1_0_ssld"))
    assert (plan.model.arch, plan.teacher.name) == ("MobileNetV3_small_x1_0", "ResNet50_vd_ssld")
    assert make_plan(options(files, model="PPLCNet_x1_0")).settings.recipe.name == "PPLCNet_x1_0_ssld"
    assert make_plan(options(files)).settings.recipe.name == "ssld"
