"""Extract: a bundle as plain files, for DeepStream, Triton, C++ and the curious."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.bundle.digest import REPORT_NAME
from edgekit.bundle.manifest import Entry
from edgekit.bundle.read import Bundle
from edgekit.bundle.readme import README_NAME, EntryFiles, entry_table, readme_text
from edgekit.bundle.structure import MANIFEST_NAME
from edgekit.config import nearest, to_dict
from edgekit.errors import UserError
from edgekit.files import atomic_folder

__all__ = ["extract"]

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LINE_BREAKS = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")


def extract(bundle: Bundle, folder: Path, target: str | None = None, *, force: bool = False) -> tuple[Path, ...]:
    """Writes what a bundle holds as plain files; the folder appears whole or not at all.

    In ``folder``: ``README.txt`` (what the model takes and gives), ``manifest.json``, ``report.json``, ``task.json``
    and ``labels.txt`` where the model has a task and labels. In ``folder/<target>/<precision>``: ``model.onnx``, the
    engine (``model.xml`` and ``model.bin``, or ``model.plan``) where one was built, ``entry.json``, and the golden
    arrays.

    Args:
        bundle: A verified bundle.
        folder: The folder to make; an empty one may be there.
        target: Only the entries of this target; None takes all.
        force: Replace the folder that an earlier extract wrote.

    Returns:
        Paths of the files, in the order of writing.

    Raises:
        UserError: The bundle has no such target, or the folder cannot be written, is not empty, or (with ``force``) was
            not written by an extract.
    """
    entries = [entry for entry in bundle.manifest.entries if target is None or entry.target == target]
    if not entries:
        known = {entry.target for entry in bundle.manifest.entries}
        raise UserError(f"{bundle.path}: has no target {target!r}", hint=nearest(str(target), known))
    if force:
        _check_earlier_extract(folder)
    written: list[str] = []
    with atomic_folder(folder, replace=force) as place:
        for name, data in _all_files(bundle, entries):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
            written.append(name)
    return tuple(folder / name for name in written)


def _check_earlier_extract(folder: Path) -> None:
    """Guards ``force``: what is not an earlier extract must not be deleted, however loudly it is asked for."""
    try:
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    except OSError as error:
        raise UserError(f"{folder}: cannot read: {error.strerror}", hint="check its permissions") from error
    if names and not {MANIFEST_NAME, README_NAME} <= names:
        raise UserError(
            f"{folder}: not replaced: no extract wrote this folder (it lacks {MANIFEST_NAME} or {README_NAME})",
            hint="give the path of a new or empty folder",
        )


def _all_files(bundle: Bundle, entries: list[Entry]) -> Iterator[tuple[str, bytes]]:
    manifest = bundle.manifest
    taken: set[str] = set()
    plans: list[EntryFiles] = []
    for entry in entries:
        where = _free_name(f"{_safe(entry.target)}/{_safe(entry.precision)}", taken)
        plans.append(_plan(entry, where))
    labels = _labels(manifest.task)
    yield README_NAME, readme_text(manifest, plans, has_labels=labels is not None).encode("utf-8")
    yield MANIFEST_NAME, bundle.read(MANIFEST_NAME)
    yield REPORT_NAME, bundle.read(REPORT_NAME)
    if manifest.task is not None:
        yield "task.json", _pretty(manifest.task)
    if labels is not None:
        yield "labels.txt", "".join(f"{_LINE_BREAKS.sub(' ', label)}\n" for label in labels).encode("utf-8")
    for plan in plans:
        yield f"{plan.folder}/entry.json", _pretty(to_dict(entry_table(plan)))
        record = plan.entry.engine
        parts = {} if record is None else bundle.engine_files(record)
        plain = {name: parts[role] for role, name in plan.engine.items()}
        for name, stored in plan.files.items():
            yield f"{plan.folder}/{name}", plain[name] if name in plain else bundle.read(stored)


def _plan(entry: Entry, folder: str) -> EntryFiles:
    """Names the files of one entry. Every name here is edgekit's own or made safe, whatever the manifest says."""
    taken: set[str] = set()
    model: dict[str, str] = {_free_name("model.onnx", taken): entry.graph}
    engine: dict[str, str] = {}
    for role, stored in {} if entry.engine is None else entry.engine.stored.items():
        engine[role] = _free_name(f"model.{role}", taken)
        model[engine[role]] = stored
    inputs = {
        tensor: (_free_name(f"golden/inputs/{_safe(tensor)}.npy", taken), stored)
        for tensor, stored in sorted(entry.golden.inputs.items())
    }
    outputs = {
        tensor: (_free_name(f"golden/outputs/{_safe(tensor)}.npy", taken), stored)
        for tensor, stored in sorted(entry.golden.outputs.items())
    }
    golden = {name: stored for table in (inputs, outputs) for name, stored in table.values()}
    return EntryFiles(
        entry=entry,
        folder=folder,
        files={**model, **golden},
        engine=engine,
        golden_inputs={tensor: name for tensor, (name, _) in inputs.items()},
        golden_outputs={tensor: name for tensor, (name, _) in outputs.items()},
    )


def _safe(text: str) -> str:
    """Returns a name without separators, leading dots or anything that a file system could object to."""
    return _UNSAFE.sub("_", text).lstrip(".")[:64] or "unnamed"


def _free_name(name: str, taken: set[str]) -> str:
    """Returns ``name``, or the first of ``name-2``, ``name-3`` (before the suffix) that is not taken, and takes it."""
    path = Path(name)
    number = 1
    candidate = name
    while candidate.lower() in taken:
        number += 1
        candidate = str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
    taken.add(candidate.lower())
    return candidate


def _labels(task: dict[str, Any] | None) -> list[str] | None:
    labels = None if task is None else task.get("labels")
    if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
        return labels
    return None


def _pretty(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8")
