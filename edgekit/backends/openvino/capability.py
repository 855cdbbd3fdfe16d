"""Which precisions a device of this machine really computes in."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.backends.openvino.library import openvino
from edgekit.targets import Target

__all__ = ["precisions_of"]

_CAPABILITY = {"int8": "INT8", "fp16": "FP16", "bf16": "BF16", "fp32": "FP32"}
_HINT = {"fp16": "f16", "bf16": "bf16"}


def precisions_of(target: Target, device: str) -> tuple[str, ...]:
    """Filters the target's precisions by what the device says and, for the half types, by a trial.

    Raises:
        BackendMissing: OpenVINO is not installed.
    """
    library = openvino()
    core = library.Core()
    if not any(name.split(".")[0] == device for name in core.available_devices):
        return tuple(target.precisions)
    said = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    return tuple(
        precision
        for precision in target.precisions
        if _CAPABILITY[precision] in said and (precision not in _HINT or _compiles(library, core, device, precision))
    )


def _compiles(library: Any, core: Any, device: str, precision: str) -> bool:
    # The capabilities are those of the silicon: with ONEDNN_MAX_CPU_ISA below it, BF16 is still listed and fails later.
    ops = library.opset13
    value = ops.parameter([1, 16], np.float32)
    product = ops.matmul(value, ops.constant(np.ones((16, 16), np.float32)), False, True)
    try:
        core.compile_model(library.Model([product], [value]), device, {"INFERENCE_PRECISION_HINT": _HINT[precision]})
    except RuntimeError:
        return False
    return True
