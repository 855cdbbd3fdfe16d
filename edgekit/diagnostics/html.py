"""The diagnoses as one HTML file that stands alone: style and drawings are inside, nothing is fetched from anywhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence

from edgekit.diagnostics.candidates import target_sections
from edgekit.diagnostics.details import Anchors, layer_rows, tensor_rows
from edgekit.diagnostics.markup import Content, Markup, element, joined, void
from edgekit.diagnostics.overview import overview_svg
from edgekit.diagnostics.records import Correction, Diagnosis, Finding, Headline
from edgekit.diagnostics.style import SCRIPT, STYLE
from edgekit.diagnostics.words import UNKNOWN, decibel

__all__ = ["page"]

_GLOSSARY = (
    (
        "SQNR",
        "power of the float values over the power of their difference to the quantized ones, in dB. At 20 dB the "
        "difference has a hundredth of the power, at 40 dB a ten-thousandth: more is better.",
    ),
    ("own", "this layer alone is quantized and reads float values: what it costs by itself."),
    ("accumulated", "everything is quantized: what has gathered up to here."),
    ("outside range", "share of the observed values that the chosen range cuts off."),
    ("range used", "how much of the chosen range the values fill."),
    ("unsettled", "relative change of the range between the two halves of the calibration images."),
)


def page(headline: Headline, diagnoses: Sequence[Diagnosis], *, opened: int) -> str:
    """Lays out the page.

    The page may load nothing and run no script but its own, so that even a forged report could do no harm.

    Args:
        headline: The model and its candidates.
        diagnoses: One section each.
        opened: How many of the worst layers show their details from the start; the others open on a click.

    Returns:
        The document; the same for the same arguments.
    """
    name = headline.name if headline.name else "unnamed model"
    head = [
        void("meta", {"charset": "utf-8"}),
        void("meta", {"http-equiv": "Content-Security-Policy", "content": _policy()}),
        void("meta", {"name": "viewport", "content": "width=device-width,initial-scale=1"}),
        element("title", {}, f"{name}: quantization diagnostics"),
        element("style", {}, Markup(STYLE)),
    ]
    sections = [section for number, item in enumerate(diagnoses) for section in _diagnosis(item, number, opened)]
    body = [
        element("header", {}, *_header(name, headline, diagnoses)),
        element("main", {}, *target_sections(headline), *sections),
        element("footer", {}, *_explanation()),
        element("script", {}, Markup(SCRIPT)),
    ]
    whole = element("html", {"lang": "en"}, element("head", {}, *head), element("body", {}, *body))
    return f"<!doctype html>\n{whole.text}\n"


def _policy() -> str:
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"


def _header(name: str, headline: Headline, diagnoses: Sequence[Diagnosis]) -> Iterator[Markup]:
    yield element("p", {"class": "eyebrow"}, "Quantization diagnostics")
    yield element("h1", {}, name)
    images = headline.calibration_images
    words = [] if images is None else [f"calibrated on {images:,} images"]
    words += [f"{len(diagnoses)} int8 programs"] if len(diagnoses) > 1 else []
    if words:
        yield element("p", {"class": "soft"}, "; ".join(words))
    if len(diagnoses) > 1:
        links = [element("a", {"href": f"#s{number}"}, item.scheme) for number, item in enumerate(diagnoses)]
        yield element("nav", {}, *(element("p", {}, link) for link in links))


def _diagnosis(diagnosis: Diagnosis, number: int, opened: int) -> Iterator[Markup]:
    anchors = Anchors(number=number)
    yield element("h2", {"id": f"s{number}"}, diagnosis.scheme)
    yield element("div", {"class": "tiles"}, *_tiles(diagnosis, anchors))
    yield from _findings(diagnosis, anchors)
    yield from _overview(diagnosis, anchors)
    yield from _layers(diagnosis, anchors, opened)
    yield from _left_float(diagnosis, anchors)
    tensors = list(tensor_rows(diagnosis, anchors))
    if tensors:
        yield element("h3", {}, f"Other quantized tensors ({len(diagnosis.unclaimed_tensors)})")
        yield element("div", {"class": "rows"}, *tensors)
    yield from _corrections(diagnosis)


def _tiles(diagnosis: Diagnosis, anchors: Anchors) -> Iterator[Markup]:
    total = len(diagnosis.layers)
    if diagnosis.outputs:
        worst = min(diagnosis.outputs, key=lambda output: float("inf") if output.sqnr_db is None else output.sqnr_db)
        several = f"the lowest of {len(diagnosis.outputs)}: {worst.name}" if len(diagnosis.outputs) > 1 else ""
        images = "" if diagnosis.images is None else f"on {diagnosis.images} held-out images"
        note = "; ".join(part for part in (several, images) if part)
        value = UNKNOWN if worst.sqnr_db is None else f"{decibel(worst.sqnr_db)} dB"
        yield _tile("SQNR at the output", value, note)
    if total:
        yield _tile(
            "layers in int8", f"{diagnosis.int8_layers} of {total}", f"{total - len(diagnosis.worst_first)} left float"
        )
    if diagnosis.worst_first:
        layer = diagnosis.worst_first[0]
        link = element("a", {"href": f"#{anchors.layer(layer)}"}, element("code", {}, layer.name))
        yield _tile("most guilty layer", link, f"own SQNR {decibel(layer.own_sqnr_db)} dB")
    yield _tile("findings", str(len(diagnosis.findings)), "each with what helps" if diagnosis.findings else "")


def _tile(key: str, value: Content, note: str) -> Markup:
    small = [element("small", {}, note)] if note else []
    return element("dl", {"class": "tile"}, element("dt", {}, key), element("dd", {}, value, *small))


def _findings(diagnosis: Diagnosis, anchors: Anchors) -> Iterator[Markup]:
    if not diagnosis.findings:
        return
    places = _places(diagnosis, anchors)
    yield element("h3", {}, f"Findings ({len(diagnosis.findings)})")
    yield element("ul", {"class": "findings"}, *(_finding(finding, places) for finding in diagnosis.findings))


def _finding(finding: Finding, places: Mapping[str, str]) -> Markup:
    title: list[Content] = [element("b", {}, finding.what)]
    if finding.where in places:
        title += [" ", element("a", {"href": f"#{places[finding.where]}"}, element("code", {}, finding.where))]
    elif finding.where:
        title += [" ", element("code", {}, finding.where)]
    parts = [element("p", {}, *title)]
    parts += [element("p", {}, finding.why)] if finding.why else []
    parts += [element("p", {"class": "soft"}, f"What helps: {finding.help}")] if finding.help else []
    return element("li", {}, *parts)


def _places(diagnosis: Diagnosis, anchors: Anchors) -> dict[str, str]:
    """Name of a layer, node or tensor to where it stands on the page; a layer's own name is preferred."""
    places: dict[str, str] = {}
    for tensor in diagnosis.unclaimed_tensors:
        places[tensor.name] = anchors.tensor(tensor)
    for layer in reversed(diagnosis.worst_first):
        places |= {tensor.name: anchors.layer(layer) for tensor in diagnosis.inputs_of(layer)}
    for layer in reversed(diagnosis.worst_first):
        places |= {layer.node: anchors.layer(layer), layer.name: anchors.layer(layer)}
    return {name: place for name, place in places.items() if name}


