"""Whether a target's engines can be opened on this machine, and whether this machine's clock speaks for the target."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgekit.backends.base import Backend, Engine
from edgekit.runtime.machine import check_requires, default_target
from edgekit.targets import Target

__all__ = ["Placement", "place"]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What this machine can say about a target.

    Attributes:
        opens: Engines can be opened here, perhaps on the CPU in the device's place.
        timed: This machine is the target: latencies measured here are the target's.
        verified_on: For the report.
        reason: Why it is not timed; empty where it is.
    """

    opens: bool
    timed: bool
    verified_on: str
    reason: str = ""

    def opened_as(self, engine: Engine) -> Engine:
        """The engine as this machine can open it.

        Where the device is missing, an OpenVINO engine is opened on the CPU in float32: that proves the graph and the
        file, not the device's kernels, and the report says so.
        """
        if self.verified_on != "CPU in its place":
            return engine
        properties = {**engine.options["properties"], "INFERENCE_PRECISION_HINT": "f32"}
        return replace(engine, options={**engine.options, "device": "CPU", "properties": properties})


def place(target: Target, backend: Backend) -> Placement:
    """Finds out what this machine can say about ``target``."""
    probe = backend.probe()
    if target.build == "device":
        return Placement(opens=False, timed=False, verified_on="not here", reason="the engine is built on the device")
    problem = check_requires(target.requires)
    device = target.requires.device
    if device and device not in {name.split(".")[0] for name in probe.devices}:
        problem = f"this machine has no {device} for {target.backend}"
    if problem is not None:
        opens = "CPU" in probe.devices
        return Placement(
            opens=opens, timed=False, verified_on="CPU in its place" if opens else "not here", reason=problem
        )
    if device == "CPU" and default_target().name != target.name:
        reason = f"this machine is a {default_target().name}, so its clock does not speak for {target.name}"
        return Placement(opens=True, timed=False, verified_on="this device", reason=reason)
    return Placement(opens=True, timed=True, verified_on="this device")
