"""The histogram and the overview: where things are drawn, in numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from edgekit.diagnostics import parse_diagnoses
from edgekit.diagnostics.histogram import histogram_svg
from edgekit.diagnostics.overview import overview_svg
from tests.diagnostics.conftest import Page
from tests.diagnostics.reports import SCHEME, make_diagnosis

Read = Callable[[str], Page]

EDGES = [float(edge) for edge in range(-2, 9)]
TENSOR = {
    "name": "relu",
    "observed": [-2, 8],
    "range": [0, 6],
    "saturated": 0.0123,
    "halves": [[0, 5.5], [0, 6.5]],
    "histogram": {"edges": EDGES, "counts": [3, 0, 9, 99, 9, 1, 1, 1, 0, 5]},
}


def histogram(tensor: dict[str, Any], read: Read) -> Page:
    (found,) = parse_diagnoses({"diagnostics": {SCHEME: {"tensors": [tensor]}}})[SCHEME].tensors
    drawing = histogram_svg(found)
    assert drawing is not None
    return read(drawing.text)


def xs(page: Page, style: str) -> list[float]:
    """Returns all horizontal places of the paths of a class."""
    return [
        float(place)
        for node in page.all("path", class_=style)
        for place in re.findall(r"[MH](-?[\d.]+)", node.attributes["d"])
    ]


def scale(page: Page) -> Callable[[float], float]:
    """Returns where a value is drawn: the line of the observed range spans known values."""
    left, right = xs(page, "observed")[:2]
    return lambda value: left + (value + 2) / 10 * (right - left)


def test_the_chosen_range_is_drawn_where_it_is(read: Read) -> None:
    page = histogram(TENSOR, read)
    x = scale(page)
    (band,) = page.all("rect", class_="band")
    start = float(band.attributes["x"])
    assert start == pytest.approx(x(0), abs=0.2)
    assert start + float(band.attributes["width"]) == pytest.approx(x(6), abs=0.2)
    assert xs(page, "chosen")[:2] == pytest.approx([x(0), x(6)], abs=0.2)
    assert xs(page, "half")[:2] == pytest.approx([x(0), x(5.5)], abs=0.2)


def test_only_bins_outside_have_the_other_colour(read: Read) -> None:
    page = histogram(TENSOR, read)
    x = scale(page)
    outside = xs(page, "out")
    assert outside == pytest.approx([x(-2), x(-1), x(7), x(8)], abs=0.2)
    assert min(xs(page, "in")) == pytest.approx(x(0), abs=0.2)
    assert max(xs(page, "in")) == pytest.approx(x(6), abs=0.2)
    wide = histogram({**TENSOR, "range": [-2, 8]}, read)
    assert wide.all("path", class_="out") == []


def test_a_bin_that_the_range_cuts_is_not_called_outside(read: Read) -> None:
    page = histogram({**TENSOR, "range": [2.4, 2.6]}, read)
    x = scale(page)
    assert xs(page, "in") == pytest.approx([x(2), x(3)], abs=0.2)


def test_counts_are_drawn_by_their_logarithm(read: Read) -> None:
    page = histogram(TENSOR, read)
    ys = [float(y) for y in re.findall(r"V([\d.]+)", page.all("path", class_="in")[0].attributes["d"])]
    floor, top = max(ys), min(ys)
    # The counts 9 and 99 plus one are 10 and 100: half as high, as the logarithm of what is drawn is.
    assert (floor - ys[0]) / (floor - top) == pytest.approx(0.5, abs=0.01)


def test_the_text_alternative_has_the_numbers(read: Read) -> None:
    (drawing,) = histogram(TENSOR, read).all("svg")
    assert drawing.attributes["role"] == "img"
    words = drawing.attributes["aria-label"]
    for part in ("relu", "[-2, 8]", "[0, 6]", "1.2 % of the values outside"):
        assert part in words


@pytest.mark.parametrize("value", [0.0, 3.0, -1e-30, 1e140], ids=repr)
def test_a_constant_tensor_is_one_bar_within_the_drawing(value: float, read: Read) -> None:
    constant = {"name": "t", "observed": [value, value], "range": [value, value]}
    constant["histogram"] = {"edges": [value] * 65, "counts": [0] * 32 + [7] + [0] * 31}
    page = histogram(constant, read)
    left, right = xs(page, "in")
    assert 58 < left < right < 390
    assert 1 <= right - left <= 3


@pytest.mark.parametrize("counts", [[0] * 10, None])
def test_a_tensor_without_values_says_so(counts: list[int] | None, read: Read) -> None:
    tensor = {**TENSOR, "histogram": None if counts is None else {"edges": EDGES, "counts": counts}}
    page = histogram(tensor, read)
    assert ("no values" if counts else "no histogram") in {node.text for node in page.all("text")}
    assert page.all("path", class_="in") == []


def test_a_tensor_of_which_nothing_is_known_is_not_drawn() -> None:
    (tensor,) = parse_diagnoses({"diagnostics": {SCHEME: {"tensors": [{"name": "t"}]}}})[SCHEME].tensors
    assert histogram_svg(tensor) is None


@pytest.mark.parametrize("spread", [1e-300, 1e-9, 1.0, 1e9, 1e149])
@pytest.mark.parametrize("centre", [0.0, 1.0, -1e149])
def test_nothing_is_drawn_outside_of_the_drawing(centre: float, spread: float, read: Read) -> None:
    edges = [centre + spread * (index - 5) / 5 for index in range(11)]
    page = histogram({**TENSOR, "observed": None, "halves": None, "range": [edges[0], edges[4]],
                      "histogram": {"edges": edges, "counts": [1] * 10}}, read)  # fmt: skip
    places = [
        *xs(page, "in"),
        *xs(page, "out"),
        *xs(page, "chosen"),
        *(float(t.attributes["x"]) for t in page.all("text")),
    ]
    assert min(places) >= 0
    assert max(places) <= 400


def overview(diagnosis: dict[str, Any], read: Read) -> Page:
    drawing = overview_svg(parse_diagnoses({"diagnostics": {SCHEME: diagnosis}})[SCHEME], prefix="p-")
    assert drawing is not None
    return read(drawing.text)


def test_the_overview_has_a_bar_for_each_layer_in_the_graph_s_order(read: Read) -> None:
    diagnosis = make_diagnosis(20)
    page = overview(diagnosis, read)
    links = [node for node in page.all("a") if not node.text.startswith("rank")]
    assert [link.attributes["href"] for link in links] == [f"#p-{index}" for index in range(20)]
    bars = page.all("rect", class_="own")
    places = [float(bar.attributes["x"]) for bar in bars]
    assert places == sorted(places)
    heights = [float(bar.attributes["height"]) for bar in bars]
    own = [layer["own_sqnr_db"] for layer in diagnosis["layers"] if layer["own_sqnr_db"] is not None]
    ratio = heights[0] / own[0]
    assert heights == pytest.approx([ratio * value for value in own], abs=0.2)


@pytest.mark.parametrize("ranks", [range(1, 301), range(300, 0, -1)], ids=["left", "right"])
def test_the_worst_carry_their_rank_and_do_not_cover_each_other(ranks: range, read: Read) -> None:
    layers = [{"name": "l", "precision": "int8", "own_sqnr_db": 30.0, "rank": rank} for rank in ranks]
    badges = overview({"layers": layers}, read).all("text", class_="badge")
    places = [float(badge.attributes["x"]) for badge in badges]
    assert [badge.text for badge in badges] == [str(rank) for rank in ranks if rank <= 8]
    assert min(right - left for left, right in pairwise(places)) >= 19.9
    assert min(places) >= 49.9
    assert max(places) <= 991


def test_the_accumulated_line_breaks_where_a_number_is_missing(read: Read) -> None:
    values = [30, 29, None, 28, None, 27, 26]
    layers = [{"name": "l", "precision": "int8", "accumulated_sqnr_db": value} for value in values]
    (line,) = overview({"layers": layers}, read).all("path", class_="accumulated")
    assert re.sub(r"[^MLh]", "", line.attributes["d"]) == "MhLMhMhL"


def test_an_overview_of_absurd_numbers_stays_within_its_borders(read: Read) -> None:
    layers = [
        {"name": "l", "precision": "int8", "own_sqnr_db": v, "accumulated_sqnr_db": -v} for v in (1e100, -1e100, 0.0)
    ]
    page = overview({"layers": layers}, read)
    for bar in page.all("rect", class_="own"):
        assert 0 <= float(bar.attributes["y"]) <= 260
        assert float(bar.attributes["y"]) + float(bar.attributes["height"]) <= 260