def _overview(diagnosis: Diagnosis, anchors: Anchors) -> Iterator[Markup]:
    drawing = overview_svg(diagnosis, prefix=anchors.layer_prefix)
    if drawing is None:
        return
    yield element("h3", {}, "All layers")
    keys = [("own", "own SQNR: this layer alone in int8"), ("joint", "accumulated SQNR: all layers in int8")]
    keys += [("float", "left float")] if diagnosis.left_float else []
    keys += [("badge", "rank of the worst")]
    scroll = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": "SQNR of all layers"}
    yield element("figure", {"class": "card"}, element("div", scroll, drawing), _legend(keys))


def _legend(keys: Sequence[tuple[str, str]]) -> Markup:
    return element(
        "ul", {"class": "legend"}, *(element("li", {"class": key}, element("i"), words) for key, words in keys)
    )


def _layers(diagnosis: Diagnosis, anchors: Anchors, opened: int) -> Iterator[Markup]:
    if not diagnosis.worst_first:
        return
    name = f"s{anchors.number}-rows"
    options = [
        element("option", {"value": value}, words)
        for value, words in (("worst", "worst first"), ("graph", "graph order"))
    ]
    tools = [
        void("input", {"type": "search", "placeholder": "filter by name", "aria-label": "filter layers by name"}),
        element("select", {"aria-label": "order of the layers"}, *options),
        element("button", {"type": "button"}, "open or close all"),
    ]
    yield element("h3", {}, "int8 layers, the worst first")
    yield element(
        "p", {"class": "soft"}, "Each opens to its input: how often each value was seen, on a logarithmic axis."
    )
    keys = [("shade", "the chosen range"), ("own", "values inside"), ("cut", "values outside, cut off")]
    yield _legend(keys)
    yield element("div", {"class": "tools", "hidden": "", "data-list": name}, *tools)
    yield element("div", {"class": "rows", "id": name}, *layer_rows(diagnosis, anchors, opened=opened))


