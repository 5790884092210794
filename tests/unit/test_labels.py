import re
from typing import get_args

import pytest

from torchclas.catalog import Labels
from torchclas.errors import Error, UnknownNameError
from torchclas.labels import label_set

CJK = re.compile("[\u4e00-\u9fff]")


@pytest.mark.parametrize(
    ("synset", "index", "english", "chinese"),
    [
        ("n01440764", 0, "tench, Tinca tinca", "丁鲷"),
        ("n02123159", 282, "tiger cat", "虎斑猫"),
        ("n02504458", 386, "African elephant, Loxodonta africana", "非洲象"),
        ("n02510455", 388, "giant panda, panda, panda bear, coon bear, Ailuropoda melanoleuca", "大熊猫"),
        ("n02012849", 134, "crane", "鹤"),
        ("n03126707", 517, "crane", "起重机"),
        ("n03710637", 638, "maillot", "紧身连体衣"),
        ("n03710721", 639, "maillot, tank suit", "连体泳衣"),
        ("n07920052", 967, "espresso", "意式浓缩咖啡"),
        ("n15075141", 999, "toilet tissue, toilet paper, bathroom tissue", "卫生纸"),
    ],
)
def test_imagenet1k(synset: str, index: int, english: str, chinese: str) -> None:
    labels = label_set("imagenet1k")
    assert labels.ids[index] == synset
    assert labels.names("en")[index] == english
    assert labels.names("zh")[index] == chinese


def test_imagenet1k_is_complete() -> None:
    labels = label_set("imagenet1k")
    assert len(labels) == len(set(labels.ids)) == 1000
    assert list(labels.ids) == sorted(labels.ids)
    assert labels.languages == ("en", "zh")
    assert len(labels.names("en")) == 1000
    assert all(name == name.strip() != "" for name in labels.names("en"))
    chinese = labels.names("zh")
    assert all(CJK.search(name) for name in chinese)
    assert len(set(chinese)) == 1000  # so both cranes, maillots and sunglasses can be told apart


def test_imagenet22k() -> None:
    labels = label_set("imagenet22k")
    assert len(labels) == len(set(labels.ids)) == 21841
    assert list(labels.ids) == sorted(labels.ids)
    assert (labels.ids[0], labels.names()[0]) == ("n00004475", "organism, being")
    assert labels.names()[labels.ids.index("n01440764")] == "tench, Tinca tinca"
    assert "zh" not in labels.languages


def test_imagenet1k_is_nearly_a_subset_of_imagenet22k() -> None:
    assert set(label_set("imagenet1k").ids) - set(label_set("imagenet22k").ids) == {"n04399382"}  # teddy bear


def test_orientation() -> None:
    labels = label_set("orientation")
    assert labels.ids == ("0", "90", "180", "270")
    assert labels.names("en") == labels.names("zh") == ("0°", "90°", "180°", "270°")


def test_every_label_set_of_the_catalog_exists() -> None:
    assert all(label_set(name).name == name for name in get_args(Labels))


def test_unknown_set_and_language() -> None:
    with pytest.raises(UnknownNameError, match="did you mean imagenet1k"):
        label_set("imagenet-1k")
    with pytest.raises(Error, match="choose from en"):
        label_set("imagenet22k").names("zh")
