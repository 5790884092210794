"""Heat maps: what a place counts for, where that is in the picture, and the files they are drawn to."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F

import torchclas
from torchclas import Classifier, Explainer, Explanation, HeatMap, cli, models
from torchclas.catalog import Backend, Fit, Preset, find
from torchclas.data.opening import open_for_model
from torchclas.data.preprocess import Preprocess, Rectangle
from torchclas.errors import CheckpointError, Error, UnknownNameError
from torchclas.explanation import explainer as explainer_module
from torchclas.explanation.heat_map import spread
from torchclas.explanation.relevance import relevance
from torchclas.layers.network import Network, Stage
from torchclas.models.tnt import TNT
from torchclas.models.vision_transformer import DistilledVisionTransformer, VisionTransformer
from torchclas.reporting import contact_sheet, explanation_sheet, training_report
from torchclas.reporting.mistakes import jpegs
from torchclas.spec import find_model
from torchclas.tasks import explain as task

pytestmark = pytest.mark.usefixtures("one_thread")

PRESET = find("ResNet50").preset
NAMES = ["red", "anything else", "third"]


def top2(logits: Tensor) -> Tensor:
    return logits.topk(2).indices


class Red(Network):
    """Finds red in places of 8 × 8 pixels, and nothing else in an image."""

    def __init__(self) -> None:
        super().__init__(stem=nn.Conv2d(3, 1, 8, 8), stages=[Stage()], scales=[(8, 1)], neck=nn.ReLU(), num_classes=3)
        with torch.no_grad():
            stem, classifier = self.stem, self.classifier
            assert isinstance(stem, nn.Conv2d)
            assert isinstance(classifier, nn.Linear)
            stem.weight[0] = torch.tensor([1.0, -1.0, -1.0])[:, None, None] / 64
            stem.bias = None
            classifier.weight.copy_(torch.tensor([[4.0], [-4.0], [-5.0]]))
            classifier.bias.zero_()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = models.build("PPLCNet_x0_25", num_classes=3)
    path = tmp_path_factory.mktemp("explanation") / "three.safetensors"
    torchclas.save_checkpoint(network.eval(), path, class_names=NAMES, preset=PRESET.at((64, 64)))
    return path


def finder_of_red(checkpoint: Path, preset: Preset) -> Explainer:
    explainer = Explainer(checkpoint, preset=preset)
    explainer.network = Red().eval()
    return explainer


def picture_with_red(height: int, width: int, top: int, left: int, side: int) -> NDArray[np.uint8]:
    picture = np.full((height, width, 3), 128, np.uint8)
    picture[top : top + side, left : left + side] = (255, 0, 0)
    return picture


def hottest(heat: NDArray[np.float32]) -> tuple[int, int]:
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    return int(row), int(column)


@pytest.mark.parametrize("backend", get_args(Backend))
@pytest.mark.parametrize("fit", get_args(Fit))
@pytest.mark.parametrize("size", [(64, 64), (80, 160)])
@pytest.mark.parametrize("shape", [(200, 200), (240, 101), (90, 250), (12, 255), (250, 3)])
def test_what_the_network_sees_of_a_picture(
    shape: tuple[int, int], size: tuple[int, int], fit: Fit, backend: Backend
) -> None:
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.uint8)
    picture = np.stack((rows, columns, np.zeros_like(rows)), 2)
    preprocess = Preprocess(replace(PRESET.at(size).fitted(fit), backend=backend, interpolation="bilinear"))
    fitted = preprocess.fit(picture).astype(float)
    seen = preprocess.seen(*shape)
    pixel = seen.height / size[0], seen.width / size[1]
    # The pixel of the picture at the centre of each row and column of the input.
    down, across = (
        start + (np.arange(count) + 0.5) * step - 0.5
        for start, count, step in zip((seen.top, seen.left), size, pixel, strict=True)
    )
    middle = np.abs(down - (shape[0] - 1) / 2).argmin(), np.abs(across - (shape[1] - 1) / 2).argmin()
    for axis, expected, got in ((0, down, fitted[:, middle[1], 0]), (1, across, fitted[middle[0], :, 1])):
        # Away from what resizing mixes in from beyond the edge.
        inside = (expected >= pixel[axis]) & (expected <= shape[axis] - 1 - pixel[axis])
        assert inside.any() or shape[axis] < 3 * pixel[axis]
        assert np.abs(got - expected)[inside].max(initial=0) <= 1
    if fit == "squeeze":
        assert tuple(seen) == (0, 0, *shape)
    if fit == "pad":
        assert seen.top <= 0 <= shape[0] <= seen.top + seen.height + 1e-9
        assert seen.left <= 0 <= shape[1] <= seen.left + seen.width + 1e-9


@pytest.mark.parametrize("fit", get_args(Fit))
@pytest.mark.parametrize(("shape", "at"), [((120, 320), (70, 130)), ((320, 120), (130, 20)), ((200, 200), (150, 40))])
def test_what_an_answer_depends_on_is_hot(
    checkpoint: Path, fit: Fit, shape: tuple[int, int], at: tuple[int, int]
) -> None:
    picture = picture_with_red(*shape, *at, 30)
    (found,) = finder_of_red(checkpoint, PRESET.at((64, 64)).fitted(fit)).explain(picture, ["red"])
    assert found.picture is not None
    heat = found.heat()
    assert heat.shape == shape
    assert heat.dtype == np.float32
    assert heat.max() == pytest.approx(1, abs=0.1)
    row, column = hottest(heat)
    assert at[0] <= row < at[0] + 30
    assert at[1] <= column < at[1] + 30
    far = np.ones(shape, bool)
    margin = 48  # two places of the map, where eight make up the long side
    far[max(0, at[0] - margin) : at[0] + 30 + margin, max(0, at[1] - margin) : at[1] + 30 + margin] = False
    assert not heat[far].any(), "nothing else is"
    smaller = found.heat(size=(shape[0] // 2, shape[1] // 2))
    assert np.abs(np.array(hottest(smaller)) * 2 - (row, column)).max() <= 8
    against = found.maps[1]
    assert against.relevance.min() < 0
    assert not found.heat(1).any(), "red speaks against the others"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_maps_are_of_the_picture_as_its_orientation_turns_it(checkpoint: Path, orientation: int) -> None:
    stored = Image.fromarray(picture_with_red(120, 200, 20, 140, 30))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    stored.save(file, "JPEG", exif=exif, quality=95)
    (found,) = finder_of_red(checkpoint, PRESET.at((64, 64)).fitted("squeeze")).explain(file.getvalue(), ["red"])
    assert found.picture is not None
    assert found.picture.shape[:2] == ((120, 200) if orientation < 5 else (200, 120)) == found.heat().shape
    assert found.picture[hottest(found.heat())].tolist() == pytest.approx([255, 0, 0], abs=12)


def test_places_that_are_not_seen_are_cold() -> None:
    ones = np.ones((7, 7), np.float32)
    heat = spread(ones, Preprocess(PRESET).seen(400, 800), (400, 800), (400, 800))
    assert heat[200, 400] == 1
    assert heat[25:375, 225:575].min() == 1
    assert heat[:, :224].max() == heat[:, 576:].max() == heat[:24].max() == heat[376:].max() == 0


@pytest.mark.parametrize("arch", ["ResNet18", "DenseNet121"])
def test_places_add_up_to_the_logit(arch: str) -> None:
    torch.manual_seed(0)
    network = models.build(arch, num_classes=5).eval()
    side = network.input_size[0] if network.input_size else 96
    images = torch.randn(2, 3, side, side)
    logits, maps = relevance(network, images, top2)
    assert maps.shape == (2, 2, -(-side // 32), -(-side // 32))
    classifier = network.classifier
    assert isinstance(classifier, nn.Linear)
    classes = top2(logits)
    with torch.no_grad():
        torch.testing.assert_close(logits, network(images))
        torch.testing.assert_close(maps.sum((2, 3)) + classifier.bias[classes], logits.gather(1, classes))


@pytest.mark.parametrize("arch", ["ResNet18", "AlexNet", "SqueezeNet1_1", "MobileNetV3_small_x0_35", "LeViT_128S"])
def test_the_same_as_captum(arch: str) -> None:
    attr: Any = pytest.importorskip("captum.attr")
    torch.manual_seed(0)
    network = models.build(arch, num_classes=5).eval()
    side = network.input_size[0] if network.input_size else 96
    images = torch.randn(1, 3, side, side)
    _, maps = relevance(network, images, top2)
    by_captum = attr.LayerGradientXActivation(network, network.neck)
    for index, target in enumerate(top2(network(images))[0].tolist()):
        expected = by_captum.attribute(images, target=target).sum(1)
        scale = float(expected.detach().abs().max())
        torch.testing.assert_close(maps[:, index], expected.detach(), rtol=0, atol=1e-5 * scale)
        if arch in ("ResNet18", "LeViT_128S"):  # behind a mean over places it is Grad-CAM, which takes the mean twice
            cam = attr.LayerGradCam(network, network.neck).attribute(images, target=target)[:, 0].detach()
            torch.testing.assert_close(maps[:, index], cam, rtol=0, atol=1e-5 * scale)


class Recorded:
    """Attention step by step, which keeps its weights and their gradients."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.weights: list[Tensor] = []

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> Tensor:
        weights = ((q.shape[-1] ** -0.5 if scale is None else scale) * q @ k.mT).softmax(-1)
        if weights.shape[-1] == self.tokens:
            weights.retain_grad()
            self.weights.append(weights)
        return weights @ v


