"""Measuring bundles on this machine: scenarios, statistics, probes, comparison and reports."""

from edgekit.bench.interleave import interleave
from edgekit.bench.report import BenchReport, Comparison, format_comparison, format_report
from edgekit.bench.run import BenchOptions, bench, compare
from edgekit.bench.statistics import Interval, LatencySummary, median_ratio_interval, paired_interval, summarize
from edgekit.bench.warmup import WarmUp, WarmUpRules, warm_up

__all__ = [
    "BenchOptions",
    "BenchReport",
    "Comparison",
    "Interval",
    "LatencySummary",
    "WarmUp",
    "WarmUpRules",
    "bench",
    "compare",
    "format_comparison",
    "format_report",
    "interleave",
    "median_ratio_interval",
    "paired_interval",
    "summarize",
    "warm_up",
]
