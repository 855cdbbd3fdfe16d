"""A diagnosis as text for a terminal: the worst layers first, then what is float, what corrections gained, findings."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from edgekit.diagnostics.records import Correction, Diagnosis, Layer, Tensor
from edgekit.diagnostics.words import decibel, range_text, share
from edgekit.table import table

__all__ = ["diagnosis_text"]

_INPUT_HEADERS = ["range", "outside", "used", "unsettled"]
_HEADERS = ["rank", "layer", "own dB", "accum. dB", *_INPUT_HEADERS]
_RIGHT = [header for header in _HEADERS if header != "layer"]


def diagnosis_text(diagnosis: Diagnosis, *, top: int, width: int | None = None) -> str:
    """Lays out a diagnosis.

    Args:
        diagnosis: What to show.
        top: How many of the worst layers are listed.
        width: Most characters on a line of the tables; None wraps nothing.

    Returns:
        The lines, without a newline at the end.
    """
    parts = [
        _head(diagnosis),
        _layers_text(diagnosis, top, width),
        _tensors_text(diagnosis, top, width),
        "\n".join(_float_lines(diagnosis)),
        "\n".join(_correction_lines(diagnosis)),
        "\n".join(_finding_lines(diagnosis)),
    ]
    return "\n\n".join(part for part in parts if part)


def _head(diagnosis: Diagnosis) -> str:
    total = len(diagnosis.layers)
    left = total - len(diagnosis.worst_first)
    counts = f"{diagnosis.int8_layers} of {total} layers int8, {left} float" if total else "no layer was measured"
    lines = [diagnosis.scheme, f"  {counts}"]
    images = "" if diagnosis.images is None else f" on {diagnosis.images} held-out images"
    lines += [f"  output '{output.name}': SQNR {decibel(output.sqnr_db)} dB{images}" for output in diagnosis.outputs]
    return "\n".join(lines)


def _layers_text(diagnosis: Diagnosis, top: int, width: int | None) -> str:
    worst = diagnosis.worst_first
    if not worst:
        return ""
    rows = [_row(diagnosis, layer) for layer in worst[:top]]
    shown = _shown(len(rows), len(worst))
    body = table(_HEADERS, rows, right=_RIGHT, width=width)
    return f"int8 layers, the worst first ({shown}); range, outside, used and unsettled are those of the input:\n{body}"


def _row(diagnosis: Diagnosis, layer: Layer) -> list[str]:
    numbers = [
        "-" if layer.rank is None else str(layer.rank),
        layer.name,
        decibel(layer.own_sqnr_db),
        decibel(layer.accumulated_sqnr_db),
    ]
    inputs = diagnosis.inputs_of(layer)
    return [*numbers, *(_input_cells(inputs[0]) if inputs else ["-"] * len(_INPUT_HEADERS))]


def _input_cells(tensor: Tensor) -> list[str]:
    return [range_text(tensor.range), share(tensor.saturated), share(tensor.utilisation), share(tensor.unsettled)]


def _tensors_text(diagnosis: Diagnosis, top: int, width: int | None) -> str:
    tensors = diagnosis.unclaimed_tensors
    if not tensors:
        return ""
    rows = [[tensor.name, *_input_cells(tensor)] for tensor in tensors[:top]]
    body = table(["tensor", *_INPUT_HEADERS], rows, right=_INPUT_HEADERS, width=width)
    return f"other quantized tensors ({_shown(len(rows), len(tensors))}):\n{body}"


def _shown(listed: int, known: int) -> str:
    return f"all {known}" if listed == known else f"{listed} of {known}"


def _float_lines(diagnosis: Diagnosis) -> Iterator[str]:
    if diagnosis.left_float:
        yield "left float:"
    for reason, layers in diagnosis.left_float.items():
        yield f"  {reason if reason else 'no reason given'}:"
        yield f"    {', '.join(layer.name for layer in layers)}"


def _correction_lines(diagnosis: Diagnosis) -> Iterator[str]:
    stages: dict[str, list[Correction]] = {}
    for correction in diagnosis.corrections:
        stages.setdefault(correction.stage, []).append(correction)
    if stages:
        yield "corrections, by what they gained on data that they were not fitted on:"
    for stage, corrections in stages.items():
        kept = [item for item in corrections if item.kept]
        gains = [item.gain_db for item in kept if item.gain_db is not None]
        line = f"  {stage}: kept on {len(kept)} of {len(corrections)} layers"
        if gains:
            best = max(kept, key=lambda item: float("-inf") if item.gain_db is None else item.gain_db)
            line += f", gain {median(gains):+.1f} dB in the middle, at most {decibel(max(gains))} dB ({best.layer})"
        yield line


def _finding_lines(diagnosis: Diagnosis) -> Iterator[str]:
    for finding in diagnosis.findings:
        reader = _reader(diagnosis, finding.where)
        where = finding.where + (f" (input of {reader})" if reader else "")
        yield f"finding: {': '.join(part for part in (finding.what, where, finding.why) if part)}"
        if finding.help:
            yield f"  {finding.help}"


def _reader(diagnosis: Diagnosis, where: str) -> str:
    """Returns a layer that reads the tensor of that name, as the table knows layers and not tensors."""
    readers = (name for tensor in diagnosis.tensors if tensor.name == where for name in tensor.consumers)
    return next(readers, "") if where else ""
