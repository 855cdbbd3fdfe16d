"""Which engine is opened: one from the bundle only where it is trusted, else one from the cache, built once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgekit.bundle import read_bundle
from edgekit.errors import UserError
from edgekit.runtime.model import check_self_test, open_entry
from tests.gpu.grounds import QUIET, Machine, check


def entries(cache: Path) -> dict[str, tuple[int, int]]:
    """The engines in a cache: name to inode and size; a new engine has another inode."""
    found = {path.name: path.stat() for path in cache.glob("tensorrt/*.engine")}
    return {name: (facts.st_ino, facts.st_size) for name, facts in found.items()}


def test_an_engine_is_built_once(machine: Machine, tmp_path: Path) -> None:
    cache, before = tmp_path / "cache", machine.builds()
    started = time.perf_counter()
    with machine.load(cache=cache) as model:
        check(model)
    first_s = time.perf_counter() - started
    kept = entries(cache)
    assert len(kept) == 1
    started = time.perf_counter()
    # A second load that may not build must find it.
    with machine.load(cache=cache, build=False) as model:
        check(model)
    assert time.perf_counter() - started < first_s
    assert entries(cache) == kept
    with machine.load(cache=cache) as model:
        check(model)
    assert entries(cache) == kept
    if before is not None:
        assert machine.builds() == before + 1


def test_why_an_engine_was_built_is_said_once(machine: Machine, tmp_path: Path) -> None:
    bundle = read_bundle(machine.bundles[0])
    reasons = []
    for _ in range(2):
        session, why = open_entry(
            bundle,
            bundle.manifest.entries[0],
            threads=None,
            streams=None,
            cache_dir=tmp_path / "cache",
            trusted=False,
            build=True,
            progress=QUIET,
        )
        session.close()
        reasons.append(why)
    assert reasons == ["it was not built here before", ""]


def test_a_plan_in_the_bundle_is_opened_only_when_it_is_trusted(machine: Machine, tmp_path: Path) -> None:
    engine = read_bundle(machine.bundles[0]).manifest.entries[0].engine
    if machine.ground.target != "rtx":
        assert engine is None
        pytest.skip("bundles for this target carry no plan")
    assert engine is not None
    cache, before = tmp_path / "cache", machine.builds()
    with pytest.raises(UserError, match="no engine for this machine") as caught:
        machine.load(cache=cache, build=False)
    assert "--trust-plan" in str(caught.value.hint)
    assert entries(cache) == {}
    with machine.load(cache=cache, build=False, trust_plan=True) as model:
        check(model)
    # It came out of the bundle: nothing was built, nothing was kept.
    assert entries(cache) == {}
    if before is not None:
        assert machine.builds() == before
    with machine.load(cache=cache) as model:
        check(model)
    assert len(entries(cache)) == 1


def test_every_precision_answers_as_its_program_did(machine: Machine) -> None:
    for path in machine.bundles:
        bundle = read_bundle(path)
        assert {entry.precision for entry in bundle.manifest.entries} == {"int8", "fp16"}
        for entry in bundle.manifest.entries:
            session, _ = open_entry(
                bundle,
                entry,
                threads=None,
                streams=None,
                cache_dir=machine.cache,
                trusted=False,
                build=True,
                progress=QUIET,
            )
            with session:
                assert session.describe()["device"]
                assert check_self_test(bundle, entry, session)
