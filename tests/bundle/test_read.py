"""Reading: what a verified bundle gives, and clear errors for what is no readable file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.bundle import bundle_from_bytes, read_bundle
from edgekit.errors import BundleError, UserError


@pytest.fixture
def path(sample_bytes: bytes, tmp_path: Path) -> Path:
    file = tmp_path / "model.edge"
    file.write_bytes(sample_bytes)
    return file


def test_a_bundle_gives_back_what_was_put_in(path: Path, sample: Any) -> None:
    bundle = read_bundle(path)
    assert bundle.path == path
    assert bundle.size_bytes == path.stat().st_size
    assert {name: bundle.read(name) for name in bundle.manifest.files if name != "report.json"} == sample.files
    assert bundle.report() == sample.report
    assert bundle.manifest.entries[0].options == sample.manifest.entries[0].options
    golden = bundle.manifest.entries[0].golden
    image, scores = bundle.array(golden.inputs["image"]), bundle.array(golden.outputs["scores"])
    assert (image.shape, image.dtype) == ((2, 2, 2, 3), np.uint8)
    np.testing.assert_allclose(scores, image.mean((1, 2)), rtol=1e-6)


def test_onnx_and_openvino_take_the_files(path: Path, tmp_path: Path) -> None:
    import onnx
    import openvino as ov

    bundle = read_bundle(path)
    entry = bundle.manifest.entries[0]
    onnx.checker.check_model(onnx.load_from_string(bundle.read(entry.graph)), full_check=True)
    assert entry.engine is not None
    model = ov.Core().read_model(
        bundle.read(entry.engine.files["xml"]),
        ov.Tensor(np.frombuffer(bundle.read(entry.engine.files["bin"]), np.uint8)),
    )
    assert model.input("image").get_any_name() == "image"


def test_what_happens_to_the_file_afterwards_changes_nothing(path: Path, sample: Any) -> None:
    bundle = read_bundle(path)
    path.write_bytes(b"evil")
    path.unlink()
    assert bundle.read(bundle.manifest.entries[0].graph) == sample.files[bundle.manifest.entries[0].graph]


def test_an_unknown_name_is_an_error(path: Path) -> None:
    with pytest.raises(BundleError, match=r"holds no file 'manifest\.jso'") as caught:
        read_bundle(path).read("manifest.jso")
    assert caught.value.hint == "did you mean 'manifest.json'?"


def test_an_array_that_is_none_is_an_error(path: Path) -> None:
    with pytest.raises(BundleError, match=r"report\.json: expected an \.npy file"):
        read_bundle(path).array("report.json")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot read: No such file") as caught:
        read_bundle(tmp_path / "none.edge")
    assert isinstance(caught.value, UserError)
    assert caught.value.exit_code == 2


def test_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="expected a bundle, found a folder"):
        read_bundle(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_an_error_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BundleError, match="found no regular file"):
        read_bundle(tmp_path / "pipe")


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.edge"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)  # sparse: takes no space
    with pytest.raises(BundleError, match="expected at most 4,294,967,294 bytes, found 1,099,511,627,776"):
        read_bundle(path)


def test_an_oversized_report_is_refused(forge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.bundle.read.MAX_REPORT_BYTES", 10)
    with pytest.raises(BundleError, match=r"report\.json: expected at most 10 bytes"):
        bundle_from_bytes(forge.original, path=Path("model.edge"))


def test_a_report_that_is_no_json_is_an_error_when_it_is_asked_for(forge: Any) -> None:
    import hashlib

    table = forge.manifest()
    table["files"]["report.json"] = {"sha256": hashlib.sha256(b'{"a":NaN}').hexdigest(), "size_bytes": 9}
    contents = {**forge.contents(), "report.json": b'{"a":NaN}'}
    from edgekit.bundle.digest import canonical_json

    data = forge.pack({**contents, "manifest.json": canonical_json(table, where="test")})
    bundle = bundle_from_bytes(data, path=Path("model.edge"))
    with pytest.raises(BundleError, match="NaN is no JSON number"):
        bundle.report()


def test_the_package_imports_nothing_but_numpy(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edgekit.bundle import read_bundle\n"
        "read_bundle(Path(sys.argv[1]))\n"
        "heavy = {'torch', 'onnx', 'openvino', 'tensorrt', 'cv2', 'click'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
