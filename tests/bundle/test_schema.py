"""The manifest: every lie in it is found, even when content digest and file digest are made right again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle import bundle_from_bytes
from edgekit.bundle.digest import canonical_json, content_digest
from edgekit.bundle.schema import MAX_MANIFEST_BYTES
from edgekit.errors import BundleError

Table = dict[str, Any]


def refusal(data: bytes) -> BundleError:
    with pytest.raises(BundleError) as caught:
        bundle_from_bytes(data, path=Path("model.edge"))
    assert caught.value.message.startswith("model.edge: manifest.json: ")
    return caught.value


def refused(forge: Any, change: Callable[[Table], None]) -> BundleError:
    table = forge.manifest()
    change(table)
    return refusal(forge.with_manifest(table))


def put(*path: str | int, value: Any) -> Callable[[Table], None]:
    def change(table: Table) -> None:
        place: Any = table
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def test_the_forge_is_right_where_nothing_is_changed(forge: Any, sample_bytes: bytes) -> None:
    assert forge.with_manifest(forge.manifest()) == sample_bytes


@pytest.mark.parametrize("version", [[2, 0], [2, 7], [99, 0]])
def test_a_newer_major_asks_for_an_upgrade_whatever_else_is_new(forge: Any, version: list[int]) -> None:
    def change(table: Table) -> None:
        table["format"] = version
        table["entries"] = "something quite different"

    error = refused(forge, change)
    assert f"bundle format {version[0]}.{version[1]}: this edgekit reads 1.1" in error.message
    assert "newer edgekit: upgrade" in str(error.hint)


def test_an_unknown_older_major_says_so(forge: Any) -> None:
    assert "older edgekit" in str(refused(forge, put("format", value=[0, 9])).hint)


@pytest.mark.parametrize("version", [None, 1, [1], [1, 0, 0], ["1", "0"], [True, False], [1, -1], [1.0, 0]])
def test_a_format_that_is_none_is_refused(forge: Any, version: Any) -> None:
    assert "format: expected [major, minor]" in refused(forge, put("format", value=version)).message


def newer_minor(table: Table) -> None:
    table["format"] = [1, 9]
    table["signature"] = {"key": "abc"}
    for entry in table["entries"]:
        entry["warmup"] = 3
        entry["golden"]["seed"] = 0
        entry["requires"]["memory_mib"] = 64
        entry["inputs"][0]["layout"] = "NHWC"
        if entry["engine"] is not None:
            entry["engine"]["compressed"] = False
    for record in table["files"].values():
        record["role"] = "graph"


def test_unknown_keys_of_a_newer_minor_are_ignored(forge: Any, sample_bytes: bytes) -> None:
    table = forge.manifest()
    newer_minor(table)
    newer = bundle_from_bytes(forge.with_manifest(table), path=Path("model.edge")).manifest
    known = bundle_from_bytes(sample_bytes, path=Path("model.edge")).manifest
    assert newer.format == (1, 9)
    assert newer.entries == known.entries
    assert newer.files == known.files


def test_the_content_digest_covers_the_unknown_keys(forge: Any) -> None:
    table = forge.manifest()
    newer_minor(table)
    table["content_digest"] = content_digest(table)
    table["entries"][0]["warmup"] = 4
    data = forge.pack({**forge.contents(), "manifest.json": canonical_json(table, where="test")})
    assert "content_digest: expected" in refusal(data).message


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ((), "content_digets"),
        (("entries", 0), "precison"),
        (("entries", 0, "golden"), "ouputs"),
        (("entries", 0, "engine"), "fils"),
        (("entries", 0, "requires"), "archs"),
    ],
)
def test_unknown_keys_of_this_minor_are_errors(forge: Any, path: tuple[str | int, ...], key: str) -> None:
    error = refused(forge, put(*path, key, value=1))
    assert f"{key}'" in error.message
    assert "did you mean" in str(error.hint)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("name",), 3, "name: expected str"),
        (("entries", 0, "latency"), "fast", "entries[0].latency: expected one of 'measured', 'unverified'"),
        (("entries", 0, "inputs", 0, "shape"), [1, "2"], "entries[0].inputs[0].shape[1]: expected int"),
        (("entries", 1, "golden", "rel_l2"), "0", "entries[1].golden.rel_l2: expected float"),
        (("entries", 0, "requires", "on_mismatch"), "shrug", "on_mismatch: expected one of"),
        (("files",), [], "files: expected a table"),
        (("entries",), [], "entries: expected at least one"),
    ],
)
def test_wrong_types_and_values_are_named(forge: Any, path: tuple[str | int, ...], value: Any, message: str) -> None:
    assert message in refused(forge, put(*path, value=value)).message


def test_a_missing_key_is_named(forge: Any) -> None:
    assert "missing key 'entries[0].graph'" in refused(forge, lambda table: table["entries"][0].pop("graph")).message


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("entries", 0, "graph"), "entries[0].graph"),
        (("entries", 0, "engine", "files", "xml"), "entries[0].engine.files.xml"),
        (("entries", 1, "golden", "inputs", "image"), "entries[1].golden.inputs.image"),
        (("entries", 1, "golden", "outputs", "scores"), "entries[1].golden.outputs.scores"),
    ],
)
@pytest.mark.parametrize(
    "name", ["graphs/" + "0" * 64 + ".onnx", "../../etc/passwd", "report.json", "manifest.json", ""]
)
def test_a_reference_to_what_is_not_there_is_refused(
    forge: Any, path: tuple[str | int, ...], place: str, name: str
) -> None:
    assert f"{place}: refers to {name!r}" in refused(forge, put(*path, value=name)).message


def test_a_listed_file_that_is_not_stored_under_its_hash_is_refused(forge: Any) -> None:
    def change(table: Table) -> None:
        table["files"]["graphs/" + "0" * 64 + ".onnx"] = {"sha256": "1" * 64, "size_bytes": 1}

    assert "to hold its hash" in refused(forge, change).message


@pytest.mark.parametrize("name", ["../x.onnx", "/x.onnx", "manifest.json", "labels.txt"])
def test_a_listed_name_that_no_bundle_has_is_refused(forge: Any, name: str) -> None:
    assert "files: " in refused(forge, put("files", name, value={"sha256": "1" * 64, "size_bytes": 1})).message


def test_a_file_that_no_entry_refers_to_is_refused(forge: Any) -> None:
    def change(table: Table) -> None:
        table["entries"] = table["entries"][1:]

    assert "no entry refers to engines/" in refused(forge, change).message


def test_a_manifest_without_the_report_is_refused(forge: Any) -> None:
    assert "expected report.json" in refused(forge, lambda table: table["files"].pop("report.json")).message


def test_golden_arrays_must_fit_the_interface(forge: Any) -> None:
    def inputs(table: Table) -> None:
        golden = table["entries"][0]["golden"]
        golden["inputs"] = {"photo": golden["inputs"]["image"]}

    def outputs(table: Table) -> None:
        golden = table["entries"][0]["golden"]
        golden["outputs"] = {"boxes": golden["outputs"]["scores"]}

    assert "golden.inputs: expected ['image'], found ['photo']" in refused(forge, inputs).message
    assert "golden.outputs: expected some of ['scores'], found ['boxes']" in refused(forge, outputs).message


@pytest.mark.parametrize("role", ["", "../x", "XML", "a b"])
def test_an_engine_role_is_a_plain_word(forge: Any, role: str) -> None:
    def change(table: Table) -> None:
        files = table["entries"][0]["engine"]["files"]
        files[role] = files.pop("xml")

    assert "expected a role such as 'xml'" in refused(forge, change).message


def test_a_wrong_content_digest_is_refused(forge: Any) -> None:
    table = forge.manifest()
    for digest in ("0" * 64, "", table["content_digest"].upper()):
        changed = canonical_json({**table, "content_digest": digest}, where="test")
        data = forge.pack({**forge.contents(), "manifest.json": changed})
        assert "content_digest: expected" in refusal(data).message


def raw(forge: Any, manifest: bytes) -> str:
    return refusal(forge.pack({**forge.contents(), "manifest.json": manifest})).message


def test_only_canonical_json_is_taken(forge: Any) -> None:
    table = forge.manifest()
    assert "canonical JSON" in raw(forge, json.dumps(table, sort_keys=True, indent=1).encode())
    assert "canonical JSON" in raw(forge, canonical_json(table, where="test") + b"\n")
    backwards = dict(sorted(table.items(), reverse=True))
    assert "canonical JSON" in raw(forge, json.dumps(backwards, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "expected a JSON object"),
        (b'{"format":[1,0],"format":[1,0]}', "'format' occurs twice"),
        (b'{"format":[1,0],"a":NaN}', "NaN is no JSON number"),
        (b'{"format":[1,0],"a":-Infinity}', "-Infinity is no JSON number"),
        (b'{"format":[1,0],"a":1e999}', "out of range"),
        (b'{"format":[1,0],"a":' + b"1" * 5000 + b"}", "an integer of 5000 digits"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, "more than 64 nested levels"),
        (b'{"a":' + b"[" * 200_000, "more than 64 nested levels"),
        (b'{"a":"\\ud800"}', "no valid Unicode"),
    ],
)
def test_json_traps_are_refused(forge: Any, text: bytes, message: str) -> None:
    assert message in raw(forge, text)


def test_an_oversized_manifest_is_refused_before_it_is_parsed(forge: Any) -> None:
    assert "expected at most 16,777,216 bytes" in raw(forge, b"{" * (MAX_MANIFEST_BYTES + 1))