def _left_float(diagnosis: Diagnosis, anchors: Anchors) -> Iterator[Markup]:
    if not diagnosis.left_float:
        return
    rows = []
    for reason, layers in diagnosis.left_float.items():
        names = [
            part for layer in layers for part in (", ", element("code", {"id": anchors.layer(layer)}, layer.name))
        ][1:]
        cells = [element("td", {"class": "num"}, str(len(layers))), element("td", {}, reason if reason else UNKNOWN)]
        rows.append(element("tr", {}, *cells, element("td", {}, *names)))
    total = sum(len(layers) for layers in diagnosis.left_float.values())
    yield element("h3", {}, f"Left float ({total})")
    yield _table((("count", "num"), ("reason", "text"), ("layers", "text")), rows)


def _corrections(diagnosis: Diagnosis) -> Iterator[Markup]:
    stages: dict[str, list[Correction]] = {}
    for correction in diagnosis.corrections:
        stages.setdefault(correction.stage, []).append(correction)
    if not stages:
        return
    yield element("h3", {}, "Corrections")
    yield element("p", {"class": "soft"}, "Gains are measured on data that the correction was not fitted on.")
    for stage, corrections in stages.items():
        kept = sum(1 for item in corrections if item.kept)
        ordered = sorted(corrections, key=lambda item: float("inf") if item.gain_db is None else -item.gain_db)
        title = element("summary", {}, element("b", {}, stage), f": kept on {kept} of {len(corrections)} layers")
        rows = [element("tr", {}, *_correction_cells(item)) for item in ordered]
        heads = (("layer", "text"), ("gain, dB", "num"), ("", "text"))
        yield element("details", {"class": "card"}, title, _table(heads, rows))


def _correction_cells(correction: Correction) -> Iterator[Markup]:
    yield element("td", {}, element("code", {}, correction.layer))
    yield element("td", {"class": "num"}, UNKNOWN if correction.gain_db is None else f"{correction.gain_db:+.2f}")
    status = {True: "kept", False: "dropped", None: ""}[correction.kept]
    yield element("td", {}, element("span", {"class": f"mark {status}"}, status) if status else "")


def _table(heads: Sequence[tuple[str, str]], rows: Sequence[Markup]) -> Markup:
    titles = [element("th", {"class": style}, words) for words, style in heads]
    whole = element("table", {}, element("thead", {}, element("tr", {}, *titles)), element("tbody", {}, *rows))
    return element("div", {"class": "card scroll", "tabindex": "0"}, whole)


def _explanation() -> Iterator[Markup]:
    yield element("h2", {}, "How to read this page")
    facts = [
        part
        for key, words in _GLOSSARY
        for part in (element("dt", {}, element("b", {}, key)), element("dd", {}, words))
    ]
    yield element("dl", {"class": "card"}, joined(facts))
