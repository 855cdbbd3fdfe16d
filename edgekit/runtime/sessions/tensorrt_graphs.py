"""CUDA graphs: one launch in place of one for each kernel and copy.

TensorRT leaves capturing to its user, who must have run an execution context once before. TensorRT-RTX does it by
itself: it alone knows when the kernels that it compiles beside the inference are ready, and an engine can be captured
from outside only where it was built to allocate nothing while it runs.

Source: TensorRT documentation, "CUDA Graphs"; TensorRT for RTX documentation, "Working with RTX CUDA Graphs", and its
release notes 1.2 (``kREQUIRE_USER_ALLOCATION``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgekit.errors import StageError
from edgekit.runtime.cuda import CudaDevice
from edgekit.runtime.cuda.device import Graph, Stream
from edgekit.runtime.tensorrt import Flavour
from edgekit.tensorspec import TensorSpec

__all__ = ["GraphCapture"]


class GraphCapture:
    """Whether a session's inferences are captured, and why not where they are not; for all its requests.

    Args:
        wanted: The user wants it.
        flavour: The library.
        device: The device.
        inputs: Of the engine: a graph is of fixed shapes.
    """

    def __init__(self, *, wanted: bool, flavour: Flavour, device: CudaDevice, inputs: tuple[TensorSpec, ...]) -> None:
        self._by = flavour.title if flavour.captures_graphs else ""
        self._captured = False
        self._why_not = ""
        if not wanted:
            self._why_not = "switched off"
        elif flavour.captures_graphs:
            return
        elif any(None in spec.shape for spec in inputs):
            self._why_not = "the batch is dynamic"
        elif device.no_graphs:
            self._why_not = device.no_graphs

    @property
    def is_ours(self) -> bool:
        """Whether a request that ran once is to capture its next inference."""
        return not self._why_not and not self._by

    def capture(self, device: CudaDevice, stream: Stream, work: Callable[[], None]) -> Graph | None:
        """Captures what ``work`` starts; None where that fails, and then no request tries again."""
        try:
            graph = device.capture(stream, work)
        except StageError as error:
            self._why_not = f"an inference cannot be captured: {error.message}"
            return None
        self._captured = True
        return graph

    def describe(self) -> str:
        """Says whether inferences are graphs, for reports."""
        if self._why_not:
            return f"off: {self._why_not}"
        if self._by:
            return f"on, by {self._by}"
        return "on" if self._captured else "on from the second inference on"

    def configure(self, library: Any, config: Any) -> None:
        """Tells a library that captures by itself whether to."""
        strategies = library.CudaGraphStrategy
        config.cuda_graph_strategy = strategies.DISABLED if self._why_not else strategies.WHOLE_GRAPH_CAPTURE
