"""The head of the page: which engines were tried for each target, what was measured, and why each ships or does not."""

from __future__ import annotations

from collections.abc import Iterator

from edgekit.diagnostics.markup import Markup, element
from edgekit.diagnostics.records import Candidate, Headline, TargetSummary
from edgekit.diagnostics.words import UNKNOWN, bytes_text, interval_text

__all__ = ["target_sections"]

_STATUSES = ("shipped", "passed", "rejected", "failed")
_HEADS = ("candidate", "", "accuracy", "drop, points", "median ms", "time / float", "engine", "layers ran as", "why")
_NUMBERS = ("accuracy", "drop, points", "median ms", "time / float", "engine")


def target_sections(headline: Headline) -> Iterator[Markup]:
    """Lays out a table of candidates for each target."""
    for target in headline.targets:
        heads = [element("th", {"class": "num" if head in _NUMBERS else "text"}, head) for head in _HEADS]
        rows = [element("tr", {}, *_cells(candidate)) for candidate in target.candidates]
        rows += [] if headline.float_accuracy is None else [element("tr", {}, *_reference(headline))]
        whole = element("table", {}, element("thead", {}, element("tr", {}, *heads)), element("tbody", {}, *rows))
        scroll = element(
            "div", {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": "candidates"}, whole
        )
        found = [
            element("p", {}, element("span", {"class": "mark finding"}, "finding"), f" {candidate.precision}: {line}")
            for candidate in target.candidates
            for line in candidate.findings
        ]
        yield element("section", {"class": "card"}, *_title(target), scroll, *found)


def _title(target: TargetSummary) -> Iterator[Markup]:
    title = f" {target.title}" if target.title and target.title != target.target else ""
    name = element("code", {}, target.target)
    yield element("p", {}, element("b", {}, name), element("span", {"class": "soft"}, title))
    ships = " and ".join(target.shipped)
    why = f": {target.why}" if target.why else ""
    if ships:
        yield element("p", {}, "ships ", element("b", {}, ships), why)


def _cells(candidate: Candidate) -> Iterator[Markup]:
    status = candidate.status
    mark = element("span", {"class": f"mark {status if status in _STATUSES else 'passed'}"}, status)
    accuracy = UNKNOWN if candidate.accuracy is None else f"{100 * candidate.accuracy:.2f} %"
    drop = interval_text(candidate.drop, 2) + (" simulated" if candidate.simulated else "")
    numbers = [
        accuracy,
        drop,
        UNKNOWN if candidate.p50_ms is None else f"{candidate.p50_ms:.3f}",
        interval_text(candidate.ratio, 3),
        bytes_text(candidate.engine_bytes),
    ]
    yield element("td", {}, element("b", {}, candidate.precision))
    yield element("td", {}, mark if status else "")
    for number in numbers:
        yield element("td", {"class": "num"}, number)
    yield element("td", {}, ", ".join(f"{count} {precision}" for precision, count in candidate.counts.items()))
    yield element("td", {"class": "why"}, candidate.reason)


def _reference(headline: Headline) -> Iterator[Markup]:
    accuracy = "" if headline.float_accuracy is None else f"{100 * headline.float_accuracy:.2f} %"
    images = "" if headline.evaluation_images is None else f" of {headline.evaluation_images:,} images"
    yield element("td", {}, "float program")
    yield element("td", {}, element("span", {"class": "mark passed"}, "reference"))
    yield element("td", {"class": "num"}, accuracy)
    yield element("td", {"class": "soft", "colspan": str(len(_HEADS) - 3)}, f"{headline.metric}{images}")
