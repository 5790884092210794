"""Bring the pages of the series up to date: papers, tables and charts follow from the catalog.

`make docs` runs it. The prose is written by hand; what stands between `<!-- name -->` and `<!-- /name -->` is not.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Literal

from torchclas import catalog
from torchclas.catalog import Series
from torchclas.reporting import charts
from torchclas.sizes import show_size

FOLDER = Path(__file__).parent / "series"
Language = Literal["en", "zh"]
SUFFIX: dict[Language, str] = {"en": ".md", "zh": ".zh-CN.md"}

WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "paper": "Paper: ",
        "papers": "Papers: ",
        "columns": "model | top-1 % | top-5 % | GFLOPs | params, M | input, px",
        "series": "chapter | series | models | best top-1 % | of",
        "no latency": "no latency on the chart's device was published",
        "doubtful": "the published latency is another model's or another input size's",
        "comma": ", ",
        "semicolon": "; ",
        "colon": ": ",
        "stop": ".",
    },
    "zh": {
        "paper": "论文：",
        "papers": "论文：",
        "columns": "模型 | top-1 % | top-5 % | GFLOPs | 参数量 M | 输入 px",
        "series": "分类 | 系列 | 模型数 | 最高 top-1 % | 对应模型",
        "no latency": "没有发布该图所用设备上的延迟",
        "doubtful": "发布的延迟实为另一个模型或另一种输入尺寸的数值",
        "comma": "、",
        "semicolon": "；",
        "colon": "：",
        "stop": "。",
    },
}

# Per device: the headings of its columns, and what they stand for.
LATENCIES: dict[str, tuple[tuple[str, ...], dict[Language, str]]] = {
    "v100": (
        ("V100 b1", "b4", "b8"),
        {
            "en": "V100: milliseconds for a batch of 1, 4 and 8 images with TensorRT in float32.",
            "zh": "V100：在 TensorRT float32 下处理 1、4、8 张一批图像所用的毫秒数。",
        },
    ),
    "sd855": (
        ("SD855 1t", "2t", "4t"),
        {
            "en": "SD855: milliseconds for one image on a Snapdragon 855 with 1, 2 and 4 threads.",
            "zh": "SD855：骁龙 855 上用 1、2、4 个线程处理一张图像所用的毫秒数。",
        },
    ),
    "xeon6148": (
        ("Xeon",),
        {
            "en": "Xeon: milliseconds for one image on an Intel Xeon Gold 6148 with Paddle Inference.",
            "zh": "Xeon：在 Intel Xeon Gold 6148 上用 Paddle Inference 处理一张图像所用的毫秒数。",
        },
    ),
}

# The catalog's notes in Chinese, by a pattern that matches all of the English note.
NOTES_ZH = {
    r"Two published tables disagree .*": (
        "两份已发布的表给出的延迟相差最多 5.5 倍：各行采用与论文一致的后一份，脚注给出前一份。"
    ),
    r"FLOPs leave out the matrix products of attention\.": "FLOPs 不含注意力中的矩阵乘法。",
    r"DarkNet53 is the backbone of YOLOv3.*": "DarkNet53 是 YOLOv3 的骨干网络；官方引用的是第一篇 YOLO 论文。",
    r"Published FLOPs and params are those of the fused network.*": (
        "发布的 FLOPs 和参数量属于融合后的网络；权重文件保存的是训练时的多个分支。"
    ),
    r"(\S+) ms in the earlier published table": r"较早发布的表中为 \1 ms",
    r"tells how a page of text is turned; .*": "判断文档图像的朝向；其软件包要用 `pip install --no-deps` 安装",
    r"announced, but its weights were never published: `torchclas quantize` makes them with pictures of yours": (
        "公布过指标，但权重从未发布：`torchclas quantize` 可用你自己的图像制作"
    ),
    r"published params count the running statistics; the checkpoint holds (\S+) M without them": (
        r"发布的参数量计入了 BN 的滑动统计量；不计时权重文件为 \1 M"
    ),
    r"published as slower on four threads than on two": "发布的数据中四线程比两线程慢",
    r"the published one-thread latency is (\S+)'s": r"发布的单线程延迟实为 \1 的数值",
    r"the published batch-1 latency is (\S+)'s": r"发布的 batch 1 延迟实为 \1 的数值",
    r"the published batch-1 latency equals (\S+)'s": r"发布的 batch 1 延迟与 \1 相同",
    r"published FLOPs and params are (\S+)'s; the network is (\S+): (\S+) G, (\S+) M": (
        r"发布的 FLOPs 和参数量是 \1 的；网络实为 \2：\3 G、\4 M"
    ),
    r"upstream published no eval preset; the usual one is assumed": "官方没有发布评估预处理，此处按通常的设置",
    r"TensorFlow's figures; weights converted from TensorFlow": "指标来自 TensorFlow；权重由 TensorFlow 转换而来",
    r"published latencies are those of 224-pixel input; FLOPs are at 320": (
        "发布的延迟对应 224 像素的输入；FLOPs 对应 320 像素"
    ),
    r"no accuracy was published": "没有发布精度",
    r"published FLOPs are (\d+) % below what the counter used for the other rows .*": (
        r"发布的 FLOPs 比其余各行所用的统计方法得到的结果低 \1%"
    ),
    r"published params are the fused network's; the checkpoint holds (\S+) M": (
        r"发布的参数量属于融合后的网络；权重文件为 \1 M"
    ),
}


def main() -> None:
    """Write every page and chart that has changed."""
    for path, text in pages().items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(path)
    for chart in charts.CHARTS:
        charts.draw(chart, FOLDER / f"{chart}.svg")


def pages() -> dict[Path, str]:
    """Every page as it should be."""
    texts: dict[Path, str] = {}
    for language, suffix in SUFFIX.items():
        overview = FOLDER / f"README{suffix}"
        texts[overview] = _fill(overview, {"series": series_table(language), "left out": left_out(language)})
        for series in catalog.all_series():
            page = FOLDER / f"{series.id}{suffix}"
            texts[page] = _fill(page, {"papers": papers(series, language), "models": models_table(series, language)})
    return texts


def _fill(page: Path, blocks: dict[str, str]) -> str:
    text = page.read_text(encoding="utf-8")
    for name, content in blocks.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if text.count(start) != 1 or text.count(end) != 1:
            raise SystemExit(f"{page}: must have one block from {start.strip()} to {end}")
        before, rest = text.split(start)
        _, after = rest.split(end)
        text = f"{before}{start}\n{content}\n\n{end}{after}"
    return text


def papers(series: Series, language: Language) -> str:
    """The publications behind a series."""
    words = WORDS[language]
    links = [f"[{p.title}]({p.url}), {p.authors}, {p.venue} {p.year}" for p in series.papers]
    return words["paper" if len(links) == 1 else "papers"] + words["semicolon"].join(links)


def models_table(series: Series, language: Language) -> str:
    """All models of a series, then what their figures mean."""
    entries = [entry for entry in catalog.entries() if entry.series is series]
    devices = [device for device in LATENCIES if any(device in entry.latency for entry in entries)]
    headings = WORDS[language]["columns"].split(" | ")
    headings += [heading for device in devices for heading in LATENCIES[device][0]]
    notes = list(dict.fromkeys(entry.note for entry in entries if entry.note))
    rows: list[list[str]] = []
    for entry in entries:
        mark = _superscript(notes.index(entry.note) + 1) if entry.note else ""
        row = [f"`{entry.name}`{mark}", _fixed(entry.top1), _fixed(entry.top5)]
        row += [_plain(entry.gflops), _plain(entry.params_m), show_size(entry.preset.size)]
        for device in devices:
            values = entry.latency.get(device, ())
            row += [_fixed(values[i] if i < len(values) else None) for i in range(len(LATENCIES[device][0]))]
        rows.append(row)
    explanations = [LATENCIES[device][1][language] for device in devices]
    explanations += [translated(series.note, language)] if series.note else []
    footnotes = [f"{_superscript(i)} {translated(note, language)}" for i, note in enumerate(notes, 1)]
    table = _table(headings, rows, numbers=range(1, len(headings)))
    return "\n\n".join([table, *explanations, "<br>\n".join(footnotes)]).rstrip()


def series_table(language: Language) -> str:
    """All series by chapter."""
    rows: list[list[str]] = []
    chapter = ""
    for series in catalog.all_series():
        entries = [entry for entry in catalog.entries() if entry.series is series]
        best = max(entries, key=lambda entry: entry.top1 or 0)
        title = series.group.title_zh if language == "zh" else series.group.title
        name = series.title_zh if language == "zh" else series.title
        link = f"[{name}]({series.id}{SUFFIX[language]})"
        rows.append(["" if title == chapter else title, link, str(len(entries)), _fixed(best.top1), f"`{best.name}`"])
        chapter = title
    return _table(WORDS[language]["series"].split(" | "), rows, numbers=(2, 3))


def left_out(language: Language) -> str:
    """Series that no chart shows at all, and models whose published latency would mislead."""
    words = WORDS[language]
    kinds = {chart.kind for chart in charts.CHARTS.values()}
    shown = {entry.series.id for chart in charts.CHARTS for line in charts.lines(chart) for entry in line.entries}
    absent = [series for series in catalog.all_series() if series.id not in shown and series.group.kind in kinds]
    links = [f"[{series.title}]({series.id}{SUFFIX[language]})" for series in absent]
    doubtful = [f"`{name}`" for name in charts.DOUBTFUL]
    return "\n".join(
        f"- {words['comma'].join(names)}{words['colon']}{words[reason]}{words['stop']}"
        for names, reason in ((links, "no latency"), (doubtful, "doubtful"))
    )


def translated(note: str, language: Language) -> str:
    """A note of the catalog in this language; raises `SystemExit` where `NOTES_ZH` lacks it."""
    if language == "en":
        return note
    for pattern, chinese in NOTES_ZH.items():
        if match := re.fullmatch(pattern, note):
            return match.expand(chinese)
    raise SystemExit(f"docs/generate.py: NOTES_ZH has nothing for {note!r}")


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Container[int]) -> str:
    rule = ["--:" if i in numbers else "---" for i in range(len(headings))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows))


def _fixed(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def _superscript(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


if __name__ == "__main__":
    main()
