"""What every benchmark does with its result: JSON with machine and versions, and a table on the terminal."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from edgekit.files import atomic_write
from edgekit.runtime.machine import describe_machine

__all__ = ["RESULTS", "SCHEMA", "add_output", "cell", "document", "interval_text", "markdown_table", "publish"]

SCHEMA = "edgekit.benchmarks/1"
RESULTS = Path(__file__).resolve().parent / "results"
_LIBRARIES = ("nncf", "onnx", "onnxruntime", "onnxscript", "torch")


def add_output(parser: argparse.ArgumentParser, name: str) -> None:
    """Adds the options that say where the result goes; without them it is only printed."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--record",
        action="store_const",
        const=RESULTS / f"{name}.json",
        dest="output",
        help=f"write the result to benchmarks/results/{name}.json; the README quotes it",
    )
    group.add_argument("--output", type=Path, help="write the result to this JSON file")


def document(name: str, *, settings: dict[str, Any], load_average: float, results: dict[str, Any]) -> dict[str, Any]:
    """Wraps results with what they depend on.

    Args:
        name: The benchmark.
        settings: Its options, without paths: a path says nothing on another machine.
        load_average: The 1-minute load average before the benchmark began.
        results: What was measured.
    """
    machine = describe_machine()
    machine["libraries"] |= {package: _version(package) for package in _LIBRARIES}
    return {
        "schema": SCHEMA,
        "benchmark": name,
        "machine": machine,
        "load_average_before": load_average,
        "settings": settings,
        "results": results,
    }


def publish(result: dict[str, Any], markdown: str, output: Path | None) -> None:
    """Prints the table and writes the JSON where it was asked for."""
    print(f"\n{markdown}\n")
    if result["load_average_before"] > 0.5:
        print(f"note: other programs were running (load average {result['load_average_before']:.2f} before the start)")
    if output is None:
        print("not written (--record or --output FILE)")
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as file:
        file.write((json.dumps(result, indent=1) + "\n").encode())
    print(f"written: {os.path.relpath(output)}")


def markdown_table(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Returns a Markdown table; columns after the first are aligned to the right.

    >>> print(markdown_table(("side", "ms"), [("ours", "0.5")]))
    | side | ms |
    |---|---:|
    | ours | 0.5 |
    """
    rule = "|---|" + "---:|" * (len(headers) - 1)
    return "\n".join((f"| {' | '.join(headers)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)))


def cell(interval: dict[str, float], form: str) -> str:
    """Returns an interval as ``estimate [low, high]``, each number in the given form."""
    return f"{format(interval['estimate'], form)} {interval_text(interval, form)}"


def interval_text(interval: dict[str, float], form: str) -> str:
    """Returns the bounds of an interval as ``[low, high]``."""
    return f"[{format(interval['low'], form)}, {format(interval['high'], form)}]"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
