import json
import pickle
import subprocess
import sys

import pytest

from torchclas import catalog
from torchclas.catalog import CatalogError, Entry, Preset
from torchclas.errors import UnknownNameError
from torchclas.labels import label_set

MINIMAL = """
base_url = "https://example.org/weights"
[device]
gpu = { title = "A GPU", columns = ["batch 1", "batch 4"] }
[preset.imagenet_224]
resize_short = 256
size = 224
interpolation = "bilinear"
backend = "opencv"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
[group]
other = { kind = "other", title = "Other", title_zh = "其他" }
[paper]
net = { title = "A Net", authors = "Somebody", venue = "CVPR", year = 2020, url = "https://example.org/net" }
[series.Net]
title = "Net"
group = "other"
papers = ["net"]
defaults = { layout = "original" }
[series.Net.models]
"""

EVERY_ENTRY = pytest.mark.parametrize("entry", catalog.entries(), ids=lambda entry: entry.name)


def parse_row(row: str) -> Entry:
    return catalog.parse(MINIMAL + row).entries[0]


def test_counts() -> None:
    rows = catalog.entries()
    assert len(rows) == 219
    assert sum(row.weights is None or row.weights.package is None for row in rows) == 217  # upstream's own
    assert len(catalog.all_series()) == 41
    assert len({row.arch for row in rows}) == 197
    assert sum("ssld" in row.name for row in rows) == 19


@EVERY_ENTRY
def test_row_is_plausible(entry: Entry) -> None:
    assert catalog.find(entry.name) is entry
    assert len(label_set(entry.labels)) == entry.num_classes
    if entry.top1 is not None and entry.top5 is not None:
        assert 49 < entry.top1 < entry.top5 < 100
    if entry.params_m is not None:
        assert 0.4 < entry.params_m < 900
    if entry.gflops is not None:
        assert 0.01 < entry.gflops < 400
    for device, milliseconds in entry.latency.items():
        if device == "v100":  # a larger batch takes longer
            assert list(milliseconds) == sorted(milliseconds)


def test_only_the_unpublished_int8_weights_are_missing() -> None:
    assert [row.name for row in catalog.entries() if row.weights is None] == ["MobileNetV3_large_x1_0_ssld_int8"]


def test_weights_have_one_distinct_source_each() -> None:
    files = [file for row in catalog.entries() if row.weights for file in (row.weights, *row.alternates)]
    assert all((file.url is None) == (file.package is not None) == (file.path is not None) for file in files)
    assert len({(file.url, file.path) for file in files}) == len(files)
    assert all(file.url.startswith("https://") and file.url.endswith(".pdparams") for file in files if file.url)


def test_original_layouts_have_a_twin_in_the_current_one() -> None:
    original = [row for row in catalog.entries() if row.weights and row.weights.layout == "original"]
    assert len(original) == 48
    without = {row.name for row in original if not row.alternates}
    assert without == {"ResNet50_vd_v2", "Fix_ResNet50_vd_ssld_v2"}
    assert all(twin.layout == "current" for row in original for twin in row.alternates)


def test_a_row_says_all_that_was_published() -> None:
    entry = catalog.find("ResNet50")
    assert entry.weights is not None
    assert entry.weights.url == (
        "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/ResNet50_pretrained.pdparams"
    )
    assert entry.alternates[0].url == (
        "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/legendary_models/ResNet50_pretrained.pdparams"
    )
    assert (entry.top1, entry.top5, entry.gflops, entry.params_m) == (76.5, 93.0, 4.11, 25.61)
    assert entry.latency == {"v100": (2.54, 4.79, 7.4)}
    assert (entry.series.id, entry.series.group.kind, entry.series.papers[0].year) == ("ResNet", "server", 2016)
    assert entry.recipe == "ResNet50"


