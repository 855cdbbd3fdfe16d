from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import readme
from benchmarks.__main__ import BENCHMARKS
from benchmarks.record import RESULTS, SCHEMA, document, markdown_table, publish

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_help_lists_every_benchmark() -> None:
    done = run("--help")
    assert done.returncode == 0, done.stderr
    assert all(f"{name} " in done.stdout for name in BENCHMARKS)


def test_an_unknown_name_is_an_error_that_names_the_known() -> None:
    done = run("acuracy")
    assert done.returncode == 2
    assert "accuracy" in done.stderr


def test_every_name_is_a_script_with_a_main() -> None:
    for item in BENCHMARKS.values():
        text = (ROOT / "benchmarks" / f"{item.module}.py").read_text(encoding="utf-8")
        assert 'if __name__ == "__main__":\n    sys.exit(main())' in text, item.module


def test_options_reach_the_benchmark() -> None:
    done = run("import_time", "--processes", "1", "--help")
    assert done.returncode == 0, done.stderr
    assert "--processes" in done.stdout


@pytest.mark.skipif(platform.machine() != "x86_64", reason="an x86 instruction set is capped")
@pytest.mark.parametrize("name", ["accuracy", "nncf_latency", "networks"])
def test_where_8_bit_weights_are_wrong_engines_are_not_compared(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scipy")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    paths = [] if name == "networks" else ["--checkpoint", "none", "--data", "none", "--test", "none"]
    done = run(name, *paths)  # the machine is looked at before the files
    assert done.returncode == 2, done.stderr
    assert "cannot compare engines for x86-cpu: it needs a CPU with avx512_vnni" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_benchmark_writes_what_it_prints(tmp_path: Path) -> None:
    output = tmp_path / "import.json"
    done = run("import_time", "--processes", "1", "--output", str(output))
    # 0 or 1: whether the bound held is not for a loaded test machine to say.
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(output.read_text(encoding="utf-8"))
    assert (result["schema"], result["benchmark"]) == (SCHEMA, "import_time")
    assert len(result["results"]["seconds"]["edgekit.runtime"]) == 1
    assert readme.RENDER["import_time"](result) in done.stdout


def test_a_result_carries_machine_versions_and_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = document("digits", settings={"a": 1}, load_average=3.0, results={"b": 2})
    assert result["machine"]["cpu"]
    assert result["machine"]["libraries"]["torch"]
    publish(result, "| table |", tmp_path / "new" / "digits.json")
    assert json.loads((tmp_path / "new" / "digits.json").read_text(encoding="utf-8")) == result
    assert "other programs were running" in capsys.readouterr().out


def test_a_markdown_table() -> None:
    assert markdown_table(("a", "b"), [("x", "1")]) == "| a | b |\n|---|---:|\n| x | 1 |"


def test_the_readme_has_a_place_for_every_result() -> None:
    page = readme.README.read_text(encoding="utf-8")
    assert all(
        f"<!-- {name} -->\n" in page and f"<!-- /{name} -->\n" in page for name in (*readme.RENDER, *readme.RENDER_EACH)
    )


def test_the_readme_says_what_was_recorded() -> None:
    page = readme.README.read_text(encoding="utf-8")
    assert readme.renewed(page, RESULTS) == page, "python -m benchmarks readme"


def test_recorded_results_name_no_path_of_the_machine_they_were_made_on() -> None:
    for path in RESULTS.glob("*.json"):
        strings = [text for text in _strings(json.loads(path.read_text(encoding="utf-8"))) if text.startswith("/")]
        assert strings == [], path.name


def _strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return [value] if isinstance(value, str) else []


def test_an_unrecorded_result_is_not_made_up(tmp_path: Path) -> None:
    assert readme.renewed("<!-- accuracy -->\nold numbers\n<!-- /accuracy -->", tmp_path) == (
        "<!-- accuracy -->\nNot recorded yet.\n<!-- /accuracy -->"
    )


def test_a_result_of_another_benchmark_is_refused(tmp_path: Path) -> None:
    (tmp_path / "accuracy.json").write_text(json.dumps({"schema": SCHEMA, "benchmark": "digits"}), encoding="utf-8")
    with pytest.raises(ValueError, match="accuracy"):
        readme.section("accuracy", tmp_path)
