from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from build import ProjectBuilder

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Empty:
    """A virtual environment that holds what a test puts there and nothing else."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def install(self, *what: str) -> None:
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet", "--no-input", *what]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr

    def run(self, *arguments: str) -> str:
        """Runs its Python in a folder that is not the repository; returns what it printed."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "EDGEKIT", "COV_"))}
        answer = subprocess.run(
            [str(self.python), *arguments], capture_output=True, text=True, check=False, cwd=self.folder, env=kept
        )
        assert answer.returncode == 0, answer.stderr
        return answer.stdout


@pytest.fixture
def empty(tmp_path: Path) -> Empty:
    venv.create(tmp_path / "venv", with_pip=False)
    return Empty(folder=tmp_path / "venv")


Build = Callable[[str], Path]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds a distribution of the repository: ``wheel``, ``sdist``, ``editable``, or ``wheel-of-sdist``."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            out = tmp_path_factory.mktemp(kind)
            source = ROOT
            if kind == "wheel-of-sdist":
                with tarfile.open(make("sdist")) as archive:
                    archive.extractall(out, filter="data")
                (source,) = (path for path in out.iterdir() if path.is_dir())
            distribution = "wheel" if kind == "wheel-of-sdist" else kind
            # The build backend is installed beside the tests, so nothing is fetched.
            builder = ProjectBuilder(source, runner=_quiet)
            made[kind] = Path(builder.build(distribution, out))
        return made[kind]

    return make


def _quiet(command: list[str], cwd: str | None = None, extra_environ: dict[str, str] | None = None) -> None:
    added = {} if extra_environ is None else extra_environ
    subprocess.run(command, check=True, cwd=cwd, env={**os.environ, **added}, stdout=subprocess.PIPE)
