"""How far an engine is from its reference on golden inputs: the measure of the gate, the self-test and conformance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import StageError

__all__ = ["check_golden", "golden_errors", "rel_l2"]

Array = npt.NDArray[Any]


def rel_l2(reference: Array, actual: Array) -> float:
    """Returns ``||actual - reference|| / ||reference||`` over all elements, computed in float64.

    Args:
        reference: Any shape and numeric dtype.
        actual: Same shape.

    Returns:
        0 where both are equal (also where both are zero); infinity where either holds a NaN or an infinity, or where
        only the reference is zero: an engine that answers NaN must never look close.

    Raises:
        ValueError: The shapes differ.

    >>> rel_l2(np.array([3.0, 4.0]), np.array([3.0, 4.5]))
    0.1
    """
    if reference.shape != actual.shape:
        raise ValueError(f"shapes differ: reference {reference.shape}, actual {actual.shape}")
    return _ratio(*_squares(reference, actual))


def golden_errors(
    infer: Callable[[Mapping[str, Array]], Mapping[str, Array]],
    inputs: Mapping[str, Array],
    outputs: Mapping[str, Array],
) -> dict[str, float]:
    """Runs the golden samples one by one and measures each output against its reference, over all samples together.

    Args:
        infer: The engine: input name to array of batch 1, to output name to array.
        inputs: Input name to array (N, ...); sample ``i`` is fed as ``array[i:i+1]``.
        outputs: Output name to reference (N * R, ...), where R is the output's own first dimension for one sample
            (mostly 1).

    Returns:
        Output name to relative L2 error, see :func:`rel_l2`.

    Raises:
        StageError: No sample, arrays that disagree about their number, or an output that the engine lacks or gives in
            another shape.
    """
    count = _sample_count(inputs, outputs)
    difference = dict.fromkeys(outputs, 0.0)
    norm = dict.fromkeys(outputs, 0.0)
    for index in range(count):
        actual = infer({name: array[index : index + 1] for name, array in inputs.items()})
        for name, references in outputs.items():
            rows = len(references) // count
            reference = references[index * rows : (index + 1) * rows]
            if name not in actual:
                raise StageError(f"golden output '{name}': the engine lacks it; it gives {', '.join(sorted(actual))}")
            if actual[name].shape != reference.shape:
                raise StageError(
                    f"golden output '{name}': expected shape {reference.shape}, the engine gave {actual[name].shape}"
                )
            squares = _squares(reference, actual[name])
            difference[name] += squares[0]
            norm[name] += squares[1]
    return {name: _ratio(difference[name], norm[name]) for name in outputs}


def check_golden(errors: Mapping[str, float], limit: float) -> str | None:
    """Says which outputs miss the limit, worst first, or None when all keep it.

    >>> check_golden({"logits": 0.3, "boxes": 0.01}, 0.1)
    "output 'logits': relative L2 error 0.3 against the reference, at most 0.1 allowed"
    """
    worst_first = sorted(errors.items(), key=lambda item: -item[1])
    problems = [
        f"output '{name}': relative L2 error {error:.3g} against the reference, at most {limit:.3g} allowed"
        for name, error in worst_first
        if not error <= limit
    ]
    return "; ".join(problems) if problems else None


def _sample_count(inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> int:
    counts = {name: len(array) for name, array in inputs.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise StageError(f"golden inputs: expected the same number of samples in each, at least one, got {counts}")
    count = next(iter(counts.values()))
    for name, reference in outputs.items():
        if len(reference) == 0 or len(reference) % count != 0:
            raise StageError(
                f"golden output '{name}': expected a multiple of {count} samples in dimension 0, got {len(reference)}"
            )
    return count


def _squares(reference: Array, actual: Array) -> tuple[float, float]:
    wide = reference.astype(np.float64)
    return float(np.sum(np.square(actual.astype(np.float64) - wide))), float(np.sum(np.square(wide)))


def _ratio(difference: float, norm: float) -> float:
    if not (math.isfinite(difference) and math.isfinite(norm)):
        return math.inf
    if norm == 0.0:
        return 0.0 if difference == 0.0 else math.inf
    return math.sqrt(difference / norm)
