"""The page in a browser: what people do with it, in both languages and themes, at several sizes, and what axe says.

Screenshots go to the folder that `SCREENSHOTS` names, and nowhere without it.
"""

from __future__ import annotations

import base64
import csv
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Running, picture, running, write_model
from torchclas import catalog
from torchclas.serving.explorer import write_explorer
from torchclas.serving.options import ServeOptions

pytest.importorskip("playwright.sync_api", reason="there is no Playwright here: make setup")

from playwright.sync_api import Browser, Page, expect

from tests.browser.visits import accuse, needs_chromium, shoot, visit

pytestmark = [pytest.mark.sweep, needs_chromium]

WIDTHS = (360, 800, 1440)
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    pets = write_model(tmp_path_factory.mktemp("models") / "pets.safetensors")
    options = ServeOptions(models=("EfficientNet_lite0", f"pets={pets}"), port=0, engine="torch", threads=1)
    with running(options) as started:
        yield started


@pytest.fixture
def open_page(chromium: Browser, service: Running) -> Iterator[Open]:
    with ExitStack() as stack:

        def open_one(path: str = "/", **context: Any) -> Page:
            page = stack.enter_context(visit(chromium, service.url, **context))
            if path != "/":
                page.goto(service.url + path)
            return page

        yield open_one


def choose(page: Page, *files: Path) -> None:
    page.set_input_files("#files", files)


def answers(page: Page) -> Any:
    return page.locator(".answer")


def hand_over(page: Page, event: str, files: dict[str, bytes]) -> None:
    """Paste or drop files as a browser would."""
    page.evaluate(
        """([event, files]) => {
            const transfer = new DataTransfer();
            for (const [name, content] of files) {
                const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
                transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
            }
            const about = { bubbles: true, cancelable: true };
            document.dispatchEvent(
                event === "paste"
                    ? new ClipboardEvent(event, { ...about, clipboardData: transfer })
                    : new DragEvent(event, { ...about, dataTransfer: transfer }),
            );
        }""",
        [event, [[name, base64.b64encode(content).decode()] for name, content in files.items()]],
    )


def test_a_chosen_picture_is_answered_as_the_service_answers_it(
    open_page: Open, service: Running, photographs: Path
) -> None:
    page = open_page()
    choose(page, photographs / "chelsea.png")
    first = answers(page).first
    expect(first.locator(".bars li")).to_have_count(5)
    image = (photographs / "chelsea.png").read_bytes()
    said = dict[str, Any]()
    for lang in ("en", "zh"):
        answer = service.classify(image, model="EfficientNet_lite0", lang=lang, top_k=5).json()
        said[lang] = answer["predictions"][0]["classes"]
    assert first.locator(".first").all_inner_texts() == [row["label"] for row in said["en"]]
    assert first.locator(".second").all_inner_texts() == [row["label"] for row in said["zh"]]
    shown = [float(text.removesuffix(" %")) for text in first.locator(".score").all_inner_texts()]
    assert shown == pytest.approx([row["score"] * 100 for row in said["en"]], abs=0.051)
    expect(first.locator(".took")).to_contain_text(re.compile(r"[\d.,]+ ms\s*torch fp32"))
    # The second model beside it; and what each saw, in the size of its network.
    expect(answers(page)).to_have_count(2)
    expect(answers(page).nth(1).locator(".first").first).to_have_text(re.compile("cat|dog|eel"))
    expect(page.locator(".seen img[src]")).to_have_count(2)
    sizes = "images => Promise.all(images.map(async i => (await i.decode(), [i.naturalWidth, i.naturalHeight])))"
    assert page.locator(".seen img").evaluate_all(sizes) == [[224, 224], [64, 64]]
    expect(page.get_by_role("status").first).to_contain_text(said["en"][0]["label"])
    # Without the second model one answer is left, and nothing is asked again.
    page.get_by_label("pets").uncheck()
    expect(answers(page)).to_have_count(1)
    shoot(page, "try")


def test_a_class_shows_what_speaks_for_it(open_page: Open, photographs: Path) -> None:
    page = open_page()
    choose(page, photographs / "coffee.png")
    first = answers(page).first
    espresso, cup = first.locator(".shows").nth(0), first.locator(".shows").nth(1)
    espresso.click()
    heat = first.locator(".where img")
    expect(heat).to_have_js_property("complete", True)
    expect(heat).to_have_js_property("naturalWidth", 600)
    expect(first.locator(".where")).to_contain_text("espresso")
    before = heat.get_attribute("src")
    cup.click()
    expect(heat).to_have_js_property("naturalWidth", 600)
    assert heat.get_attribute("src") != before
    expect(espresso).to_have_attribute("aria-pressed", "false")
    expect(cup).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="中文").click()
    expect(first.locator(".where")).to_contain_text("杯子")
    shoot(page, "where")
    accuse(page)
    cup.click()
    expect(heat).to_have_count(0)


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_a_pasted_or_dropped_picture(open_page: Open, event: str) -> None:
    page = open_page()
    expect(page.locator(".drop")).to_be_visible()
    hand_over(page, event, {"image.jpg": picture(1)})
    expect(answers(page).first.locator(".bars li")).to_have_count(5)
    expect(page.locator(".given .file")).to_have_text("pasted picture" if event == "paste" else "image.jpg")


