"""One bundle for several targets: what is shared, and what is said of devices that are not here."""

from __future__ import annotations

import importlib.util

from edgekit.bundle import read_bundle
from edgekit.compiler import CompileReport
from edgekit.runtime import load
from edgekit.targets import load_target
from tests.compiler.world import HERE


def test_a_board_that_builds_its_engine_gets_every_candidate_as_a_graph(fleet: CompileReport) -> None:
    report = fleet.targets[1]
    assert (report.target, report.shipped) == ("jetson-orin-nano", ("int8", "fp16"))
    assert (report.latency, report.verified_on) == ("unverified", "not here")
    assert "the device builds, times and selects; latency unverified" in report.why
    for item in report.candidates:
        assert item.status == "shipped"
        assert item.engine_bytes == 0
        assert item.latency is None
        assert item.layers == ()
        assert item.accuracy is not None
        assert (item.accuracy.kind, item.accuracy.value) == ("simulated", 1.0)
    entries = [entry for entry in read_bundle(fleet.output).manifest.entries if entry.target == "jetson-orin-nano"]
    assert [(entry.precision, entry.engine, entry.latency, entry.accuracy) for entry in entries] == [
        ("int8", None, "unverified", "simulated"),
        ("fp16", None, "unverified", "simulated"),
    ]


def test_the_board_s_graphs_are_rehearsed_where_its_builder_is_installed(fleet: CompileReport) -> None:
    rehearsals = [item.rehearsal for item in fleet.targets[1].candidates]
    if importlib.util.find_spec("tensorrt_rtx") is None:
        assert rehearsals == [None, None]
    else:
        assert all(item is not None and item["built"] and "RTX" in item["builder"] for item in rehearsals)
        assert "rehearsed with" in fleet.to_text()


def test_equal_graphs_are_stored_once(fleet: CompileReport) -> None:
    manifest = read_bundle(fleet.output).manifest
    graphs = {(entry.target, entry.precision): entry.graph for entry in manifest.entries}
    assert graphs["jetson-orin-nano", "int8"] == graphs["jetson-thor", "int8"]
    assert graphs["jetson-orin-nano", "fp16"] == graphs["jetson-thor", "fp16"]
    assert graphs[HERE, "int8"] != graphs["jetson-thor", "int8"]
    assert sum(name.startswith("graphs/") for name in manifest.files) == len(set(graphs.values())) == 4


def test_a_missing_device_is_stood_in_for_by_the_cpu_and_the_report_says_so(fleet: CompileReport) -> None:
    report = fleet.targets[3]
    assert (report.target, report.verified_on, report.latency) == ("intel-npu", "CPU in its place", "unverified")
    assert "this machine has no NPU" in report.why
    assert report.shipped == ("int8",)
    # A CPU whose sums are too narrow for the device's weights stands in for floats only.
    exact = load_target("intel-npu").quantize.weight_bits <= load_target(HERE).quantize.weight_bits
    assert [item.precision for item in report.candidates if item.golden] == (["int8", "fp16"] if exact else ["fp16"])
    for item in report.candidates:
        assert item.accuracy is not None
        assert item.accuracy.kind == "simulated"
        assert item.latency is None
    (entry,) = [entry for entry in read_bundle(fleet.output).manifest.entries if entry.target == "intel-npu"]
    assert entry.options["device"] == "NPU"
    assert entry.accuracy == "simulated"


def test_this_machine_loads_its_own_entry(fleet: CompileReport) -> None:
    with load(fleet.output, threads=1) as model:
        assert model.entry.target == HERE


def test_history_is_kept_for_each_scheme(fleet: CompileReport) -> None:
    stages = {name: [record.stage for record in records] for name, records in fleet.history.items()}
    int8 = [name for name in stages if name.startswith("int8")]
    assert int8 == [f"int8 1: {HERE}", "int8 2: jetson-orin-nano, jetson-thor", "int8 3: intel-npu"]
    for name in int8:
        assert stages[name][-3:] == ["quantize", "correct-bias", "drop-implied-bounds"]
    assert fleet.diagnostics.keys() == set(int8)
    assert stages["fp16 around int8: jetson-orin-nano, jetson-thor"] == ["to-half"]
    assert stages["fp16: jetson-orin-nano, jetson-thor"] == ["to-half"]
    assert len(stages["float"]) >= 3
    assert read_bundle(fleet.output).report()["history"].keys() == stages.keys()
