"""Processes that train int8 together must have calibrated to the same numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.compiler.shaping import QatStage
from edgekit.compiler.shaping import int8 as module
from edgekit.data import read_folder
from edgekit.errors import StageError
from edgekit.passes.train.world import World
from tests.compiler.world import write_images
from tests.networks import CONTEXT, LABELS, program


def test_other_numbers_than_those_of_number_0_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = read_folder(write_images(tmp_path, count=2), LABELS)
    floating = program("residual")
    monkeypatch.setattr(module, "digest_of", lambda item: "mine")
    monkeypatch.setattr(World, "from_leader", lambda self, value: "another")
    with pytest.raises(StageError, match="process 0 of 1 has another int8 program than process 0") as caught:
        module.train_int8(
            replace(floating), floating, QatStage(epochs=1), training, seed=0, keeping=None, context=CONTEXT
        )
    assert caught.value.hint is not None
    assert "without torchrun" in caught.value.hint
