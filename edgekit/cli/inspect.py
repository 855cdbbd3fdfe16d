"""``edgekit inspect``: what is inside a bundle, how it came to be, and what each layer really ran as."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from edgekit.bundle import Bundle, Entry, read_bundle
from edgekit.cli.answer import Answer
from edgekit.cli.history import candidates_text, history_text
from edgekit.cli.options import bundle_argument, json_option, target_name, trust_option
from edgekit.config import nearest, to_dict
from edgekit.errors import UserError
from edgekit.runtime import load
from edgekit.table import output_width, pairs, table
from edgekit.tensorspec import LayerRecord

__all__ = ["command"]


@click.command("inspect", epilog="Examples: edgekit inspect model.edge; edgekit inspect model.edge --layers")
@bundle_argument
@click.option("--layers", is_flag=True, help="Open the engine and list its layers with the precision they run in.")
@click.option(
    "--target", metavar="NAME", help="Only this target.  [default: all; with --layers the best for this machine]"
)
@trust_option
@json_option
def command(bundle: Path, layers: bool, target: str | None, trust_plan: bool) -> Answer:
    """Shows what is inside a bundle: entries, sizes, candidates and what was measured of them, history.

    The whole file is verified first. Without --layers no engine library is needed.
    """
    opened = read_bundle(bundle)
    target = target_name(target)
    entries = _entries(opened, target)
    report = opened.report()
    ran = _layers(bundle, target, trust_plan=trust_plan) if layers else None
    document = {
        "bundle": bundle,
        "size_bytes": opened.size_bytes,
        "manifest": {**to_dict(opened.manifest), "entries": [to_dict(entry) for entry in entries]},
        "report": report,
        "layers": ran,
    }
    targets = [item for item in report.get("targets", []) if target is None or item["target"] == target]
    parts = [_overview(opened), _entry_table(opened, entries), *(candidates_text(item) for item in targets)]
    parts += [history_text(report), *([] if ran is None else [_layers_text(ran)])]
    return Answer(schema="edgekit.inspect/1", document=document, text="\n\n".join(part for part in parts if part))


def _entries(bundle: Bundle, target: str | None) -> tuple[Entry, ...]:
    entries = tuple(entry for entry in bundle.manifest.entries if target is None or entry.target == target)
    if not entries:
        known = {entry.target for entry in bundle.manifest.entries}
        raise UserError(f"{bundle.path}: has no target '{target}'", hint=nearest(str(target), known))
    return entries


def _layers(path: Path, target: str | None, *, trust_plan: bool) -> dict[str, Any]:
    with load(path, target=target, trust_plan=trust_plan) as model:
        layers: Sequence[LayerRecord] = model.session.layers()
        engine = {"target": model.entry.target, "precision": model.entry.precision, **model.session.describe()}
    counts = Counter(layer.precision for layer in layers if layer.compute)
    return {
        "engine": engine,
        "compute_by_precision": dict(counts.most_common()),
        "layers": [to_dict(layer) for layer in layers],
    }


def _overview(bundle: Bundle) -> str:
    manifest = bundle.manifest
    task = "none (raw model)"
    if manifest.task is not None:
        labels = manifest.task.get("labels")
        task = str(manifest.task["task"]) + (f", {len(labels)} labels" if isinstance(labels, (list, tuple)) else "")
    producer = ", ".join(f"{name} {version}" for name, version in manifest.producer.items())
    rows = [
        ("bundle", str(bundle.path)),
        ("model", manifest.name),
        ("task", task),
        ("size", f"{bundle.size_bytes:,} bytes"),
        ("format", ".".join(str(part) for part in manifest.format)),
        ("made by", producer),
        ("content digest", manifest.content_digest),
    ]
    return pairs(rows, width=output_width())


def _entry_table(bundle: Bundle, entries: Sequence[Entry]) -> str:
    files = bundle.manifest.files
    rows = []
    for entry in entries:
        engine = "built on the device"
        if entry.engine is not None:
            stored = sum(files[name].size_bytes for name in entry.engine.stored.values())
            saved = sum(part.size_bytes - files[part.file].size_bytes for part in entry.engine.zlib.values())
            engine = f"{stored + saved:,} bytes" + (f" ({stored:,} in bundle)" if saved else "")
        graph = f"{files[entry.graph].size_bytes:,}"
        rows.append([entry.target, entry.precision, entry.backend, engine, graph, entry.accuracy, entry.latency])
    headers = ["target", "precision", "backend", "engine", "graph bytes", "accuracy", "latency"]
    return table(headers, rows, right=["graph bytes"], width=output_width())


def _layers_text(ran: Mapping[str, Any]) -> str:
    rows = [
        [layer["name"], layer["kind"], layer["precision"], "yes" if layer["compute"] else ""] for layer in ran["layers"]
    ]
    engine = ", ".join(f"{key} {value}" for key, value in ran["engine"].items())
    total = sum(ran["compute_by_precision"].values())
    counts = ", ".join(f"{precision} {count}" for precision, count in ran["compute_by_precision"].items())
    return "\n".join(
        [
            f"layers as they ran ({engine}):",
            table(["layer", "kind", "precision", "compute"], rows, width=output_width()),
            f"{total} compute layers: {counts}" if total else "no compute layers",
        ]
    )
