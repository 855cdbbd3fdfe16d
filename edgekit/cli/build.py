"""``edgekit build``: on the device, builds the engines of a bundle and chooses the fastest."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.bench.build import BuildReport, build_here
from edgekit.cli.answer import Answer
from edgekit.cli.options import bundle_argument, json_option, target_option, trust_option
from edgekit.progress import progress_for
from edgekit.table import output_width, table

__all__ = ["command"]


@click.command("build", epilog="Example: edgekit build model.edge")
@bundle_argument
@target_option
@trust_option
@json_option
def command(bundle: Path, target: str | None, trust_plan: bool) -> Answer:
    """Builds a bundle's engines for this very machine: on a Jetson, or with an NVIDIA GPU.

    Each engine must answer as its program did on the golden inputs. Then they are timed in turns, and the fastest is
    what run, eval, bench and load take from now on. Engines are kept, and built anew when the library, the driver or
    the power mode changed. Takes minutes; with --trust-plan, engines that are in the bundle are used where they fit.
    """
    progress = progress_for(quiet=False)
    report = build_here(bundle, target=target, trust_plan=trust_plan, cache_dir=None, progress=progress)
    return Answer(schema="edgekit.build/1", document=report.to_dict(), text=_text(report))


def _text(report: BuildReport) -> str:
    rows = [
        [
            item.precision,
            item.status,
            "-" if item.p50_ms is None else f"{item.p50_ms:.3f}",
            "-" if item.p90_ms is None else f"{item.p90_ms:.3f}",
            f"{max(item.golden.values()):.2g}" if item.golden else "-",
            item.reason + (f"; built: {item.why_built}" if item.why_built else ""),
        ]
        for item in report.entries
    ]
    heads = ["candidate", "verdict", "p50 ms", "p90 ms", "golden rel. L2", "why"]
    machine = ", ".join(value for value in report.machine.values() if value)
    return (
        f"{report.target}: {report.chosen} is used on this machine from now on\n\n"
        f"{table(heads, rows, right=['p50 ms', 'p90 ms', 'golden rel. L2'], width=output_width())}\n\n{machine}"
    )
