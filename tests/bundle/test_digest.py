"""Canonical JSON: one content, one sequence of bytes; and the content digest says what it covers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.bundle.digest import canonical_json, content_digest, parse_json
from edgekit.errors import BundleError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
PLAIN = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=20
)
TABLES = st.dictionaries(TEXT, PLAIN, max_size=5)


@given(TABLES)
def test_what_is_written_is_read(table: dict[str, Any]) -> None:
    data = canonical_json(table, where="test")
    again = parse_json(data, where="test")
    assert again == table
    assert canonical_json(again, where="test") == data


@given(TABLES)
def test_the_order_of_keys_does_not_matter(table: dict[str, Any]) -> None:
    backwards = dict(reversed(list(table.items())))
    assert canonical_json(backwards, where="test") == canonical_json(table, where="test")


def test_the_form_is_the_documented_one() -> None:
    table = {"z": [1, -0.5, 1e-7, 1e16, True, None], "a": {'ü\n"': ""}}
    expected = b'{"a":{"\\u00fc\\n\\"":""},"z":[1,-0.5,1e-07,1e+16,true,null]}'
    assert canonical_json(table, where="test") == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, {"b": math.nan}]}, "test: a.1.b: expected a finite number, found nan"),
        ({"a": math.inf}, "test: a: expected a finite number"),
        ({"a": {1: 2}}, "test: a: expected text as key, found 1"),
        ({"a": np.float32(1)}, "test: a: JSON cannot carry a value of type float32"),
        ({"a": {1, 2}}, "JSON cannot carry a value of type set"),
        ({"a": b""}, "JSON cannot carry a value of type bytes"),
        ({"a": "\ud800"}, "test: a: a string that is no valid Unicode text"),
    ],
)
def test_what_json_cannot_carry_is_named_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        canonical_json(value, where="test")
    assert message in caught.value.message


def test_endless_nesting_is_an_error() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(BundleError, match="more than 64 nested levels"):
        canonical_json(loop, where="test")


def test_the_content_digest_covers_all_but_itself_and_the_report() -> None:
    table = {"name": "a", "files": {"report.json": {"sha256": "1"}, "graphs/x.onnx": {"sha256": "2"}}}
    digest = content_digest(table)
    assert content_digest({**table, "content_digest": "x"}) == digest
    assert content_digest({**table, "files": {**table["files"], "report.json": {"sha256": "9"}}}) == digest
    assert content_digest({**table, "files": {**table["files"], "graphs/x.onnx": {"sha256": "9"}}}) != digest
    assert content_digest({**table, "name": "b"}) != digest
