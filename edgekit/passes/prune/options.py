"""What can be asked of structured pruning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from edgekit.config import nearest
from edgekit.errors import ConfigError
from edgekit.passes.prune.importance import Criterion

__all__ = ["Allocation", "PruneOptions", "Remove"]

Allocation = Literal["uniform", "global"]
"""``uniform``: the same share of every layer; ``global``: the least important channels wherever they are."""

Remove = Literal["channels", "blocks"]
"""``channels``: layers become narrower; ``blocks``: whole residual blocks leave."""


@dataclass(frozen=True, kw_only=True)
class PruneOptions:
    """Options of one pruning step.

    Attributes:
        keep: Share of the multiply-accumulates to keep, above 0 and below 1.
        remove: What leaves.
        importance: How channels are ranked: by the size of their ``weights``, by their ``batchnorm`` scale, or by the
            loss that removing them would cost (``taylor``, which needs images).
        allocation: How the loss of channels is shared between layers.
        align: The channels that a layer keeps are a multiple of this, as the target runs such widths well.
        exclude: Patterns (``*`` and ``?``) of layers that stay as they are.
        seed: Of the check's random input.
    """

    keep: float
    remove: Remove = "channels"
    importance: Criterion = "magnitude"
    allocation: Allocation = "uniform"
    align: int = 1
    exclude: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1:
            raise ConfigError(
                f"prune: expected a share to keep above 0 and below 1, got {self.keep}",
                hint="0.5 keeps half of the multiply-accumulates",
            )
        if self.align < 1:
            raise ConfigError(f"prune: align: expected 1 channel or more, got {self.align}")
        for name, value, choices in (
            ("remove", self.remove, get_args(Remove)),
            ("importance", self.importance, get_args(Criterion)),
            ("allocation", self.allocation, get_args(Allocation)),
        ):
            if value not in choices:
                raise ConfigError(f"prune: unknown {name} '{value}'", hint=nearest(value, choices))
