"""Quantization-aware training of an int8 program, as a stage of the compilation."""

from __future__ import annotations

import os

from edgekit.compiler.shaping.learning import training_images
from edgekit.compiler.shaping.stages import QatStage
from edgekit.data import Dataset
from edgekit.errors import ConfigError
from edgekit.passes import PassContext, run_passes
from edgekit.passes.qat import Qat
from edgekit.passes.train import Keeping
from edgekit.program import Program

__all__ = ["check_one_process", "train_int8"]


def check_one_process() -> None:
    """Refuses what several processes cannot share: by the time that int8 is trained, only one is left.

    Raises:
        ConfigError: ``torchrun`` started several.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count > 1:
        raise ConfigError(
            f"quantization-aware training runs in one process, and torchrun started {count}",
            hint="leave --qat out, or start edgekit without torchrun",
        )


def train_int8(
    program: Program,
    floating: Program,
    stage: QatStage,
    training: Dataset,
    *,
    seed: int,
    keeping: Keeping | None,
    context: PassContext,
) -> Program:
    """Trains an int8 program on the answers of the float one; returns it unchanged where no epoch was better.

    Args:
        program: The int8 program that would be exported.
        floating: What it was quantized from.
        stage: How.
        training: Images that nothing is judged by.
        seed: Of every random choice.
        keeping: Where the state is kept after each epoch.
        context: For the pass.

    Raises:
        UserError: The program cannot be trained on these images.
        StageError: The training diverged.
    """
    training_pass = Qat(
        teacher=floating,
        images=training_images(training, stage),
        options=stage.options(labelled=training.labelled, seed=seed),
        keeping=keeping,
    )
    return run_passes(program, [training_pass], context)
