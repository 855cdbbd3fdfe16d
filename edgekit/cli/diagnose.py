"""``edgekit diagnose``: which layers int8 hurts and why, as tables, as JSON, and as an HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click

from edgekit.bundle import Bundle, read_bundle
from edgekit.cli.answer import Answer
from edgekit.cli.options import NEW_PATH, bundle_argument, json_option, target_name
from edgekit.config import nearest
from edgekit.diagnostics import Diagnosis, diagnosis_text, page, parse_diagnoses, parse_headline
from edgekit.errors import UserError
from edgekit.files import atomic_write
from edgekit.table import output_width

__all__ = ["command"]


@click.command(
    "diagnose", epilog="Examples: edgekit diagnose model.edge; edgekit diagnose model.edge --html report.html"
)
@bundle_argument
@click.option("--target", metavar="NAME", help="Only what was quantized for this target.  [default: all]")
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    metavar="N",
    help="How many of the worst layers are listed; on the page, how many are open from the start.",
)
@click.option("--html", type=NEW_PATH, metavar="FILE", help="Also write a page that stands alone, with histograms.")
@json_option
def command(bundle: Path, target: str | None, top: int, html: Path | None) -> Answer:
    """Shows which layers int8 hurts, from what the compilation measured and the bundle keeps.

    The worst layers come first: their noise, alone and accumulated, and the range that was chosen for their input. Then
    what stayed float and why, what corrections gained, and findings with what would help. docs/diagnostics.md says what
    the numbers mean. No engine library is needed.
    """
    opened = read_bundle(bundle)
    report = opened.report()
    target = target_name(target)
    chosen = _chosen(opened, parse_diagnoses(report), target)
    headline = parse_headline(report)
    if target is not None:
        headline = replace(headline, targets=tuple(item for item in headline.targets if item.target == target))
    if html is not None:
        text = page(headline, list(chosen.values()), opened=top).encode()
        with atomic_write(html, size_bytes=len(text)) as stream:
            stream.write(text)
    document = {
        "bundle": bundle,
        "name": opened.manifest.name,
        "diagnostics": {scheme: report["diagnostics"][scheme] for scheme in chosen},
        "html": html,
    }
    parts = [diagnosis_text(item, top=top, width=output_width()) for item in chosen.values()]
    parts += [] if html is None else [f"page: {html}"]
    return Answer(schema="edgekit.diagnose/1", document=document, text="\n\n".join(parts))


def _chosen(bundle: Bundle, diagnoses: Mapping[str, Diagnosis], target: str | None) -> dict[str, Diagnosis]:
    known = {entry.target for entry in bundle.manifest.entries}.union(*(item.targets for item in diagnoses.values()))
    if target is not None and target not in known:
        raise UserError(f"{bundle.path}: has no target '{target}'", hint=nearest(target, known))
    chosen = {scheme: item for scheme, item in diagnoses.items() if target is None or target in item.targets}
    if not chosen:
        where = "" if target is None else f" for target '{target}'"
        raise UserError(
            f"{bundle.path}: holds no quantization diagnostics{where}",
            hint="they are made when layers are calibrated to int8: compile the model with this version of edgekit, "
            "with calibration images (--data) and not with a float --precision",
        )
    return chosen
