"""Where a target's engines can be checked and timed: here as the real thing, here as a stand-in, or not here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from edgekit.backends.base import Backend, Engine
from edgekit.runtime.machine import check_requires, default_target
from edgekit.targets import Target

__all__ = ["Placement", "place"]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What this machine can say about a target.

    Attributes:
        verified_on: Where its engines are opened, for the report.
        timed: This machine is the target: latencies measured here are the target's.
        exact_int8: Engines with this target's int8 weights compute rightly here.
        reason: Why it is not timed; empty where it is.
    """

    verified_on: Literal["this device", "CPU in its place", "not here"]
    timed: bool
    exact_int8: bool = True
    reason: str = ""

    def opens(self, precision: str) -> bool:
        """Whether an engine of this precision is opened here, perhaps on the CPU in the device's place."""
        return self.verified_on != "not here" and (precision not in ("int8", "mixed") or self.exact_int8)

    def opened_as(self, engine: Engine) -> Engine:
        """The engine as this machine can open it.

        Where the device is missing, an OpenVINO engine is opened on the CPU in float32: that proves the graph and the
        file, not the device's kernels, and the report says so.
        """
        if self.verified_on != "CPU in its place":
            return engine
        properties = {**engine.options["properties"], "INFERENCE_PRECISION_HINT": "f32"}
        return replace(engine, options={**engine.options, "device": "CPU", "cache": False, "properties": properties})


def place(target: Target, backend: Backend) -> Placement:
    """Finds out what this machine can say about ``target``."""
    if target.build != "here":
        reason = "the device builds the engine" if target.build == "device" else "the device chooses the engine"
        return Placement(verified_on="not here", timed=False, reason=reason)
    devices = {name.split(".")[0] for name in backend.probe().devices}
    device = target.requires.device
    mismatch = check_requires(target.requires)
    if mismatch is None and device in devices | {""}:
        return _own(target)
    reason = mismatch if mismatch is not None else f"this machine has no {device} for {target.backend}"
    if "CPU" not in devices:
        return Placement(verified_on="not here", timed=False, reason=reason)
    # A CPU without exact 8-bit products would be wrong in the device's place where the device is right.
    exact = target.quantize.weight_bits <= default_target().quantize.weight_bits
    return Placement(verified_on="CPU in its place", timed=False, exact_int8=exact, reason=reason)


def _own(target: Target) -> Placement:
    """This machine meets the target's demands. It may exceed them, and then its clock is not the target's."""
    ours = default_target()
    if ours.requires.cpu_flags_any and target.requires.device == "CPU" and not target.requires.cpu_flags_any:
        reason = f"this machine is a {ours.name}, so its clock does not speak for {target.name}"
        return Placement(verified_on="this device", timed=False, reason=reason)
    return Placement(verified_on="this device", timed=True)