@pytest.mark.parametrize(
    ("name", "resize_short", "size", "interpolation", "backend", "mean"),
    [
        ("ResNet50", 256, 224, "bilinear", "opencv", 0.485),
        ("Fix_ResNeXt101_32x48d_wsl", 320, 320, "bilinear", "opencv", 0.485),
        ("EfficientNetB7", 632, 600, "bilinear", "opencv", 0.485),
        ("DarkNet53", 292, 256, "bilinear", "opencv", 0.485),
        ("ViT_base_patch32_384", 384, 384, "bilinear", "opencv", 0.5),
        ("SwinTransformer_base_patch4_window12_384", 438, 384, "bicubic", "pillow", 0.485),
        ("EfficientNet_lite0", 256, 224, "bicubic", "pillow", 127 / 255),
        ("PPLCNet_x1_0_text_orientation", 256, 224, "lanczos", "opencv", 0.485),
    ],
)
def test_presets(name: str, resize_short: int, size: int, interpolation: str, backend: str, mean: float) -> None:
    preset = catalog.find(name).preset
    assert (preset.resize_short, preset.size) == (resize_short, (size, size))
    assert (preset.interpolation, preset.backend) == (interpolation, backend)
    assert preset.mean[0] == pytest.approx(mean, abs=1e-15)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("ResNet50", "ResNet50"),
        ("resnet50_VD", "ResNet50_vd"),
        ("ShuffleNetV2", "ShuffleNetV2"),
        ("ShuffleNetV2_x1_0", "ShuffleNetV2"),
        ("RepVGG_B1s", "RepVGG_B1s"),
        ("repvgg_b1", "RepVGG_B1s"),
        ("SE_HRNet_W64_C", "SE_HRNet_W64_C_ssld"),
        ("SwinTransformer_large_patch4_window7_224", "SwinTransformer_large_patch4_window7_224_22kto1k"),
        ("SwinTransformer_base_patch4_window7_224", "SwinTransformer_base_patch4_window7_224"),
        ("PPLCNet_x1_0", "PPLCNet_x1_0"),
    ],
)
def test_find(asked: str, found: str) -> None:
    assert catalog.find(asked).name == found


def test_find_resolves_every_architecture_to_a_row_of_it() -> None:
    for arch in {row.arch for row in catalog.entries()}:
        assert catalog.find(arch).arch == arch


def test_find_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean ResNet50_vd"):
        catalog.find("ResNet50vd")


def test_names() -> None:
    assert len(catalog.names()) == 219
    assert catalog.names("mobilenetv1*") == [
        "MobileNetV1_x0_25",
        "MobileNetV1_x0_5",
        "MobileNetV1_x0_75",
        "MobileNetV1",
        "MobileNetV1_ssld",
    ]
    assert catalog.names("*_SSLD", series="hrnet") == ["HRNet_W18_C_ssld", "HRNet_W48_C_ssld", "SE_HRNet_W64_C_ssld"]
    assert catalog.names(series="PP-LCNet") == catalog.names(series="pplcnet")
    assert catalog.names("no such name") == []
    with pytest.raises(UnknownNameError, match="did you mean HRNet"):
        catalog.names(series="HRNets")


def test_importing_and_reading_needs_no_torch() -> None:
    code = (
        "import sys; from torchclas import catalog, labels; catalog.entries(); labels.label_set('imagenet1k');"
        "print(sorted({'torch', 'numpy', 'cv2', 'PIL'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_entries_are_values() -> None:
    entry = catalog.find("ResNet50")
    assert pickle.loads(pickle.dumps(entry)) == entry
    assert len(set(catalog.entries())) == 219


def test_preset_survives_json() -> None:
    for row in catalog.entries():
        assert Preset.from_dict(json.loads(json.dumps(row.preset.to_dict()))) == row.preset


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resize_shrt": 256}, "resize_shrt: unknown key, did you mean resize_short"),
        ({"size": "224"}, "size: must be an integer from 1 to 4,096"),
        ({"size": True}, "size: must be an integer from 1 to 4,096"),
        ({"size": 300}, "size: 300 is larger than resize_short = 256"),
        ({"interpolation": "nearest"}, "interpolation: must be one of bilinear, bicubic, lanczos"),
        ({"backend": ["opencv"]}, "backend: must be one of"),
        ({"mean": [0.5, 0.5]}, "mean: must be three numbers in 0..1"),
        ({"mean": [123.675, 116.28, 103.53]}, "mean: must be three numbers in 0..1"),
        ({"mean": [0.5, float("nan"), 0.5]}, "mean: must be three numbers in 0..1"),
        ({"std": [0.5, 0.0, 0.5]}, "std: must be at least 0.001"),
        ({"resize_short": 20_000}, "resize_short: must be an integer from 1 to 4,096"),
    ],
)
def test_preset_rejects(change: dict[str, object], message: str) -> None:
    values = catalog.find("ResNet50").preset.to_dict()
    with pytest.raises(CatalogError, match=message):
        Preset.from_dict({**values, **change})


