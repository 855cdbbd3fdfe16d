"""How a network is trained: one frozen dataclass that every training pass takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgekit.errors import ConfigError

__all__ = ["TrainOptions"]

_LEARNING_RATE = {"sgd": 0.01, "adamw": 1e-4}
_WEIGHT_DECAY = {"sgd": 1e-4, "adamw": 0.01}


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How long and how a network is trained; the defaults are for fine-tuning one that is good already.

    Attributes:
        epochs: Passes over the images.
        batch_size: Images a step, over all processes. Images that do not fill a last batch wait for the next epoch's
            order; a set smaller than one batch is one batch.
        optimizer: ``sgd`` with Nesterov momentum (Sutskever et al. 2013), or ``adamw`` (Loshchilov and Hutter 2019).
        learning_rate: The highest; None is 0.01 for ``sgd`` and 0.0001 for ``adamw``.
        momentum: Of ``sgd``.
        weight_decay: On weights of at least two dimensions, not on biases and norms; None is 0.0001 for ``sgd`` and
            0.01 for ``adamw``.
        warmup: Share of all steps in which the rate rises in a line to its highest.
        schedule: What follows: ``cosine``, down to zero (Loshchilov and Hutter 2017), or ``constant``.
        clip_norm: Bound of the gradient's L2 norm over all parameters; None is off.
        ema_decay: Decay of a running mean of the weights, which is then what is measured and returned; None is off.
        batch_norm: ``live``: statistics of each batch, running ones updated; ``frozen``: the running ones as they are.
        seed: Of the order of images, their augmentation, and dropout.
        keep: ``best``: the weights of the epoch with the best held-out score, the first one where several are equal,
            and the given weights count as epoch 0; ``last``: those after the last epoch. Without held-out images it is
            the last.
        early_stop: Epochs without a better held-out score after which training ends; None is off.
        held_back: Share of the images that is held out where no held-out set is given; 0 holds none out.
        precision: ``auto``: bfloat16 arithmetic on a GPU that computes in it, float32 elsewhere; or ``float32``.
        device: ``auto`` is a CUDA GPU where torch sees one; or ``cpu``, ``cuda``.
        workers: Threads that read and decode images.
    """

    epochs: int = 10
    batch_size: int = 64
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float | None = None
    momentum: float = 0.9
    weight_decay: float | None = None
    warmup: float = 0.05
    schedule: Literal["cosine", "constant"] = "cosine"
    clip_norm: float | None = None
    ema_decay: float | None = None
    batch_norm: Literal["live", "frozen"] = "live"
    seed: int = 0
    keep: Literal["best", "last"] = "best"
    early_stop: int | None = None
    held_back: float = 0.1
    precision: Literal["auto", "float32"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int = 2

    def __post_init__(self) -> None:
        _one_of("optimizer", self.optimizer, ("sgd", "adamw"))
        _one_of("schedule", self.schedule, ("cosine", "constant"))
        _one_of("batch_norm", self.batch_norm, ("live", "frozen"))
        _one_of("keep", self.keep, ("best", "last"))
        _one_of("precision", self.precision, ("auto", "float32"))
        _one_of("device", self.device, ("auto", "cpu", "cuda"))
        for name in ("epochs", "batch_size", "workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name}: expected a number above 0, got {value}")
        if self.weight_decay is not None and not self.weight_decay >= 0:
            raise ConfigError(f"weight_decay: expected 0 or more, got {self.weight_decay}")
        for name in ("momentum", "warmup", "held_back"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected a number from 0 to below 1, got {getattr(self, name)}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigError(f"ema_decay: expected a number between 0 and 1, got {self.ema_decay}")
        if self.early_stop is not None and self.early_stop < 1:
            raise ConfigError(f"early_stop: expected at least 1 epoch, got {self.early_stop}")
        if self.early_stop is not None and self.keep == "last":
            raise ConfigError("early_stop goes back to the best epoch, keep = 'last' does not", hint="leave one out")

    @property
    def highest_rate(self) -> float:
        """The learning rate after the warm-up."""
        return _LEARNING_RATE[self.optimizer] if self.learning_rate is None else self.learning_rate

    @property
    def decay(self) -> float:
        """The weight decay."""
        return _WEIGHT_DECAY[self.optimizer] if self.weight_decay is None else self.weight_decay


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name}: expected one of {', '.join(map(repr, known))}, got {value!r}")
