from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).resolve().parents[2]

# Imports every lean module where torch and onnx cannot be imported. A library of a backend that this machine lacks may
# be missing from a session's own module, which is loaded on demand.
IMPORT_ALL = """
import importlib, json, pkgutil, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "nncf"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
done, failed = [], {}
for root in ("augmentation", "calibration", "config", "datafiles", "errors", "evaluate", "files", "targets",
             "tensorspec", "bench", "bundle", "cli", "data", "diagnostics", "runtime", "tasks"):
    names = [f"edgekit.{root}"]
    module = importlib.import_module(names[0])
    if hasattr(module, "__path__"):
        names += [item.name for item in pkgutil.walk_packages(module.__path__, names[0] + ".")]
    for name in names:
        try:
            importlib.import_module(name)
            done.append(name)
        except ModuleNotFoundError as error:
            if not (".runtime.cuda." in name and error.name.split(".")[0] in {"cuda", "pycuda"}):
                failed[name] = str(error)
        except ImportError as error:
            failed[name] = str(error)
print(json.dumps({"done": done, "failed": failed}))
"""

LOADED = "import sys, {module}; print(sorted({names} & set(sys.modules)))"


def _run(code: str) -> str:
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_imports_point_one_way(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None) == EXIT_STATUS_SUCCESS


def test_lean_modules_import_without_torch_and_onnx() -> None:
    answer = json.loads(_run(IMPORT_ALL))
    assert answer["failed"] == {}
    assert len(answer["done"]) > 20


def test_the_runtime_loads_no_backend_before_it_needs_one() -> None:
    names = "{'openvino', 'tensorrt', 'tensorrt_rtx', 'click', 'torch', 'onnx'}"
    assert _run(LOADED.format(module="edgekit.runtime", names=names)).strip() == "[]"


def test_the_command_line_starts_light() -> None:
    names = "{'openvino', 'torch', 'onnx', 'cv2', 'sklearn'}"
    assert _run(LOADED.format(module="edgekit.cli.main", names=names)).strip() == "[]"
