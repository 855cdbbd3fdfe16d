"""Where the time of an OpenVINO engine goes, by its own counters."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import numpy as np

from edgekit.backends.base import Engine, EngineTimes
from edgekit.bench.quiet import collector_paused
from edgekit.bench.warmup import WarmUpRules, warm_up

__all__ = ["measure_times"]

_TIME_S = 1.0
_FEWEST, _MOST = 20, 300


def measure_times(engine: Engine, feeds: Mapping[str, Any], *, threads: int | None) -> EngineTimes:
    """Opens an engine that was compiled with ``PERF_COUNT`` and runs it for a second or so.

    Args:
        engine: With the property.
        feeds: Its inputs.
        threads: Of the engine; None leaves it to OpenVINO.
    """
    # Here, so that the backend can be asked where OpenVINO is not installed.
    from edgekit.runtime.sessions.openvino import open_engine

    with open_engine(
        engine.files,
        engine.options,
        engine.inputs,
        engine.outputs,
        threads=threads,
        streams=None,
        cache_dir=None,
        cuda_graphs=False,
    ) as session:

        def seconds() -> float:
            start = perf_counter()
            session.infer(feeds)
            return perf_counter() - start

        warm_up(seconds, WarmUpRules(max_s=3.0))
        first = float(np.median([seconds() for _ in range(_FEWEST)]))
        runs = int(np.clip(_TIME_S / first, _FEWEST, _MOST))
        with collector_paused():
            total = float(np.median([seconds() for _ in range(runs)]))
            layers = session.layer_seconds(feeds, runs=runs)
        names = [record.name for record in session.layers()]
    once = {name: value for name, value in layers.items() if names.count(name) == 1}
    return EngineTimes(total=total, layers=once)
