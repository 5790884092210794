"""Vectors of images: in Python, and in files that say what they are."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import torchclas
from tests.networks import small_checkpoint
from torchclas import Embedder
from torchclas.cli import run
from torchclas.data.loader import Batch
from torchclas.errors import Error
from torchclas.inference.embedder import Provenance, unit_length
from torchclas.inference.request import WeightsFiles
from torchclas.spec import find_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("embedding") / "three.safetensors")


@pytest.fixture(scope="module")
def sources(photographs: Path) -> list[str]:
    return [str(photographs / "chelsea.png"), "missing.jpg", str(photographs / "coffee.png")]


def test_vectors_are_those_of_the_classifier_scaled(checkpoint: Path, sources: list[str]) -> None:
    plain = [row.vector for row in torchclas.Classifier(checkpoint, engine="torch").embed(sources)]
    embedder = Embedder(checkpoint, engine="torch", normalize=True, dtype="fp16")
    rows = list(embedder.embed(sources))
    assert [row.status for row in rows] == ["ok", "error", "ok"]
    assert embedder.dimension == torchclas.create_model(checkpoint).num_features
    for row, vector in zip(rows, plain, strict=True):
        if vector is None:
            assert (row.vector, row.error) == (None, "no such file")
            continue
        assert row.vector is not None
        assert row.vector.dtype == np.float16
        np.testing.assert_allclose(row.vector, vector / np.linalg.norm(vector), atol=1e-3)
    first = rows[0].vector
    assert first is not None
    (again,) = pickle.loads(pickle.dumps(embedder)).embed(sources[0])
    np.testing.assert_allclose(again.vector, first, atol=1e-3)


def test_a_vector_that_fp16_cannot_hold_is_an_error(
    checkpoint: Path, sources: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = Embedder(checkpoint, engine="torch", dtype="fp16")

    def huge(self: object, batch: Batch, *_: object) -> np.ndarray:
        return np.full((len(batch.images), 5), 1e6, np.float32)

    monkeypatch.setattr(torchclas.Classifier, "_computed", huge)
    (row,) = embedder.embed(sources[0])
    assert "too large for fp16" in str(row.error)


def test_a_vector_of_zeros_stays_one() -> None:
    np.testing.assert_allclose(unit_length(np.array([[0, 0], [3, 4]], np.float32)), [[0, 0], [0.6, 0.8]])


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_every_format_has_the_same_rows(checkpoint: Path, sources: list[str], tmp_path: Path, dtype: str) -> None:
    for suffix in ("parquet", "npz", "safetensors"):
        output = str(tmp_path / f"v.{suffix}")
        code = run(["embed", *sources, "-m", str(checkpoint), "--engine", "torch", "--dtype", dtype, "-o", output])
        assert code == 1, "one input is missing"
    with np.load(tmp_path / "v.npz") as arrays:
        vectors, metadata = arrays["vectors"], str(arrays["metadata"])
        assert arrays["sources"].tolist() == sources
        assert arrays["status"].tolist() == ["ok", "error", "ok"]
        assert arrays["error"].tolist() == ["", "no such file", ""]
    assert vectors.dtype == (np.float16 if dtype == "fp16" else np.float32)
    assert np.isnan(vectors[1]).all()
    assert np.isfinite(vectors[::2]).all()

    tensors = load_file(tmp_path / "v.safetensors")
    np.testing.assert_array_equal(tensors["vectors"], vectors)
    rows = json.loads(bytes(tensors["rows"]))
    assert [(row["source"], row["error"]) for row in rows] == [*zip(sources, [None, "no such file", None], strict=True)]
    with safe_open(tmp_path / "v.safetensors", "np") as file:
        assert file.metadata()["torchclas"] == metadata

    table = parquet.read_table(tmp_path / "v.parquet")
    assert table.column_names == ["source", "status", "embedding", "error", "engine"]
    columns = table.to_pydict()
    assert columns["source"] == sources
    assert columns["embedding"][1] is None
    np.testing.assert_array_equal(np.array(columns["embedding"][::2], vectors.dtype), vectors[::2])
    assert table.schema.metadata[b"torchclas"].decode() == metadata

    found = Provenance.from_json(metadata)
    assert found.to_json() == metadata
    assert (found.model, found.dimension, found.dtype) == ("PPLCNet_x0_25", vectors.shape[1], dtype)
    assert found.preset.size == (64, 64)
    assert found.weights.startswith("sha256:")


def test_provenance_that_is_none(checkpoint: Path) -> None:
    content = Embedder(checkpoint, engine="torch").provenance.to_json()
    for wrong in ("[]", "{", content.replace('"dimension": ', '"dimension": 1'), content.replace('"fp32"', '"fp8"', 1)):
        with pytest.raises(Error):
            Provenance.from_json(wrong)


def test_weights_are_told_apart_by_what_they_hold(checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(checkpoint.read_bytes())
    identities = [
        WeightsFiles(find_model(path)).identity()
        for path in (checkpoint, copy, small_checkpoint(tmp_path / "b.safetensors", 1))
    ]
    assert identities[0] == identities[1] != identities[2]
    first, other = (WeightsFiles(find_model(name)).identity() for name in ("ResNet50_vd", "ResNet50_vd_ssld"))
    assert first != other


def test_probes_tell_networks_apart_whatever_their_classifier(checkpoint: Path, tmp_path: Path) -> None:
    model = torchclas.create_model(checkpoint)
    model.reset_classifier(7)
    retrained = torchclas.save_checkpoint(model, tmp_path / "head.safetensors", preset=find_model(checkpoint).preset)
    probe, same, other = (
        Embedder(path, engine="torch").probe
        for path in (checkpoint, retrained, small_checkpoint(tmp_path / "b.safetensors", 1))
    )
    assert probe @ same == pytest.approx(1, abs=1e-6)
    assert probe @ other < 0.99


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "v.csv"], "choose one of these suffixes"),
        (["-o", "v.npz", "--engine", "torch", "-m", "missing.safetensors"], "no such file"),
    ],
)
def test_bad_input(
    arguments: list[str],
    message: str,
    sources: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["embed", *sources, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_neither_model_nor_picture_is_replaced(
    checkpoint: Path, sources: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = checkpoint.read_bytes()
    assert run(["embed", sources[0], "-m", str(checkpoint), "--engine", "torch", "-o", str(checkpoint)]) == 2
    assert "is the model" in capsys.readouterr().err
    assert checkpoint.read_bytes() == before
    picture = tmp_path / "picture.npz"
    picture.write_bytes(Path(sources[0]).read_bytes())
    assert run(["embed", str(picture), "-m", str(checkpoint), "--engine", "torch", "-o", str(picture)]) == 2
    assert "one of the inputs" in capsys.readouterr().err
    assert picture.read_bytes() == Path(sources[0]).read_bytes()


def test_what_was_done_is_kept_when_interrupted(
    checkpoint: Path, sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, calls = Embedder.rows, iter([None, KeyboardInterrupt()])

    def interrupted(self: Embedder, batch: Batch) -> object:
        if (stop := next(calls)) is not None:
            raise stop
        return rows(self, batch)

    monkeypatch.setattr(Embedder, "rows", interrupted)
    options = ["-m", str(checkpoint), "--engine", "torch", "--batch-size", "2"]
    assert run(["embed", *sources, *options, "-o", str(tmp_path / "v.npz")]) == 130
    with np.load(tmp_path / "v.npz") as arrays:
        assert arrays["sources"].tolist() == sources[:2]
        assert arrays["vectors"].shape[0] == 2
