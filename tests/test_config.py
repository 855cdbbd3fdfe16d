from __future__ import annotations

import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.config import from_dict, nearest, read_toml, to_dict
from edgekit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: tuple[int, int]
    ratio: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    mode: Literal["fast", "slow"] = "fast"
    bits: Literal[7, 8] = 8
    flag: bool = False
    limit: int | None = None
    labels: tuple[str, ...] | str = ()
    table: dict[str, float] = field(default_factory=dict)
    inner: Inner | None = None
    parts: tuple[Inner, ...] = ()
    free: Any = None

    def __post_init__(self) -> None:
        if self.name == "":
            raise ConfigError("name: empty", hint="give one")


WORDS = st.text(string.ascii_letters + " -_.é", min_size=1, max_size=12)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
INNERS = st.builds(Inner, size=st.tuples(st.integers(), st.integers()), ratio=FLOATS)
OUTERS = st.builds(
    Outer,
    name=WORDS,
    mode=st.sampled_from(["fast", "slow"]),
    bits=st.sampled_from([7, 8]),
    flag=st.booleans(),
    limit=st.none() | st.integers(),
    labels=WORDS | st.lists(WORDS).map(tuple),
    table=st.dictionaries(WORDS, FLOATS),
    inner=st.none() | INNERS,
    parts=st.lists(INNERS, max_size=3).map(tuple),
    free=st.none() | st.integers() | WORDS,
)


@given(OUTERS)
def test_from_dict_undoes_to_dict(spec: Outer) -> None:
    assert from_dict(Outer, to_dict(spec), where="x") == spec


@given(OUTERS, WORDS)
def test_any_unknown_key_is_refused_by_name(spec: Outer, key: str) -> None:
    data = to_dict(spec)
    if key in data:
        return
    with pytest.raises(ConfigError, match="unknown key") as caught:
        from_dict(Outer, {**data, key: 1}, where="x")
    assert key in caught.value.message
    assert caught.value.hint is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["name", "mode", "bits", "flag", "limit", "labels", "table", "inner"]), JSON))
def test_any_data_is_read_or_refused_with_its_place(data: dict[str, Any]) -> None:
    try:
        spec = from_dict(Outer, data, where="file.toml")
    except ConfigError as error:
        problem = error.message
    else:
        problem = "file.toml: none"
        assert isinstance(spec.name, str)
        assert isinstance(spec.flag, bool)
        assert spec.bits in (7, 8)
        assert not isinstance(spec.limit, bool)
    assert problem.startswith("file.toml: ")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, "x: missing key 'name'"),
        ({"name": 3}, "x: name: expected str, got an integer (3)"),
        ({"name": "a", "mode": "quick"}, "x: mode: expected one of 'fast', 'slow', got 'quick'"),
        ({"name": "a", "bits": True}, "x: bits: expected one of 7, 8, got True"),
        ({"name": "a", "bits": 8.0}, "x: bits: expected one of 7, 8, got 8.0"),
        ({"name": "a", "limit": True}, "x: limit: expected int, got a boolean (True)"),
        ({"name": "a", "flag": 1}, "x: flag: expected bool, got an integer (1)"),
        ({"name": "a", "inner": {"size": [1]}}, "x: inner.size: expected 2 values, got 1"),
        ({"name": "a", "inner": {"size": [1, "b"]}}, "x: inner.size[1]: expected int, got a string ('b')"),
        ({"name": "a", "parts": [{"size": [1, 2], "ratoi": 1}]}, "x: unknown key 'parts[0].ratoi'"),
        ({"name": "a", "table": {"k": "v"}}, "x: table.k: expected float, got a string ('v')"),
        ({"name": "a", "inner": 4}, "x: inner: expected a table, got an integer (4)"),
        ({"name": ""}, "x: name: empty"),
    ],
)
def test_messages_say_where_and_what(data: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict(Outer, data, where="x")
    assert caught.value.message == expected


def test_an_integer_serves_as_a_float_but_not_the_reverse() -> None:
    assert from_dict(Inner, {"size": [1, 2], "ratio": 3}, where="x").ratio == 3.0
    with pytest.raises(ConfigError, match=r"size\[0\]: expected int"):
        from_dict(Inner, {"size": [1.0, 2]}, where="x")


def test_the_hint_names_the_nearest_word() -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict(Outer, {"name": "a", "lables": []}, where="x")
    assert caught.value.hint == "did you mean 'labels'?"
    assert nearest("zzz", ["b", "a"]) == "known: a, b"


def test_read_toml_reports_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.toml: cannot read"):
        read_toml(tmp_path / "no.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("a = [1,\n")
    with pytest.raises(ConfigError, match=r"broken\.toml: not valid TOML"):
        read_toml(broken)
    broken.write_bytes(b"a = '\xff'\n")
    with pytest.raises(ConfigError, match=r"broken\.toml: not valid TOML"):
        read_toml(broken)
    with pytest.raises(ConfigError, match="cannot read"):
        read_toml(tmp_path)
