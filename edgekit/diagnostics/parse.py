"""From the plain data of a report to records.

A report comes with a bundle, and a bundle can come from anywhere: from another version, or from somebody who means
harm. So nothing is taken for granted. A key that is missing or of another type is left out; a number that is not finite
is one that could not be had; characters that would steer a terminal or turn a line around are shown as a mark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from edgekit.diagnostics.records import (
    Candidate,
    Correction,
    Diagnosis,
    Finding,
    Headline,
    Histogram,
    Layer,
    Output,
    Range,
    TargetSummary,
    Tensor,
)

__all__ = ["parse_diagnoses", "parse_headline"]

_MARK = "\N{REPLACEMENT CHARACTER}"


def parse_diagnoses(report: Mapping[str, Any]) -> dict[str, Diagnosis]:
    """Reads the diagnoses of a report, in its order.

    Args:
        report: A bundle's report, described as ``edgekit.compile/1`` in ``docs/json.md``.

    Returns:
        Scheme, as the report spells it, to the diagnosis of its program; empty where the report has none.
    """
    return {scheme: _diagnosis(scheme, data) for scheme, data in _table(report, "diagnostics").items()}


def parse_headline(report: Mapping[str, Any]) -> Headline:
    """Reads the model's name and the candidates of all targets from a report."""
    accuracy, data = _table(report, "float_accuracy"), _table(report, "data")
    return Headline(
        name=_text(report, "name"),
        metric=_text(accuracy, "metric"),
        float_accuracy=_number(accuracy.get("value")),
        calibration_images=_count(data.get("calibration")),
        evaluation_images=_count(data.get("evaluation")),
        targets=tuple(_target(item) for item in _tables(report, "targets")),
    )


def _diagnosis(scheme: str, data: Any) -> Diagnosis:
    table = data if isinstance(data, Mapping) else {}
    return Diagnosis(
        scheme=_clean(scheme),
        images=_count(table.get("images")),
        outputs=tuple(
            Output(name=_text(item, "name"), sqnr_db=_number(item.get("sqnr_db"))) for item in _tables(table, "outputs")
        ),
        layers=tuple(_layer(index, item) for index, item in enumerate(_tables(table, "layers"))),
        tensors=tuple(_tensor(index, item) for index, item in enumerate(_tables(table, "tensors"))),
        corrections=tuple(
            Correction(
                stage=_text(item, "stage"),
                layer=_text(item, "layer"),
                gain_db=_number(item.get("gain_db")),
                kept=item["kept"] if isinstance(item.get("kept"), bool) else None,
            )
            for item in _tables(table, "corrections")
        ),
        findings=tuple(
            Finding(
                what=_text(item, "what"), where=_text(item, "where"), why=_text(item, "why"), help=_text(item, "help")
            )
            for item in _tables(table, "findings")
        ),
    )


def _layer(index: int, item: Mapping[str, Any]) -> Layer:
    name, node = _text(item, "name"), _text(item, "node")
    return Layer(
        index=index,
        name=name if name else node,
        node=node,
        kind=_text(item, "kind"),
        precision=_text(item, "precision"),
        own_sqnr_db=_number(item.get("own_sqnr_db")),
        accumulated_sqnr_db=_number(item.get("accumulated_sqnr_db")),
        reason=_text(item, "reason"),
        rank=_count(item.get("rank")),
    )


def _tensor(index: int, item: Mapping[str, Any]) -> Tensor:
    halves = item.get("halves")
    pair = [_range(half) for half in halves] if isinstance(halves, (list, tuple)) and len(halves) == 2 else [None, None]
    first, second = pair
    return Tensor(
        index=index,
        name=_text(item, "name"),
        role=_text(item, "role"),
        consumers=tuple(_clean(name) for name in _list(item, "consumers") if isinstance(name, str)),
        producer=_text(item, "producer"),
        observed=_range(item.get("observed")),
        range=_range(item.get("range")),
        method=_text(item, "method"),
        saturated=_number(item.get("saturated")),
        utilisation=_number(item.get("utilisation")),
        halves=None if first is None or second is None else (first, second),
        unsettled=_number(item.get("unsettled")),
        histogram=_histogram(item.get("histogram")),
    )


def _histogram(value: Any) -> Histogram | None:
    table = value if isinstance(value, Mapping) else {}
    edges = [_number(edge) for edge in _list(table, "edges")]
    counts = [_number(count) for count in _list(table, "counts")]
    places = tuple(edge for edge in edges if edge is not None)
    heights = tuple(count for count in counts if count is not None and count >= 0)
    whole = len(places) == len(edges) and len(heights) == len(counts) and len(heights) > 0
    if not whole or len(places) != len(heights) + 1 or any(low > high for low, high in pairwise(places)):
        return None
    return Histogram(edges=places, counts=heights)


def _target(item: Mapping[str, Any]) -> TargetSummary:
    return TargetSummary(
        target=_text(item, "target"),
        title=_text(item, "title"),
        shipped=tuple(_clean(name) for name in _list(item, "shipped") if isinstance(name, str)),
        why=_text(item, "why"),
        candidates=tuple(_candidate(candidate) for candidate in _tables(item, "candidates")),
    )


def _candidate(item: Mapping[str, Any]) -> Candidate:
    accuracy, latency = _table(item, "accuracy"), _table(item, "latency")
    size = _count(item.get("engine_bytes"))
    counts = {_clean(str(name)): _count(count) for name, count in _table(item, "layer_counts").items()}
    return Candidate(
        precision=_text(item, "precision"),
        status=_text(item, "status"),
        reason=_text(item, "reason"),
        accuracy=_number(accuracy.get("value")),
        drop=_interval(accuracy.get("drop")),
        simulated=accuracy.get("kind") == "simulated",
        p50_ms=_number(latency.get("p50_ms")),
        ratio=_interval(latency.get("ratio_to_float")),
        engine_bytes=size if size else None,
        counts={name: count for name, count in counts.items() if count is not None},
        findings=tuple(_clean(line) for line in _list(item, "findings") if isinstance(line, str)),
    )


def _interval(value: Any) -> tuple[float, float, float] | None:
    table = value if isinstance(value, Mapping) else {}
    estimate, low, high = (_number(table.get(key)) for key in ("estimate", "low", "high"))
    return None if estimate is None or low is None or high is None else (estimate, low, high)


def _range(value: Any) -> Range | None:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    low, high = _number(value[0]), _number(value[1])
    return None if low is None or high is None or low > high else (low, high)


def _number(value: Any) -> float | None:
    """Returns a number that drawing can add and subtract without leaving the floats, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of more than 308 digits
        return None
    return number if math.isfinite(number) and abs(number) < 1e150 else None


def _count(value: Any) -> int | None:
    number = _number(value)
    return None if number is None or number < 0 or number != int(number) else int(number)


def _table(item: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = item.get(key)
    return value if isinstance(value, Mapping) else {}


def _list(item: Mapping[str, Any], key: str) -> list[Any]:
    value = item.get(key)
    return list(value) if isinstance(value, (list, tuple)) else []


def _tables(item: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    return [value for value in _list(item, key) if isinstance(value, Mapping)]


def _text(item: Mapping[str, Any], key: str) -> str:
    value = item.get(key)
    return _clean(value) if isinstance(value, str) else ""


def _clean(text: str) -> str:
    """Returns one line of characters that can be shown: no control codes, no halves of surrogates, no bidi switches."""
    return "".join(letter if letter.isprintable() else _MARK for letter in " ".join(text.split()))
