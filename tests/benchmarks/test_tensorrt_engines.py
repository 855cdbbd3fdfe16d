"""What the engines benchmark says of what it was told."""

from __future__ import annotations

from typing import Any

from benchmarks.portable_graphs import findings
from benchmarks.tensorrt_engines import smaller, to_markdown


def engine(size: int, *, sqnr: float | None = 20.0, agreement: float | None = 20.0) -> dict[str, Any]:
    built = {"engine_bytes": size << 20, "text_bytes": 1 << 20, "graph_bytes": 1}
    return {"sqnr_db": sqnr, "onnxruntime_db": agreement, "static": built, "dynamic": built}


def network(int8: int, fp16: int, fp32: int) -> dict[str, Any]:
    return {"int8": engine(int8), "fp16": engine(fp16), "fp32": engine(fp32, sqnr=None, agreement=100.0)}


def test_bounds_are_held_against_every_graph() -> None:
    good = network(1, 2, 3)
    assert findings({"net": good}) == []
    # One and a half times the noise is 3.5 dB.
    assert findings({"net": good | {"int8": engine(1, agreement=16.6)}}) == []
    assert findings({"net": good | {"int8": engine(1, agreement=16.4)}}) == [
        "net, int8: ONNX Runtime agrees to 16.4 dB, 16.5 asked for"
    ]
    assert "60.0 asked for" in findings({"net": good | {"fp32": engine(3, sqnr=None, agreement=50.0)}})[0]
    assert findings({"net": good | {"fp32": engine(3, sqnr=None, agreement=None)}}) == []
    refused = engine(1) | {"dynamic": {"refused": ["Det 'n': no such operator"]}}
    assert findings({"net": good | {"fp16": refused}}) == ["net, fp16, dynamic batch: Det 'n': no such operator"]


def test_sizes_are_ordered_or_named() -> None:
    networks = {"large": network(1, 2, 3), "small": network(4, 2, 3)}
    assert smaller(networks) == ["large"]
    text = to_markdown(
        {"results": {"networks": networks, "findings": []}, "settings": {"tensorrt_rtx": "1.7"}},
    )
    assert "| small | 4.0 (1.0) | 2.0 (1.0) | 3.0 (1.0) |" in text
    assert "on 1 of 2; not on small." in text
    assert "agrees: kept." in text
