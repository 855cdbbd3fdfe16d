"""Lists and runs the benchmarks by name.

    python -m benchmarks                        those that need nothing from outside (make bench)
    python -m benchmarks NAME [options]         one of them; NAME --help lists its options

Each runs in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One line of the table: a module of this package with a ``main``."""

    module: str
    help: str
    alone: bool


# In this order: runtime_overhead uses the bundle that digits makes.
BENCHMARKS = {
    "digits": Benchmark(module="digits", help="the digits example: int8 against float, accuracy and time", alone=True),
    "import_time": Benchmark(
        module="import_time", help="importing the runtime, and edgekit --help, in fresh processes", alone=True
    ),
    "runtime_overhead": Benchmark(
        module="runtime_overhead", help="what the runtime adds to a bare OpenVINO request", alone=True
    ),
    "pixels": Benchmark(module="pixels", help="what it saves that the first layer reads raw pixels", alone=True),
    "accuracy": Benchmark(
        module="accuracy",
        help="trained networks: int8 over calibration seeds, against others (data, nncf)",
        alone=False,
    ),
    "nncf_latency": Benchmark(
        module="nncf_latency", help="ResNet-56: engine time against NNCF's int8 (data, nncf)", alone=False
    ),
    "networks": Benchmark(
        module="networks", help="26 networks: engine time and noise against NNCF's int8 (nncf, timm)", alone=False
    ),
    "calibration_time": Benchmark(
        module="calibration_time",
        help="4 networks: time and memory of calibration against NNCF's (nncf, timm)",
        alone=False,
    ),
    "tensorrt_engines": Benchmark(
        module="tensorrt_engines",
        help="26 networks: what TensorRT-RTX's builder makes of them, without a GPU (rtx, timm)",
        alone=False,
    ),
    "pruning": Benchmark(
        module="pruning",
        help="80 networks: pruned exactly or not, beside Torch-Pruning (timm, torch-pruning)",
        alone=False,
    ),
    "clock": Benchmark(
        module="clock", help="2 networks: is --prune latency=0.6 as fast as it was asked for (data)", alone=False
    ),
    "recovery": Benchmark(
        module="recovery",
        help="ResNet-56: pruned, trained again, in int8: accuracy, and time against NNCF's int8 (data, nncf)",
        alone=False,
    ),
    "student": Benchmark(
        module="student", help="ResNet-56's student: distilled, and trained on labels alone (data)", alone=False
    ),
    "qat": Benchmark(
        module="qat",
        help="the worst int8 case of the accuracy benchmark, trained: what is recovered (data)",
        alone=False,
    ),
    "gpu": Benchmark(
        module="gpu",
        help="ResNet-56 on an NVIDIA GPU: accuracy, time, memory, the GPU tests (GPU, data, rtx or tensorrt)",
        alone=False,
    ),
    "readme": Benchmark(
        module="readme", help="writes the tables of benchmarks/README.md anew from results/", alone=False
    ),
}


def usage() -> str:
    width = max(map(len, BENCHMARKS))
    lines = [f"    {name:{width}}  {item.help}" for name, item in BENCHMARKS.items()]
    return f"{__doc__}\n" + "\n".join(lines)


def run(name: str, arguments: Sequence[str]) -> int:
    command = [sys.executable, "-m", f"benchmarks.{BENCHMARKS[name].module}", *arguments]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        codes = []
        for name, item in BENCHMARKS.items():
            if item.alone:
                print(f"\n== {name}: {item.help}", flush=True)
                codes.append(run(name, ()))
        return max(codes)
    name, *rest = arguments
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name not in BENCHMARKS:
        print(f"unknown benchmark '{name}'; there are: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    return run(name, rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
