"""docs/json.md names every key that the documents have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.cli.doctor import examine
from edgekit.cli.main import main
from tests.cli.conftest import Workshop
from tests.runtime.jetson.devices import BINDINGS_12, ORIN, jetson, recorded, software, with_nuls

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text(encoding="utf-8")


def described(schema: str) -> set[str]:
    """Returns the words in code quotes of one section, and of the shapes that come before all sections."""
    shapes, *sections = re.split(r"^## ", DOCS, flags=re.MULTILINE)
    (section,) = [text for text in sections if text.startswith(f"{schema}\n")]
    return set(re.findall(r"`([a-z0-9_.]+)`", shapes + section))


def keys(value: object, *, depth: int) -> Iterator[str]:
    if isinstance(value, dict) and depth:
        for key, item in value.items():
            yield key
            yield from keys(item, depth=depth - 1)
    elif isinstance(value, list):
        for item in value[:1]:
            yield from keys(item, depth=depth)


# How deep the keys are edgekit's own words; below that they are labels, options or a bundle's manifest.
VERBS = {
    "eval": (["--data", "data"], 1),
    "run": (["data/dark"], 3),
    "bench": (["--baseline", "model.edge", "--duration", "0.02"], 2),
    "inspect": (["--layers"], 1),
    "extract": (["-o", "files"], 2),
}


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_key_of_a_bundle_verb_is_described(
    verb: str, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(workshop.data)
    (tmp_path / "model.edge").symlink_to(workshop.bundle)
    words, depth = VERBS[verb]
    assert main([verb, "model.edge", *words, "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert set(keys(document, depth=depth)) - {"schema"} <= described(document["schema"])


@pytest.mark.parametrize(("words", "depth"), [(["targets"], 1), (["doctor"], 1), (["nonsense"], 1)])
def test_every_key_of_the_other_verbs_is_described(
    words: list[str], depth: int, capfd: pytest.CaptureFixture[str]
) -> None:
    main([*words, "--json"])
    document = json.loads(capfd.readouterr().out)
    assert set(keys(document, depth=depth)) - {"schema"} <= described(document["schema"])


def test_every_key_of_a_jetson_and_its_findings_is_described(tmp_path: Path) -> None:
    device = jetson(
        tmp_path,
        model=recorded("orin-nano.model"),
        compatible=with_nuls(recorded("orin-nano.compatible")),
        release=recorded("orin-nano.release"),
        nvpmodel=recorded("orin-nano.nvpmodel"),
        tegrastats=recorded("orin-nano.tegrastats"),
    )
    document = examine(device, software(tensorrt="10.3.0", binding=BINDINGS_12, gpu=ORIN)).document
    found = {key for part in ("nvidia", "jetson", "findings") for key in keys(document[part], depth=2)}
    assert {"jetpack", "l4t", "clocks_pinned", "temperatures_c", "next"} <= found
    assert found <= described("edgekit.doctor/1")


def test_every_key_of_a_compile_report_is_described(
    workshop: Workshop, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(workshop.data), "--no-timing", "--threads", "1", "-o", str(tmp_path / "model.edge")]
    assert main(["compile", *workshop.source, *words, "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    # Both have an entry for each scheme; `edgekit.diagnose/1` describes a diagnosis.
    found = set(keys({key: value for key, value in document.items() if key not in ("history", "diagnostics")}, depth=2))
    (diagnosis,) = document["diagnostics"].values()
    assert set(keys(diagnosis, depth=2)) <= described("edgekit.diagnose/1")
    found |= set(keys(next(iter(document["history"].values())), depth=1))
    (target,) = document["targets"]
    found |= set(keys(target, depth=2)) | set(keys(target["candidates"][0]["accuracy"], depth=1))
    assert found - {"schema"} <= described("edgekit.compile/1")
