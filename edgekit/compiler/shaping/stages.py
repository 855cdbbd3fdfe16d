"""The stages that change a network before it is quantized, as the command line or a TOML file gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from edgekit.config import from_dict, nearest, read_toml
from edgekit.errors import ConfigError, InternalError
from edgekit.passes.distill import DistillOptions
from edgekit.passes.prune import PruneOptions
from edgekit.passes.qat import QatOptions
from edgekit.passes.train import TrainOptions

__all__ = ["DistillStage", "PruneStage", "QatStage", "Stage", "StageFile", "in_steps", "parse_prune", "read_stages"]


@dataclass(frozen=True, kw_only=True)
class PruneStage:
    """Structured pruning; either ``keep`` or ``latency`` says how much is left.

    Attributes:
        keep, latency, remove, importance, allocation, exclude: See :class:`edgekit.passes.prune.PruneOptions`.
        on: The target whose clock ``latency`` means; None is the first that can be timed on this machine.
        align: Kept channels are multiples of this; None takes one that suits every target's ``channel_alignment``.
        steps: Prune in so many steps, each with its share of the training that follows.
    """

    keep: float | None = None
    latency: float | None = None
    on: str | None = None
    remove: Literal["channels", "blocks", "both"] | None = None
    importance: Literal["magnitude", "batchnorm", "taylor"] | None = None
    allocation: Literal["uniform", "global"] | None = None
    align: int | None = None
    exclude: tuple[str, ...] = ()
    steps: int = 1

    def __post_init__(self) -> None:
        self.options(align=1, seed=0)  # the bounds are there
        if self.on is not None and self.latency is None:
            raise ConfigError(f"prune: target '{self.on}' is named and no latency is asked for")
        if self.steps < 1:
            raise ConfigError(f"prune: steps: expected at least 1, got {self.steps}")

    def options(self, *, align: int, seed: int) -> PruneOptions:
        """Returns what the pass takes; ``align`` is that of the targets."""
        own = self.align if self.align is not None else align
        return PruneOptions(**{**_shared(self, PruneOptions), "align": own}, seed=seed)

    @property
    def share(self) -> float:
        """The share that is asked for, of the arithmetic or of the time."""
        share = self.keep if self.latency is None else self.latency
        if share is None:
            raise InternalError("a pruning without a share")
        return share

    @property
    def title(self) -> str:
        """What people read."""
        options = self.options(align=1, seed=0)
        what = {"channels": "channels", "blocks": "blocks", "both": "channels and blocks"}[options.removes]
        where = "" if self.on is None else f" on {self.on}"
        steps = "" if self.steps == 1 else f" in {self.steps} steps"
        return f"prune {what} to {options.asked}{where}{steps}"


@dataclass(frozen=True, kw_only=True)
class DistillStage:
    """Training on the answers of a teacher, which is the given network unless another one is named.

    Attributes:
        epochs, batch_size, optimizer, learning_rate, ema_decay, clip_norm, batch_norm, early_stop: See
            :class:`edgekit.passes.train.TrainOptions`.
        temperature, alpha, hints: See :class:`edgekit.passes.distill.DistillOptions`. Without labels ``alpha`` is 1.
        augmentation: A name from ``augmentation/``, or the path of a TOML file.
        balanced: Show every class as often as any other.
    """

    epochs: int
    batch_size: int = 64
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float | None = None
    ema_decay: float | None = None
    clip_norm: float | None = None
    batch_norm: Literal["live", "frozen"] = "live"
    early_stop: int | None = None
    temperature: float = 4.0
    alpha: float = 0.9
    hints: int = 0
    augmentation: str = "light"
    balanced: bool = False

    def __post_init__(self) -> None:
        self.training(seed=0)
        self.distillation(labelled=True)

    def training(self, *, seed: int) -> TrainOptions:
        """Returns how long and how the network is trained."""
        return TrainOptions(**_shared(self, TrainOptions), seed=seed)

    def distillation(self, *, labelled: bool) -> DistillOptions:
        """Returns what is learned from the teacher; without labels, its answers alone."""
        given = _shared(self, DistillOptions)
        return DistillOptions(**(given if labelled else {**given, "alpha": 1.0}))

    @property
    def title(self) -> str:
        """What people read."""
        return f"distil for {self.epochs} epochs" if self.epochs > 1 else "distil for 1 epoch"


@dataclass(frozen=True, kw_only=True)
class QatStage:
    """Quantization-aware training of each int8 program on the answers of the float one; the last stage.

    Attributes:
        epochs, batch_size, optimizer, learning_rate, step_rate, freeze_after, temperature, alpha, early_stop: See
            :class:`edgekit.passes.qat.QatOptions`. Without labels ``alpha`` is 1.
        augmentation: A name from ``augmentation/``, or the path of a TOML file.
        balanced: Show every class as often as any other.
    """

    epochs: int
    batch_size: int = 64
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float | None = None
    step_rate: float = 10.0
    freeze_after: float = 0.5
    temperature: float = 1.0
    alpha: float = 1.0
    early_stop: int | None = None
    augmentation: str = "light"
    balanced: bool = False

    def __post_init__(self) -> None:
        self.options(labelled=True, seed=0)

    def options(self, *, labelled: bool, seed: int) -> QatOptions:
        """Returns what the pass takes; without labels it learns from the float network's answers alone."""
        given = _shared(self, QatOptions)
        return QatOptions(**(given if labelled else {**given, "alpha": 1.0}), seed=seed)

    @property
    def title(self) -> str:
        """What people read."""
        return f"train int8 for {self.epochs} epochs" if self.epochs > 1 else "train int8 for 1 epoch"


