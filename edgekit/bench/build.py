"""On the device: builds the engines of a bundle's entries, checks them, times them, and remembers the fastest."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgekit.bench.feeds import golden_feeds
from edgekit.bench.interleave import SMALLEST_LEAD, timed
from edgekit.bundle import Bundle, Entry, read_bundle
from edgekit.config import to_dict
from edgekit.errors import EdgekitError, InternalError, StageError, UserError
from edgekit.progress import Progress
from edgekit.runtime.choice import fitting_entries
from edgekit.runtime.chosen import write_chosen
from edgekit.runtime.model import check_self_test, open_entry
from edgekit.runtime.session import Session
from edgekit.runtime.tensorrt import flavour_of
from edgekit.runtime.tensorrt.engines import machine_facts

__all__ = ["BuildReport", "BuiltEntry", "build_here"]


@dataclass(frozen=True, kw_only=True)
class BuiltEntry:
    """One entry of the bundle on this machine.

    Attributes:
        precision: Of the entry.
        status: ``chosen``; ``passed`` the golden check but another is faster; or ``failed``.
        reason: Why.
        why_built: Why the engine was built just now; empty where it was there.
        golden: Output name to the engine's relative L2 error on the golden inputs.
        p50_ms, p90_ms: Of one inference of one image, the candidates in turns.
    """

    precision: str
    status: Literal["chosen", "passed", "failed"]
    reason: str
    why_built: str = ""
    golden: Mapping[str, float] = field(default_factory=dict)
    p50_ms: float | None = None
    p90_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What was built for this machine.

    Attributes:
        bundle: The file.
        target: Whose entries.
        chosen: Precision that ``load`` takes from now on.
        entries: In the bundle's order.
        machine: What the engines and the choice depend on.
    """

    bundle: Path
    target: str
    chosen: str
    entries: tuple[BuiltEntry, ...]
    machine: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain: dict[str, Any] = to_dict(self)
        return plain


def build_here(
    path: Path, *, target: str | None, trust_plan: bool, cache_dir: Path | None, progress: Progress
) -> BuildReport:
    """Builds, checks and times every entry for the machine's target, and remembers the fastest that answers rightly.

    Args:
        path: The bundle.
        target: Name or alias of the target; None takes the best for this machine.
        trust_plan: Use engines that are in the bundle; see :func:`edgekit.runtime.load`.
        cache_dir: Where engines and the choice are kept; None: in the user's cache folder.
        progress: Where progress is shown.

    Raises:
        BundleError: Damaged.
        MachineMismatch: No entry fits this machine, or none answers as it should.
        BackendMissing: The library, the driver or the GPU is missing.
        UserError: There is nothing to build: the target's engine is in the bundle.
        StageError: No engine could be built.
    """
    bundle = read_bundle(path)
    entries = [item.entry for item in fitting_entries(bundle, target=target)]
    flavour = flavour_of(entries[0].backend)
    if flavour is None:
        raise UserError(
            f"{path}: nothing is to be built for {entries[0].target}: its engine is in the bundle",
            hint="run, eval and bench use it as it is",
        )
    facts = machine_facts(flavour)
    with ExitStack() as stack:
        sessions: dict[str, Session] = {}
        results: list[BuiltEntry] = []
        errors: list[EdgekitError] = []
        for entry in entries:
            try:
                session, result = _checked(bundle, entry, trust_plan=trust_plan, cache_dir=cache_dir, progress=progress)
            except InternalError:
                raise
            except EdgekitError as error:
                errors.append(error)
                results.append(BuiltEntry(precision=entry.precision, status="failed", reason=error.message))
                continue
            sessions[entry.precision] = stack.enter_context(session)
            results.append(result)
        if not sessions:
            raise errors[0] if len({error.message for error in errors}) == 1 else StageError(_all_failed(path, results))
        feeds = {entry.precision: golden_feeds(bundle, entry)[0] for entry in entries if entry.precision in sessions}
        calls = {name: _call(session, feeds[name]) for name, session in sessions.items()}
        samples = timed(calls, label="timing candidates", seed=0, progress=progress)
    chosen = _fastest([item.precision for item in results if item.precision in samples], samples)
    write_chosen(bundle.manifest.content_digest, entries[0].target, chosen, facts, folder=cache_dir)
    return BuildReport(
        bundle=path,
        target=entries[0].target,
        chosen=chosen,
        entries=tuple(_final(item, samples, chosen) for item in results),
        machine=facts,
    )


def _checked(
    bundle: Bundle, entry: Entry, *, trust_plan: bool, cache_dir: Path | None, progress: Progress
) -> tuple[Session, BuiltEntry]:
    """Opens an entry's engine, built where it must be, and holds it against the golden outputs."""
    session, why = open_entry(
        bundle,
        entry,
        threads=None,
        streams=None,
        cache_dir=cache_dir,
        trusted=trust_plan,
        build=True,
        progress=progress,
    )
    try:
        golden = check_self_test(bundle, entry, session)
    except BaseException:
        session.close()
        raise
    return session, BuiltEntry(precision=entry.precision, status="passed", reason="", why_built=why, golden=golden)


def _call(session: Session, feeds: Any) -> Any:
    return lambda: session.infer(feeds)


def _fastest(names: list[str], samples: Mapping[str, Any]) -> str:
    best = names[0]
    for name in names[1:]:
        if np.median(samples[name]) < SMALLEST_LEAD * np.median(samples[best]):
            best = name
    return best


def _final(item: BuiltEntry, samples: Mapping[str, Any], chosen: str) -> BuiltEntry:
    if item.precision not in samples:
        return item
    p50, p90 = (float(np.percentile(samples[item.precision], share)) / 1e6 for share in (50, 90))
    if item.precision == chosen:
        return replace(
            item, status="chosen", reason="the fastest here that answers as it should", p50_ms=p50, p90_ms=p90
        )
    return replace(item, reason=f"{chosen} is chosen", p50_ms=p50, p90_ms=p90)


def _all_failed(path: Path, results: list[BuiltEntry]) -> str:
    return f"{path}: no engine could be built\n  " + "\n  ".join(f"{item.precision}: {item.reason}" for item in results)
