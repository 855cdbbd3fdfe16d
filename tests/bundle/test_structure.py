"""The zip: damage at every byte is refused, and so is every zip of another form, with a right digest or not."""

from __future__ import annotations

import io
import json
import stat
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.bundle import bundle_from_bytes, read_bundle
from edgekit.errors import BundleError

COMMENT_BYTES = 88
SWEEP = """
import importlib.abc, json, random, sys
from pathlib import Path

ENGINES = {"openvino", "tensorrt", "tensorrt_rtx", "onnxruntime", "onnx", "torch", "cv2"}

class Guard(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ENGINES:
            raise SystemExit(f"an engine library was touched: {name}")

sys.meta_path.insert(0, Guard())
from edgekit.bundle import bundle_from_bytes
from edgekit.errors import BundleError

path = Path(sys.argv[1])
data = path.read_bytes()
random.seed(0)
bad = [data[:i] for i in range(0, len(data), 64)]
for i in range(len(data)):
    for value in {0xFF, random.randrange(1, 255)}:
        bad.append(data[:i] + bytes([data[i] ^ value]) + data[i + 1:])
accepted = 0
for item in bad:
    try:
        bundle_from_bytes(item, path=path)
        accepted += 1
    except BundleError:
        pass
bundle_from_bytes(data, path=path)
print(json.dumps({"tried": len(bad), "accepted": accepted, "loaded": sorted(ENGINES & set(sys.modules))}))
"""


def refusal(data: bytes) -> str:
    with pytest.raises(BundleError) as caught:
        bundle_from_bytes(data, path=Path("model.edge"))
    assert caught.value.message.startswith("model.edge: ")
    return str(caught.value)


