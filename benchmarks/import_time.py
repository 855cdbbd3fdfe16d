"""How long importing the runtime and ``edgekit --help`` take, in fresh processes.

    python -m benchmarks import_time [--record]

The runtime is measured beyond numpy, OpenCV and OpenVINO, which any program of the kind imports: inside one process
these three first, then ``edgekit.runtime`` with ``load`` and the session module. ``edgekit --help`` is the whole
process, interpreter included. Bounds: 0.3 s each, on the median; the spread is minimum to maximum.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.record import add_output, document, markdown_table, publish

NAME = "import_time"
BOUND_S = 0.3
BOUNDED = ("edgekit.runtime", "edgekit --help")

RUNTIME = """
import time
start = time.perf_counter()
import numpy, cv2, openvino
middle = time.perf_counter()
from edgekit.runtime import load
import edgekit.runtime.sessions.openvino
print(middle - start, time.perf_counter() - middle)
"""


def import_times() -> tuple[float, float]:
    """Returns the seconds of the three libraries and of the runtime after them."""
    done = subprocess.run([sys.executable, "-c", RUNTIME], capture_output=True, text=True, check=True)
    libraries, runtime = done.stdout.split()
    return float(libraries), float(runtime)


def process_time(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
    return time.perf_counter() - start


def to_markdown(result: Mapping[str, Any]) -> str:
    """Renders a recorded result."""
    seconds: Mapping[str, list[float]] = result["results"]["seconds"]
    rows = [
        (name, f"{statistics.median(values):.3f}", f"{min(values):.3f} to {max(values):.3f}")
        for name, values in seconds.items()
    ]
    kept = "kept" if result["results"]["kept"] else "MISSED"
    table = markdown_table(("what", "median, s", "spread, s"), rows)
    return (
        f"{table}\n\n{result['settings']['processes']} fresh processes. "
        f"Bound: under {BOUND_S} s for {' and '.join(BOUNDED)}: {kept}."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=15)
    add_output(parser, NAME)
    options = parser.parse_args()
    load_average = os.getloadavg()[0]
    import_times(), process_time("-m", "edgekit", "--help")  # fills the disk cache and writes the byte code
    seconds: dict[str, list[float]] = {
        "numpy, cv2, openvino": [],
        "edgekit.runtime": [],
        "python": [],
        "edgekit --help": [],
    }
    for _ in range(options.processes):
        libraries, runtime = import_times()
        seconds["numpy, cv2, openvino"].append(libraries)
        seconds["edgekit.runtime"].append(runtime)
        seconds["python"].append(process_time("-c", "pass"))
        seconds["edgekit --help"].append(process_time("-m", "edgekit", "--help"))
    kept = all(statistics.median(seconds[name]) < BOUND_S for name in BOUNDED)
    settings = {"processes": options.processes}
    result = document(NAME, settings=settings, load_average=load_average, results={"seconds": seconds, "kept": kept})
    publish(result, to_markdown(result), options.output)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
