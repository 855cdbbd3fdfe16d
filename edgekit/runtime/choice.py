"""Which entry of a bundle runs on this machine, and why the others do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.bundle import Bundle, Entry
from edgekit.config import nearest
from edgekit.errors import BackendMissing, MachineMismatch, UserError
from edgekit.runtime.machine import check_requires
from edgekit.runtime.sessions import missing_backend, missing_device
from edgekit.targets import list_targets

__all__ = ["Choice", "choose_entry"]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The entry to run.

    Attributes:
        entry: The entry.
        warning: What this machine lacks for it, where the entry runs all the same.
    """

    entry: Entry
    warning: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Refusal:
    entry: Entry
    reason: str
    missing: BackendMissing | None = None


def choose_entry(bundle: Bundle, *, target: str | None = None) -> Choice:
    """Picks the first entry that fits this machine without a warning, else the first that fits with one.

    Args:
        bundle: The bundle; its entries stand in the order of preference.
        target: Name or alias of the only target to consider; None considers all.

    Raises:
        UserError: The bundle has no such target.
        BackendMissing: An entry would fit, but its library is not installed.
        MachineMismatch: No entry fits; says why for each.
    """
    entries = bundle.manifest.entries if target is None else _of_target(bundle, target)
    refusals = []
    warned: Choice | None = None
    for entry in entries:
        verdict = _judge(entry)
        if isinstance(verdict, _Refusal):
            refusals.append(verdict)
        elif verdict.warning is None:
            return verdict
        elif warned is None:
            warned = verdict
    if warned is not None:
        return warned
    raise _nothing_fits(bundle, refusals)


def _of_target(bundle: Bundle, target: str) -> tuple[Entry, ...]:
    names = {target, *(known.name for known in list_targets() if target in known.aliases)}
    entries = tuple(entry for entry in bundle.manifest.entries if entry.target in names)
    if not entries:
        present = {entry.target for entry in bundle.manifest.entries}
        raise UserError(
            f"{bundle.path}: holds nothing for target '{target}', only for {', '.join(sorted(present))}",
            hint=nearest(target, present),
        )
    return entries


def _judge(entry: Entry) -> Choice | _Refusal:
    problem = check_requires(entry.requires)
    if problem is not None and entry.requires.on_mismatch == "refuse":
        return _Refusal(entry=entry, reason=problem)
    if entry.engine is None:
        return _Refusal(entry=entry, reason="its engine is built on the device")
    missing = missing_backend(entry.engine.kind)
    if missing is not None:
        return _Refusal(entry=entry, reason=missing.message, missing=missing)
    try:
        absent = missing_device(entry.engine.kind, entry.requires.device)
    except BackendMissing as error:
        return _Refusal(entry=entry, reason=error.message, missing=error)
    if absent is not None:
        return _Refusal(entry=entry, reason=absent)
    return Choice(entry=entry, warning=problem)


def _nothing_fits(bundle: Bundle, refusals: Sequence[_Refusal]) -> BackendMissing | MachineMismatch:
    reasons: dict[tuple[str, str], list[str]] = {}
    for item in refusals:
        reasons.setdefault((item.entry.target, item.reason), []).append(item.entry.precision)
    lines = [f"{target} ({', '.join(precisions)}): {reason}" for (target, reason), precisions in reasons.items()]
    message = f"{bundle.path}: nothing in it runs on this machine" + (
        f": {lines[0]}" if len(lines) == 1 else "\n  " + "\n  ".join(lines)
    )
    for item in refusals:
        if item.missing is not None:
            return BackendMissing(message, hint=item.missing.hint)
    if any(item.entry.engine is None for item in refusals):
        hint = "build the engine on the device from the bundle's portable graph (edgekit extract writes it out)"
    else:
        hint = "compile the model for this machine: edgekit compile --target ..., edgekit targets lists them"
    return MachineMismatch(message, hint=hint)
