"""``edgekit eval``: the task's metric, on the engine that ships."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from edgekit.cli.answer import Answer
from edgekit.cli.options import bundle_argument, data_option, json_option, target_option, threads_option, trust_option
from edgekit.errors import DataError, UserError
from edgekit.evaluate import evaluate_session
from edgekit.progress import progress_for
from edgekit.runtime import load
from edgekit.table import output_width, table
from edgekit.tasks import ClassScore, MetricReport, get_task

__all__ = ["command"]

_SHOWN_CLASSES = 20


@click.command("eval", epilog="Example: edgekit eval model.edge --data test/")
@bundle_argument
@data_option
@target_option
@threads_option
@trust_option
@json_option
def command(bundle: Path, data: Path, target: str | None, threads: int | None, trust_plan: bool) -> Answer:
    """Measures a bundle's accuracy on labelled images, as a whole and for each class.

    The number is that of the engine that ships, run here, with the resizing that the device does.
    """
    with load(bundle, target=target, threads=threads, trust_plan=trust_plan) as model:
        if model.spec is None:
            raise UserError(
                f"{bundle}: holds a raw model without a task, so there is no metric", hint="compile with --task"
            )
        dataset = get_task(model.spec.task).read_data(data, model.spec)
        if not dataset.labelled:
            raise DataError(
                f"{data}: images without labels cannot be scored",
                hint="put them into one folder per class, named as the labels are",
            )
        report = evaluate_session(model.session, model.spec, dataset, progress=progress_for(quiet=False))
        engine = {"target": model.entry.target, "precision": model.entry.precision, **model.session.describe()}
    document = {"bundle": bundle, "data": data, "engine": engine, **report.to_dict(), "notes": dataset.notes}
    text = _text(report, dataset.notes, f"{engine['target']}, {engine['precision']}")
    return Answer(schema="edgekit.eval/1", document=document, text=text)


def _text(report: MetricReport, notes: tuple[str, ...], engine: str) -> str:
    lines = [f"{report.name} {_percent(report.value)} of {report.samples:,} images ({engine})"]
    lines += [f"{name} {_percent(value)}" for name, value in report.extra.items()]
    lines += ["", *_classes(report.per_class)]
    lines += [f"note: {note}" for note in notes]
    if report.skipped:
        lines += [
            f"skipped {len(report.skipped)} images that cannot be read:",
            *(f"  {text}" for text in report.skipped),
        ]
    return "\n".join(lines)


def _classes(per_class: Mapping[str, ClassScore]) -> list[str]:
    """Shows every class of a few, the worst of many."""
    scored = [(name, score) for name, score in per_class.items() if score.value is not None]
    if len(scored) > _SHOWN_CLASSES:
        scored = sorted(scored, key=lambda item: 1.0 if item[1].value is None else item[1].value)[:_SHOWN_CLASSES]
    rows = [[name, _percent(score.value), f"{score.samples:,}"] for name, score in scored]
    lines = [table(["class", "accuracy", "images"], rows, right=["accuracy", "images"], width=output_width())]
    if len(rows) < len(per_class):
        lines.append(f"({len(rows)} of {len(per_class)} classes shown, the lowest first; --json has all)")
    return lines


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"
