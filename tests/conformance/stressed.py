"""A convolution whose 16-bit sums overflow with 8-bit weights, run on whatever this process's CPU looks like.

``python -m tests.conformance.stressed`` prints ``{"8": error, "7": error}``, by bits of the weights.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import numpy as np

from edgekit.backends.openvino.backend import OpenVinoBackend
from edgekit.runtime.golden import golden_errors
from edgekit.targets import load_target
from tests.conformance.graphs import Golden, Scheme, Sketch
from tests.conformance.reference import reference_outputs


def stressed(s: Sketch) -> Sequence[str]:
    """Large positive weights, so that neighbouring products add up: 2 * 255 * 127 > 32767 > 2 * 255 * 63."""
    rng = np.random.default_rng(3)
    value = (np.abs(rng.standard_normal((32, 3, 3, 3))) + 2).astype(np.float32)
    x = s.quantized(s.image())
    quantized = s.scheme.activations != "float"
    weight = s.stored_weight("stressed.weight", value, 0) if quantized else s.constant("stressed.weight", value)
    return [s.node("Conv", [x, weight], "stressed", {"kernel_shape": [3, 3]})]


def error_with(weight_bits: int) -> float:
    """Relative L2 error of the engine against the reference executor."""
    golden = Golden(name="stressed", draw=stressed)
    graph = golden.portable(Scheme(activations="uint8", weight_bits=weight_bits))
    backend, inputs = OpenVinoBackend(), {"image": golden.images()}
    with backend.open(backend.build(graph, load_target("x86-cpu-legacy")), threads=1) as session:
        return golden_errors(session.infer, inputs, reference_outputs(graph.data, inputs))["stressed"]


if __name__ == "__main__":
    sys.stdout.write(json.dumps({str(bits): error_with(bits) for bits in (8, 7)}) + "\n")
