"""The contract that every inference session keeps, whatever engine is behind it."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgekit.tensorspec import LayerRecord, TensorSpec

__all__ = ["Array", "Session", "Ticket"]

Array = npt.NDArray[Any]


class Ticket(Protocol):
    """A submitted inference; redeem it once with :meth:`Session.collect`."""


class Session(Protocol):
    """An opened engine. Thread-safe: ``infer`` may be called from several threads at once.

    Attributes:
        inputs, outputs: The interface, in the engine's order.
        in_flight: How many submitted inferences the engine works on at once; more submissions block.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    in_flight: int

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, np.ndarray[Any, Any]]:
        """Runs the engine once.

        Args:
            feeds: Input name to array with the dtype and shape of :attr:`inputs`.

        Returns:
            Output name to an array that the caller owns.

        Raises:
            UserError: Unknown or missing input, wrong dtype or shape, or a closed session; says what was expected.
        """

    def submit(self, feeds: Mapping[str, Array]) -> Ticket:
        """Starts an inference without waiting; blocks while :attr:`in_flight` others are under way."""

    def collect(self, ticket: Ticket) -> dict[str, np.ndarray[Any, Any]]:
        """Waits for a submitted inference and returns its outputs, which the caller owns."""

    def layers(self) -> tuple[LayerRecord, ...]:
        """What really runs inside, layer by layer, in execution order, with its precision."""

    def describe(self) -> dict[str, str]:
        """Facts for reports: device, inference precision hint, threads, streams, backend version."""

    def close(self) -> None:
        """Frees the engine. A second call does nothing."""

    def __enter__(self) -> Session: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...
