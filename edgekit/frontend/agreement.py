"""Whether an exported graph answers as the model did: run both on the same seeded inputs and compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

__all__ = ["TOLERANCE", "disagreement", "flat_tensors", "random_like"]

# Relative L2 distance per output. Both sides run the same float32 kernels, so what is left is the order of sums.
TOLERANCE = 1e-5


def flat_tensors(outputs: Any) -> tuple[torch.Tensor, ...]:
    """Returns the tensors of a model's answer (tensor, tuple, list, dict, nested), in torch's order."""
    return tuple(leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, torch.Tensor))


def random_like(examples: tuple[torch.Tensor, ...], times: int, *, seed: int) -> tuple[torch.Tensor, ...]:
    """Returns inputs ``times`` as many in dimension 0: normal noise for floats, else the example's own values."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for example in examples:
        shape = (example.shape[0] * times, *example.shape[1:]) if example.dim() else ()
        if example.is_floating_point():
            made.append(torch.randn(shape, generator=generator, dtype=example.dtype))
        else:
            made.append(torch.cat([example] * times) if example.dim() else example)
    return tuple(made)


def disagreement(
    reference: Callable[..., Any], graph: Callable[..., Any], inputs: tuple[torch.Tensor, ...]
) -> tuple[float, str | None]:
    """Runs both and compares.

    Returns:
        The largest relative L2 distance over float outputs, and what is wrong where it exceeds :data:`TOLERANCE`, a
        shape or type differs, or an integer output is not equal; None where nothing is.
    """
    # Clones: a model may write to its input.
    with torch.no_grad():
        wanted = flat_tensors(reference(*(value.clone() for value in inputs)))
        found = flat_tensors(graph(*(value.clone() for value in inputs)))
    if len(wanted) != len(found):
        return 0.0, f"{len(found)} outputs, expected {len(wanted)}"
    worst = 0.0
    for index, (a, b) in enumerate(zip(wanted, found, strict=True)):
        if a.shape != b.shape or a.dtype != b.dtype:
            return worst, f"output {index} is {b.dtype} {tuple(b.shape)}, expected {a.dtype} {tuple(a.shape)}"
        if not a.is_floating_point():
            if not torch.equal(a, b):
                return worst, f"output {index} differs in {int((a != b).sum())} of {a.numel()} values"
            continue
        finite = a.isfinite()
        if not torch.equal(finite, b.isfinite()) or not torch.equal(
            a[~finite].nan_to_num(0.0), b[~finite].nan_to_num(0.0)
        ):
            return worst, f"output {index} is infinite or NaN in other places"
        a, b = a[finite].double(), b[finite].double()
        distance = float((a - b).norm() / a.norm().clamp_min(1e-12)) if a.numel() else 0.0
        worst = max(worst, distance)
        if distance > TOLERANCE:
            return worst, f"output {index} differs by {distance:.1e} (relative L2; at most {TOLERANCE:.0e} is accepted)"
    return worst, None
