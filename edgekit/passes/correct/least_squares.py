"""The arithmetic of adaptive rounding: integers whose products with a Gram matrix come closest to a target.

Everything here is about rows that share one Gram matrix: the output channels of a layer, or of one group of it. With
``X`` the layer's inputs (one row a position, one column a weight) and ``t`` the outputs wanted of one channel, the
squared error of weights ``w`` is ``|X w - t|^2 = (w - v)' H (w - v) + const`` with ``H = X' X`` and ``H v = X' t``: two
small matrices hold all that any number of images has to say.
"""

from __future__ import annotations

import torch

__all__ = ["best_real", "round_in_order", "sweep"]

# Columns whose corrections are applied to the rest together (Frantar et al. 2022, section 3.3, "lazy batch updates").
_BLOCK = 128


def best_real(gram: torch.Tensor, product: torch.Tensor, weight: torch.Tensor, damping: float) -> torch.Tensor:
    """Returns real weights of least squared error, held to the ones that they replace where the inputs say little.

    Minimises ``|X v - t|^2 + damping * |v - weight|^2``.

    Args:
        gram: ``X' X``, (groups, K, K), symmetric.
        product: ``t' X``, (groups, rows, K).
        weight: Weights to stay close to, (groups, rows, K).
        damping: What is added to the diagonal, in ``gram``'s units.
    """
    factor = torch.linalg.cholesky(_damped(gram, damping))
    residual = product - weight @ gram
    return weight + torch.cholesky_solve(residual.mT, factor).mT


def round_in_order(
    weight: torch.Tensor, gram: torch.Tensor, step: torch.Tensor, limits: tuple[int, int], damping: float
) -> torch.Tensor:
    """Rounds column after column; each column's error is made good, as far as it can be, by the columns to come.

    Columns whose inputs are largest go first, while there are most columns left to make good.

    Args:
        weight: Real weights, (groups, rows, K).
        gram: ``X' X``, (groups, K, K).
        step: Distance of two integers, (groups, rows, 1).
        limits: Smallest and largest integer.
        damping: What is added to the diagonal.

    Returns:
        Integers as float, (groups, rows, K).

    Source: Frantar et al. 2022, arXiv:2210.17323, algorithm 1 (GPTQ), with the "act-order" of its reference code.
    """
    order = gram.diagonal(dim1=-2, dim2=-1).argsort(dim=-1, descending=True, stable=True)
    columns = order.unsqueeze(1).expand_as(weight)
    rest = weight.gather(2, columns)
    ordered = gram.gather(1, order.unsqueeze(2).expand_as(gram)).gather(2, order.unsqueeze(1).expand_as(gram))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(_damped(ordered, damping)))
    upper = torch.linalg.cholesky(inverse, upper=True)
    levels = torch.empty_like(rest)
    for start in range(0, rest.shape[2], _BLOCK):
        end = min(start + _BLOCK, rest.shape[2])
        block, errors = rest[..., start:end].clone(), torch.empty_like(rest[..., start:end])
        for index in range(end - start):
            column = block[..., index : index + 1]
            level = (column / step).round().clamp(*limits)
            levels[..., start + index : start + index + 1] = level
            row = upper[:, start + index : start + index + 1, start + index : end]
            error = (column - level * step) / row[..., :1]
            block[..., index:] -= error * row
            errors[..., index : index + 1] = error
        rest[..., end:] -= errors @ upper[:, start:end, end:]
    return torch.empty_like(levels).scatter(2, columns, levels)


def sweep(
    levels: torch.Tensor,
    target: torch.Tensor,
    gram: torch.Tensor,
    step: torch.Tensor,
    limits: tuple[int, int],
    damping: float,
) -> torch.Tensor:
    """Moves one weight after the other to the integer that is best while all others stay; never raises the error.

    The error is that of Nagel et al. 2020, arXiv:2004.10568, equation 13 (the local quadratic form of a layer), which
    they minimise by a relaxation; here by coordinate descent.

    Args:
        levels: Integers to start from, as float, (groups, rows, K).
        target: Real weights, (groups, rows, K).
        gram: ``X' X``, (groups, K, K).
        step: Distance of two integers, (groups, rows, 1).
        limits: Smallest and largest integer.
        damping: What is added to the diagonal.
    """
    damped = _damped(gram, damping)
    levels = levels.clone()
    slope = (levels * step - target) @ damped
    scale = damped.diagonal(dim1=-2, dim2=-1).unsqueeze(1)
    for start in range(0, levels.shape[2], _BLOCK):
        end = min(start + _BLOCK, levels.shape[2])
        block = levels[..., start:end]
        before, local = block.clone(), slope[..., start:end].clone()
        for index in range(end - start):
            old = block[..., index : index + 1]
            best = (
                old - local[..., index : index + 1] / (scale[..., start + index : start + index + 1] * step)
            ).round()
            best = best.clamp(*limits)
            local += (best - old) * step * damped[:, start + index : start + index + 1, start:end]
            block[..., index : index + 1] = best
        slope += (block - before) * step @ damped[:, start:end]
    return levels


def _damped(gram: torch.Tensor, damping: float) -> torch.Tensor:
    result = gram.clone()
    result.diagonal(dim1=-2, dim2=-1).add_(damping)
    return result
