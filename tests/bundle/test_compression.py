"""Compressed engines: found as they were put in, and never more or other bytes than the manifest says."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.bundle import Bundle, bundle_from_bytes, compressed, extract, read_bundle, write_bundle
from edgekit.bundle.compression import LARGEST_RATIO, decompressed, largest_plain_bytes
from edgekit.errors import BundleError
from tests.bundle.conftest import COMMENT_BYTES, PLAN, Forge
from tests.bundle.test_structure import SWEEP

RECORDED = Path(__file__).parent / "recorded" / "format-1.0.edge"
Table = dict[str, Any]


@pytest.fixture(scope="module")
def packed_bytes(packed: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    data: bytes = packed.write(tmp_path_factory.mktemp("packed") / "model.edge")
    return data


@pytest.fixture(scope="module")
def packed_forge(packed_bytes: bytes) -> Forge:
    return Forge(original=packed_bytes)


def opened(data: bytes) -> Bundle:
    return bundle_from_bytes(data, path=Path("model.edge"))


def plan_of(bundle: Bundle) -> bytes:
    engine = bundle.manifest.entries[-1].engine
    assert engine is not None
    return bundle.engine_files(engine)["plan"]


def with_stream(forge: Forge, stream: bytes, size_bytes: int) -> bytes:
    """A bundle whose compressed file is another one, with every name, hash and digest made right for it."""
    table, contents = forge.manifest(), forge.contents()
    part = table["entries"][-1]["engine"]["zlib"]["plan"]
    digest = hashlib.sha256(stream).hexdigest()
    name = f"engines/{digest}.zlib"
    del table["files"][part["file"]], contents[part["file"]]
    table["files"][name] = {"sha256": digest, "size_bytes": len(stream)}
    part.update(file=name, size_bytes=size_bytes)
    manifest, rest = contents.pop("manifest.json"), {**contents, name: stream}
    ordered = {"manifest.json": manifest, **dict(sorted(rest.items()))}
    return Forge(original=forge.pack(ordered)).with_manifest(table)


def refusal(use: Callable[[], Any]) -> str:
    with pytest.raises(BundleError) as caught:
        use()
    assert "model.edge: " in caught.value.message
    return caught.value.message


def test_a_compressed_engine_comes_back_as_it_was(packed_bytes: bytes) -> None:
    bundle = opened(packed_bytes)
    assert plan_of(bundle) == PLAN
    here, there, ahead = bundle.manifest.entries
    assert there.engine is None
    assert here.engine is not None
    assert ahead.engine is not None
    assert bundle.engine_files(here.engine) == {role: bundle.read(name) for role, name in here.engine.files.items()}
    stored = bundle.manifest.files[ahead.engine.stored["plan"]].size_bytes
    assert stored < len(PLAN)
    assert len(bundle.read(ahead.engine.stored["plan"])) == stored


def test_every_flip_and_every_cut_is_refused_before_a_byte_is_unpacked(packed_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.edge"
    path.write_bytes(packed_bytes)
    unpacks_nothing = "import zlib\nzlib.decompressobj = zlib.decompress = None\n"
    done = subprocess.run(
        [sys.executable, "-c", unpacks_nothing + SWEEP, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    count = len(packed_bytes)
    assert json.loads(done.stdout) == {"tried": 2 * count + -(-count // 64), "accepted": 0, "loaded": []}


def test_every_flip_is_refused_even_when_the_digest_is_made_right_again(
    packed_bytes: bytes, seal: Callable[..., bytes]
) -> None:
    values = np.random.default_rng(1).integers(1, 256, len(packed_bytes))
    body = bytearray(packed_bytes[:-COMMENT_BYTES])
    for position in range(len(body)):
        body[position] ^= int(values[position])
        with pytest.raises(BundleError):
            opened(seal(bytes(body)))
        body[position] ^= int(values[position])


def test_a_changed_stream_with_all_hashes_made_right_gives_the_same_bytes_or_none(packed_forge: Forge) -> None:
    # The last line of defence: only the stream's own checksum and size can tell.
    stream = zlib.compress(PLAN)
    refused = 0
    for position in range(len(stream)):
        for bit in range(8):
            changed = bytearray(stream)
            changed[position] ^= 1 << bit
            try:
                assert decompressed(bytes(changed), size_bytes=len(PLAN), where="test") == PLAN
            except BundleError:
                refused += 1
    assert refused >= 8 * len(stream) - 16  # some bits of the two bytes in front, and some padding, say nothing
    half = bytearray(stream)
    half[len(stream) // 2] ^= 0xFF
    bundle = opened(with_stream(packed_forge, bytes(half), len(PLAN)))
    assert "zlib stream" in refusal(lambda: plan_of(bundle)) or "unpacks to" in refusal(lambda: plan_of(bundle))


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 50])
def test_a_cut_stream_is_refused(packed_forge: Forge, cut: int) -> None:
    bundle = opened(with_stream(packed_forge, zlib.compress(PLAN)[:-cut], len(PLAN)))
    assert "the zlib stream is cut" in refusal(lambda: plan_of(bundle))


def test_what_follows_the_stream_is_refused(packed_forge: Forge) -> None:
    bundle = opened(with_stream(packed_forge, zlib.compress(PLAN) + b"tail", len(PLAN)))
    assert "4 bytes follow the zlib stream" in refusal(lambda: plan_of(bundle))
    again = opened(with_stream(packed_forge, zlib.compress(PLAN) + zlib.compress(b"more"), len(PLAN)))
    assert "follow the zlib stream" in refusal(lambda: plan_of(again))


@pytest.mark.parametrize("stream", [b"no stream at all, only text", zlib.compress(PLAN)[2:-4]])
def test_what_is_no_stream_is_refused(packed_forge: Forge, stream: bytes) -> None:
    bundle = opened(with_stream(packed_forge, stream, 100))
    assert "not a valid zlib stream" in refusal(lambda: plan_of(bundle))


def test_a_stream_that_asks_for_a_dictionary_is_refused(packed_forge: Forge) -> None:
    packer = zlib.compressobj(zdict=b"kernel source text")
    stream = packer.compress(PLAN) + packer.flush()
    bundle = opened(with_stream(packed_forge, stream, len(PLAN)))
    assert "not a valid zlib stream" in refusal(lambda: plan_of(bundle))


@pytest.mark.parametrize(("declared", "message"), [(1, "more than the 1 bytes"), (len(PLAN) - 1, "more than the")])
def test_more_than_declared_is_refused(packed_forge: Forge, declared: int, message: str) -> None:
    bundle = opened(with_stream(packed_forge, zlib.compress(PLAN), declared))
    assert message in refusal(lambda: plan_of(bundle))


def test_less_than_declared_is_refused(packed_forge: Forge) -> None:
    bundle = opened(with_stream(packed_forge, zlib.compress(PLAN), len(PLAN) + 1))
    assert f"unpacks to {len(PLAN):,} bytes, expected {len(PLAN) + 1:,}" in refusal(lambda: plan_of(bundle))


def test_a_bomb_is_refused_and_takes_no_memory(packed_forge: Forge) -> None:
    bomb = zlib.compress(bytes(64 << 20))
    declared = largest_plain_bytes(len(bomb))
    assert declared < 64 << 20
    data = with_stream(packed_forge, bomb, declared)
    bundle = opened(data)
    tracemalloc.start()
    message = refusal(lambda: plan_of(bundle))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "unpacks to more than" in message
    assert peak < 2 * declared + len(bomb) + (1 << 20)


@pytest.mark.parametrize("excess", [1, 1 << 40])
def test_a_declared_size_beyond_the_ratio_is_refused_unread(packed_forge: Forge, excess: int) -> None:
    stream = zlib.compress(PLAN)
    data = with_stream(packed_forge, stream, LARGEST_RATIO * len(stream) + excess)
    message = refusal(lambda: opened(data))
    assert "entries[2].engine.zlib.plan" in message
    assert "at most 64 times as many" in message


@pytest.mark.parametrize("size_bytes", [0, -1])
def test_a_declared_size_of_nothing_is_refused(packed_forge: Forge, size_bytes: int) -> None:
    data = with_stream(packed_forge, zlib.compress(PLAN), size_bytes)
    assert f"are said to unpack to {size_bytes}: expected 1 to" in refusal(lambda: opened(data))


def changed(forge: Forge, change: Callable[[Table], Any]) -> str:
    table = forge.manifest()
    change(table)
    return refusal(lambda: opened(forge.with_manifest(table)))


def test_lies_about_compressed_files_are_refused(packed_forge: Forge) -> None:
    def part(table: Table) -> Table:
        engine: Table = table["entries"][2]["engine"]
        return engine

    def both(table: Table) -> None:
        part(table)["files"]["plan"] = part(table)["zlib"]["plan"]["file"]

    def role(table: Table) -> None:
        part(table)["zlib"]["../plan"] = part(table)["zlib"].pop("plan")

    def absent(table: Table) -> None:
        part(table)["zlib"]["plan"]["file"] = "engines/" + "0" * 64 + ".zlib"

    assert "'plan' is stored both plain and compressed" in changed(packed_forge, both)
    assert "engine.zlib: expected a role such as 'xml', found '../plan'" in changed(packed_forge, role)
    assert "entries[2].engine.zlib.plan.file: refers to 'engines/000" in changed(packed_forge, absent)
    assert "unknown key 'entries[2].engine.zlib.plan.level'" in changed(
        packed_forge, lambda table: part(table)["zlib"]["plan"].update(level=6)
    )
    assert "compressed files came with format 1.1, this bundle is of 1.0" in changed(
        packed_forge, lambda table: table.update(format=[1, 0])
    )


def test_a_bundle_of_the_previous_format_is_read() -> None:
    bundle = read_bundle(RECORDED)
    assert bundle.manifest.format == (1, 0)
    here, ahead = bundle.manifest.entries
    assert here.engine is not None
    assert ahead.engine is not None
    assert set(bundle.engine_files(here.engine)) == {"xml", "bin"}
    assert bundle.engine_files(ahead.engine)["plan"].endswith(b"uncompressed by format 1.0")
    assert ahead.engine.zlib == {}


def test_extract_writes_the_plain_file(packed: Any, tmp_path: Path) -> None:
    packed.write(tmp_path / "model.edge")
    extract(read_bundle(tmp_path / "model.edge"), tmp_path / "out", "rtx")
    folder = tmp_path / "out/rtx/int8"
    assert (folder / "model.plan").read_bytes() == PLAN
    entry = json.loads((folder / "entry.json").read_text())
    assert entry["engine"] == {"kind": "tensorrt-rtx-plan", "files": {"plan": "model.plan"}}
    assert not list(folder.rglob("*.zlib"))


def test_a_stream_that_is_wrong_leaves_no_folder(packed_forge: Forge, tmp_path: Path) -> None:
    bundle = opened(with_stream(packed_forge, zlib.compress(PLAN)[:-1], len(PLAN)))
    refusal(lambda: extract(bundle, tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_equal_content_gives_equal_bytes_and_one_digest(packed: Any, tmp_path: Path) -> None:
    first = write_bundle(tmp_path / "a", manifest=packed.manifest, files=packed.files, report={})
    backwards = dict(reversed(list(packed.files.items())))
    second = write_bundle(tmp_path / "b", manifest=replace(packed.manifest), files=backwards, report={})
    assert first.content_digest == second.content_digest
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert compressed(PLAN) == compressed(PLAN)


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(1, 30))
def test_whatever_is_compressed_comes_back(start: bytes, times: int) -> None:
    data = start * times
    stream = compressed(data)
    if stream is None:
        packed_size = len(zlib.compress(data, 6))
        assert packed_size >= len(data) or len(data) > LARGEST_RATIO * packed_size
    else:
        assert len(stream) < len(data)
        assert decompressed(stream, size_bytes=len(data), where="test") == data


def test_what_does_not_pay_or_could_not_be_read_back_stays_plain() -> None:
    assert compressed(np.random.default_rng(0).bytes(1000)) is None
    assert compressed(b"") is None
    assert compressed(bytes(1 << 20)) is None  # a reader would take it for a bomb
