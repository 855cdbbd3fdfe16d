"""What every stage did, for the report: to the float program, and from there to each scheme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgekit.compiler.candidates import MIXED
from edgekit.compiler.inputs import Job
from edgekit.compiler.packing import Packed
from edgekit.compiler.quantization import Quantized, without_long_lists
from edgekit.program import Program, Record
from edgekit.targets import QuantizeRules

__all__ = ["history", "scheme_name"]


def scheme_name(rules: QuantizeRules, jobs: Sequence[Job]) -> str:
    """Returns what an int8 scheme is called in the report: its number and the targets that use it."""
    schemes = list(dict.fromkeys(job.target.quantize for job in jobs))
    names = [job.target.name for job in jobs if job.target.quantize == rules]
    return f"int8 {schemes.index(rules) + 1}: {', '.join(names)}"


def history(
    *,
    floating: Program,
    quantized: Mapping[QuantizeRules, Quantized],
    packed: Sequence[Packed],
    jobs: Sequence[Job],
) -> dict[str, tuple[Record, ...]]:
    """Returns the records of each scheme, without those of the float program that it is made of.

    Args:
        floating: The folded float program.
        quantized: The int8 programs.
        packed: What is in the bundle, mixed and half precision among it.
        jobs: The targets, in the order asked for.
    """
    known = len(floating.history)
    result = {"float": floating.history}
    for rules, item in quantized.items():
        result[scheme_name(rules, jobs)] = _short(item.program, known)
    for entry in packed:
        if entry.candidate.precision == MIXED:
            result[f"mixed: {entry.target.name}"] = _short(entry.candidate.program, known)
    for rules, scheme in quantized.items():
        mine = [item for item in packed if item.candidate.precision == "int8" and item.target.quantize == rules]
        halved = [item for item in mine if item.candidate.program is not scheme.program]
        if halved:
            names = ", ".join(item.target.name for item in halved)
            result[f"fp16 around int8: {names}"] = _short(halved[0].candidate.program, len(scheme.program.history))
    half = [item for item in packed if item.candidate.precision == "fp16" and item.candidate.program is not floating]
    if half:
        result[f"fp16: {', '.join(item.target.name for item in half)}"] = _short(half[0].candidate.program, known)
    return result


def _short(program: Program, known: int) -> tuple[Record, ...]:
    return tuple(replace(record, details=without_long_lists(record)) for record in program.history[known:])
