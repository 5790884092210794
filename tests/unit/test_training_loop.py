"""The loop: it learns, it goes on from a checkpoint bit by bit, and it stops when it must."""

import math
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest
import torch
from torch.testing import assert_close

from torchclas import create_model
from torchclas.catalog import find
from torchclas.layers.network import Network
from torchclas.recipes import override, recipe
from torchclas.training.loop import Interrupted, Progress, Settings, Trainer, TrainingError, freeze_body
from torchclas.training.run import RunFolder
from torchclas.training.validation import Scores
from torchclas.weights.checkpoint import read_tensors
from torchclas.weights.metadata import Metadata, read_metadata

pytestmark = pytest.mark.usefixtures("one_thread")

pytest.importorskip("lightning_fabric")

CLASSES, SIZE, BATCH, IMAGES = 3, 32, 4, 14  # the last batch of an epoch holds two


class Noise:
    """Images of noise around a colour for each class; calls `at` before each step."""

    steps_per_epoch = math.ceil(IMAGES / BATCH)

    def __init__(self, at: Callable[[int], object] = lambda number: None) -> None:
        self.skipped: dict[str, str] = {}
        self.labels = torch.arange(IMAGES) % CLASSES
        noise = torch.randn(IMAGES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        self.images = noise + 2 * torch.eye(3)[self.labels][:, :, None, None]
        self.at = at

    def epoch(self, epoch: int, start_step: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(epoch))
        for step in range(start_step, self.steps_per_epoch):
            self.at(epoch * self.steps_per_epoch + step)
            own = order[step * BATCH : (step + 1) * BATCH]
            yield self.images[own], self.labels[own]


def settings(*changes: str, **fields: Any) -> Settings:
    base = recipe("PPLCNet_x0_25")
    changes = ("epochs=2", "schedule.warmup_epochs=0", "ema=0.9", "augment.mixup=0.2", "augment.mixup_prob=1", *changes)
    return Settings(override(base, changes), **cast("dict[str, Any]", {"lr": 0.05, **fields}))


def trainer(folder: Path, how: Settings, data: Noise | None = None, model: str = "PPLCNet_x0_25") -> Trainer:
    from lightning_fabric import Fabric

    torch.manual_seed(0)
    network = create_model(model, num_classes=CLASSES)
    run = RunFolder(folder, Metadata(network.arch, CLASSES, find(model).preset))
    run.begin({"model": model}, how.recipe)
    fabric = Fabric(accelerator="cpu", devices=1, precision=how.recipe.precision)
    data = data or Noise()

    @torch.inference_mode()
    def validate(network: Network) -> Scores:
        logits = network.eval()(data.images)
        right = (logits.argmax(1) == data.labels).float().mean().item()
        return Scores(IMAGES, torch.nn.functional.cross_entropy(logits, data.labels).item(), right, 1.0)

    return Trainer(fabric, network, how, data, validate, run)


def folder(of: Trainer) -> RunFolder:
    assert isinstance(of.run, RunFolder)
    return of.run


def same(first: Any, second: Any) -> None:
    """Whether two states hold the same bits; how long things took is left out."""
    first, second = (trainer_state(state) for state in (first, second))
    assert_close(first, second, rtol=0, atol=0, equal_nan=True)


def trainer_state(state: Any) -> Any:
    progress = state["progress"]
    progress = {**progress, "seconds": 0, "history": [timeless(row) for row in progress["history"]]}
    return {**state, "progress": progress, "averaged": state["averaged"] or {}}


def timeless(row: dict[str, float | int]) -> dict[str, float | int]:
    return {key: value for key, value in row.items() if "second" not in key}


def test_clipped_gradients_hardly_move_the_weights(tmp_path: Path) -> None:
    moved: list[float] = []
    for clip in ("0", "1e-6"):
        run = trainer(tmp_path / clip, settings(f"optimizer.clip_each={clip}", "optimizer.weight_decay=0", "ema=0"))
        before = [parameter.detach().clone() for parameter in run.network.parameters()]
        run.fit()
        pairs = zip(run.network.parameters(), before, strict=True)
        moved.append(max(float((new.detach() - old).abs().max()) for new, old in pairs))
    assert moved[1] < 1e-4 < moved[0]


class TestResume:
    @pytest.mark.parametrize("changes", [(), ("optimizer.name=adamw", "ema=0"), ("optimizer.name=rmsprop", "clip=1")])
    @pytest.mark.parametrize("stop", [2, 3, 6])  # within an epoch, before its last step, within the second
    def test_a_stopped_run_goes_on_bit_by_bit(
        self, tmp_path: Path, changes: tuple[()] | tuple[str, str], stop: int
    ) -> None:
        whole = trainer(tmp_path / "whole", settings(*changes))
        whole.fit()

        def interrupt(number: int) -> None:
            if number == stop:
                os.kill(os.getpid(), signal.SIGTERM)

        first = trainer(tmp_path / "stopped", settings(*changes), Noise(interrupt))
        with pytest.raises(Interrupted) as stopped:
            first.fit()
        assert stopped.value.number == signal.SIGTERM
        second = trainer(tmp_path / "stopped", settings(*changes))
        second.fit()
        same(second.state(), whole.state())
        assert read_metadata(folder(first).best) == read_metadata(folder(whole).best)
        assert_close(read_tensors(folder(first).best), read_tensors(folder(whole).best), rtol=0, atol=0)

    def test_an_ignored_interrupt_stays_ignored(self, tmp_path: Path) -> None:
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            progress = trainer(tmp_path, settings(), Noise(lambda _: signal.raise_signal(signal.SIGINT))).fit()
        finally:
            signal.signal(signal.SIGINT, previous)
        assert progress.finished

    def test_a_crash_goes_on_from_the_last_checkpoint(self, tmp_path: Path) -> None:
        how = settings(checkpoint_steps=3, head_epochs=1)
        whole = trainer(tmp_path / "whole", how)
        whole.fit()

        def crash(number: int) -> None:
            if number == 5:
                raise RuntimeError("power cut")

        with pytest.raises(RuntimeError, match="power cut"):
            trainer(tmp_path / "crashed", how, Noise(crash)).fit()
        seen = []
        second = trainer(tmp_path / "crashed", how, Noise(seen.append))
        second.fit()
        assert seen == [4, 5, 6, 7]  # the checkpoint at the end of the first epoch
        same(second.state(), whole.state())

    def test_bad_files_of_before_are_not_forgotten(self, tmp_path: Path) -> None:
        first = Noise()

        def stop(number: int) -> None:
            first.skipped["b.png"] = "broken"
            if number == 1:
                os.kill(os.getpid(), signal.SIGTERM)

        first.at = stop
        with pytest.raises(Interrupted):
            trainer(tmp_path, settings(), first).fit()
        second = Noise(lambda number: second.skipped.update({"a.png": "cut off"}))
        progress = trainer(tmp_path, settings(), second).fit()
        assert list(progress.unreadable.items()) == [("a.png", "cut off"), ("b.png", "broken")]

    def test_a_truncated_checkpoint_falls_back_to_the_one_before(self, tmp_path: Path) -> None:
        how = settings(checkpoint_steps=1)
        whole = trainer(tmp_path, how)
        whole.fit()
        state = whole.state()
        last = folder(whole).checkpoints()[-1]
        last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
        seen = []
        again = trainer(tmp_path, how, Noise(seen.append))
        with pytest.warns(UserWarning, match="damaged, the checkpoint before it is taken"):
            again.fit()
        same(again.state(), state)
        assert len(folder(again).checkpoints()) == 2

    def test_flipped_bits_are_noticed(self, tmp_path: Path) -> None:
        done = trainer(tmp_path, settings())
        done.fit()
        last = folder(done).checkpoints()[-1]
        content = bytearray(last.read_bytes())
        content[len(content) // 2] ^= 1
        last.write_bytes(content)
        with pytest.warns(UserWarning, match="damaged"):
            state = folder(done).latest()
        assert state is not None
        assert state["progress"]["epoch"] == 1

    def test_a_finished_run_trains_no_further(self, tmp_path: Path) -> None:
        trainer(tmp_path, settings()).fit()
        seen = []
        progress = trainer(tmp_path, settings(), Noise(seen.append)).fit()
        assert progress.finished
        assert not seen


class TestSteps:
    def test_it_learns(self, tmp_path: Path) -> None:
        plain = ("augment.mixup=0", "augment.mixup_prob=0", "loss.label_smoothing=0", "ema=0")
        how = settings("epochs=10", "optimizer.name=adamw", *plain, lr=0.001)
        progress = trainer(tmp_path, how, model="ResNet18_vd").fit()
        assert progress.best is not None
        assert progress.best.score > 0.9
        assert progress.history[-1].train_loss < 0.6 * progress.history[0].train_loss

    def test_accumulation_changes_memory_and_not_the_result(self, tmp_path: Path) -> None:
        changes = ("ema=0", "augment.mixup=0", "augment.mixup_prob=0")  # SqueezeNet: no batch norm
        results = []
        for accumulate in (1, 3):
            how = settings(*changes, accumulate=accumulate, lr=0.001)
            one = trainer(tmp_path / str(accumulate), how, model="SqueezeNet1_1")
            for module in one.network.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
            one.fit()
            results.append(one.network.state_dict())
        assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)

    def test_the_head_learns_first(self, tmp_path: Path) -> None:
        how = settings("ema=0", "epochs=1", head_epochs=1)
        one = trainer(tmp_path, how)
        before = {name: value.clone() for name, value in one.network.state_dict().items()}
        one.fit()
        changed = {name for name, value in one.network.state_dict().items() if not torch.equal(value, before[name])}
        assert changed == {"classifier.weight", "classifier.bias"}

    def test_fixres_lets_the_last_batch_norm_learn_too(self) -> None:
        network = create_model("ResNet18_vd", num_classes=CLASSES)
        freeze_body(network, last_norm=True)
        awake = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
        assert [name.rpartition(".")[0] for name in awake][-2:] == ["classifier", "classifier"]
        assert len(awake) == 4
        assert sum(module.training for module in network.modules()) == 2

    def test_all_processes_would_draw_the_same_lr(self, tmp_path: Path) -> None:
        how = settings("epochs=1", "ema=0", "schedule.warmup_epochs=0.5")
        rates = []
        one = trainer(tmp_path, how)
        one.display = Mock(step=lambda progress, loss, lr: rates.append(lr))
        one.fit()
        assert rates[:3] == [0.0, 0.025, 0.05]
        assert rates[3] < 0.05

    def test_batches_of_too_few_images_are_passed_over(self, tmp_path: Path) -> None:
        data = Noise()
        data.epoch = lambda epoch, start_step: iter([(data.images[:n], data.labels[:n]) for n in (4, 1, 0, 4)])
        one = trainer(tmp_path, settings("epochs=1"), data)
        one.fit()
        counts = [value for name, value in one.network.named_buffers() if name.endswith("num_batches_tracked")]
        assert counts[0] == 2

    def test_no_image_at_all(self, tmp_path: Path) -> None:
        data = Noise()
        data.epoch = lambda epoch, start_step: iter([(data.images[:0], data.labels[:0])] * data.steps_per_epoch)
        with pytest.raises(TrainingError, match="trained on no image"):
            trainer(tmp_path, settings(), data).fit()


class TestStopping:
    def test_a_loss_that_is_not_finite(self, tmp_path: Path) -> None:
        data = Noise()

        def spoil(number: int) -> None:
            if number == 6:
                data.images[:] = math.nan

        data.at = spoil
        one = trainer(tmp_path, settings(), data)
        with pytest.raises(TrainingError, match=r"loss is nan at epoch 2, step 3.*epoch-00001-step.*best.safetensors"):
            one.fit()
        assert all(value.isfinite().all() for value in one.network.parameters())

    def test_a_network_that_is_spoilt_is_not_kept(self, tmp_path: Path) -> None:
        """Its last step may have been one too far, which only the validation shows."""
        one = trainer(tmp_path, settings())
        one.validate = lambda network: Scores(IMAGES, math.nan, 0.5, 1.0)
        with pytest.raises(TrainingError, match="the validation loss is nan after epoch 1; there is no checkpoint yet"):
            one.fit()
        assert not folder(one).best.exists()

    def test_early(self, tmp_path: Path) -> None:
        how = settings("epochs=9", early_stop=2)
        one = trainer(tmp_path, how)
        one.validate = lambda network: Scores(IMAGES, 1.0, 0.5, 1.0)
        assert len(one.fit().history) == 3

    def test_the_best_is_kept(self, tmp_path: Path) -> None:
        one = trainer(tmp_path, settings("epochs=3"))
        scores = iter([0.5, 0.75, 0.25])
        one.validate = lambda network: Scores(IMAGES, 1.0, next(scores), 1.0)
        progress = one.fit()
        assert progress.best is not None
        assert progress.best.epoch == 2
        assert read_metadata(folder(one).best).origin["val_top1"] == 0.75


def test_progress_survives_the_file() -> None:
    progress = Progress(epoch=3, step=2, loss=0.1)
    assert Progress.from_dict(progress.to_dict()) == progress
    assert Progress.from_dict(replace(progress, history=[]).to_dict()).best is None
