from __future__ import annotations

from dataclasses import replace

import pytest

from edgekit.backends.tensorrt.options import build_options, engine_table
from edgekit.errors import ConfigError
from edgekit.targets import load_target

JETSON = load_target("jetson")


def test_options_come_from_the_target() -> None:
    target = replace(JETSON, engine={"workspace_mib": 512, "builder_optimization_level": 4, "batch": [1, 2, 4]})
    assert build_options(target, "int8") == {
        "precision": "int8",
        "strongly_typed": True,
        "version": "10.3",
        "workspace_mib": 512,
        "builder_optimization_level": 4,
        "profiling_verbosity": "detailed",
        "batch": [1, 2, 4],
        "compute_capabilities": [],
    }


def test_gpu_generations_are_for_tensorrt_rtx() -> None:
    target = replace(load_target("rtx"), engine={"compute_capabilities": ["7.5"]})
    assert build_options(target, "int8")["compute_capabilities"] == ["7.5"]
    with pytest.raises(ConfigError, match="compute_capabilities is for TensorRT-RTX alone"):
        build_options(replace(JETSON, engine={"compute_capabilities": ["8.7"]}), "int8")


def test_the_release_is_compared_as_numbers() -> None:
    assert engine_table(replace(JETSON, engine={"version": "10.13"})).release > (10, 3)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"workspace": 1}, "unknown key 'workspace'"),
        ({"workspace_mib": 0}, "workspace_mib: expected at least 1"),
        ({"builder_optimization_level": 6}, "builder_optimization_level: expected 0 to 5"),
        ({"version": "10"}, "version: expected major.minor"),
        ({"compute_capabilities": ["sm86"]}, "compute_capabilities: expected major.minor"),
        ({"batch": [1, 8, 4]}, "batch: expected 1 <= smallest <= best <= largest"),
        ({"profiling_verbosity": "loud"}, "profiling_verbosity: expected one of"),
    ],
)
def test_wrong_tables_name_the_target(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match="target 'jetson-orin-nano': engine: ") as caught:
        build_options(replace(JETSON, engine=table), "int8")
    assert message in caught.value.message
