"""The benchmark on real engines: every part of the report, the comparison, and clear refusals."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.bench import BenchOptions, WarmUpRules, bench, compare, format_report
from edgekit.bench.probes import probe_process
from edgekit.errors import BundleError, DataError, StageError, UserError
from tests.bench.tiny import write_colored_images, write_tiny_bundle

QUICK = BenchOptions(
    threads=1, duration_s=0.05, processes=0, warm_up=WarmUpRules(window=5, min_s=0.0, max_s=0.2, tolerance=0.5)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bundles")
    write_tiny_bundle(root / "light.edge")
    write_tiny_bundle(root / "heavy.edge", work=6)
    write_tiny_bundle(root / "raw.edge", task=False)
    write_colored_images(root / "images", count=3)
    return root


def test_a_report_has_every_part_and_survives_json(folder: Path) -> None:
    options = replace(QUICK, images=folder / "images", processes=1)
    report = bench(folder / "light.edge", options, baseline=folder / "heavy.edge")
    assert report.engine.samples >= 50
    assert 0 < report.engine.min_ms <= report.engine.p50_ms <= report.engine.p90_ms <= report.engine.p99_ms
    for stage in (report.preprocess, report.engine_in_pipeline, report.postprocess, report.end_to_end):
        assert stage is not None
        assert stage.min_ms > 0
    assert report.end_to_end is not None
    assert report.engine_in_pipeline is not None
    assert report.end_to_end.p50_ms > report.engine_in_pipeline.p50_ms
    assert report.throughput.inferences_per_s > 0
    assert report.throughput.in_flight >= 1
    assert report.process is not None
    assert report.process.peak_rss_bytes > report.process.rss_before_bytes > 1 << 20
    assert report.conditions.frames == "9 images, 24 x 20 pixels"
    assert report.side.session
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["schema"] == "edgekit.bench/1"
    assert data["engine"]["p50_ms"] == report.engine.p50_ms
    assert data["comparison"]["verdict"] == "faster"
    assert data["machine"]
    text = format_report(report)
    for word in ("tiny0", "tiny6", "engine", "preprocess", "throughput", "process", "ratio", "verdict    faster"):
        assert word in text


def test_golden_inputs_are_fed_when_there_are_no_images(folder: Path) -> None:
    report = bench(folder / "light.edge", QUICK)
    assert report.conditions.frames == "3 golden inputs, already at the model's size"
    assert report.process is None
    assert report.comparison is None
    assert report.end_to_end is not None


def test_a_raw_model_has_engine_numbers_only(folder: Path) -> None:
    report = bench(folder / "raw.edge", QUICK)
    assert report.engine.samples >= 50
    assert report.end_to_end is None
    assert "end to end" not in format_report(report)
    with pytest.raises(UserError, match="has no task"):
        bench(folder / "raw.edge", replace(QUICK, images=folder / "images"))


def test_the_ratio_points_the_right_way(folder: Path) -> None:
    result = compare(folder / "heavy.edge", folder / "light.edge", QUICK)
    assert result.verdict == "slower"
    assert result.ratio.low > 1
    assert result.ratio_p10 <= result.ratio.estimate <= result.ratio_p90
    assert result.latency.p50_ms > result.baseline_latency.p50_ms
    assert result.latency.samples == result.blocks * result.samples_per_block
    turned = compare(folder / "light.edge", folder / "heavy.edge", QUICK)
    assert turned.ratio.estimate < 1
    assert not math.isclose(turned.ratio.estimate, result.ratio.estimate)


def test_bad_input_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.edge").write_bytes(b"no bundle")
    with pytest.raises(BundleError):
        bench(tmp_path / "broken.edge", QUICK)
    with pytest.raises(DataError, match="no such folder"):
        bench(folder / "light.edge", replace(QUICK, images=tmp_path / "gone"))
    with pytest.raises(UserError, match="more than 0 seconds"):
        BenchOptions(duration_s=0.0)
    with pytest.raises(StageError, match="ended with 1"):
        probe_process(tmp_path / "broken.edge", target=None, threads=None, streams=None, processes=1)
