from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgekit.runtime.machine import check_requires, cpu_flags, default_target, describe_machine
from edgekit.targets import Requires, load_target

ROOT = Path(__file__).resolve().parents[2]
VNNI = Requires(cpu_flags_any=("avx512_vnni", "avx_vnni", "amx_int8"), reason="sums saturate")

x86_linux = pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux", reason="asks for the flags of an x86 Linux machine"
)


def capped(code: str, **caps: str) -> Any:
    """Runs a line in a fresh process under a cap of the instruction set and returns what it prints as JSON."""
    plain = {name: value for name, value in os.environ.items() if not name.endswith("MAX_CPU_ISA")}
    script = (
        "import json; from edgekit.runtime.machine import *; from edgekit.targets import Requires; "
        f"print(json.dumps({code}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT, env={**plain, **caps}
    )
    return json.loads(done.stdout)


def flags(**caps: str) -> set[str]:
    return set(capped("sorted(cpu_flags())", **caps))


@x86_linux
def test_flags_are_the_cpus() -> None:
    stated = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    assert flags() == set(stated.split(":")[1].split())


@x86_linux
@pytest.mark.parametrize(
    ("cap", "hidden", "kept"),
    [
        ("SSE41", {"avx", "avx2", "avx_vnni", "avx512f"}, {"sse4_1", "sse2"}),
        ("AVX2", {"avx_vnni", "avx512f", "avx512_vnni", "amx_int8"}, {"avx", "avx2", "fma"}),
        ("avx2_vnni", {"avx512f", "avx512_vnni"}, {"avx2", "avx_vnni"}),
        ("AVX512_CORE", {"avx512_vnni", "avx_vnni", "avx512_bf16"}, {"avx512f", "avx512bw"}),
        ("AVX512_CORE_VNNI", {"avx_vnni", "avx512_bf16"}, {"avx512_vnni"}),
        ("AVX512_CORE_BF16", {"avx512_fp16", "amx_tile"}, {"avx512_vnni", "avx512_bf16"}),
        ("AVX10_1_512", {"amx_tile", "amx_int8"}, {"avx512_fp16", "avx_vnni"}),
    ],
)
def test_a_cap_hides_what_the_inference_library_may_not_use(cap: str, hidden: set[str], kept: set[str]) -> None:
    free, under = flags(), flags(ONEDNN_MAX_CPU_ISA=cap)
    assert not under & hidden
    assert under & kept == free & kept


@x86_linux
def test_the_newer_name_of_the_cap_wins_and_an_unknown_value_caps_nothing() -> None:
    assert "avx2" not in flags(DNNL_MAX_CPU_ISA="AVX")
    assert "avx2" in flags(ONEDNN_MAX_CPU_ISA="nonsense", DNNL_MAX_CPU_ISA="AVX")
    assert flags(ONEDNN_MAX_CPU_ISA="ALL") == flags()


@x86_linux
def test_the_library_obeys_the_same_cap() -> None:
    """The table above is about oneDNN inside OpenVINO; here it says itself what it may use."""
    code = "import openvino as ov\nfrom openvino import opset13 as o\n" + (
        "import numpy\nx = o.parameter([1, 4], numpy.float32)\n"
        "c = ov.Core().compile_model(ov.Model([o.relu(x)], [x], 'm'), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})\n"
        "print(c.get_property('RUNTIME_REQUIREMENTS'))"
    )
    for caps, part in (
        ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, "isa=Intel AVX2"),
        ({"DNNL_MAX_CPU_ISA": "avx2"}, "isa=Intel AVX2"),
        ({"ONEDNN_MAX_CPU_ISA": "SSE41", "DNNL_MAX_CPU_ISA": "AVX2"}, "isa=Intel SSE4.1"),
    ):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **caps})
        assert done.stdout.strip().endswith(part), done.stdout + done.stderr


@x86_linux
def test_requirements_under_a_cap_name_the_cap() -> None:
    code = "check_requires(Requires(cpu_flags_any=({}, 'quantum'), reason='sums saturate'))"
    problem = capped(code.format("'avx'"), ONEDNN_MAX_CPU_ISA="SSE41")
    assert problem == "it needs a CPU with avx or quantum, ONEDNN_MAX_CPU_ISA=SSE41 hides it here (sums saturate)"
    # A cap is not blamed for what the CPU does not have anyway.
    problem = capped(code.format("'magic'"), ONEDNN_MAX_CPU_ISA="SSE41")
    assert problem == "it needs a CPU with magic or quantum, this one has none of them (sums saturate)"
    problem = capped(code.format("'avx512_vnni', 'avx_vnni'"), ONEDNN_MAX_CPU_ISA="AVX2")
    has_vnni = flags() & {"avx512_vnni", "avx_vnni"}
    assert ("ONEDNN_MAX_CPU_ISA=AVX2 hides it here" if has_vnni else "this one has none of them") in problem
    assert capped("default_target().name", ONEDNN_MAX_CPU_ISA="AVX2") == "x86-cpu-legacy"


def test_requirements() -> None:
    assert check_requires(Requires()) is None
    assert check_requires(Requires(arch=(platform.machine(),))) is None
    assert check_requires(Requires(arch=("riscv64", "vax"))) == (
        f"it is made for riscv64 or vax, this machine is {platform.machine()}"
    )
    problem = check_requires(Requires(cpu_flags_any=("quantum",)))
    assert problem is not None
    assert "quantum" in problem


def test_the_default_target_is_one_that_this_machine_meets() -> None:
    target = default_target()
    assert check_requires(target.requires) is None
    if check_requires(VNNI) is None:
        assert target == load_target("x86-cpu")


def test_the_description_is_json_and_complete() -> None:
    facts = describe_machine()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["cpu"]
    assert facts["cores"] >= facts["usable_cores"] >= 1
    assert facts["arch"] == platform.machine()
    assert set(facts["flags"]) <= cpu_flags()
    assert {"numpy", "openvino", "opencv"} <= set(facts["libraries"])
    if sys.platform == "linux":
        assert facts["memory_bytes"] > 1 << 28
