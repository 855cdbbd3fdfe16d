"""Quantization-aware training of an int8 program, as a stage of the compilation."""

from __future__ import annotations

from edgekit.compiler.shaping.learning import training_images
from edgekit.compiler.shaping.stages import QatStage
from edgekit.data import Dataset
from edgekit.errors import StageError
from edgekit.passes import PassContext, run_passes
from edgekit.passes.qat import Qat
from edgekit.passes.train import Keeping
from edgekit.passes.train.checkpoint import digest_of
from edgekit.passes.train.world import World, joined_world
from edgekit.program import Program

__all__ = ["train_int8"]


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
        StageError: The training diverged, or several processes did not calibrate to the same numbers.
    """
    training_pass = Qat(
        teacher=floating,
        images=training_images(training, stage),
        options=stage.options(labelled=training.labelled, seed=seed),
        keeping=keeping,
    )
    with joined_world("auto") as world:
        _check_same(program, world)
        return run_passes(program, [training_pass], context)


def _check_same(program: Program, world: World) -> None:
    """Weights are made equal when a training begins; grids are not, and would stay apart unnoticed."""
    own = digest_of(program)
    if world.from_leader(own) != own:
        raise StageError(
            f"process {world.rank} of {world.size} has another int8 program than process 0: calibration came to other "
            "numbers there",
            hint="start the processes on machines of one kind, with the same images and OMP_NUM_THREADS; or train int8 "
            "in one process (without torchrun)",
        )
