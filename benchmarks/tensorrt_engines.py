"""What TensorRT-RTX's builder makes of 26 networks, without a GPU: does each build, how large is it, is it right.

    python -m benchmarks tensorrt_engines [--networks resnet18 vit_tiny] [--record]

For each network of the comparison with NNCF (seeded random weights, ``zoo/``): int8 with fp16 around it, fp16, and
fp32, as the target ``rtx`` asks (the graphs are those of the Jetson targets too), with a batch of one and, but for
fp32, with a dynamic batch. Each graph is held against the rules for TensorRT 10.3, run by ONNX Runtime with every
optimization off, and built. A plan carries, beside the weights, the source text of kernels that the device compiles;
the table gives that share, since it decides the size where a network is small.

Nothing is run on a GPU here, so nothing is said of speed or of what the engines answer. The recipe is ``fast``: which
ranges are chosen makes no difference to what is built.

Bounds: every graph keeps the rules and is built; and ONNX Runtime answers as the program does to within one and a half
times what the precision itself changes, the bound of the golden gate (two results that each err by that much,
independently, differ by its square root of two), float32 to within 60 dB.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import Any

from benchmarks.fresh import run_fresh
from benchmarks.portable_graphs import findings
from benchmarks.record import add_output, document, markdown_table, publish
from benchmarks.zoo.networks import NETWORKS

NAME = "tensorrt_engines"
TARGET = "rtx"
_ORDER = ("int8", "fp16", "fp32")
_MIB = 2**20


def smaller(networks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the networks whose engine with a batch of one is smaller in int8 than in fp16, and there than in fp32."""
    return [name for name, item in networks.items() if sorted(item, key=lambda key: _size(item[key])) == [*_ORDER]]


def _size(item: Mapping[str, Any]) -> float:
    return float(item["static"].get("engine_bytes", math.inf))


def to_markdown(result: Mapping[str, Any]) -> str:
    """Renders a recorded result."""
    networks, settings = result["results"]["networks"], result["settings"]
    rows = []
    for name, item in networks.items():
        sizes = [_mib(item[precision]["static"]) for precision in _ORDER]
        dynamic = [_mib(item[precision].get("dynamic", {})) for precision in _ORDER[:2]]
        rows.append((name, *sizes, *dynamic, _db(item["int8"]["onnxruntime_db"]), _db(item["int8"]["sqnr_db"])))
    heads = (
        "engine in MiB (of it kernel text)",
        *_ORDER,
        *(f"{precision}, dynamic batch" for precision in _ORDER[:2]),
        "int8: ONNX Runtime to program, dB",
        "int8: program to float, dB",
    )
    found = result["results"]["findings"]
    ordered = smaller(networks)
    rest = [name for name in networks if name not in ordered]
    verdict = "kept" if not found else "MISSED: " + "; ".join(found)
    return (
        f"{markdown_table(heads, rows)}\n\nBuilt with TensorRT-RTX {settings['tensorrt_rtx']}, without a GPU. int8 is "
        f"smaller than fp16 and that smaller than fp32 on {len(ordered)} of {len(networks)}"
        + (f"; not on {', '.join(rest)}" if rest else "")
        + f". Bounds: every graph is built, and ONNX Runtime agrees: {verdict}."
    )


def _mib(item: Mapping[str, Any]) -> str:
    if "engine_bytes" not in item:
        return "refused" if item else "-"
    return f"{item['engine_bytes'] / _MIB:.1f} ({item['text_bytes'] / _MIB:.1f})"


def _db(value: float | None) -> str:
    return "equal" if value is None else f"{value:.1f}"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Runs one fresh process for each network."""

    def run(name: str) -> dict[str, Any]:
        task = {"network": name, "target": TARGET, "images": options.images, "checked": options.checked, "threads": 1}
        precisions: dict[str, Any] = run_fresh("tensorrt_engines_worker", task)["precisions"]
        told = ", ".join(f"{precision} {_mib(item['static'])}" for precision, item in precisions.items())
        print(f"{name}: {told}", flush=True)
        return precisions

    with ThreadPoolExecutor(options.jobs) as pool:
        made = dict(zip(options.networks, pool.map(run, options.networks), strict=True))
    return {"networks": made, "findings": findings(made)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--images", type=int, default=16, help="calibration pictures")
    parser.add_argument("--checked", type=int, default=2, help="pictures on which graph and program are compared")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side, one thread each")
    add_output(parser, NAME)
    options = parser.parse_args()
    load_average = os.getloadavg()[0]
    settings = {
        "target": TARGET,
        "images": options.images,
        "checked": options.checked,
        "tensorrt_rtx": metadata.version("tensorrt-rtx"),
    }
    result = document(NAME, settings=settings, load_average=load_average, results=measure(options))
    publish(result, to_markdown(result), options.output)
    return 1 if result["results"]["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