@pytest.mark.parametrize("kind", [VisionTransformer, DistilledVisionTransformer, TNT])
def test_relevance_through_attention(kind: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    if kind is TNT:
        network: Network = TNT(inner=8, outer=24, inner_heads=2, outer_heads=3, depth=4, num_classes=5)
        network.set_input_size((48, 64))
    else:
        network = kind(channels=24, heads=3, depth=4, input_size=64, scale=0.5, num_classes=5)
        network.set_input_size((48, 64))
    network.eval()
    for parameter in network.parameters():  # fresh ones are so small that attention would be even
        nn.init.normal_(parameter, std=0.3)
    image = torch.randn(1, 3, 48, 64)
    prefix = 2 if kind is DistilledVisionTransformer else 1
    logits, maps = relevance(network, image, top2)
    assert maps.shape == (1, 2, 3, 4)
    for index, target in enumerate(top2(logits)[0].tolist()):
        recorded = Recorded(prefix + 12)
        monkeypatch.setattr(F, "scaled_dot_product_attention", recorded)
        output = network(image)
        torch.testing.assert_close(output.detach(), logits)
        output[0, target].backward()
        monkeypatch.undo()
        assert len(recorded.weights) == 4
        through = torch.eye(prefix + 12)
        for weights in recorded.weights:
            assert weights.grad is not None
            through = through + (weights * weights.grad).clamp(min=0).mean(1)[0].detach() @ through
        expected = through[:prefix, prefix:].mean(0).reshape(3, 4)
        torch.testing.assert_close(maps[0, index], expected, rtol=1e-4, atol=1e-7)


def test_images_of_a_batch_do_not_meet(checkpoint: Path) -> None:
    explainer = Explainer(checkpoint)
    images = np.random.default_rng(0).standard_normal((3, 3, 64, 64)).astype(np.float32)
    classes = [[0, 1], [2, 0], [1, 1]]
    together = explainer.maps(images, classes)
    assert together.shape == (3, 2, 2, 2)
    alone = np.concatenate(
        [explainer.maps(images[i : i + 1], [pair]) for i, pair in enumerate([[0, 1], [2, 0], [1, 1]])]
    )
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6 * np.abs(alone).max())
    np.testing.assert_array_equal(together[2, 0], together[2, 1])


