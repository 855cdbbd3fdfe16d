"""What a pruning chose, kept beside the trainings: a clock would not choose the same when one is resumed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.config import from_dict, to_dict
from edgekit.errors import UserError
from edgekit.files import atomic_write
from edgekit.passes.prune import Plan, PruneOptions
from edgekit.passes.train.checkpoint import digest_of
from edgekit.program import Program

__all__ = ["PLAN", "PlanFile"]

PLAN = "plan.json"


@dataclass(frozen=True, kw_only=True)
class PlanFile:
    """One plan in a folder of its own.

    Attributes:
        folder: Made where it is not there.
        resume: Take the plan that is there; False refuses to lose one.
    """

    folder: Path
    resume: bool

    def read(self, program: Program, options: PruneOptions) -> Plan | None:
        """Returns the plan that was made for this program and these options; None where there is none.

        Raises:
            UserError: There is one and it is not to be resumed, or it is of another pruning.
        """
        path = self.folder / PLAN
        if not path.exists():
            return None
        if not self.resume:
            raise UserError(
                f"{path}: a pruning was chosen here before, and the training behind it may be under way",
                hint="go on with it (--resume), name another folder (--checkpoints), or remove this one",
            )
        try:
            stored = json.loads(path.read_bytes())
            if stored["of"] == _of(program, options):
                return from_dict(Plan, stored["plan"], where=str(path))
        except (OSError, ValueError, KeyError, TypeError, UserError) as error:
            raise UserError(f"{path}: not a pruning that edgekit chose", hint="remove it, and begin anew") from error
        raise UserError(
            f"{path}: it was chosen for another network or other options",
            hint="resume with the same model and options, or name another folder (--checkpoints)",
        )

    def write(self, plan: Plan, program: Program, options: PruneOptions) -> None:
        """Keeps a plan.

        Raises:
            UserError: The folder cannot be written to.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot make the folder: {error.strerror}", hint="check the path"
            ) from error
        document = {"of": _of(program, options), "plan": to_dict(plan)}
        with atomic_write(self.folder / PLAN) as stream:
            stream.write(json.dumps(document).encode())


def _of(program: Program, options: PruneOptions) -> dict[str, Any]:
    return {"program": digest_of(program), "options": to_dict(options)}
