"""Of several processes that ``torchrun`` started, one speaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from edgekit.cli.processes import Place, place


def compile_nothing(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgekit", "compile", "no.pt2", "--task", "no.toml", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )


def test_a_process_alone_has_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "3")
    assert place() == Place(rank=0, size=1)
    assert not place().follows
    assert place().prefix == ""


def test_number_0_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    assert (place().follows, place().prefix) == (False, "")
    monkeypatch.setenv("RANK", "3")
    assert (place().follows, place().prefix) == (True, "process 3 of 4: ")


def test_an_error_is_one_document_and_says_which_process_it_is_from() -> None:
    first, second = (compile_nothing(WORLD_SIZE="2", RANK=rank) for rank in ("0", "1"))
    assert (first.returncode, second.returncode) == (2, 2)
    assert json.loads(first.stdout)["exit_code"] == 2
    assert first.stderr.startswith("error: ")
    assert second.stdout == ""
    assert second.stderr.startswith("process 1 of 2: error: ")
