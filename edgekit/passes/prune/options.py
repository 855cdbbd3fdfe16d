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

Remove = Literal["channels", "blocks", "both"]
"""``channels``: layers become narrower; ``blocks``: whole residual blocks leave; ``both``: whichever costs less."""


@dataclass(frozen=True, kw_only=True)
class PruneOptions:
    """Options of one pruning step; either ``keep`` or ``latency`` says how much is left.

    Attributes:
        keep: Share of the multiply-accumulates to keep, above 0 and below 1.
        latency: Share of the given network's time on the target to keep, above 0 and below 1.
        remove: What leaves; None is ``both`` where ``latency`` is asked for, else ``channels``.
        importance: How channels are ranked: by the size of their ``weights``, by their ``batchnorm`` scale, or by the
            loss that removing them would cost (``taylor``, which needs images). None is ``magnitude``. With
            ``latency``, channels and blocks are always ranked by how far the answers move, on images.
        allocation: How the loss of channels is shared between layers; with ``latency`` the clock decides.
        align: The channels that a layer keeps are a multiple of this, as the target runs such widths well.
        exclude: Patterns (``*`` and ``?``) of layers that stay as they are.
        seed: Of the check's random input, and of the widths that layers are timed at.
    """

    keep: float | None = None
    latency: float | None = None
    remove: Remove | None = None
    importance: Criterion | None = None
    allocation: Allocation | None = None
    align: int = 1
    exclude: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.keep is None) == (self.latency is None):
            raise ConfigError(
                "prune: expected either 'keep' or 'latency'",
                hint="keep = 0.5 keeps half of the multiply-accumulates, latency = 0.6 six tenths of the time",
            )
        for name, share in (("keep", self.keep), ("latency", self.latency)):
            if share is not None and not 0 < share < 1:
                raise ConfigError(
                    f"prune: {name}: expected a share above 0 and below 1, got {share}", hint="0.5 keeps half"
                )
        if self.align < 1:
            raise ConfigError(f"prune: align: expected 1 channel or more, got {self.align}")
        for name, value, choices in (
            ("remove", self.remove, get_args(Remove)),
            ("importance", self.importance, get_args(Criterion)),
            ("allocation", self.allocation, get_args(Allocation)),
        ):
            if value is not None and value not in choices:
                raise ConfigError(f"prune: unknown {name} '{value}'", hint=nearest(value, choices))
        if self.keep is not None and self.remove == "both":
            raise ConfigError(
                "prune: channels and blocks together are chosen by the target's clock",
                hint="ask for latency, or for channels or blocks alone",
            )
        if self.latency is not None and (self.importance is not None or self.allocation is not None):
            raise ConfigError(
                "prune: with latency, what leaves is chosen by how far the answers move for the time that is saved",
                hint="leave importance and allocation out",
            )

    @property
    def removes(self) -> Remove:
        """What leaves."""
        if self.remove is not None:
            return self.remove
        return "channels" if self.latency is None else "both"

    @property
    def asked(self) -> str:
        """What is asked for, as people say it."""
        return f"{self.keep:.0%} of the MACs" if self.latency is None else f"{self.latency:.0%} of the time"
