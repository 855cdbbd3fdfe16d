"""Which entry of a bundle runs on this machine, and why the others do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.bundle import Bundle, Entry
from edgekit.config import nearest
from edgekit.errors import BackendMissing, MachineMismatch, UserError
from edgekit.runtime.chosen import read_chosen
from edgekit.runtime.machine import check_requires
from edgekit.runtime.sessions import missing_backend, missing_device
from edgekit.runtime.tensorrt import flavour_of
from edgekit.runtime.tensorrt.engines import machine_facts
from edgekit.targets import list_targets

__all__ = ["Choice", "choose_entry", "fitting_entries"]


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


def choose_entry(bundle: Bundle, *, target: str | None = None, cache_dir: Path | None = None) -> Choice:
    """Picks the first entry that fits this machine without a warning, else the first that fits with one.

    Of several entries for its target it is the one that ``edgekit build`` found to be the fastest here, where it did.

    Args:
        bundle: The bundle; its entries stand in the order of preference.
        target: Name or alias of the only target to consider; None considers all.
        cache_dir: Where the choice of ``edgekit build`` is looked for; None: in the user's cache folder.

    Raises:
        UserError: The bundle has no such target.
        BackendMissing: An entry would fit, but its library is not installed.
        MachineMismatch: No entry fits; says why for each.
    """
    fits = fitting_entries(bundle, target=target)
    flavour = flavour_of(fits[0].entry.backend)
    if len(fits) == 1 or flavour is None:
        return fits[0]
    digest, name = bundle.manifest.content_digest, fits[0].entry.target
    chosen = read_chosen(digest, name, machine_facts(flavour), folder=cache_dir)
    return next((item for item in fits if item.entry.precision == chosen), fits[0])


def fitting_entries(bundle: Bundle, *, target: str | None = None) -> tuple[Choice, ...]:
    """Returns the entries that fit this machine, of the target whose entry :func:`choose_entry` takes.

    Raises:
        UserError, BackendMissing, MachineMismatch: As there.
    """
    entries = bundle.manifest.entries if target is None else _of_target(bundle, target)
    refusals: list[_Refusal] = []
    fits: list[Choice] = []
    for entry in entries:
        verdict = _judge(entry)
        if isinstance(verdict, _Refusal):
            refusals.append(verdict)
        else:
            fits.append(verdict)
    best = next((item for item in fits if item.warning is None), fits[0] if fits else None)
    if best is None:
        raise _nothing_fits(bundle, refusals)
    return tuple(item for item in fits if item.entry.target == best.entry.target)


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
    flavour = flavour_of(entry.backend)
    if entry.engine is None and flavour is None:
        return _Refusal(entry=entry, reason=f"it has no engine, and {entry.backend} builds none on a device")
    kind = entry.engine.kind if entry.engine is not None else flavour.engine_kind if flavour is not None else ""
    missing = missing_backend(kind)
    if missing is not None:
        return _Refusal(entry=entry, reason=missing.message, missing=missing)
    try:
        absent = missing_device(kind, entry.requires.device)
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
    hint = "compile the model for this machine: edgekit compile --target ..., edgekit targets lists them"
    return MachineMismatch(message, hint=hint)
