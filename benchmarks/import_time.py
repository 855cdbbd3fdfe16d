"""How long importing the runtime and ``edgekit --help`` take, in fresh processes.

    python benchmarks/import_time.py

The runtime is measured beyond numpy, OpenCV and OpenVINO, which any program of the kind imports: inside one process
these three first, then ``edgekit.runtime`` with ``load`` and the session module. ``edgekit --help`` is the whole
process, interpreter included. Bounds: 0.3 s each, on the median; the spread is minimum to maximum.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

BOUND_S = 0.3

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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=15)
    options = parser.parse_args()
    import_times(), process_time("-m", "edgekit", "--help")  # fills the disk cache and writes the byte code
    samples: dict[str, list[float]] = {
        "numpy, cv2, openvino": [],
        "edgekit.runtime": [],
        "python": [],
        "edgekit --help": [],
    }
    for _ in range(options.processes):
        libraries, runtime = import_times()
        samples["numpy, cv2, openvino"].append(libraries)
        samples["edgekit.runtime"].append(runtime)
        samples["python"].append(process_time("-c", "pass"))
        samples["edgekit --help"].append(process_time("-m", "edgekit", "--help"))
    for name, values in samples.items():
        print(f"{name:22} median {statistics.median(values):.3f} s, from {min(values):.3f} to {max(values):.3f}")
    kept = all(statistics.median(samples[name]) < BOUND_S for name in ("edgekit.runtime", "edgekit --help"))
    print(f"bound: under {BOUND_S} s for edgekit.runtime and edgekit --help: {'kept' if kept else 'MISSED'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