def test_every_flip_and_every_cut_is_refused_without_an_engine_library(sample_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.edge"
    path.write_bytes(sample_bytes)
    done = subprocess.run([sys.executable, "-c", SWEEP, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count = len(sample_bytes)
    assert json.loads(done.stdout) == {"tried": 2 * count + -(-count // 64), "accepted": 0, "loaded": []}


def test_every_flip_is_refused_even_when_the_digest_is_made_right_again(
    sample_bytes: bytes, seal: Callable[..., bytes]
) -> None:
    # The second line of defence: here only the records, the hashes and the manifest can tell.
    values = np.random.default_rng(1).integers(1, 256, len(sample_bytes))
    body = bytearray(sample_bytes[:-COMMENT_BYTES])
    for position in range(len(body)):
        body[position] ^= int(values[position])
        with pytest.raises(BundleError):
            bundle_from_bytes(seal(bytes(body)), path=Path("model.edge"))
        body[position] ^= int(values[position])
    assert seal(bytes(body)) == sample_bytes


def test_a_damaged_file_says_what_was_expected_and_what_to_do(sample_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.edge"
    path.write_bytes(sample_bytes[:100] + b"?" + sample_bytes[101:])
    with pytest.raises(BundleError, match=r"SHA-256 of the file: expected [0-9a-f]{64}, found [0-9a-f]{64}") as caught:
        read_bundle(path)
    assert "copy it again" in str(caught.value.hint)


@pytest.mark.parametrize("data", [b"", b"\0" * 50, b"hello, world" * 99])
def test_something_else_is_no_bundle(data: bytes) -> None:
    assert "no bundle" in refusal(data)


def test_a_plain_zip_is_no_bundle(forge: Any) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("manifest.json", b"{}")
    assert "a zip without the end comment" in refusal(stream.getvalue())


def test_a_comment_alone_is_too_short(seal: Callable[..., bytes]) -> None:
    assert "too few" in refusal(seal(b""))


def test_a_newer_container_format_asks_for_an_upgrade(sample_bytes: bytes) -> None:
    message = refusal(sample_bytes.replace(b"edgekit-bundle/1 ", b"edgekit-bundle/2 "))
    assert "format 2" in message
    assert "newer edgekit: upgrade" in message


def test_python_zipfile_writes_the_same_bytes(forge: Any, sample_bytes: bytes) -> None:
    assert forge.pack(forge.contents()) == sample_bytes
    with zipfile.ZipFile(io.BytesIO(sample_bytes)) as archive:
        assert archive.testzip() is None


BAD_NAMES = [
    "/etc/passwd",
    "../evil.onnx",
    "graphs/../../evil.onnx",
    "graphs\\evil.onnx",
    "C:evil.onnx",
    "C:/evil.onnx",
    "graphs/",
    "graphs//" + "0" * 64 + ".onnx",
    "Graphs/" + "0" * 64 + ".onnx",
    "graphs/" + "0" * 64,
    "graphs/" + "0" * 64 + ".onnx\n",
    "gräphs/" + "0" * 64 + ".onnx",
    "a/b/" + "0" * 64 + ".onnx",
    "",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_no_other_name_is_taken(forge: Any, name: str) -> None:
    assert "file name" in refusal(forge.pack([*forge.contents().items(), (name, b"evil")]))


def test_duplicates_are_refused(forge: Any) -> None:
    items = list(forge.contents().items())
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = forge.pack([*items, items[-1]])
    assert "stored 2 times, expected once" in refusal(data)


def test_another_order_is_refused(forge: Any) -> None:
    items = list(forge.contents().items())
    assert "sorted by name" in refusal(forge.pack([items[0], *reversed(items[1:])]))
    assert "manifest.json first" in refusal(forge.pack([*items[1:], items[0]]))


def test_a_bundle_without_its_manifest_is_refused(forge: Any) -> None:
    assert "manifest.json" in refusal(forge.pack(list(forge.contents().items())[1:]))


def compress(info: zipfile.ZipInfo) -> None:
    info.compress_type = zipfile.ZIP_DEFLATED


def link(info: zipfile.ZipInfo) -> None:
    info.external_attr = (stat.S_IFLNK | 0o777) << 16


def folder(info: zipfile.ZipInfo) -> None:
    info.external_attr = (stat.S_IFDIR | 0o755) << 16 | 0x10


def later(info: zipfile.ZipInfo) -> None:
    info.date_time = (2026, 1, 1, 0, 0, 0)


def extra(info: zipfile.ZipInfo) -> None:
    info.extra = struct.pack("<HHQ", 0x0001, 8, 1)  # the zip64 field


def remark(info: zipfile.ZipInfo) -> None:
    info.comment = b"remark"


def windows(info: zipfile.ZipInfo) -> None:
    info.create_system = 0


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (compress, "compression_method: expected 0x0, found 0x8"),
        (link, "external_attributes"),
        (folder, "external_attributes"),
        (later, "date: expected 0x21"),
        (extra, "extra_length: expected 0x0"),
        (remark, "comment_length: expected 0x0"),
        (windows, "version_made_by"),
    ],
)
def test_no_other_kind_of_record_is_taken(forge: Any, change: Callable[[zipfile.ZipInfo], None], field: str) -> None:
    assert field in refusal(forge.pack(forge.contents(), change))


def central(body: bytearray) -> int:
    """Returns where the first record of the central directory begins."""
    return int(struct.unpack_from("<I", body, len(body) - 22 + 16)[0])


def shift(body: bytearray, count: int, *, members: bool) -> None:
    """Adds ``count`` to the offset of the directory, and to those of the members."""
    start, end = central(body), len(body) - 22
    struct.pack_into("<I", body, end + 16, start + count)
    position = start + count if members else end
    while position < end:
        offset, length = (
            struct.unpack_from("<I", body, position + 42)[0],
            struct.unpack_from("<H", body, position + 28)[0],
        )
        struct.pack_into("<I", body, position + 42, offset + count)
        position += 46 + length


def test_bytes_before_the_first_file_are_refused(forge: Any, seal: Callable[..., bytes]) -> None:
    body = forge.body()
    body[0:0] = b"#!/bin/sh\n"
    assert "directory_offset" in refusal(seal(bytes(body)))
    shift(body, 10, members=True)
    assert "expected its header at byte 0, found 10" in refusal(seal(bytes(body)))


def test_bytes_between_files_and_directory_are_refused(forge: Any, seal: Callable[..., bytes]) -> None:
    body = forge.body()
    start = central(body)
    body[start:start] = b"hidden"
    shift(body, 6, members=False)
    assert f"6 bytes at {start} belong to no file" in refusal(seal(bytes(body)))


def test_bytes_between_two_files_are_refused(forge: Any, seal: Callable[..., bytes]) -> None:
    body = forge.body()
    first_length = struct.unpack_from("<H", body, 26)[0]
    stop = 30 + first_length + struct.unpack_from("<I", body, 22)[0]
    body[stop:stop] = b"gap"
    shift(body, 3, members=True)
    struct.pack_into("<I", body, central(body) + 42, 0)
    assert f"expected its header at byte {stop}, found {stop + 3}" in refusal(seal(bytes(body)))


def test_bytes_between_directory_and_end_are_refused(forge: Any, seal: Callable[..., bytes]) -> None:
    body = forge.body()
    body[-22:-22] = b"zip64 locator or anything else"
    assert "end record: directory_offset" in refusal(seal(bytes(body)))
    struct.pack_into("<I", body, len(body) - 22 + 12, len(body) - 22 - central(body))
    assert "central directory: expected its end at byte" in refusal(seal(bytes(body)))


def test_bytes_after_the_end_comment_are_refused(sample_bytes: bytes) -> None:
    assert "expected 'edgekit-bundle/1" in refusal(sample_bytes + b"\n")


def test_an_overlapping_file_is_refused(forge: Any, seal: Callable[..., bytes]) -> None:
    body = forge.body()
    position = central(body)
    struct.pack_into("<I", body, position + 46 + struct.unpack_from("<H", body, position + 28)[0] + 42, 0)
    assert "expected its header at byte" in refusal(seal(bytes(body)))


@pytest.mark.parametrize(
    ("offset", "size", "field"),
    [
        (4, 2, "version_needed"),
        (6, 2, "flags"),  # bit 0: encrypted
        (8, 2, "compression_method"),
        (14, 4, "crc32"),
        (18, 4, "stored_size"),
        (22, 4, "size"),
        (26, 2, "name_length"),
        (28, 2, "extra_length"),
    ],
)
def test_a_local_header_that_disagrees_is_refused(
    forge: Any, seal: Callable[..., bytes], offset: int, size: int, field: str
) -> None:
    body = forge.body()
    body[offset : offset + size] = (int.from_bytes(body[offset : offset + size], "little") ^ 1).to_bytes(size, "little")
    assert f"manifest.json: local header: {field}: expected" in refusal(seal(bytes(body)))


def test_a_local_name_that_disagrees_is_refused(forge: Any, seal: Callable[..., bytes]) -> None:
    body = forge.body()
    body[30:43] = b"manifest.jsom"
    assert "local header: expected the same name" in refusal(seal(bytes(body)))


def test_an_encrypted_file_is_refused(forge: Any, seal: Callable[..., bytes]) -> None:
    body = forge.body()
    body[central(body) + 8] |= 1
    assert "flags: expected 0x0, found 0x1" in refusal(seal(bytes(body)))


def test_a_size_beyond_the_file_is_refused(forge: Any, seal: Callable[..., bytes]) -> None:
    for size in (len(forge.original), 0xFFFFFFFF):
        body = forge.body()
        struct.pack_into("<II", body, 18, size, size)
        struct.pack_into("<II", body, central(body) + 20, size, size)
        assert "expected its content to end by byte" in refusal(seal(bytes(body)))


@pytest.mark.parametrize(
    ("count", "message"), [(0, "expected 1 to 4096 files"), (1, "expected its end"), (9, "the directory ends at byte")]
)
def test_a_wrong_count_is_refused(forge: Any, seal: Callable[..., bytes], count: int, message: str) -> None:
    body = forge.body()
    struct.pack_into("<HH", body, len(body) - 22 + 8, count, count)
    assert message in refusal(seal(bytes(body)))


def test_too_many_files_are_refused(forge: Any, seal: Callable[..., bytes]) -> None:
    body = forge.body()
    struct.pack_into("<HH", body, len(body) - 22 + 8, 0xFFFF, 0xFFFF)
    assert "expected 1 to 4096 files, found 65535" in refusal(seal(bytes(body)))


def test_several_disks_are_refused(forge: Any, seal: Callable[..., bytes]) -> None:
    body = forge.body()
    struct.pack_into("<H", body, len(body) - 22 + 4, 1)
    assert "end record: disk: expected 0x0, found 0x1" in refusal(seal(bytes(body)))


def test_an_extra_file_is_refused(forge: Any) -> None:
    name = "graphs/" + "f" * 64 + ".onnx"
    contents = {**forge.contents(), name: b"evil"}
    data = forge.pack({"manifest.json": contents.pop("manifest.json"), **dict(sorted(contents.items()))})
    assert f"{name} is stored but not listed" in refusal(data)


def test_a_missing_file_is_refused(forge: Any) -> None:
    contents = forge.contents()
    name = next(name for name in contents if name.endswith(".bin"))
    del contents[name]
    assert f"{name} is listed in manifest.json but not stored" in refusal(forge.pack(contents))


def test_other_content_is_refused(forge: Any) -> None:
    contents = forge.contents()
    name = next(name for name in contents if name.endswith(".xml"))
    changed = contents[name].replace(b"Convert", b"Konvert")
    assert changed != contents[name]
    assert f"{name}: SHA-256: expected" in refusal(forge.pack({**contents, name: changed}))
    assert f"{name}: expected {len(changed):,} bytes, found" in refusal(forge.pack({**contents, name: changed + b" "}))


def test_another_report_is_refused(forge: Any) -> None:
    assert "report.json: expected" in refusal(forge.pack({**forge.contents(), "report.json": b"{}"}))
