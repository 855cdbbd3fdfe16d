"""The list of layers: one line each with its numbers, which opens to its input's ranges and histogram."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgekit.diagnostics.histogram import histogram_svg
from edgekit.diagnostics.markup import Content, Markup, coordinate, element
from edgekit.diagnostics.records import Correction, Diagnosis, Layer, Tensor
from edgekit.diagnostics.words import decibel, range_text, share

__all__ = ["Anchors", "layer_rows", "tensor_rows"]

_HEADS = ("", "layer", "own SQNR, dB", "accumulated, dB", "outside range", "range used", "unsettled")


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """Ids of one diagnosis on the page. They are numbers, since names can be anything and need not be unique.

    Attributes:
        number: The diagnosis' place on the page.
    """

    number: int

    @property
    def layer_prefix(self) -> str:
        """What the id of a layer's details begins with; its index follows."""
        return f"s{self.number}-layer-"

    def layer(self, layer: Layer) -> str:
        """Returns the id of a layer's details."""
        return f"{self.layer_prefix}{layer.index}"

    def tensor(self, tensor: Tensor) -> str:
        """Returns the id of the details of a tensor that stands alone."""
        return f"s{self.number}-tensor-{tensor.index}"


def layer_rows(diagnosis: Diagnosis, anchors: Anchors, *, opened: int) -> Iterator[Markup]:
    """Lays out the int8 layers, the worst first; the first ``opened`` of them show their details."""
    yield _heads(_HEADS)
    named = {finding.where for finding in diagnosis.findings if finding.where}
    ratios = [ratio for layer in diagnosis.layers for ratio in (layer.own_sqnr_db, layer.accumulated_sqnr_db) if ratio]
    most = max(ratios, default=1.0)
    for place, layer in enumerate(diagnosis.worst_first):
        inputs = diagnosis.inputs_of(layer)
        found = bool(named & {layer.name, layer.node, *(tensor.name for tensor in inputs)})
        attributes = {"data-index": str(layer.index), **({"open": ""} if place < opened else {})}
        blocks = [
            block for number, tensor in enumerate(inputs) for block in _tensor_blocks(tensor, layer, shares=number > 0)
        ]
        if not blocks:
            blocks = [element("p", {"class": "soft"}, "Nothing is recorded of this layer's input.")]
        body = [*_layer_notes(diagnosis, layer), *blocks]
        yield element(
            "details",
            attributes,
            element("summary", {}, *_summary(layer, inputs[0] if inputs else None, most, found=found)),
            element("div", {"class": "more", "id": anchors.layer(layer)}, *body),
        )


def tensor_rows(diagnosis: Diagnosis, anchors: Anchors) -> Iterator[Markup]:
    """Lays out the tensors that no int8 layer of the list reads, such as the inputs of additions and pools."""
    if diagnosis.unclaimed_tensors:
        yield _heads(("", "tensor", "", "", *_HEADS[-3:]))
    for tensor in diagnosis.unclaimed_tensors:
        name = element("span", {"class": "who"}, element("code", {}, tensor.name))
        summary = [element("span", {"class": "rank"}), name, *_values(tensor, skipped=2)]
        yield element(
            "details",
            {},
            element("summary", {}, *summary),
            element(
                "div", {"class": "more", "id": anchors.tensor(tensor)}, *_tensor_blocks(tensor, None, shares=False)
            ),
        )


def _heads(titles: Sequence[str]) -> Markup:
    # The lines below repeat these words where a screen is narrow, and for those who listen.
    titled = [element("span", {}, title) for title in titles]
    return element("div", {"class": "heads", "aria-hidden": "true"}, *titled)


def _summary(layer: Layer, tensor: Tensor | None, most: float, *, found: bool) -> Iterator[Markup]:
    yield element("span", {"class": "rank"}, "" if layer.rank is None else str(layer.rank))
    who: list[Content] = [element("code", {}, layer.name), " ", element("small", {}, layer.kind)]
    who += [element("span", {"class": "mark finding"}, "finding")] if found else []
    yield element("span", {"class": "who"}, *who)
    yield _bar("o", "own SQNR, dB", layer.own_sqnr_db, most)
    yield _bar("a", "accumulated, dB", layer.accumulated_sqnr_db, most)
    yield from _values(tensor, skipped=0)


def _bar(style: str, key: str, value: float | None, most: float) -> Markup:
    filled = 0.0 if value is None else 100 * min(max(value / most, 0.0), 1.0)
    return element(
        "span",
        {"class": f"bar {style}"},
        element("span", {"class": "key"}, f"{key} "),
        element("i", {"style": f"--v:{coordinate(filled)}%"}),
        element("b", {}, decibel(value)),
    )


def _values(tensor: Tensor | None, *, skipped: int) -> Iterator[Markup]:
    shares = (None, None, None) if tensor is None else (tensor.saturated, tensor.utilisation, tensor.unsettled)
    for _ in range(skipped):
        yield element("span", {"class": "none"})
    for key, value in zip(_HEADS[-3:], shares, strict=True):
        yield element("span", {"class": "num"}, element("span", {"class": "key"}, f"{key} "), share(value))


def _layer_notes(diagnosis: Diagnosis, layer: Layer) -> Iterator[Markup]:
    if layer.reason:
        yield element("p", {}, layer.reason)
    gains: list[Content] = []
    for correction in diagnosis.corrections_of(layer):
        gains += ["; " if gains else "Corrections: ", *_gain(correction)]
    if gains:
        yield element("p", {}, *gains)


def _gain(correction: Correction) -> Iterator[Content]:
    gain = "not measured" if correction.gain_db is None else f"{correction.gain_db:+.1f} dB"
    yield element("code", {}, correction.stage)
    yield f" {gain}"
    if correction.kept is not None:
        yield ", kept" if correction.kept else ", not kept"


def _tensor_blocks(tensor: Tensor, layer: Layer | None, *, shares: bool) -> Iterator[Markup]:
    """Lays out a tensor; its shares are left out where the line above has them already."""
    yield element("dl", {}, *_facts(tensor, layer, shares=shares))
    drawing = histogram_svg(tensor)
    if drawing is not None:
        yield element("figure", {}, drawing)


def _facts(tensor: Tensor, layer: Layer | None, *, shares: bool) -> Iterator[Markup]:
    others = [name for name in tensor.consumers if layer is None or name != layer.name]
    role = f" ({tensor.role})" if tensor.role else ""
    method = f", by {tensor.method}" if tensor.method else ""
    facts: list[tuple[str, Sequence[Content]]] = [
        ("tensor" if layer is None else "input", [element("code", {}, tensor.name), role] if tensor.name else []),
        ("made by", [element("code", {}, tensor.producer)] if tensor.producer else []),
        ("read by" if layer is None else "also read by", [element("code", {}, ", ".join(others))] if others else []),
        ("observed", [range_text(tensor.observed)] if tensor.observed is not None else []),
        ("chosen range", [range_text(tensor.range), method] if tensor.range is not None else []),
        ("two halves", [" and ".join(range_text(half) for half in tensor.halves)] if tensor.halves is not None else []),
    ]
    values = (tensor.saturated, tensor.utilisation, tensor.unsettled) if shares else ()
    facts += [(key, [share(value)]) for key, value in zip(_HEADS[-3:], values, strict=False) if value is not None]
    for key, content in facts:
        if content:
            yield element("dt", {}, key)
            yield element("dd", {}, *content)