def test_the_camera_gives_a_picture(open_page: Open) -> None:
    page = open_page(permissions=["camera"])
    page.get_by_role("button", name="Camera").click()
    page.get_by_role("button", name="Take the picture").click()
    expect(answers(page).first.locator(".bars li")).to_have_count(5)
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_picture_that_cannot_be_read_says_why(open_page: Open, tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(picture(1)[:300])
    (tmp_path / "notes.txt").write_text("no picture")
    page = open_page()
    for name, why in (("cut.jpg", "truncated or damaged"), ("notes.txt", "not an image")):
        choose(page, tmp_path / name)
        problem = answers(page).first.locator(".why")
        expect(problem).to_contain_text("This is no picture that can be read")
        expect(problem).to_contain_text(why)
        expect(problem).to_contain_text("send a JPEG")
        expect(page.locator(".given")).to_contain_text("cannot show the picture")
    page.get_by_role("button", name="中文").click()
    expect(answers(page).first.locator("strong")).to_have_text("无法作为图片读取")


def test_a_folder_is_a_sheet_with_a_filter_and_a_file(open_page: Open, photographs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    shutil.copy(photographs / "chelsea.png", folder / "inner" / "cat.png")
    shutil.copy(photographs / "coffee.png", folder / "=cup.png")
    (folder / "broken.jpg").write_bytes(picture(1)[:300])
    (folder / "readme.txt").write_text("no picture, and not sent")
    page = open_page()
    page.get_by_label("pets").uncheck()
    page.set_input_files("#folder", folder)
    expect(page.locator(".sheet")).to_contain_text("2 classified, 1 unreadable")
    tiles = page.locator(".tile")
    expect(tiles).to_have_count(3)
    page.get_by_placeholder("Filter by file or class").fill("espresso")
    expect(tiles).to_have_count(1)
    page.get_by_placeholder("Filter by file or class").fill("意式")  # by the other language's name as well
    expect(tiles).to_have_count(1)
    page.get_by_placeholder("Filter by file or class").fill("")
    page.get_by_label("Show", exact=True).select_option("errors")
    expect(tiles).to_have_count(1)
    expect(tiles).to_contain_text("no picture that can be read")
    page.get_by_label("Show", exact=True).select_option("all")
    expect(tiles).to_have_count(3)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    with Path(download.value.path()).open(encoding="utf-8-sig", newline="") as file:
        rows = {row["source"]: row for row in csv.DictReader(file)}
    # The folder is named first in each path, so no cell begins with what a spreadsheet would compute.
    assert list(rows) == ["photos/=cup.png", "photos/broken.jpg", "photos/inner/cat.png"]
    assert rows["photos/=cup.png"]["label_en_1"] == "espresso"
    assert rows["photos/=cup.png"]["label_zh_1"] == "意式浓缩咖啡"
    assert float(rows["photos/=cup.png"]["score_1"]) > 0.5
    assert [row["status"] for row in rows.values()] == ["ok", "error", "ok"]
    assert "truncated or damaged" in rows["photos/broken.jpg"]["error"]
    # One opens alone, and back leads to where one was.
    tiles.first.click()
    expect(answers(page)).to_have_count(1)
    page.get_by_role("button", name="All pictures").click()
    expect(tiles.first).to_be_focused()
    accuse(page)
    shoot(page, "sheet")


def test_names_of_files_are_no_formulas_and_no_markup(open_page: Open) -> None:
    page = open_page()
    expect(page.locator(".drop")).to_be_visible()
    name = "=1+1<img src=x onerror=alert(1)>.jpg"
    hand_over(page, "drop", {name: picture(1), "b.jpg": picture(2)})
    expect(page.locator(".sheet")).to_contain_text("2 classified")
    expect(page.locator(".tile .file").first).to_have_text(name)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    assert f"\r\n'{name},EfficientNet_lite0,ok" in Path(download.value.path()).read_bytes().decode("utf-8-sig")


def test_language_follows_the_browser_until_another_is_chosen(open_page: Open) -> None:
    page = open_page(locale="zh-CN")
    expect(page.get_by_role("heading", level=1)).to_have_text("图里是什么？")
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("What is in the picture?")
    assert page.locator("html").get_attribute("lang") == "en"
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("What is in the picture?")


def test_dark_follows_the_system_until_the_other_is_chosen(open_page: Open) -> None:
    def brightness(page: Page) -> float:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3

    page = open_page(color_scheme="dark")
    expect(page.locator(".drop")).to_be_visible()
    assert brightness(page) < 60
    page.get_by_role("button", name="Light").click()
    assert brightness(page) > 200
    page.reload()
    expect(page.get_by_role("button", name="Dark")).to_be_visible()
    assert brightness(page) > 200
    assert brightness(open_page(color_scheme="light")) > 200


def test_all_can_be_done_with_the_keyboard(open_page: Open) -> None:
    page = open_page()
    expect(page.locator(".drop")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to content")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("tab", name="Try it")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Explore")).to_be_focused()
    expect(page.get_by_role("tab", name="Explore")).to_have_attribute("aria-selected", "true")
    chart = page.get_by_role("application")
    expect(chart).to_be_visible()
    for _ in range(30):
        if chart.evaluate("node => node === document.activeElement"):
            break
        page.keyboard.press("Tab")
    expect(chart).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    told = page.locator(".plot [role=status]")
    expect(told).to_contain_text("top-1")
    name = told.inner_text().split(":")[0]
    page.keyboard.press("Enter")
    card = page.get_by_role("dialog", name=name)
    expect(card).to_be_visible()
    assert page.url.endswith(f"#explore/{name}")
    page.keyboard.press("Escape")
    expect(card).to_have_count(0)
    expect(chart).to_be_focused()


def test_the_zoo_is_filtered_sorted_and_drawn(open_page: Open) -> None:
    page = open_page("/#explore")
    rows = page.locator("tbody tr")
    entries = catalog.entries()
    expect(rows).to_have_count(len(entries))
    dots = page.locator(".chart .dot")
    drawn = [entry for entry in entries if entry.top1 is not None and "v100" in entry.latency]
    expect(dots).to_have_count(len(drawn))
    # The front, found another way: who is not beaten in both by anybody.
    front = {
        entry.name
        for entry in drawn
        if not any(
            other.latency["v100"][0] <= entry.latency["v100"][0]
            and (other.top1 or 0) >= (entry.top1 or 0)
            and (other.latency["v100"][0], other.top1) != (entry.latency["v100"][0], entry.top1)
            for other in drawn
        )
    }
    assert {node.get_attribute("data-model") for node in page.locator(".chart .dot.best").all()} == front

    page.get_by_role("button", name="Params, M").click()
    smallest = min((entry for entry in entries if entry.params_m is not None), key=lambda entry: entry.params_m or 0)
    expect(rows.first).to_contain_text(smallest.name)
    page.get_by_role("button", name="Params, M").click()
    largest = max(entries, key=lambda entry: entry.params_m or 0)
    assert str(largest.params_m) in rows.first.inner_text()

    page.get_by_role("combobox", name="Accuracy against").select_option("sd855.0")
    page.get_by_label("Kind").select_option("mobile")
    page.get_by_label("Top-1 at least, %").fill("75")
    page.get_by_label("At most, ms").fill("20")
    mobile = [
        entry.name
        for entry in entries
        if entry.series.group.kind == "mobile"
        and (entry.top1 or 0) >= 75
        and "sd855" in entry.latency
        and entry.latency["sd855"][0] <= 20
    ]
    assert len(mobile) > 3
    expect(rows).to_have_count(len(mobile))
    assert sorted(rows.locator("th").all_inner_texts()) == sorted(mobile)
    expect(dots).to_have_count(len(mobile))
    page.get_by_label("Search").fill("no such model")
    expect(page.get_by_text("No model meets all of this.")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect(rows).to_have_count(len(entries))


def test_a_point_says_what_it_is_and_the_chart_zooms(open_page: Open) -> None:
    page = open_page("/#explore")
    point = page.locator(".chart .dot[data-model=ResNet50_vd]")
    point.hover(force=True)
    tip = page.locator(".tip")
    entry = catalog.find("ResNet50_vd")
    expect(tip).to_contain_text("ResNet50_vd")
    expect(tip).to_contain_text(f"{entry.latency['v100'][0]:g} ms, top-1 {entry.top1:.2f} %")
    ticks = page.locator(".chart text").all_inner_texts()
    before = point.bounding_box()
    assert before is not None
    x, y = before["x"] + before["width"] / 2, before["y"] + before["height"] / 2
    page.mouse.move(x - 60, y - 40)
    page.mouse.down()
    page.mouse.move(x + 60, y + 40, steps=4)
    page.mouse.up()
    assert page.locator(".chart text").all_inner_texts() != ticks
    after = point.bounding_box()
    frame = page.locator(".chart svg").bounding_box()
    assert after is not None
    assert frame is not None
    # What was in the middle of the area is in the middle of the chart.
    assert abs(after["x"] + after["width"] / 2 - frame["x"] - frame["width"] / 2) < 60
    page.get_by_role("button", name="Whole chart").click()
    assert page.locator(".chart text").all_inner_texts() == ticks


def test_a_card_has_the_command_to_copy(open_page: Open) -> None:
    page = open_page("/#explore/resnet50_vd", permissions=["clipboard-read", "clipboard-write"])
    card = page.get_by_role("dialog", name="ResNet50_vd")
    expect(card).to_contain_text("Bag of Tricks")
    card.get_by_role("button", name="Copy").first.click()
    expect(card.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "torchclas predict photos/ -m ResNet50_vd"
    card.get_by_role("button", name="Close").click()
    expect(card).to_have_count(0)
    # A model whose weights were never published is not offered for what needs them.
    made_here = next(entry for entry in catalog.entries() if entry.weights is None)
    page.get_by_role("button", name=made_here.name, exact=True).click()
    command = f"torchclas quantize {made_here.quantized_from} --calibration photos/"
    assert page.locator("dialog code").all_inner_texts() == [command]


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(open_page: Open, photographs: Path, width: int) -> None:
    page = open_page(viewport={"width": width, "height": 800})
    choose(page, photographs / "chelsea.png")
    expect(page.locator(".seen img[src]")).to_have_count(2)
    look(page, "try", width)
    page.get_by_role("tab").nth(1).click()
    expect(page.locator(".chart .dot").first).to_be_visible()
    look(page, "explore", width)
    for lang in ("en", "zh"):
        page.goto(page.url.split("#")[0] + "#explore/PPLCNet_x1_0")
        page.reload()
        expect(page.get_by_role("dialog")).to_be_visible()
        check_width(page, f"card-{width}-{lang}")
        page.keyboard.press("Escape")
        page.locator("#settings button").first.click()


def look(page: Page, part: str, width: int) -> None:
    """In both languages and themes."""
    language, theme = page.locator("#settings button").all()
    for lang in ("en", "zh"):
        for shade in ("light", "dark"):
            check_width(page, f"{part}-{width}-{shade}-{lang}")
            theme.click()
        language.click()


def check_width(page: Page, name: str) -> None:
    shoot(page, name)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), name


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(open_page: Open, photographs: Path, tmp_path: Path, theme: str) -> None:
    (tmp_path / "cut.jpg").write_bytes(picture(1)[:300])
    page = open_page(color_scheme=theme)
    expect(page.locator(".drop")).to_be_visible()
    accuse(page)
    for file in (tmp_path / "cut.jpg", photographs / "chelsea.png"):
        choose(page, file)
        expect(answers(page).locator(".why" if file.suffix == ".jpg" else ".took")).to_have_count(2)
        accuse(page)
    page.get_by_role("tab", name="Explore").click()
    expect(page.locator(".chart .dot").first).to_be_visible()
    accuse(page)
    page.locator("tbody button").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    accuse(page)


def test_a_service_with_a_token_asks_for_it(chromium: Browser, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-word-of-our-own\n")
    model = write_model(tmp_path / "pets.safetensors")
    options = ServeOptions(models=(str(model),), port=0, engine="torch", threads=1, token_file=tmp_path / "token")
    with running(options) as service, visit(chromium, service.url) as page:
        page.get_by_role("tab", name="Explore").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("This service asks for a token")
        page.get_by_role("tab", name="Try it").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("This service asks for a token")
        accuse(page)
        for word in ("another", "a-word-of-our-own"):
            page.locator("#panel-try").get_by_label("Token").fill(word)
            page.get_by_role("button", name="Continue").click()
            if word == "another":
                expect(page.get_by_role("alert")).to_have_text("That token is not the right one.")
        expect(page.locator(".drop")).to_be_visible()
        hand_over(page, "paste", {"image.jpg": picture(1)})
        expect(answers(page).first.locator(".bars li")).to_have_count(3)
        page.get_by_role("tab", name="Explore").click()
        expect(page.locator("tbody tr")).to_have_count(len(catalog.entries()))


def test_explore_writes_one_file_that_asks_nobody(chromium: Browser, tmp_path: Path) -> None:
    path = write_explorer(tmp_path / "zoo.html")
    with visit(chromium, path.as_uri(), locale="zh-CN") as page:
        expect(page.get_by_role("heading", level=1)).to_have_text("模型库")
        expect(page.locator("tbody tr")).to_have_count(len(catalog.entries()))
        page.get_by_role("button", name="English").click()
        page.get_by_label("Search").fill("PPLCNet_x1_0")
        page.locator("tbody button").first.click()
        expect(page.get_by_role("dialog")).to_contain_text("torchclas predict photos/ -m PPLCNet_x1_0")
        accuse(page)
