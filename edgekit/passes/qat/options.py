"""How a quantized program is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgekit.errors import ConfigError
from edgekit.passes.distill.options import DistillOptions
from edgekit.passes.train.options import TrainOptions

__all__ = ["QatOptions"]

_LEARNING_RATE = {"sgd": 1e-3, "adamw": 1e-4}


@dataclass(frozen=True, kw_only=True)
class QatOptions:
    """How long and how; the defaults are for a program that calibration has brought near to its float form.

    There is no weight decay, which would pull the weights away from the teacher's, and no bound of the gradient, in
    which that of steps and that of weights would be added up. Arithmetic is float32 on every device: bfloat16 rounds as
    coarsely as the 8-bit grid itself.

    Attributes:
        epochs: Passes over the images.
        batch_size: Images a step, over all processes.
        optimizer: ``adamw`` or ``sgd``, as in :class:`~edgekit.passes.train.options.TrainOptions`.
        learning_rate: Of weights and biases, the highest; None is 0.0001 for ``adamw`` and 0.001 for ``sgd``.
        step_rate: Times the learning rate: that of the steps' logarithms. 0 leaves every step as calibration chose it.
        freeze_after: Share of the training after which steps stay and weights alone go on.
        warmup: Share of the training in which the rate rises; then it falls as a cosine.
        temperature: At which the answers are compared with the teacher's.
        alpha: Share of the teacher's answers in the loss; the rest is the task's loss, which needs labels. At 1 labels
            are not looked at, and epochs are compared by the held-out loss; below 1 by the task's metric.
        seed: Of the order of images and their augmentation.
        held_back: Share of the images that epochs are compared on, where no held-out set is given; not 0, because the
            result must never be worse than what was given.
        early_stop: Epochs without a better held-out score after which training ends; None is off.
        device: ``auto`` is a CUDA GPU where torch sees one; or ``cpu``, ``cuda``.
        workers: Threads that read and decode images.
    """

    epochs: int = 3
    batch_size: int = 64
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float | None = None
    step_rate: float = 10.0
    freeze_after: float = 0.5
    warmup: float = 0.05
    temperature: float = 1.0
    alpha: float = 1.0
    seed: int = 0
    held_back: float = 0.1
    early_stop: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int = 2

    def __post_init__(self) -> None:
        if not self.step_rate >= 0:
            raise ConfigError(f"step_rate: expected 0 or more, got {self.step_rate}")
        if not 0 <= self.freeze_after <= 1:
            raise ConfigError(f"freeze_after: expected a number from 0 to 1, got {self.freeze_after}")
        if not 0 < self.held_back < 1:
            raise ConfigError(f"held_back: expected a number between 0 and 1, got {self.held_back}")
        # The other options have their bounds there.
        self.training()
        self.distillation()

    def training(self) -> TrainOptions:
        """Returns the options of the loop.

        Raises:
            ConfigError: An option is out of its bounds.
        """
        rate = _LEARNING_RATE.get(self.optimizer) if self.learning_rate is None else self.learning_rate
        return TrainOptions(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            learning_rate=rate,
            weight_decay=0.0,
            warmup=self.warmup,
            batch_norm="frozen",
            seed=self.seed,
            keep="best",
            early_stop=self.early_stop,
            held_back=self.held_back,
            precision="float32",
            device=self.device,
            workers=self.workers,
        )

    def distillation(self) -> DistillOptions:
        """Returns the weights of the loss.

        Raises:
            ConfigError: An option is out of its bounds.
        """
        return DistillOptions(temperature=self.temperature, alpha=self.alpha)
