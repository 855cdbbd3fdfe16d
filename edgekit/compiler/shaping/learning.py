"""What the trainings among the stages share: their images, and where their state is kept."""

from __future__ import annotations

from pathlib import Path

from edgekit.augmentation import load_augmentation
from edgekit.compiler.shaping.planfile import PLAN
from edgekit.compiler.shaping.stages import DistillStage, QatStage
from edgekit.data import Dataset
from edgekit.passes.train import Keeping, TrainImages
from edgekit.passes.train.checkpoint import CHECKPOINT

__all__ = ["forget", "keeping_for", "training_images"]


def training_images(training: Dataset, stage: DistillStage | QatStage) -> TrainImages:
    """Returns the images to train on, as a stage wants them shown."""
    return TrainImages(data=training, augmentation=load_augmentation(stage.augmentation), balanced=stage.balanced)


def keeping_for(checkpoints: Path | None, name: str, *, resume: bool) -> Keeping | None:
    """Returns where the training ``name`` keeps its state; None where none is kept."""
    return None if checkpoints is None else Keeping(folder=checkpoints / name, resume=resume)


def forget(checkpoints: Path) -> None:
    """Removes the states and plans below a folder, and folders that are empty then; what else is there stays."""
    for path in (*checkpoints.glob(f"*/{CHECKPOINT}"), *checkpoints.glob(f"*/{PLAN}")):
        path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    if checkpoints.is_dir() and not any(checkpoints.iterdir()):
        checkpoints.rmdir()