def test_preset_rejects_a_missing_key() -> None:
    values = catalog.find("ResNet50").preset.to_dict()
    del values["std"]
    with pytest.raises(CatalogError, match="preset: std: is missing"):
        Preset.from_dict(values)


def test_defaults_of_a_row() -> None:
    entry = parse_row("Net50 = { gpu_ms = [1.5] }")
    assert (entry.arch, entry.num_classes, entry.labels, entry.recipe, entry.note) == (
        "Net50",
        1000,
        "imagenet1k",
        "Net50",
        "",
    )
    assert entry.top1 is None
    assert entry.weights is not None
    assert entry.weights.url == "https://example.org/weights/Net50_pretrained.pdparams"
    assert entry.weights.layout == "original"  # the series' default
    assert entry.alternates == ()
    assert entry.latency == {"gpu": (1.5,)}


def test_a_row_overrides_its_series() -> None:
    entry = parse_row('Net50 = { layout = "current", folder = "more", file = "x.pdparams", twin = true, recipe = "" }')
    assert entry.weights is not None
    assert (entry.weights.layout, entry.weights.url) == ("current", "https://example.org/weights/more/x.pdparams")
    assert entry.alternates[0].url == "https://example.org/weights/legendary_models/x.pdparams"
    assert entry.recipe is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Net50 = { parms_m = 25.6 }", "Net50: parms_m: unknown key, did you mean params_m"),
        ("Net50 = { top1 = 0.765 }", r"Net50: top1: must be a percentage \(76.5, not 0.765\), not 0.765"),
        ('Net50 = { top1 = "76.5" }', "Net50: top1: must be a percentage"),
        ("Net50 = { params_m = -1 }", "Net50: params_m: must be a positive number"),
        ("Net50 = { gpu_ms = 1.5 }", "Net50: gpu_ms: must be a list"),
        ("Net50 = { gpu_ms = [1.5, 2.5, 3.5] }", "Net50: gpu_ms: 3 numbers for the columns batch 1, batch 4"),
        ("Net50 = { cpu_ms = [1.5] }", "Net50: cpu_ms: unknown key"),
        (
            'Net50 = { preset = "imagenet_242" }',
            "Net50: preset: 'imagenet_242' is not defined, did you mean imagenet_224",
        ),
        ('Net50 = { layout = "old" }', "Net50: layout: must be one of current, original"),
        ('Net50 = { labels = "imagenet" }', "Net50: labels: must be one of imagenet1k"),
        ('Net50 = { twin = "yes" }', "Net50: twin: must be true or false"),
        ("Net50 = { num_classes = 0 }", "Net50: num_classes: must be a positive integer"),
        ("Net50 = 1", "Net: models.Net50: must be a table"),
        ("Net50 = {}\nnet50 = {}", "net50: the name is used twice"),
        ("Net50 = {}\nNet50 = {}", "not valid TOML"),
        ("Net50 = {}\n[extra]", "catalog: extra: unknown key"),
        ('[series.Lone]\ntitle = "Lone"\ngroup = "other"\npapers = []', "Lone: models: is missing"),
        ('[series.Lone]\ntitle = "Lone"\npapers = []\nmodels = {}', "Lone: group: is missing"),
        ('[series.Lone]\ntitle = "Lone"\ngroup = "others"\npapers = []\nmodels = {}', "Lone: group: 'others' is not"),
        ('[series.Lone]\ntitle = "Lone"\ngroup = "other"\npapers = ["nett"]\nmodels = {}', "did you mean net"),
    ],
)
def test_a_broken_catalog_names_row_and_key(row: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        catalog.parse(MINIMAL + row)
