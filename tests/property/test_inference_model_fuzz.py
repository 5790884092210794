"""Whatever the bytes of an inference model and of what is beside it, reading gives an answer or an error of ours."""

from __future__ import annotations

import contextlib
import json
import struct
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.inference_models import parameters, value, varint
from tests.property.damage import damaged
from torchclas.errors import CheckpointError, Error
from torchclas.weights.dataflow import flow_of_program
from torchclas.weights.deploy_config import deploy_config
from torchclas.weights.inference_model import InferenceTensors, read_inference_model, read_program
from torchclas.weights.naming import naming
from torchclas.zoo import create_model

fuzz = settings(
    max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

# A convolution, a batch norm, a concatenation with a token, and a linear layer, as each version writes them.
SHAPES = {"w": (4, 3, 3, 3), "s": (4,), "b": (4,), "m": (4,), "v": (4,), "t": (1, 4), "l": (4, 2)}
STEPS: list[tuple[str, dict[str, list[str]], str]] = [
    ("feed", {"X": ["feed"]}, "x"),
    ("conv2d", {"Filter": ["w"], "Input": ["x"]}, "c"),
    ("batch_norm", {"X": ["c"], "Scale": ["s"], "Bias": ["b"], "Mean": ["m"], "Variance": ["v"]}, "n"),
    ("shape", {"Input": ["n"]}, "i"),
    ("concat", {"X": ["n", "t"]}, "k"),
    ("matmul_v2", {"X": ["k"], "Y": ["l"]}, "y"),
    ("fetch", {"X": ["y"]}, "fetch"),
]


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def protobuf() -> bytes:
    def variable(name: str, shape: tuple[int, ...], persistable: int) -> bytes:
        dims = b"".join(b"\x10" + varint(length % 2**64) for length in shape)
        kind = b"\x08\x07" + message(3, message(1, b"\x08\x05" + dims))
        return message(3, message(1, name.encode()) + message(2, kind) + b"\x18" + varint(persistable))

    def operator(kind: str, inputs: dict[str, list[str]], output: str) -> bytes:
        slots = b"".join(
            message(1, message(1, slot.encode()) + b"".join(message(2, name.encode()) for name in names))
            for slot, names in inputs.items()
        )
        strides = message(4, message(1, b"strides") + b"\x10\x03\x30\x02\x30\x02")
        outputs = message(2, message(1, b"Out") + message(2, output.encode()))
        return message(4, slots + outputs + message(3, kind.encode()) + strides)

    variables = [variable(name, shape, 1) for name, shape in SHAPES.items()]
    variables += [variable("x", (-1, 3, 8, 8), 0), variable("y", (-1, 2), 0)]
    return message(1, b"\x08\0" + b"".join(variables) + b"".join(operator(*step) for step in STEPS))


def program_in_json() -> bytes:
    numbers: dict[str, int] = {}

    def output(name: str, shape: tuple[int, ...]) -> dict[str, object]:
        numbers[name] = len(numbers) + 1
        return {"%": numbers[name], "TT": {"#": "0.t_dtensor", "D": [{"#": "0.t_f32"}, list(shape), "NCHW", [], 0]}}

    made: list[dict[str, object]] = [
        {"#": "p", "A": [0, 1, 1, name], "O": output(name, shape)} for name, shape in SHAPES.items()
    ]
    shapes = {"x": (-1, 3, 8, 8), "y": (-1, 2)}
    strides = {"AT": {"#": "0.a_array", "D": [{"#": "0.a_i32", "D": 2}] * 2}, "N": "strides"}
    for kind, slots, name in STEPS:
        order = ["X", "Mean", "Variance", "Scale", "Bias"] if kind == "batch_norm" else list(slots)
        taken = [{"%": numbers[each]} for slot in order for each in slots[slot] if kind != "feed"]
        word = {"feed": "data", "batch_norm": "batch_norm_"}.get(kind, kind)
        if kind == "concat":
            made.append({"#": "0.combine", "A": [], "I": taken, "O": [{"%": 99}]})
            taken = [{"%": 99}]
        made.append({"#": f"1.{word}", "A": [strides], "I": taken, "O": [output(name, shapes.get(name, (4,)))]})
    whole = {"base_code": {"magic": "pir"}, "program": {"regions": [{"blocks": [{"ops": made}]}]}}
    return json.dumps(whole, separators=(",", ":")).encode()


SEEDS = {".pdmodel": protobuf(), ".json": program_in_json()}
WORDS = [b"\xff" * 9 + b"\1", b"\x0a", b"\x22\x00", b"strides", b"%", b'{"%":1}', b"null", b"1e999", b"[[", b"9" * 30]


def operators_of(whole: Any) -> list[Any]:
    return whole["program"]["regions"][0]["blocks"][0]["ops"]


def within_bounds(read: Callable[[], object], size: int) -> None:
    """Pass on everything but the error that is meant to come."""
    tracemalloc.start()
    try:
        with contextlib.suppress(CheckpointError):
            read()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**21 + 1000 * size


@pytest.mark.parametrize("suffix", SEEDS)
def test_the_seeds_are_programs(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(SEEDS[suffix])
    program = read_program(path)
    assert (program.num_classes, program.size, set(program.parameters)) == (2, (8, 8), set(SHAPES))
    uses = [(use.names, use.sizes) for use in flow_of_program(program).uses[1:]]
    assert uses == [(("w",), (3, 3, 3, 4, 2, 2)), (("s", "b", "m", "v"), (4,)), (("t",), (4,)), (("l",), (2, 4))]


@pytest.mark.parametrize("suffix", SEEDS)
@given(data=st.data())
@fuzz
def test_damaged_programs(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    path = tmp_path / f"a{suffix}"
    content = data.draw(damaged([SEEDS[suffix]], WORDS))
    path.write_bytes(content)
    within_bounds(lambda: flow_of_program(read_program(path)).same(), len(content))


@given(data=st.data())
@fuzz
def test_json_with_values_of_any_kind(tmp_path: Path, data: st.DataObject) -> None:
    whole: Any = json.loads(SEEDS[".json"])
    holder: Any = operators_of(whole)
    key: Any = data.draw(st.integers(0, len(holder) - 1))
    while isinstance(holder[key], dict | list) and holder[key] and data.draw(st.integers(0, 5)):
        holder = holder[key]
        key = data.draw(st.sampled_from(list(cast("Any", holder)) if isinstance(holder, dict) else range(len(holder))))
    holder[key] = data.draw(
        st.sampled_from([None, True, -1, 0, 2**31, 2**70, 1e400, "", "x" * 2000, "\ud800", [], {}, [[]], {"%": 1}])
    )
    path = tmp_path / "a.json"
    path.write_text(json.dumps(whole))
    within_bounds(lambda: flow_of_program(read_program(path)).same(), path.stat().st_size)


@pytest.mark.parametrize("suffix", SEEDS)
@given(data=st.data())
@fuzz
def test_damaged_parameters(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(SEEDS[suffix])
    program = read_program(path)
    whole = parameters(program, {name: value(each) for name, each in program.parameters.items()})
    path.with_suffix(".pdiparams").write_bytes(whole)
    assert isinstance(read_inference_model(path), InferenceTensors)
    content = data.draw(damaged([whole], [*WORDS, struct.pack("<IQIi", 0, 0, 0, 2**31 - 1)]))
    path.with_suffix(".pdiparams").write_bytes(content)
    within_bounds(lambda: read_inference_model(path), len(content))


def doubling() -> list[dict[str, object]]:
    """Lists of lists."""
    return [{"#": "0.combine", "A": [], "I": [{"%": at}] * 2, "O": [{"%": at + 1}]} for at in range(99, 160)]


def gathering() -> list[dict[str, object]]:
    """Sums of all that came before."""
    made: list[dict[str, object]] = []
    for at in range(1000, 11000, 2):
        made.append({"#": "1.matmul", "A": [], "I": [{"%": 8}, {"%": 1}], "O": [{"%": at}]})
        made.append({"#": "1.add", "A": [], "I": [{"%": at - 1}, {"%": at}], "O": [{"%": at + 1}]})
    return made


@pytest.mark.parametrize("more", [doubling, gathering])
def test_what_grows_with_every_step_is_refused(more: Callable[[], list[object]], tmp_path: Path) -> None:
    whole = json.loads(SEEDS[".json"])
    operators_of(whole)[-1:-1] = more()
    path = tmp_path / "a.json"
    path.write_text(json.dumps(whole))
    program = read_program(path)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="more comes together"):
        flow_of_program(program)
    assert tracemalloc.get_traced_memory()[1] < 2**28
    tracemalloc.stop()


@pytest.mark.parametrize("suffix", SEEDS)
def test_a_network_of_strangers_is_none_of_ours(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(SEEDS[suffix])
    program = read_program(path)
    tensors = {name: value(each) for name, each in program.parameters.items()}
    with pytest.raises(CheckpointError, match="does not flow as in a PPLCNet_x0_25"):
        naming(create_model("PPLCNet_x0_25"), "paddle-inference", InferenceTensors(program, tensors), path)


# What stands beside it

YAML = b"""Global: {model_name: PP-LCNet_x0_25}
Hpi: {a: &shapes [1, 3], b: *shapes}
PreProcess:
  transform_ops:
  - ResizeImage: {resize_short: 256}
  - CropImage: {size: 224}
  - NormalizeImage: {mean: [0.5, 0.4, 0.3], std: [0.2, 0.2, 0.2], scale: 1.0/255.0}
  - ToCHWImage: null
PostProcess:
  Topk: {topk: 5, label_list: ["cat", dog]}
"""
YAML_WORDS = [
    b"*shapes",
    b"&shapes ",
    b"!!python/name:os.system ",
    b"<<: ",
    b"[",
    b"{",
    b"- ",
    b": ",
    b"\xff",
    b"1e999",
]


@given(content=damaged([YAML], [*YAML_WORDS, b"~", b"-1", b"\n", b"\0", b"? ", b"---\n", b"!", b"size: [3, 4]"]))
@fuzz
def test_damaged_configurations(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "inference.pdmodel").touch()
    (tmp_path / "inference.pdiparams").touch()
    (tmp_path / "inference.yml").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(Error):
            read = deploy_config(tmp_path / "inference.pdmodel")
            assert read is not None
            assert read.preset is None or min(read.preset.size) >= 1
