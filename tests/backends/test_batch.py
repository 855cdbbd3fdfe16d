"""What a user may say about batch sizes, and what is answered to the rest."""

from __future__ import annotations

from typing import Any

import pytest

from edgekit.backends.batch import LARGEST_BATCH, BatchRange, parse_batch
from edgekit.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        (8, (1, 8, 8)),
        ("8", (1, 8, 8)),
        (" 8 ", (1, 8, 8)),
        (1, (1, 1, 1)),
        ("1/4/16", (1, 4, 16)),
        ((1, 4, 16), (1, 4, 16)),
        ([1, 1, 8], (1, 1, 8)),
        (str(LARGEST_BATCH), (1, LARGEST_BATCH, LARGEST_BATCH)),
    ],
)
def test_a_number_is_the_largest_and_three_are_a_range(given: Any, sizes: tuple[int, int, int]) -> None:
    assert parse_batch(given).sizes == sizes


@pytest.mark.parametrize(
    "given", ["a", "", "1/4", "1//4", "1/4/16/32", "-1", "8.0", "1e3", "٣", (), (1, 4), (1, 2.0, 4), True, (True, 4, 8)]
)
def test_another_form_is_refused_with_an_example(given: Any) -> None:
    with pytest.raises(
        ConfigError, match="batch: expected a number of images, or smallest/best/largest, got"
    ) as caught:
        parse_batch(given)
    assert repr(given) in caught.value.message
    assert "1/4/16" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("given", "shown"),
    [("0", "1/0/0"), ("4/1/2", "4/1/2"), ("1/8/4", "1/8/4"), ("0/1/2", "0/1/2"), (-8, "1/-8/-8"), ("65537", "1/65537")],
)
def test_numbers_that_are_no_range_are_refused(given: Any, shown: str) -> None:
    with pytest.raises(ConfigError, match="batch: expected 1 <= smallest <= best <= largest <= 65536, got") as caught:
        parse_batch(given)
    assert shown in caught.value.message


def test_the_smallest_is_one_because_frames_come_one_by_one() -> None:
    with pytest.raises(ConfigError, match="the smallest must be 1, got 4/8/16: a call with one frame") as caught:
        parse_batch("4/8/16")
    assert caught.value.hint == "1/8/16"


def test_a_range_is_shown_as_it_is_given() -> None:
    assert str(BatchRange(smallest=1, best=4, largest=16)) == "1/4/16"
