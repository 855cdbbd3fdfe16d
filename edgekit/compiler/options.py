"""What a user can ask of one compilation: the command line, the notebook and tests all go through this dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from edgekit.backends.batch import BatchRange
from edgekit.compiler.shaping import PruneStage, QatStage, Stage, in_steps
from edgekit.config import nearest
from edgekit.errors import ConfigError
from edgekit.runtime.tasks.base import Spec

__all__ = ["Choice", "CompileOptions"]

Choice = Literal["auto", "int8", "mixed", "fp16", "bf16", "fp32"]
"""``auto``, or the precision that is forced."""


@dataclass(frozen=True, kw_only=True)
class CompileOptions:
    """Options of :func:`edgekit.compile`.

    Attributes:
        targets: Target names, aliases or paths of TOML files; one bundle carries them all. Empty: this machine's
            default.
        output: Path of the bundle; None derives ``<model name>.edge`` in the working folder.
        task: The task spec, or the path of its TOML file; None for a raw model.
        data: Folder of calibration images; None compiles to the best float engine.
        eval_data: Folder of labelled images for the accuracy gate; None takes a seeded split of ``data``.
        recipe: Calibration recipe: a name from ``calibration/`` or the path of a TOML file.
        samples: Calibration images, overriding the recipe's.
        seed: Seed of every random choice, overriding the recipe's.
        precision: ``auto`` picks by measurement; another value forces that candidate (its gates still run).
        strict: A layer that was planned int8 and ran otherwise is an error, not a finding of the report.
        max_drop: Largest accepted drop of the task's metric against float, in points (1.0 = one percentage point).
        max_eval: At most this many labelled images are used by the accuracy gate (stratified, seeded).
        batch: Ask for engines that take these batch sizes, whatever the target says; None: see ``dynamic_batch``.
        dynamic_batch: Ask for engines that take any batch size, within the range that the target states where it does;
            otherwise engines take one image.
        timing: Time candidates on this machine where the target is this machine; off, ``auto`` trusts the target's
            order and the latency stays ``unverified``.
        golden: Number of golden images.
        golden_from_data: Take golden inputs from ``data`` instead of synthetic ones (they travel in the bundle!).
        threads: Engine threads for timing and evaluation; None leaves it to the engine.
        stages: What happens to the network before it is quantized, in order.
        train_data: Folder of images that the stages train on; images of the accuracy gate are left out of it.
        checkpoints: Folder for the state of trainings; None derives ``<output>.training`` where a stage trains.
        resume: Go on where the checkpoints are.
    """

    targets: tuple[str | Path, ...] = ()
    output: Path | None = None
    task: Path | Spec | None = None
    data: Path | None = None
    eval_data: Path | None = None
    recipe: str = "default"
    samples: int | None = None
    seed: int | None = None
    precision: Choice = "auto"
    strict: bool = False
    max_drop: float = 1.0
    max_eval: int = 2000
    batch: BatchRange | None = None
    dynamic_batch: bool = False
    timing: bool = True
    golden: int = 4
    golden_from_data: bool = False
    threads: int | None = None
    stages: tuple[Stage, ...] = ()
    train_data: Path | None = None
    checkpoints: Path | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        if not self.max_drop >= 0:  # also refuses NaN, which would accept every drop
            raise ConfigError(f"max_drop: expected 0 points or more, got {self.max_drop}")
        for name in ("samples", "max_eval", "golden", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}: expected at least 1, got {value}")
        if self.seed is not None and self.seed < 0:
            raise ConfigError(f"seed: expected 0 or more, got {self.seed}")
        choices = get_args(Choice)
        if self.precision not in choices:
            raise ConfigError(f"unknown precision '{self.precision}'", hint=nearest(self.precision, choices))
        if self.batch is not None and self.dynamic_batch:
            raise ConfigError(
                f"batch {self.batch} and dynamic_batch exclude each other",
                hint="--batch says it all: leave the other out",
            )
        if self.golden_from_data and self.data is None:
            raise ConfigError("golden_from_data needs data", hint="give --data, or leave the golden inputs synthetic")
        trains = any(not isinstance(stage, PruneStage) for stage in self.stages)
        if trains and self.train_data is None:
            raise ConfigError("training needs images to train on", hint="give a folder (--train-data)")
        in_steps(self.stages)  # refuses steps that no training follows
        if any(isinstance(stage, QatStage) for stage in self.stages[:-1]):
            raise ConfigError("quantization-aware training comes last", hint="put it behind the other stages")
        if self.qat is not None and self.precision not in ("auto", "int8"):
            raise ConfigError(
                f"quantization-aware training is for int8, and precision '{self.precision}' is asked for",
                hint="leave --precision or --qat out",
            )
        if self.train_data is not None and not trains:
            raise ConfigError(
                "train_data was given and nothing trains on it", hint="say for how long (--distill EPOCHS)"
            )
        if self.resume and not trains:
            raise ConfigError("there is no training to resume", hint="leave --resume out, or train (--distill EPOCHS)")

    @property
    def qat(self) -> QatStage | None:
        """The training of the int8 program, where there is one."""
        last = self.stages[-1] if self.stages else None
        return last if isinstance(last, QatStage) else None

    @property
    def many_images(self) -> bool:
        """Whether engines shall take more than one image at once."""
        return self.dynamic_batch or (self.batch is not None and self.batch.largest > 1)