Stage = PruneStage | DistillStage | QatStage
_KINDS: Mapping[str, type[PruneStage] | type[DistillStage] | type[QatStage]] = {
    "prune": PruneStage,
    "distill": DistillStage,
    "qat": QatStage,
}


@dataclass(frozen=True, kw_only=True)
class StageFile:
    """A recipe with stages.

    Attributes:
        calibration: The calibration recipe: a name, or the path of its TOML file.
        stages: In the order in which they run.
    """

    calibration: str
    stages: tuple[Stage, ...]


def parse_prune(text: str) -> PruneStage:
    """Reads what ``--prune`` is given.

    >>> parse_prune("0.5").keep, parse_prune("blocks=0.6").remove, parse_prune("latency=0.6@x86-cpu").on
    (0.5, 'blocks', 'x86-cpu')

    Raises:
        ConfigError: It is neither a share nor ``macs=``, ``blocks=`` or ``latency=`` with one.
    """
    name, equals, number = text.rpartition("=")
    if name not in ("", "macs", "blocks", "latency") or (equals and not name):
        raise ConfigError(f"--prune: '{text}': unknown '{name}'", hint=nearest(name, ["macs", "blocks", "latency"]))
    number, at, target = number.partition("@")
    try:
        share = float(number)
    except ValueError:
        raise ConfigError(
            f"--prune: expected a share to keep, such as 0.5, blocks=0.5 or latency=0.6, got '{text}'"
        ) from None
    if at and (name != "latency" or not target):
        raise ConfigError(f"--prune: '{text}': a target is named behind a latency alone", hint="latency=0.6@x86-cpu")
    if name == "latency":
        return PruneStage(latency=share, on=target if at else None)
    return PruneStage(keep=share, remove="blocks" if name == "blocks" else None)


def in_steps(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Writes each pruning in steps as several prunings, each with its part of the epochs of the training behind it.

    The shares are even in ratio: 0.25 in two steps is 0.5 and then 0.25, of the network that the first one is given.

    Raises:
        ConfigError: No training follows, or one of fewer epochs than there are steps.
    """
    result: list[Stage] = []
    for place, stage in enumerate(stages):
        if isinstance(stage, DistillStage) and place and _steps(stages[place - 1]) > 1:
            continue  # its epochs are in the steps
        count = _steps(stage)
        if not isinstance(stage, PruneStage) or count == 1:
            result.append(stage)
            continue
        training = stages[place + 1] if place + 1 < len(stages) else None
        if not isinstance(training, DistillStage) or training.epochs < count:
            raise ConfigError(
                f"prune: {count} steps need a training behind them of at least as many epochs",
                hint="give epochs (--distill), or prune in one step",
            )
        for number in range(1, count + 1):
            share = stage.share ** (number / count)
            part = {"keep": share} if stage.latency is None else {"latency": share}
            epochs = training.epochs * number // count - training.epochs * (number - 1) // count
            result += [replace(stage, steps=1, **part), replace(training, epochs=epochs)]
    return tuple(result)


def read_stages(path: Path) -> StageFile | None:
    """Reads a recipe with ``[[stage]]`` tables; None for a TOML file without any, which is a calibration recipe.

    Each table says what it does (``do = "prune"``, ``"distill"`` or ``"qat"``) and gives the options of that stage. The
    key ``calibration`` names the calibration recipe.

    Raises:
        ConfigError: The file is wrong.
    """
    table = read_toml(path)
    if "stage" not in table:
        return None
    for key in table:
        if key not in ("stage", "calibration"):
            raise ConfigError(f"{path}: unknown key '{key}'", hint=nearest(key, ["stage", "calibration"]))
    calibration = table.get("calibration", "default")
    if not isinstance(calibration, str):
        raise ConfigError(f"{path}: calibration: expected the name of a calibration recipe, got {calibration!r}")
    if not isinstance(table["stage"], list):
        raise ConfigError(f"{path}: stage: expected tables, each begun with [[stage]]")
    stages = tuple(_stage(path, index, item) for index, item in enumerate(table["stage"]))
    return StageFile(calibration=calibration, stages=stages)


def _steps(stage: Stage) -> int:
    return stage.steps if isinstance(stage, PruneStage) else 1


def _shared(stage: Stage, kind: type[PruneOptions | TrainOptions | DistillOptions | QatOptions]) -> dict[str, Any]:
    """The stage's fields that a pass's options have too, by the same names."""
    known = {field.name for field in fields(kind)}
    return {field.name: getattr(stage, field.name) for field in fields(stage) if field.name in known}


def _stage(path: Path, index: int, table: Any) -> Stage:
    where = f"{path}: stage[{index}]"
    if not isinstance(table, dict) or "do" not in table:
        raise ConfigError(f"{where}: expected a table with do = 'prune', 'distill' or 'qat'")
    kind = _KINDS.get(table["do"]) if isinstance(table["do"], str) else None
    if kind is None:
        raise ConfigError(f"{where}: unknown do = {table['do']!r}", hint=nearest(str(table["do"]), _KINDS))
    known = [field.name for field in fields(kind)]
    rest = {key: value for key, value in table.items() if key != "do"}
    for key in rest:
        if key not in known:
            raise ConfigError(f"{where}: unknown key '{key}'", hint=nearest(key, known))
    return from_dict(kind, rest, where=where)
