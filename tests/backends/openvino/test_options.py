from __future__ import annotations

from dataclasses import replace

import pytest

from edgekit.backends.openvino.options import compile_options
from edgekit.errors import ConfigError
from edgekit.targets import load_target


@pytest.mark.parametrize(
    ("precision", "hint"), [("int8", "f32"), ("bf16", "bf16"), ("fp32", "f32")], ids=["int8", "bf16", "fp32"]
)
def test_the_inference_precision_is_always_stated(precision: str, hint: str) -> None:
    assert compile_options(load_target("x86-cpu"), precision) == {
        "device": "CPU",
        "properties": {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"},
        "cache": False,
    }


def test_an_npu_computes_its_float_part_in_half_and_caches() -> None:
    options = compile_options(load_target("intel-npu"), "int8")
    assert options["device"] == "NPU"
    assert options["properties"]["INFERENCE_PRECISION_HINT"] == "f16"
    assert options["cache"] is True


def test_a_precision_without_a_statement_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"engine\.inference_precision says nothing about 'fp32'"):
        compile_options(load_target("intel-npu"), "fp32")


@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [
        ({"perfomance_hint": "LATENCY"}, "unknown key 'perfomance_hint'", "did you mean 'performance_hint'?"),
        ({"device": "CPUS"}, "device: expected one of 'CPU', 'GPU', 'NPU'", "did you mean 'CPU'?"),
        ({"inference_precision": {"int8": "fp32"}}, "inference_precision.int8: expected one of", "did you mean 'f32'?"),
    ],
)
def test_a_wrong_engine_table_names_target_and_nearest(table: dict[str, object], message: str, hint: str) -> None:
    target = load_target("x86-cpu")
    wrong = replace(target, engine={**target.engine, **table})
    with pytest.raises(ConfigError, match="target 'x86-cpu': engine: ") as caught:
        compile_options(wrong, "int8")
    assert message in caught.value.message
    assert caught.value.hint == hint
