"""``edgekit bench``: how fast a bundle is on this machine, alone or against another."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.bench import BenchOptions, bench, format_report
from edgekit.cli.answer import Answer, document_text
from edgekit.cli.options import (
    EXISTING_PATH,
    NEW_PATH,
    bundle_argument,
    json_option,
    target_option,
    threads_option,
    trust_option,
)
from edgekit.files import atomic_write
from edgekit.progress import progress_for

__all__ = ["command"]


@click.command("bench", epilog="Example: edgekit bench int8.edge --baseline float.edge -o report.json")
@bundle_argument
@click.option(
    "--baseline", type=EXISTING_PATH, metavar="BUNDLE", help="Measure this one in turns, and print the ratio."
)
@click.option(
    "--data", type=EXISTING_PATH, metavar="DIR", help="Images to measure with.  [default: the bundle's golden inputs]"
)
@click.option(
    "--duration",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Least duration of each scenario.",
)
@target_option
@threads_option
@click.option("--streams", type=click.IntRange(min=1), metavar="N", help="Inferences that the engine runs at once.")
@click.option(
    "--cuda-graphs/--no-cuda-graphs",
    default=True,
    show_default=True,
    help="On NVIDIA GPUs: launch an inference as one CUDA graph, where that is possible.",
)
@trust_option
@click.option("-o", "--output", type=NEW_PATH, metavar="FILE", help="Write the JSON document into this file too.")
@json_option
def command(
    bundle: Path,
    baseline: Path | None,
    data: Path | None,
    duration: float,
    target: str | None,
    threads: int | None,
    streams: int | None,
    cuda_graphs: bool,
    trust_plan: bool,
    output: Path | None,
) -> Answer:
    """Measures a bundle: latency by stage, throughput, load time, memory.

    With --baseline the two engines run in turns, in mirrored order, and the ratio of their times is given with its 95 %
    interval. Close what else is running: the report says when the machine was not quiet.
    """
    options = BenchOptions(
        target=target,
        threads=threads,
        streams=streams,
        trust_plan=trust_plan,
        cuda_graphs=cuda_graphs,
        duration_s=duration,
        images=data,
    )
    report = bench(bundle, options, baseline=baseline, progress=progress_for(quiet=False))
    answer = Answer(schema=report.schema, document=report.to_dict(), text=format_report(report))
    if output is not None:
        with atomic_write(output) as stream:
            stream.write(document_text(answer.schema, answer.document).encode("utf-8") + b"\n")
    return answer
