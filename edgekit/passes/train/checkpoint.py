"""A training's state after an epoch, in one file that is there whole or not at all.

Everything in it is tensors, numbers and strings, so that it is read without running code (``weights_only=True``). There
is no random state: every step seeds its own (:func:`edgekit.passes.train.feed.seed_of`).
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from edgekit.errors import UserError
from edgekit.files import atomic_write
from edgekit.passes.train.mode import tensors_of
from edgekit.program import Program

__all__ = ["CHECKPOINT", "Fingerprint", "State", "read_state", "write_state"]

CHECKPOINT = "training.pt"
"""The file's name in the checkpoint folder."""

_FORMAT = 1
_HINT = "give another folder, or delete the file to begin anew"


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What a checkpoint belongs to: it goes on with nothing else.

    Attributes:
        program: Digest of the given graph and weights.
        options: Of the training.
        data: Of the images, held-out ones included.
        objective: Of the losses, a teacher's weights included.
    """

    program: str
    options: str
    data: str
    objective: str

    @classmethod
    def of(
        cls,
        program: Program,
        options: Mapping[str, Any],
        data: Mapping[str, Any],
        objective: Mapping[str, Any],
    ) -> Fingerprint:
        """Takes the fingerprint of a training."""
        texts = (json.dumps(item, sort_keys=True) for item in (options, data, objective))
        first, second, third = texts
        return cls(program=digest_of(program), options=first, data=second, objective=third)

    def differences(self, other: Fingerprint) -> list[str]:
        """Returns in words what differs; options are named with both values."""
        found = [] if self.program == other.program else ["the program or its weights"]
        mine, theirs = json.loads(self.options), json.loads(other.options)
        for name in sorted({*mine, *theirs}):
            if mine.get(name) != theirs.get(name):
                found.append(f"{name} ({theirs.get(name)} there, {mine.get(name)} here)")
        found += [] if self.data == other.data else ["the images, or how they are read and varied"]
        found += [] if self.objective == other.objective else ["the losses, or the teacher"]
        return found


@dataclass(kw_only=True)
class State:
    """Everything that the rest of a training depends on.

    Attributes:
        epoch: Epochs done.
        weights: Parameters and buffers of the network.
        mean: The running mean of them, or empty.
        objective: Tensors of the objective that are trained.
        optimizer: Its ``state_dict``.
        best: The best weights so far; empty where they are the given ones or the last ones are wanted.
        notes: Plain JSON-able data of the loop: epochs' reports, scores.
    """

    epoch: int
    weights: dict[str, torch.Tensor]
    mean: dict[str, torch.Tensor]
    objective: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    best: dict[str, torch.Tensor]
    notes: dict[str, Any] = field(default_factory=dict)


def digest_of(program: Program) -> str:
    """Returns a digest of a program's graph and of all its numbers."""
    digest = hashlib.sha256(str(program.graph.graph).encode())
    for name, tensor in sorted(tensors_of(program.graph).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_state(folder: Path, state: State, fingerprint: Fingerprint) -> None:
    """Replaces the folder's checkpoint.

    Raises:
        UserError: The folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot make the folder: {error.strerror}", hint="check the path") from error
    table = {
        "format": _FORMAT,
        "fingerprint": dict(vars(fingerprint)),
        "epoch": state.epoch,
        "weights": state.weights,
        "mean": state.mean,
        "objective": state.objective,
        "optimizer": state.optimizer,
        "best": state.best,
        "notes": json.dumps(state.notes),
    }
    with atomic_write(folder / CHECKPOINT) as stream:
        torch.save(table, stream)


def read_state(folder: Path, fingerprint: Fingerprint, *, resume: bool) -> State | None:
    """Returns the state to go on from, or None to begin.

    Args:
        folder: Where the checkpoint may be.
        fingerprint: Of the training at hand.
        resume: False expects that there is no checkpoint, so that none is lost.

    Raises:
        UserError: There is a checkpoint and ``resume`` is off; it is damaged, or of another training: it says what
            differs.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    if not resume:
        raise UserError(
            f"{path}: holds an earlier training",
            hint="go on with it (--resume, in Python resume=True), or give another folder",
        )
    try:
        table = torch.load(path, map_location="cpu", weights_only=True)
        if table["format"] != _FORMAT:
            raise UserError(f"{path}: is of format {table['format']}, this version reads {_FORMAT}", hint=_HINT)
        theirs = Fingerprint(**table["fingerprint"])
        state = State(
            epoch=table["epoch"],
            weights=table["weights"],
            mean=table["mean"],
            objective=table["objective"],
            optimizer=table["optimizer"],
            best=table["best"],
            notes=json.loads(table["notes"]),
        )
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: cannot be read as a checkpoint: {error}", hint=_HINT) from error
    different = fingerprint.differences(theirs)
    if different:
        raise UserError(f"{path}: is of another training: different are {'; '.join(different)}", hint=_HINT)
    return state
