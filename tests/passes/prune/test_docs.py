"""The table of the documentation is the table of the rules."""

from __future__ import annotations

from pathlib import Path

from edgekit.passes.prune.rules import FAMILIES, TABLE

PAGE = Path(__file__).resolve().parents[3] / "docs" / "pruning.md"


def test_every_family_has_its_row_and_every_row_its_family() -> None:
    rows = [line.split("|")[1].strip() for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert rows[rows.index("operators") + 1 :] == [family.title for family in FAMILIES]


def test_no_operator_is_in_two_families() -> None:
    assert sum(len(family.operators) for family in FAMILIES) == len(TABLE)
