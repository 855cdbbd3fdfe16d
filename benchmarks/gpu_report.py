"""The GPU benchmark's result as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.record import cell, markdown_table

__all__ = ["MEASURED", "NOT_MEASURED", "to_markdown"]

MEASURED = "## On a GPU"
NOT_MEASURED = f"{MEASURED}: not measured yet"
_MIB = 2**20


def to_markdown(result: Mapping[str, Any]) -> str:
    """Renders a recorded result."""
    results = result["results"]
    gpu = results["gpu"]
    blocks = [f"{gpu['name']}, compute capability {gpu['compute_capability']}, CUDA {gpu['cuda_driver']}."]
    rows = [row for target, item in results["targets"].items() for row in _engine_rows(target, item)]
    if rows:
        floating = results["float"]
        top1 = "" if floating["top1"] is None else f"{100 * floating['top1']:.2f} %"
        heads = (
            f"engine, {floating['images']} images",
            "top-1",
            "drop in points [95 %]",
            "same class as float",
            "KL from float, 1e-3 nats",
            "built, s",
            "opened, s",
            "first call, s",
            "MiB",
        )
        blocks.append(markdown_table(heads, [("torch, float32", top1, *[""] * 7), *rows]))
    blocks += [line for target, item in results["targets"].items() for line in _remarks(target, item)]
    blocks += _latency(results["latency"], result["settings"])
    blocks.append(_tests(results["tests"]))
    blocks.append("\n".join(f"- {item['what']}: {_verdict(item)}" for item in results["conditions"]))
    return "\n\n".join(blocks)


def _engine_rows(target: str, item: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            f"{target}, {precision}",
            f"{100 * engine['top1']:.2f} %",
            cell(engine["drop"], ".2f"),
            f"{100 * engine['agreement']:.2f} %",
            f"{1000 * engine['kl']:.2f}",
            f"{engine['build_s']:.1f}",
            f"{engine['open_s']:.1f}",
            f"{engine['first_call_s']:.2f}",
            f"{engine['plan_bytes'] / _MIB:.1f}",
        )
        for precision, engine in item.get("engines", {}).items()
        if "drop" in engine
    ]


def _remarks(target: str, item: Mapping[str, Any]) -> list[str]:
    """What did not run, and why."""
    if "missing" in item:
        return [f"{target}: not measured: {item['missing']}."]
    if item["refused"]:
        return [f"{target}: {item['library']} refuses this GPU: {item['refused']}."]
    lines = [f"{target}: not compiled: {item['failed']}."] if "failed" in item else []
    for precision, engine in item.get("engines", {}).items():
        if "failed" in engine:
            lines.append(f"{target}, {precision}: failed: {engine['failed']}.")
    return lines + [f"{target}, {key}: not shipped: {why}." for key, why in item.get("not_shipped", {}).items()]


def _latency(latency: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    if "failed" in latency:
        return [f"Time: not measured: {latency['failed']}."]
    rows = []
    for name, time in latency["time_us"].items():
        ratio = "" if name == latency["best"] else cell(latency["ratio"][name], ".3f")
        rows.append((name, cell(time, ".1f"), cell(latency["p99_us"][name], ".1f"), ratio))
    heads = ("side", "p50, us [95 %]", "p99, us [95 %]", f"{latency['best']} / it")
    blocks = [markdown_table(heads, rows), f"{settings['processes']} fresh processes."]
    return blocks + [f"{name}: missing: {why}." for name, why in latency["missing"].items()]


def _tests(tests: Mapping[str, Any]) -> str:
    if "failed" in tests:
        return f"Tests marked gpu: no outcome: {tests['failed']}."
    skipped = "".join(f"; {count} skipped ({reason})" for reason, count in tests["skips"].items())
    failed = "".join(f"; {name}: {why.splitlines()[0] if why else ''}" for name, why in tests["failures"].items())
    return f"Tests marked gpu: {tests['passed']} passed, {len(tests['failures'])} failed{failed}{skipped}."


def _verdict(item: Mapping[str, Any]) -> str:
    if item["kept"] is None:
        return "not measured"
    value = item["value"]
    text = cell(value, ".3f") if isinstance(value, dict) else f"{value:.4g}"
    return f"{text}, {'kept' if item['kept'] else 'MISSED'}"
