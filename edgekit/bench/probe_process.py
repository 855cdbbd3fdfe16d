"""The fresh process of a probe: ``python -m edgekit.bench.probe_process '<json>'``; prints one line of JSON.

Nothing but the runtime is used, so that time and memory are those of a device program.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter_ns

from edgekit.bench.feeds import golden_feeds
from edgekit.runtime import load

__all__ = ["main"]

_PROC_STATUS = Path("/proc/self/status")


def main(arguments: str) -> None:
    """Loads a bundle, runs one golden input, and prints what that took.

    Args:
        arguments: JSON with ``path``, ``target``, ``threads``, ``streams``, ``trust_plan``, ``cuda_graphs``.
    """
    options = json.loads(arguments)
    rss_before = peak_rss_bytes()
    start = perf_counter_ns()
    with load(
        Path(options["path"]),
        target=options["target"],
        threads=options["threads"],
        streams=options["streams"],
        trust_plan=options["trust_plan"],
        cuda_graphs=options["cuda_graphs"],
        self_test=False,
    ) as model:
        loaded = perf_counter_ns()
        feeds = golden_feeds(model.bundle, model.entry)[0]
        ready = perf_counter_ns()
        model.session.infer(feeds)
        first = perf_counter_ns()
    facts = {
        "load_ms": (loaded - start) / 1e6,
        "first_inference_ms": (first - ready) / 1e6,
        "rss_before_bytes": rss_before,
        "peak_rss_bytes": peak_rss_bytes(),
    }
    sys.stdout.write("\n" + json.dumps(facts) + "\n")


def peak_rss_bytes() -> int:
    """Returns the largest resident set of this process so far.

    Linux: ``VmHWM`` of /proc/self/status. ``ru_maxrss``, used elsewhere, would there start from the parent's peak,
    since it survives fork and exec.

    Source: proc(5) and getrusage(2), "ru_maxrss" under NOTES on inheritance across execve.
    """
    if _PROC_STATUS.exists():
        for line in _PROC_STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main(sys.argv[1])
