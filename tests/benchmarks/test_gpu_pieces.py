"""The pieces of the GPU benchmark, on made-up facts: verdicts, tables, refusals, the tests' outcome."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy")

from benchmarks import gpu, gpu_machine, gpu_report, readme
from benchmarks.gpu_tests import summarize
from benchmarks.gpu_verdicts import conditions, summarize_accuracy, summarize_latency
from benchmarks.gpu_worker import AGAIN, ORT, TORCH, side_name
from benchmarks.record import SCHEMA, document
from benchmarks.soak import DEVICE_BOUND_BYTES, LOOKS, RSS_BOUND_BYTES, Soak, soak
from benchmarks.verdicts import kept

ROOT = Path(__file__).resolve().parents[2]
INT8, FP16 = side_name("rtx", "int8"), side_name("rtx", "fp16")
TESTS = {"passed": 20, "failures": {}, "skips": {"no GPU: TensorRT is not installed": 3}}


def engine(reference: str, outcomes: str, error: float = 0.01) -> dict[str, Any]:
    facts = {"outcomes": outcomes, "golden_rel_l2": error, "golden_bound": 0.03, "agreement": 0.99, "kl": 0.003}
    built = {"build_s": 1.5, "plan_bytes": 3 << 20, "open_s": 2.0, "first_call_s": 0.25}
    return {**built, **summarize_accuracy(reference, facts)}


def run(medians: dict[str, float], **keys: Any) -> dict[str, Any]:
    blocks = {name: [value, value * 1.01] for name, value in medians.items()}
    p99 = {name: 2 * value for name, value in medians.items()}
    return {"median_us": medians, "p99_us": p99, "block_medians_us": blocks, "missing": {}, **keys}


def results(**changed: Any) -> dict[str, Any]:
    right = "1" * 90 + "0" * 10
    latency = summarize_latency(
        [run({INT8: 10.0 + step, FP16: 20.0, INT8 + AGAIN: 10.1 + step, TORCH: 40.0}, missing={ORT: "not here"})
         for step in (0, 0.1)]
    )  # fmt: skip
    flat = {"flat": True, "calls": 100, "device_growth_bytes": 0, "rss_growth_bytes": 1 << 20}
    return {
        "gpu": {"name": "Card", "compute_capability": "8.9", "cuda_driver": "13.1"},
        "float": {"images": 100, "top1": 0.9},
        "targets": {
            "rtx": {
                "library": "TensorRT-RTX",
                "refused": "",
                "engines": {"int8": engine(right, right), "fp16": engine(right, right)},
                "soak": flat,
                "not_shipped": {},
            },
            "nvidia-gpu": {"missing": "TensorRT is not installed"},
        },
        "latency": latency,
        "tests": TESTS,
        **changed,
    }


def verdicts(found: dict[str, Any]) -> dict[str, bool | None]:
    return {item["what"]: item["kept"] for item in conditions(found)}


def rendered(found: dict[str, Any]) -> str:
    checked = conditions(found)
    return gpu_report.to_markdown(
        {"results": {**found, "conditions": checked, "kept": kept(checked)}, "settings": {"processes": 2}}
    )


def test_what_is_good_is_kept_and_what_is_missing_is_said() -> None:
    found = results()
    by_what = verdicts(found)
    assert False not in by_what.values()
    assert [what for what, value in by_what.items() if value is None] == [
        "nvidia-gpu: runs here",
        f"our fastest engine no slower than {ORT}: the ratio's interval reaches 1 or below",
    ]
    text = rendered(found)
    assert "| rtx, int8 | 90.00 % | 0.00 [-" in text
    assert f"| {TORCH} | 40.0 [40.0, 40.0] | 80.0 [80.0, 80.0] | 0.25" in text
    assert f"{ORT}: missing: not here." in text
    assert "nvidia-gpu: not measured: TensorRT is not installed." in text
    assert "20 passed, 0 failed; 3 skipped (no GPU: TensorRT is not installed)." in text


def test_the_fastest_of_ours_is_compared_and_the_copy_is_not_ours() -> None:
    summary = summarize_latency([run({INT8: 30.0, FP16: 20.0 + step, FP16 + AGAIN: 19.0}) for step in (0, 1)])
    assert summary["best"] == FP16
    assert set(summary["ratio"]) == {INT8, FP16 + AGAIN}
    assert summary["ratio"][INT8]["estimate"] == pytest.approx((20 * 21) ** 0.5 / 30)


def test_a_side_that_one_process_lacks_does_not_count() -> None:
    summary = summarize_latency([run({INT8: 10.0, TORCH: 9.0}), run({INT8: 11.0}, missing={TORCH: "no compiler"})])
    assert list(summary["time_us"]) == [INT8]
    assert summary["missing"] == {TORCH: "no compiler"}


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({"soak": {"flat": False, "calls": 9, "device_growth_bytes": 1 << 23, "rss_growth_bytes": 0}}, "memory"),
        ({"engines": {"int8": engine("1" * 100, "1" * 90 + "0" * 10)}}, "0.3 points"),
        ({"engines": {"fp16": engine("1" * 100, "1" * 90 + "0" * 10)}}, "reaches 0 points"),
        ({"engines": {"int8": engine("1" * 100, "1" * 100, error=0.04)}}, "golden error"),
    ],
)
def test_a_bound_of_a_target_is_missed(change: dict[str, Any], missed: str) -> None:
    found = results()
    found["targets"]["rtx"] |= change
    assert [missed in what for what, value in verdicts(found).items() if value is False] == [True]
    assert "MISSED" in rendered(found)


def test_slower_than_a_peer_and_a_failing_test_are_missed() -> None:
    slow = summarize_latency([run({INT8: 50.0 + step, TORCH: 40.0, ORT: 100.0}) for step in (0, 0.1)])
    failing = {"passed": 3, "failures": {"tests.gpu.test_soak.test_x": "assert 3 == 2"}, "skips": {}}
    by_what = verdicts(results(latency=slow, tests=failing))
    assert sum(value is False for value in by_what.values()) == 2
    assert "tests.gpu.test_soak.test_x: assert 3 == 2" in rendered(results(latency=slow, tests=failing))


def test_tests_that_were_all_skipped_are_not_measured() -> None:
    found = results(tests={"passed": 0, "failures": {}, "skips": {"TensorRT-RTX does not run on this GPU": 30}})
    assert list(verdicts(found).values())[-1] is None


def test_a_library_that_refuses_the_gpu_is_the_result() -> None:
    found = results(latency={"failed": "no engine of ours runs here, so there is nothing to compare"}, tests=TESTS)
    found["targets"]["rtx"] = {"library": "TensorRT-RTX", "refused": "unsupported SM 90"}
    by_what = verdicts(found)
    assert False not in by_what.values()
    assert by_what["rtx: runs here"] is None
    text = rendered(found)
    assert "rtx: TensorRT-RTX refuses this GPU: unsupported SM 90." in text
    assert "Time: not measured: no engine of ours runs here" in text


def test_the_outcome_of_the_tests_is_read_from_the_report() -> None:
    report = """<testsuites><testsuite>
      <testcase classname="tests.gpu.test_a" name="test_good"/>
      <testcase classname="tests.gpu.test_a" name="test_bad"><failure message="assert 1 == 2">...</failure></testcase>
      <testcase classname="tests.gpu.test_b" name="broken"><error message="ImportError">...</error></testcase>
      <testcase classname="tests.gpu.test_b" name="test_c"><skipped message="no GPU"/></testcase>
      <testcase classname="tests.gpu.test_b" name="test_d"><skipped message="no GPU"/></testcase>
    </testsuite></testsuites>"""
    assert summarize(report) == {
        "passed": 1,
        "failures": {"tests.gpu.test_a.test_bad": "assert 1 == 2", "tests.gpu.test_b.broken": "ImportError"},
        "skips": {"no GPU": 2},
    }


def test_growth_after_settling_is_what_counts() -> None:
    settles = (0, 5 << 20, 7 << 20, *[8 << 20] * (LOOKS - 3))
    assert Soak(calls=1, seconds=1, device_bytes=settles, rss_bytes=settles).flat
    leaks = tuple(step << 20 for step in range(LOOKS))
    leaking = Soak(calls=1, seconds=1, device_bytes=settles, rss_bytes=tuple(4 * value for value in leaks))
    assert leaking.rss_growth_bytes > RSS_BOUND_BYTES
    assert not leaking.flat
    assert Soak(calls=1, seconds=1, device_bytes=leaks, rss_bytes=settles).device_growth_bytes > DEVICE_BOUND_BYTES


def test_a_soak_sees_a_leak_of_this_process() -> None:
    kept_alive: list[np.ndarray] = []
    leaking = soak(lambda: kept_alive.append(np.ones(1 << 18)), lambda: 0, calls=4 * LOOKS)
    assert leaking.calls == 4 * LOOKS == len(kept_alive)
    assert not leaking.flat
    assert leaking.to_dict()["rss_growth_bytes"] > 4 * RSS_BOUND_BYTES


@pytest.mark.skipif(not gpu_machine.no_gpu(), reason="this machine has a GPU")
def test_without_a_gpu_one_line_says_so_and_nothing_is_written(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    options = ["--checkpoint", "none", "--data", "none", "--test", "none", "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "gpu", *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 5
    assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)
    assert done.stderr.startswith("no GPU to measure on: ")
    assert "nothing was written" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_trial_that_kills_its_process_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(module: str, task: dict[str, Any], *, limit_s: float) -> dict[str, Any]:
        raise RuntimeError(f"benchmarks.{module} ended with -11:\n")

    monkeypatch.setattr(gpu_machine, "run_fresh", dies)
    gpu_machine.refusal.cache_clear()
    assert gpu_machine.refusal(gpu_machine.TARGETS["rtx"]) == "benchmarks.gpu_trial ended with -11:\n"
    gpu_machine.refusal.cache_clear()


def test_a_part_that_breaks_is_its_own_result_and_is_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts, calls = gpu.Parts(tmp_path, "stamp", limit_s=1), []

    def make() -> dict[str, Any]:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError(f"{tmp_path.absolute()}/x: ended with -11")
        return {"number": len(calls)}

    assert parts.made("part", make) == {"failed": "WORK/x: ended with -11"}
    assert parts.made("other", lambda: {"failed": f"{tmp_path.absolute()}: refused"}) == {"failed": "WORK: refused"}
    assert parts.made("other", make) == {"number": 2}
    assert parts.made("part", make) == parts.made("part", make) == {"number": 3}
    assert "part: WORK/x: ended with -11" in capsys.readouterr().out


def test_the_name_of_the_gpu_makes_the_name_of_the_record() -> None:
    assert gpu.record_path("NVIDIA GeForce RTX 4070 (Laptop)").name == "gpu-nvidia-geforce-rtx-4070-laptop.json"


def test_the_page_shows_every_gpu_that_was_recorded(tmp_path: Path) -> None:
    page = "<!-- gpu -->\nold\n<!-- /gpu -->"
    assert readme.renewed(page, tmp_path) == f"<!-- gpu -->\n{gpu_report.NOT_MEASURED}\n<!-- /gpu -->"
    checked = conditions(results())
    found = {**results(), "conditions": checked, "kept": kept(checked)}
    for name in ("a", "b"):
        found["gpu"] = {**found["gpu"], "name": f"Card {name}"}
        result = document("gpu", settings={"processes": 2}, load_average=0.0, results=found)
        (tmp_path / f"gpu-{name}.json").write_text(json.dumps(result), encoding="utf-8")
    text = readme.renewed(page, tmp_path)
    assert text.startswith(f"<!-- gpu -->\n{gpu_report.MEASURED}\n\nCard a, compute capability 8.9")
    assert "Card b, compute capability" in text
    (tmp_path / "gpu-c.json").write_text(json.dumps({"schema": SCHEMA, "benchmark": "digits"}), encoding="utf-8")
    with pytest.raises(ValueError, match="gpu"):
        readme.section("gpu", tmp_path)
