from __future__ import annotations

import pytest

from edgekit.table import output_width, pairs, table


def test_columns_line_up_and_numbers_end_where_their_title_ends() -> None:
    lines = table(["name", "ms"], [["int8", "0.10"], ["float32", "12.00"]], right=["ms"]).splitlines()
    assert lines == ["name        ms", "-------  -----", "int8      0.10", "float32  12.00"]


def test_no_line_is_wider_than_asked_and_no_word_is_lost() -> None:
    source = "a long sentence that says where the number is written and must be read in full"
    text = table(["figure", "value", "source"], [["memory", "8 GB", source]], right=["value"], width=40)
    assert max(map(len, text.splitlines())) <= 40
    assert set(source.split()) <= set(text.split())


def test_a_number_never_wraps() -> None:
    text = table(["what", "count"], [["a b c d e f g h i j k l m n", "123456789012"]], right=["count"], width=24)
    assert "123456789012" in text


def test_an_unbreakable_word_is_broken_and_not_lost() -> None:
    digest = "0123456789abcdef" * 4
    text = table(["file", "bytes"], [[digest, "1"]], right=["bytes"], width=30)
    assert max(map(len, text.splitlines())) <= 30
    assert "".join(line.split()[0] for line in text.splitlines()[2:]) == digest


def test_without_a_width_nothing_wraps() -> None:
    assert len(table(["a"], [["x" * 500]]).splitlines()) == 3


def test_a_table_without_rows_is_its_header() -> None:
    assert table(["name", "ms"], []).splitlines() == ["name  ms", "----  --"]


def test_pairs_wrap_below_the_value() -> None:
    assert pairs([("note", "one two three"), ("x", "")], width=14).splitlines() == ["note  one two", "      three", "x"]
    assert pairs([]) == ""


def test_a_pipe_has_no_width_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert output_width() is None
    monkeypatch.setenv("COLUMNS", "72")
    assert output_width() == 72