def test_one_explanation_for_each_input(checkpoint: Path, photographs: Path) -> None:
    sources: Sequence[Any] = [photographs / "chelsea.png", "missing.jpg", b"no image", photographs / "coffee.png"]
    explainer = Explainer(checkpoint)
    found = list(explainer.explain(sources))
    assert [each.status for each in found] == ["ok", "error", "error", "ok"]
    assert found[1].error == "no such file"
    assert found[2].source == "bytes[2]"
    with pytest.raises(Error, match=r"missing.jpg: there is no heat map: no such file"):
        found[1].heat()
    said = [
        next(Classifier(checkpoint, engine="torch", top_k=2).predict(source)) for source in (sources[0], sources[3])
    ]
    for each, prediction in zip((found[0], found[3]), said, strict=True):
        assert tuple(each_map.label for each_map in each.maps) == prediction.labels
        assert [each_map.score for each_map in each.maps] == pytest.approx(prediction.scores, rel=1e-4)
    (again,) = explainer.explain(sources[0])
    for ours, theirs in zip(again.maps, found[0].maps, strict=True):
        np.testing.assert_array_equal(ours.relevance, theirs.relevance)


def test_the_classes_asked_for_and_the_likeliest_of_the_others(checkpoint: Path, photographs: Path) -> None:
    explainer = Explainer(checkpoint)
    picture = photographs / "coffee.png"
    (usual,) = explainer.explain(picture)
    best, second = (each.label for each in usual.maps)
    (asked,) = explainer.explain(picture, [second])
    assert [each.label for each in asked.maps] == [second, best]
    (both,) = explainer.explain(picture, [second, best, second])
    assert [each.label for each in both.maps[:2]] == [second, best]
    assert len(both.maps) == 3
    (everything,) = explainer.explain(picture, NAMES)
    assert [each.label for each in everything.maps] == NAMES
    assert [explainer.index_of(name) for name in ("anything else", "2", 1)] == [1, 2, 1]
    with pytest.raises(UnknownNameError, match="unknown class 'reed': did you mean red"):
        explainer.explain(picture, ["reed"])
    with pytest.raises(UnknownNameError, match="a number from 0 to 2"):
        explainer.explain(picture, [3])


