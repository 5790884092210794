"""Sites that `export --to web` writes, in a browser: they say what `predict` says, also without a network."""

from __future__ import annotations

import base64
import csv
import io
import itertools
import json
import re
import shutil
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

import torchclas
from tests.servers import write_model
from torchclas.catalog import Preset, find
from torchclas.data.decode import decode
from torchclas.data.preprocess import MAX_ASPECT, Preprocess
from torchclas.errors import DownloadError
from torchclas.exporting.web_runtime import CDN, PARTS, Runtime, find_runtime

pytest.importorskip("playwright.sync_api", reason="there is no Playwright here: make setup")

from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.visits import accuse, needs_chromium, shoot, visit

pytestmark = [pytest.mark.sweep, needs_chromium]

TOLERANCE = 1e-4  # of probabilities
OPENED = 60_000  # ms in which a site has loaded and checked its model


class Quiet(SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012 - the base class has it as a plain dictionary
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


@contextmanager
def hosted(folder: Path) -> Generator[str, None, None]:
    """The address of a folder, as any host of static files gives it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """onnxruntime-web from the npm registry, as the command takes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TORCHCLAS_OFFLINE")
        try:
            return find_runtime("npm")
        except DownloadError as error:
            pytest.fail(f"the browser tests need the npm registry: {error}")


@pytest.fixture(scope="module")
def site(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sites") / "efficientnet"
    torchclas.export("EfficientNet_lite0", to="web", output=path)  # with what npm gave above
    return path


@pytest.fixture(scope="module")
def small(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of a model of three classes."""
    folder = tmp_path_factory.mktemp("small")
    torchclas.export(write_model(folder / "pets.safetensors"), to="web", output=folder / "pets")
    return folder / "pets"


@contextmanager
def opened(browser: Browser, folder: Path, **context: Any) -> Generator[Page, None, None]:
    with hosted(folder) as address, visit(browser, address, **context) as page:
        expect(page.locator(".drop")).to_be_visible(timeout=OPENED)
        yield page


def rows_of(page: Page, files: list[Path]) -> list[dict[str, str]]:
    """What the page writes into its CSV file of several pictures."""
    page.set_input_files("#files", files)
    expect(page.locator(".sheet [role=status]")).to_contain_text("classified", timeout=OPENED)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    with Path(download.value.path()).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def same_as_predict(rows: list[dict[str, str]], files: list[Path], model: str | Path, top: int = 5) -> None:
    predictions = torchclas.Classifier(model, engine="torch", top_k=top).predict([str(file) for file in files])
    for row, prediction in zip(rows, predictions, strict=True):
        assert row["status"] == prediction.status == "ok", row
        got = {row[f"class_id_{n}"]: float(row[f"score_{n}"]) for n in range(1, top + 1)}
        want = dict(zip(prediction.class_ids, prediction.scores, strict=True))
        assert next(iter(got)) == next(iter(want)), row["source"]
        for key in got.keys() | want.keys():  # the last place may be anybody's of several that are as likely
            other = min(want.values())
            assert got.get(key, other) == pytest.approx(want.get(key, other), abs=TOLERANCE), (row["source"], key)


def photograph_files(photographs: Path) -> list[Path]:
    kinds = (".png", ".jpg", ".gif")
    return sorted(file for file in photographs.iterdir() if file.suffix in kinds)


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def varieties(folder: Path, photographs: Path) -> list[Path]:
    """One photograph in what browsers read: JPEG in all its forms, turned, with a profile, transparent."""
    image = Image.open(photographs / "astronaut.png").convert("RGB").resize((501, 333))
    files = [
        saved(folder / f"q{quality}s{sampling}.jpg", image, quality=quality, subsampling=sampling)
        for quality, sampling in itertools.product((60, 95), (0, 1, 2))
    ]
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x112] = orientation
        files.append(saved(folder / f"turned{orientation}.jpg", image, exif=exif))
    alpha = np.dstack([np.asarray(image), np.asarray(image)[..., 0]])
    alpha[:99, :99, 3] = 0
    with (folder / "swapped.jpg").open("wb") as file:
        image.save(file, "JPEG", icc_profile=swapped_profile())
    files += [
        folder / "swapped.jpg",
        saved(folder / "progressive.jpg", image, progressive=True),
        saved(folder / "gray.jpg", image.convert("L")),
        saved(folder / "alpha.png", Image.fromarray(alpha)),
        saved(folder / "palette.png", image.convert("P")),
        saved(folder / "lossy.webp", image, quality=80),
        saved(folder / "plain.bmp", image),
        saved(folder / "large.jpg", image.resize((4000, 3000))),
    ]
    return files


def swapped_profile() -> bytes:
    """A profile of colours in which red and green change places: whoever heeds it sees another picture."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"TMP_").replace(b"gXYZ", b"rXYZ").replace(b"TMP_", b"gXYZ")


def test_all_photographs_are_answered_as_predict_answers_them(chromium: Browser, site: Path, photographs: Path) -> None:
    files = photograph_files(photographs)
    assert len(files) > 25
    with opened(chromium, site) as page:
        rows = rows_of(page, files)
    assert {row["engine"] for row in rows} == {"WebAssembly"}
    same_as_predict(rows, files, "EfficientNet_lite0")


def test_pictures_are_decoded_as_predict_decodes_them(
    chromium: Browser, small: Path, photographs: Path, tmp_path: Path
) -> None:
    """Byte for byte; and what either cannot read is an error in both."""
    files = varieties(tmp_path, photographs)
    with opened(chromium, small) as page:
        for file in files:
            got = pixels_of(page, file.read_bytes())
            assert isinstance(got, np.ndarray), (file.name, got)
            want = decode(file)
            assert got.shape == (*want.shape[:2], 4), file.name
            assert (got[..., :3] == want).all(), file.name
        for cut in (files[0].read_bytes()[:5000], (photographs / "coffee.png").read_bytes()[:5000], b"no picture"):
            assert pixels_of(page, cut) == "kind.bad_image"


def pixels_of(page: Page, content: bytes) -> Any:
    """RGBA [H, W, 4], or the key of what the page says."""
    answer = page.evaluate(
        """async (content) => {
            const { decode } = await import("./decode.js");
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            try {
                const { data, width, height } = await decode(new Blob([bytes]), 1e8);
                let text = "";
                for (let at = 0; at < data.length; at += 8192) {
                    text += String.fromCharCode(...data.subarray(at, at + 8192));
                }
                return { width, height, pixels: btoa(text) };
            } catch (error) {
                return error.key;
            }
        }""",
        base64.b64encode(content).decode(),
    )
    if isinstance(answer, str):
        return answer
    values = np.frombuffer(base64.b64decode(answer["pixels"]), np.uint8)
    return values.reshape(answer["height"], answer["width"], 4)


def test_pictures_are_prepared_as_predict_prepares_them(chromium: Browser, small: Path) -> None:
    """Bit for bit, in every way that a preset knows but OpenCV's bicubic and lanczos.

    Its x86 builds have two of the former, for other sizes; the latter rounds as the processor's instructions do.
    """
    rng = np.random.default_rng(0)
    plain = find("EfficientNet_lite0").preset
    shapes = ((90, 61), (64, 64), (130, 333), (20, 400), (333, 130), (5, 3), (1, 300))
    ways = (
        ("crop", (64, 64), 72), ("crop", (224, 224), 256), ("squeeze", (80, 160), 80), ("crop", (96, 64), 70),
        ("pad", (60, 90), 60), ("crop", (30, 30), 35),
    )  # fmt: skip
    kinds = [
        (backend, interpolation)
        for backend in ("opencv", "pillow", "torchvision")
        for interpolation in ("bilinear", "bicubic", "lanczos")
    ]
    cases: list[tuple[np.ndarray[Any, Any], Preset]] = []
    for shape, (fit, size, short), (backend, interpolation) in itertools.product(shapes, ways, kinds):
        preset = replace(plain, fit=fit, size=size, resize_short=short, backend=backend, interpolation=interpolation)
        cases.append((rng.integers(0, 256, (*shape, 3), np.uint8), preset))
    with opened(chromium, small) as page:
        for number, (pixels, preset) in enumerate(cases):
            channels = 1 if number % 5 == 0 else 3
            preprocess = Preprocess(preset, channels=channels)
            fit, tensor = prepared(page, pixels, preset, channels)
            want = preprocess.fit(pixels)
            apart = np.abs(fit.astype(int) - want)
            if preset.backend == "opencv" and preset.interpolation != "bilinear":
                assert apart.max() <= 1
                assert apart.mean() < 0.1
            else:
                assert apart.max() == 0, (pixels.shape, preset)
            assert (tensor == preprocess.normalize(np.ascontiguousarray(fit))).all()


def prepared(page: Page, pixels: Any, preset: Preset, channels: int) -> tuple[Any, Any]:
    """uint8 [height, width, 3] and float32 [channels, height, width], as the page has them."""
    rgba = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    rules = {
        "preset": preset.to_dict(),
        "channels": channels,
        "max_aspect": MAX_ASPECT,
        "pillow_may_begin_with_columns": int(Image.__version__.split(".")[0]) >= 13,
    }
    fit, tensor = page.evaluate(
        """async ([content, width, height, rules]) => {
            const { fitted, normalized } = await import("./preprocess.js");
            const data = Uint8ClampedArray.from(atob(content), (letter) => letter.charCodeAt(0));
            const image = fitted({ data, width, height }, rules);
            const text = (bytes) => {
                let made = "";
                for (let at = 0; at < bytes.length; at += 8192) {
                    made += String.fromCharCode(...bytes.subarray(at, at + 8192));
                }
                return btoa(made);
            };
            return [text(image.data), text(new Uint8Array(normalized(image, rules).buffer))];
        }""",
        [base64.b64encode(rgba.tobytes()).decode(), pixels.shape[1], pixels.shape[0], rules],
    )
    height, width = preset.size
    return (
        np.frombuffer(base64.b64decode(fit), np.uint8).reshape(height, width, 4)[..., :3],
        np.frombuffer(base64.b64decode(tensor), np.float32).reshape(channels, height, width),
    )


def test_a_site_works_without_a_network_after_the_first_visit(chromium: Browser, site: Path, photographs: Path) -> None:
    with hosted(site) as address:
        context = chromium.new_context(locale="en-US")
        page = context.new_page()
        page.goto(address)
        expect(page.locator(".drop")).to_be_visible(timeout=OPENED)
    context.set_offline(True)  # and the host is gone as well
    page.reload()
    expect(page.locator(".drop")).to_be_visible(timeout=OPENED)
    files = [photographs / "chelsea.png", photographs / "coffee.png"]
    rows = rows_of(page, files)
    same_as_predict(rows, files, "EfficientNet_lite0")
    # From the second visit on the browser shuts the page off from others, and gives it threads in return.
    assert page.evaluate("crossOriginIsolated")
    assert rows[0]["engine"].startswith("WebAssembly")
    context.close()


def test_another_version_of_a_site_is_loaded_anew(chromium: Browser, small: Path, tmp_path: Path) -> None:
    served = tmp_path / "served"
    shutil.copytree(small, served)
    with hosted(served) as address:
        context = chromium.new_context(locale="en-US")
        page = context.new_page()
        page.goto(address)
        expect(page.locator(".drop")).to_be_visible(timeout=OPENED)
        facts = json.loads((served / "site.json").read_text())
        (served / "site.json").write_text(json.dumps({**facts, "name": "newer"}))
        worker = served / "offline.js"
        worker.write_text(re.sub(r"\$\{ABOUT\}\w+", "${ABOUT}another", worker.read_text()))
        page.evaluate("navigator.serviceWorker.ready.then((found) => found.update())")
        page.wait_for_function("navigator.serviceWorker.ready.then((found) => Boolean(found.waiting))")
        name = ""
        for _ in range(10):  # the new one takes over soon after no page shows the old one
            page.close()
            time.sleep(0.2)
            page = context.new_page()
            page.goto(address)
            expect(page.locator(".drop")).to_be_visible(timeout=OPENED)
            name = page.evaluate("fetch('site.json').then((answer) => answer.json())")["name"]
            if name == "newer":
                break
        assert name == "newer"
        names = page.evaluate("caches.keys()")
        assert names == [f"torchclas {address} another"]
        context.close()


def test_a_model_of_ones_own(chromium: Browser, small: Path, photographs: Path) -> None:
    files = [photographs / "chelsea.png", photographs / "coffee.png", photographs / "rocket.jpg"]
    with opened(chromium, small) as page:
        rows = rows_of(page, files)
    same_as_predict(rows, files, small.with_suffix(".safetensors"), top=3)


def test_a_runtime_that_computes_something_else_does_not_answer(chromium: Browser, small: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(small, broken)
    facts = json.loads((broken / "site.json").read_text())
    facts["check"]["logits"][0] *= 1.01
    (broken / "site.json").write_text(json.dumps(facts))
    with hosted(broken) as address, visit(chromium, address) as page:
        expect(page.get_by_role("alert")).to_contain_text("computes something else here", timeout=OPENED)
        accuse(page)
        page.get_by_role("button", name="中文").click()
        expect(page.get_by_role("alert")).to_contain_text("模型在这里的计算结果与原模型不符")


def test_a_model_that_is_not_the_one_of_the_site_is_not_opened(chromium: Browser, small: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(small, broken)
    model = bytearray((broken / "model.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (broken / "model.onnx").write_bytes(model)
    with hosted(broken) as address:
        page = chromium.new_page(locale="en-US")  # Chromium says on the console what it refuses
        page.goto(address)
        expect(page.get_by_role("alert")).to_contain_text("The model cannot be opened", timeout=OPENED)
        page.close()


@pytest.mark.parametrize("forged", [False, True])
def test_a_runtime_from_the_cdn_is_compared_with_what_it_should_be(
    chromium: Browser, runtime: Runtime, small: Path, tmp_path: Path, photographs: Path, forged: bool
) -> None:
    torchclas.export(small.with_suffix(".safetensors"), to="web", output=tmp_path / "site", runtime="cdn")
    assert not list((tmp_path / "site").glob("ort*"))
    files = runtime.files
    assert files is not None
    addresses = {part.cdn: files[part.name] for part in PARTS}

    def answer(route: Route) -> None:
        content = addresses[route.request.url]
        headers = {"Access-Control-Allow-Origin": "*", "Content-Type": "text/javascript"}
        route.fulfill(body=content + b" " if forged else content, headers=headers)

    with hosted(tmp_path / "site") as address:
        context = chromium.new_context(
            locale="en-US", service_workers="block"
        )  # Playwright does not see their requests
        page = context.new_page()
        page.route(f"{CDN}/**", answer)
        context.route(f"{CDN}/**", answer)
        page.goto(address)
        if forged:
            expect(page.get_by_role("alert")).to_contain_text("The model cannot be opened", timeout=OPENED)
        else:
            expect(page.locator(".drop")).to_be_visible(timeout=OPENED)
            page.set_input_files("#files", photographs / "chelsea.png")
            expect(page.locator(".answer .bars li")).to_have_count(3)
        context.close()


def test_the_camera_is_watched(chromium: Browser, small: Path) -> None:
    with opened(chromium, small, permissions=["camera"]) as page:
        page.get_by_role("button", name="Camera").click()
        expect(page.locator(".watched .bars li")).to_have_count(3, timeout=OPENED)
        accuse(page)
        page.get_by_role("button", name="Take the picture").click()
        expect(page.locator(".answer .bars li")).to_have_count(3)
        expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_picture_that_cannot_be_read_says_why(chromium: Browser, small: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with opened(chromium, small) as page:
        page.set_input_files("#files", tmp_path / "notes.txt")
        expect(page.locator(".answer .why")).to_contain_text("This is no picture that can be read")
        expect(page.locator(".given")).to_contain_text("This browser cannot show the picture.")


def test_every_size_language_and_theme(chromium: Browser, site: Path, photographs: Path) -> None:
    leads = {"en": "stay on this device", "zh": "不会离开本设备"}
    best = {"en": "tiger cat", "zh": "虎斑猫"}
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    with opened(chromium, site) as page:
        for lang, button in (("en", None), ("zh", "中文")):
            if button:
                page.get_by_role("button", name=button).click()
            for step, width, scheme in itertools.product(("open", "answer"), (360, 768, 1440), schemes):
                page.set_viewport_size({"width": width, "height": 800})
                page.emulate_media(color_scheme=scheme)
                if step == "open" and (width, scheme, lang) == (360, "light", "zh"):
                    page.reload()
                    expect(page.locator(".drop")).to_be_visible(timeout=OPENED)
                if step == "answer" and (width, scheme) == (360, "light"):
                    page.set_input_files("#files", photographs / "chelsea.png")
                    expect(page.locator(".seen img[src]")).to_have_count(1)
                    expect(page.locator(".answer .first").first).to_have_text(best[lang])
                if step == "open":
                    expect(page.locator(".lead")).to_contain_text(leads[lang])
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
                accuse(page)
                shoot(page, f"site-{step}-{width}-{lang}-{scheme}")


def test_all_can_be_done_with_the_keyboard(chromium: Browser, small: Path) -> None:
    with opened(chromium, small) as page:
        reached: list[str] = []
        for _ in range(7):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.textContent"))
        assert reached[:5] == ["Skip to content", "中文", "Dark", "Choose pictures", "Choose a folder"]


def test_what_is_said_is_said_in_both_languages(chromium: Browser, small: Path) -> None:
    with opened(chromium, small) as page:
        words = page.evaluate("import('./words.js').then(({ WORDS }) => WORDS)")
    assert words["en"].keys() == words["zh"].keys()
    for key, text in words["en"].items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", words["zh"][key])), key


def test_an_icc_profile_would_show(photographs: Path) -> None:
    """The profile of `varieties` is one that changes a picture where it is heeded."""
    from PIL import ImageCms

    image = Image.open(photographs / "astronaut.png").convert("RGB")
    heeded = ImageCms.profileToProfile(
        image, ImageCms.ImageCmsProfile(io.BytesIO(swapped_profile())), ImageCms.createProfile("sRGB")
    )
    assert heeded is not None
    assert np.abs(np.asarray(heeded).astype(int) - np.asarray(image)).max() > 50
