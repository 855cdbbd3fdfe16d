from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import ConfigError
from edgekit.targets import Figure, Peak, QuantizeRules, Target, list_targets, load_target

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = (
    "arm-cpu",
    "intel-gpu",
    "intel-npu",
    "jetson-agx-orin",
    "jetson-orin-nano",
    "jetson-orin-nx",
    "jetson-thor",
    "nvidia-gpu",
    "rtx",
    "x86-cpu",
    "x86-cpu-legacy",
)


@pytest.fixture(autouse=True)
def _no_folders_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEKIT_TARGETS", raising=False)


def _board(folder: Path, name: str = "board", *, stem: str | None = None, extra: str = "") -> Path:
    text = (ROOT / "targets" / "arm-cpu.toml").read_text().replace('name = "arm-cpu"', f'name = "{name}"\n{extra}')
    path = folder / f"{name if stem is None else stem}.toml"
    path.write_text(text)
    return path


def _target(**changes: Any) -> Target:
    return replace(load_target("x86-cpu"), **changes)


def test_the_shipped_targets() -> None:
    assert tuple(target.name for target in list_targets()) == SHIPPED


def test_an_alias_and_the_name_mean_the_same() -> None:
    assert load_target("jetson") == load_target("jetson-orin-nano")


def test_a_path_is_read_as_a_file(tmp_path: Path) -> None:
    path = _board(tmp_path)
    assert load_target(path).name == "board"
    assert load_target(str(path)).name == "board"


def test_folders_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (tmp_path / name for name in "abc")
    for folder, name in ((first, "board"), (second, "other"), (third, "third")):
        folder.mkdir()
        _board(folder, name)
    monkeypatch.setenv("EDGEKIT_TARGETS", os.pathsep.join([str(first), "", str(second), str(first)]))
    assert {"board", "other"} <= {target.name for target in list_targets()}
    assert load_target("third", extra=third).name == "third"
    with pytest.raises(ConfigError, match="unknown target 'third'"):
        load_target("third")


def test_a_name_may_be_defined_once(tmp_path: Path) -> None:
    _board(tmp_path, "x86-cpu")
    with pytest.raises(ConfigError, match=r"x86-cpu\.toml: 'x86-cpu' is already defined by .*targets.x86-cpu\.toml"):
        list_targets(extra=tmp_path)


@pytest.mark.parametrize("alias", ["jetson", "rtx"])
def test_an_alias_may_not_mean_two_targets(tmp_path: Path, alias: str) -> None:
    _board(tmp_path, extra=f'aliases = ["{alias}"]')
    with pytest.raises(ConfigError, match=f"alias '{alias}' already means"):
        list_targets(extra=tmp_path)


def test_the_file_bears_the_name(tmp_path: Path) -> None:
    path = _board(tmp_path, "board", stem="bord")
    with pytest.raises(ConfigError, match="name = 'board': expected the file's own name, 'bord'"):
        load_target(path)


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown target 'jetsn'") as caught:
        load_target("jetsn")
    assert caught.value.hint == "did you mean 'jetson'?"


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    path = _board(tmp_path, extra='titel = "x"')
    with pytest.raises(ConfigError, match="unknown key 'titel'") as caught:
        load_target(path)
    assert caught.value.hint == "did you mean 'title'?"


def test_a_missing_folder_of_the_user_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_TARGETS", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="none: no such folder of targets"):
        list_targets()


@pytest.mark.parametrize("target", list_targets(), ids=lambda target: target.name)
def test_a_shipped_target_is_consistent(target: Target) -> None:
    openvino = target.backend == "openvino"
    assert target.build == {"openvino": "here", "tensorrt_rtx": "ahead", "tensorrt": "device"}[target.backend]
    assert target.quantize.activations == ("uint8-asymmetric" if openvino else "int8-symmetric")
    assert target.requires.reason
    assert target.precisions[0] == "int8"
    assert target.portable.opset <= 20
    assert target.portable.ir_version <= 10
    if openvino:
        assert target.requires.device == target.engine["device"]
        assert target.engine["performance_hint"] == "LATENCY"
        assert set(target.engine["inference_precision"]) == set(target.precisions)
        assert target.engine["cache"] is (target.engine["device"] != "CPU")
    else:
        assert target.quantize.depthwise == "float"
        assert target.engine["workspace_mib"] >= 1024


@pytest.mark.parametrize("target", list_targets(), ids=lambda target: target.name)
def test_every_number_has_a_source(target: Target) -> None:
    figures = [figure for figure in (target.memory, target.bandwidth) if figure is not None]
    sources = [target.channel_alignment_source, *(item.source for item in (*target.peaks, *figures))]
    assert all(len(source) > 30 for source in sources)
    if target.name.startswith("jetson"):
        assert {peak.precision for peak in target.peaks} == {"int8", "fp16"}
        assert len(figures) == 2


def test_weights_take_seven_bits_only_where_sums_saturate() -> None:
    assert {target.name for target in list_targets() if target.quantize.weight_bits == 7} == {"x86-cpu-legacy"}
    assert load_target("x86-cpu").requires.cpu_flags_any == ("avx512_vnni", "avx_vnni", "amx_int8")
    assert load_target("x86-cpu").requires.on_mismatch == "refuse"
    assert load_target("x86-cpu-legacy").requires.cpu_flags_any == ()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"precisions": ()}, "precisions: expected one or more different ones"),
        ({"precisions": ("int8", "int8")}, "precisions: expected one or more different ones"),
        ({"channel_alignment": 0}, "channel_alignment: expected at least 1, got 0"),
        ({"golden_rel_l2": {"int8": 0.1, "bf16": 0.1}}, "golden_rel_l2: no bound for fp32"),
        ({"golden_rel_l2": {"int8": 0.1, "bf16": 0.1, "fp32": 0.0}}, "golden_rel_l2.fp32: expected a number between"),
        ({"golden_rel_l2": {"int8": 0.1, "bf16": 0.1, "fp32": 0.1, "fp16": 0.1}}, "golden_rel_l2.fp16: not one of"),
    ],
)
def test_a_target_validates_itself(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _target(**changes)
    assert caught.value.message.startswith(expected)


def test_figures_validate_themselves() -> None:
    with pytest.raises(ConfigError, match="value: expected a positive number, got 0"):
        Figure(value=0, unit="GB", source="a document")
    with pytest.raises(ConfigError, match="source: empty"):
        Peak(precision="int8", tops=1.0, source=" ")
    assert QuantizeRules(activations="int8-symmetric").weight_bits == 8
