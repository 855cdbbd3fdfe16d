"""Writes the tables of ``benchmarks/README.md`` anew from the recorded results.

    python -m benchmarks readme [--check]

Every table of measurements there stands between ``<!-- NAME -->`` and ``<!-- /NAME -->`` and is made from
``results/NAME.json``, so the page says nothing that was not recorded. There may be several GPUs, each with a file
``gpu-<name>.json``, and where there is none the section's title says so.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import (
    accuracy,
    calibration_time,
    clock,
    digits,
    gpu_report,
    import_time,
    networks,
    nncf_latency,
    pixels,
    pruning,
    qat,
    recovery,
    runtime_overhead,
    student,
    tensorrt_engines,
)
from benchmarks.record import RESULTS, SCHEMA

README = Path(__file__).resolve().parent / "README.md"
RENDER: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    module.NAME: module.to_markdown
    for module in (
        accuracy,
        networks,
        nncf_latency,
        calibration_time,
        tensorrt_engines,
        pruning,
        clock,
        recovery,
        student,
        qat,
        digits,
        pixels,
        runtime_overhead,
        import_time,
    )
}
# Results of several machines stand side by side: one file each.
RENDER_EACH: Mapping[str, Callable[[Mapping[str, Any]], str]] = {"gpu": gpu_report.to_markdown}
_PLACE = re.compile(r"<!-- (?P<name>\w+) -->\n.*?<!-- /(?P=name) -->", re.DOTALL)


def section(name: str, results: Path) -> str:
    """Returns the text for a place in the page.

    Raises:
        KeyError: No such benchmark.
        ValueError: The recorded file has another schema.
    """
    if name in RENDER_EACH:
        paths = sorted(results.glob(f"{name}-*.json"))
        head = gpu_report.MEASURED if paths else gpu_report.NOT_MEASURED
        return "\n\n".join([head, *(_rendered(RENDER_EACH[name], name, path) for path in paths)])
    path = results / f"{name}.json"
    return _rendered(RENDER[name], name, path) if path.exists() else "Not recorded yet."


def _rendered(render: Callable[[Mapping[str, Any]], str], name: str, path: Path) -> str:
    result = json.loads(path.read_text(encoding="utf-8"))
    if (result["schema"], result["benchmark"]) != (SCHEMA, name):
        raise ValueError(f"{path}: expected {SCHEMA} of {name}, found {result['schema']} of {result['benchmark']}")
    return _wrapped(f"{render(result)}\n\n{conditions(result)}")


def conditions(result: Mapping[str, Any]) -> str:
    """Says where a result was measured."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items() if version is not None)
    return (
        f"Measured on: {machine['cpu']}, {machine['usable_cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"{machine['os']}, Python {machine['python']}, {versions}; "
        f"load average {result['load_average_before']:.2f} before the start."
    )


def renewed(page: str, results: Path) -> str:
    """Returns the page with every place filled from the recorded results."""

    def fill(match: re.Match[str]) -> str:
        name = match["name"]
        return f"<!-- {name} -->\n{section(name, results)}\n<!-- /{name} -->"

    return _PLACE.sub(fill, page)


def _wrapped(text: str) -> str:
    """Wraps all lines but those of tables."""
    return "\n".join(
        line if line.startswith("|") else textwrap.fill(line, 120, break_on_hyphens=False) for line in text.split("\n")
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail where the page is not up to date")
    options = parser.parse_args()
    before = README.read_text(encoding="utf-8")
    after = renewed(before, RESULTS)
    if options.check:
        print(
            "up to date" if after == before else "benchmarks/README.md is not up to date: python -m benchmarks readme"
        )
        return 0 if after == before else 1
    README.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