def test_names_of_published_classes() -> None:
    explainer = Explainer()
    for name in ("n02123045", "tabby, tabby cat", "tabby", "tabby cat", "狸花猫", 281, "281"):
        assert explainer.index_of(name) == 281
    assert explainer.index_of("n02012849") == 134, "the bird: names of both cranes are the same, ids are not"


def test_several_classes_per_image_gray_images_and_one_class(tmp_path: Path, photographs: Path) -> None:
    torch.manual_seed(0)
    network = models.build("PPLCNet_x0_25", num_classes=1, in_channels=1)
    path = tmp_path / "one.safetensors"
    torchclas.save_checkpoint(network.eval(), path, class_names=["one"], preset=PRESET.at((64, 64)))
    (found,) = Explainer(path, activation="sigmoid").explain(photographs / "coffee.png")
    (prediction,) = Classifier(path, activation="sigmoid", engine="torch", threshold=0.0).predict(
        photographs / "coffee.png"
    )
    assert [each.label for each in found.maps] == ["one"]
    assert found.maps[0].score == pytest.approx(prediction.scores[0], rel=1e-4)
    assert 0 < found.maps[0].score < 1


def test_damaged_weights_and_exported_models_are_told(
    checkpoint: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer = Explainer(checkpoint)
    with torch.no_grad():
        next(explainer.network.parameters()).fill_(torch.nan)
    (found,) = explainer.explain(photographs / "coffee.png")
    assert found.status == "error"
    assert "computes NaN for it" in str(found.error)
    monkeypatch.setattr(explainer_module, "find_model", lambda *args, **kwargs: replace(explainer.spec, graph="fp32"))
    with pytest.raises(CheckpointError, match="name the model that it was exported from"):
        Explainer(checkpoint)


def run(*arguments: object) -> int:
    return cli.run(["explain", *map(str, arguments)])


def test_the_files(checkpoint: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coffee = photographs / "coffee.png"
    for name in ("sheet.png", "sheet.jpg", "page.html", "maps.npz"):
        assert run(coffee, tmp_path / "missing.jpg", "-m", checkpoint, "-o", tmp_path / name) == 1
        assert "2 images, 1 of them failed" in capsys.readouterr().err
    (found,) = Explainer(checkpoint).explain(coffee)
    arrays = np.load(tmp_path / "maps.npz")
    maps = arrays[f"maps/{coffee}"]
    assert (maps.shape, maps.dtype) == ((2, 400, 600), np.float16)
    np.testing.assert_allclose(maps[1], found.heat(1), atol=1e-3)
    assert arrays["sources"].tolist() == [str(coffee), str(tmp_path / "missing.jpg")]
    assert arrays["status"].tolist() == ["ok", "error"]
    assert arrays["error"].tolist() == ["", "no such file"]
    assert arrays["labels"].tolist() == [[each.label for each in found.maps], ["", ""]]
    assert arrays["scores"][0].tolist() == pytest.approx([each.score for each in found.maps])
    assert np.isnan(arrays["scores"][1]).all()
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg") == 3
    assert "no such file" in page
    assert f"{100 * found.maps[0].score:.1f} %" in page
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    assert np.ptp(sheet, axis=2).max() > 150, "colours of heat"


def test_what_cannot_be_written_is_told_first(
    checkpoint: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coffee = photographs / "coffee.png"
    for output, message in ((tmp_path / "maps.txt", "choose one of these suffixes"), (coffee, "is one of the inputs")):
        before = coffee.read_bytes()
        assert run(coffee, "-m", checkpoint, "-o", output) == 2
        assert message in capsys.readouterr().err
        assert coffee.read_bytes() == before
    assert run("-m", checkpoint, "-o", tmp_path / "sheet.png") == 2
    assert "no images were named" in capsys.readouterr().err
    assert run(coffee, "-m", checkpoint, "-o", tmp_path / "sheet.png", "--class", "blue") == 2
    assert "unknown class 'blue'" in capsys.readouterr().err
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize("several", [False, True])
def test_evaluate_explains_mistakes(several: bool, checkpoint: Path, photographs: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    for name in ("coffee.png", "chelsea.png"):
        (prediction,) = Classifier(checkpoint, engine="torch", top_k=3).predict(photographs / name)
        (tmp_path / name).symlink_to(photographs / name)
        last = NAMES.index(prediction.labels[-1])  # which the model finds the least likely
        label = ",".join(str(int(index == last)) for index in range(3)) if several else str(last)
        lines.append(f"{name}\t{label}")
    data = tmp_path / "list.txt"
    data.write_text("\n".join([*lines, f"missing.png\t{lines[0].split()[1]}"]) + "\n")
    sheets: list[Image.Image] = []
    for explain in (False, True):
        folder = tmp_path / f"report-{explain}"
        report = torchclas.evaluate(
            data,
            model=checkpoint,
            delimiter="\t",
            activation="sigmoid" if several else None,
            engine="torch",
            output=folder,
            explain=explain,
        )
        assert report.images == 2
        sheets.append(Image.open(folder / "wrong.png"))
    plain, explained = sheets
    assert explained.width == 2 * (contact_sheet.TILE + contact_sheet.GAP) + contact_sheet.BETWEEN
    x, y = contact_sheet.GAP, contact_sheet.GAP
    side = contact_sheet.TILE
    picture = np.asarray(plain.crop((x, y, x + side, y + side)))
    np.testing.assert_array_equal(np.asarray(explained.crop((x, y, x + side, y + side))), picture)
    x += side + contact_sheet.BETWEEN
    heated = np.asarray(explained.crop((x, y, x + side, y + side)))
    assert (heated != picture).any()


def test_evaluate_needs_a_folder_to_explain(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(Error, match="name a folder for it"):
        torchclas.evaluate(tmp_path, model=checkpoint, explain=True)


def test_mistakes_of_training_are_explained(checkpoint: Path, photographs: Path, tmp_path: Path) -> None:
    """The maps are those of the images as the network saw them, and of the class that it named."""
    said = {
        name: next(Classifier(checkpoint, engine="torch", top_k=3).predict(photographs / name))
        for name in ("coffee.png", "chelsea.png")
    }
    files = [photographs / name for name in said]
    labels = np.array([NAMES.index(prediction.labels[-1]) for prediction in said.values()], np.int64)
    list_file = tmp_path / "list.txt"
    list_file.write_text("".join(f"{file} {label}\n" for file, label in zip(files, labels.tolist(), strict=True)))
    images = open_for_model(list_file, find_model(checkpoint).classes, "three").images
    _, mistakes, _ = training_report._measure(checkpoint, images)
    assert sorted(mistake.score for mistake in mistakes)[::-1] == [mistake.score for mistake in mistakes]
    assert {Path(mistake.source) for mistake in mistakes} == {*files}
    for mistake in mistakes:
        name = said[Path(mistake.source).name].labels[0]
        assert mistake.said == name
        (found,) = Explainer(checkpoint).explain(mistake.source, [name])
        assert mistake.heat is not None
        np.testing.assert_allclose(mistake.heat, found.maps[0].heat, atol=1e-4)
        assert len(jpegs(mistake)) == 2
        assert len(jpegs(replace(mistake, heat=None))) == 1


def test_ctrl_c_keeps_what_was_done(
    checkpoint: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer = Explainer(checkpoint)

    def interrupted(sources: Sequence[Any], classes: Sequence[str | int] = ()) -> Iterator[Explanation]:
        yield from Explainer(checkpoint).explain(sources[:1], classes)
        raise KeyboardInterrupt

    monkeypatch.setattr(explainer, "explain", interrupted)
    sources = [str(photographs / name) for name in ("coffee.png", "chelsea.png")]
    with pytest.raises(KeyboardInterrupt):
        task.explain(sources, lambda: explainer, tmp_path / "maps.npz")
    arrays = np.load(tmp_path / "maps.npz")
    assert arrays["sources"].tolist() == sources[:1]
    assert f"maps/{sources[0]}" in arrays


def test_without_a_font_for_them_chinese_labels_give_way_to_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(explanation_sheet, "chinese_font", lambda: None)
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda pen, at, text, *rest, **options: written.append(text))
    shown = HeatMap("n02123045", "狸花猫", 0.5, np.eye(2, dtype=np.float32))
    picture = np.zeros((20, 30, 3), np.uint8)
    sheet = explanation_sheet.Sheet()
    sheet.add(Explanation("a.jpg", "ok", (shown,), picture, Rectangle(0, 0, 20, 30)))
    sheet.draw()
    assert written == ["a.jpg", "50.0%", "n02123045"]
