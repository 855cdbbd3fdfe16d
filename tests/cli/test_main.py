from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import click
import pytest

import edgekit
from edgekit.cli.answer import Answer
from edgekit.cli.failure import explain
from edgekit.cli.main import VERBS, cli, main
from edgekit.cli.options import json_option
from edgekit.errors import (
    BackendMissing,
    BundleError,
    EdgekitError,
    GateFailed,
    InternalError,
    StageError,
)


def edgekit_command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgekit", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )


def a_verb_that(monkeypatch: pytest.MonkeyPatch, callback: Callable[[], object]) -> None:
    """Puts a verb of this test's own in place of the group's verbs: what is tested is what happens around a verb."""
    command = json_option(click.Command("verb", callback=callback))
    monkeypatch.setattr(type(cli), "resolve_command", lambda self, context, words: ("verb", command, words[1:]))


def test_help_lists_every_verb_and_imports_none() -> None:
    script = (
        "import sys; from edgekit.cli.main import main; code = main(['--help']); "
        "print([m for m in sys.modules if m.split('.')[0] in ('numpy', 'cv2', 'torch', 'onnx', 'openvino')], code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    for name, verb in VERBS.items():
        assert f"{name} " in done.stdout
        assert verb.help.split(";")[0] in done.stdout
    assert done.stdout.splitlines()[-1] == "[] 0"


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_explains_itself_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Example" in text
    assert f"edgekit {verb}" in text
    assert "--json" in text


def test_compile_explains_itself_without_loading_torch() -> None:
    script = "import sys; from edgekit.cli.main import main; main(['compile', '--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"edgekit {edgekit.__version__}\n"


def test_unknown_command_names_the_nearest() -> None:
    done = edgekit_command("compil", "model.pt")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == ["error: unknown command 'compil'", "  did you mean 'compile'?"]


def test_wrong_option_is_a_usage_error_for_people_and_for_scripts() -> None:
    plain = edgekit_command("targets", "--jsn")
    assert plain.returncode == 2
    assert plain.stdout == ""
    assert "--jsn" in plain.stderr
    assert "edgekit targets --help" in plain.stderr
    scripted = edgekit_command("compile", "model.pt", "--golden", "none", "--json")
    document = json.loads(scripted.stdout)
    assert scripted.returncode == document["exit_code"] == 2
    assert document["schema"] == "edgekit.error/1"
    assert document["error"] == "UsageError"
    assert "--golden" in document["message"]


@pytest.mark.parametrize("pair", ["depth", "=3", "a=1 --arch-arg a=2"])
def test_arch_arguments_are_key_value_pairs(pair: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "model.pt", *f"--arch-arg {pair}".split()]) == 2
    message = capsys.readouterr().err
    assert "KEY=VALUE" in message or "twice" in message


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BundleError("damaged", hint="copy it again"), 2),
        (GateFailed("too inaccurate"), 3),
        (StageError("export failed"), 4),
        (BackendMissing("no OpenVINO", hint="install it"), 5),
        (InternalError("promise broken"), 70),
        (ValueError("a surprise"), 70),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 5),
        (ModuleNotFoundError("No module named 'onnx.helper'", name="onnx.helper"), 5),
        (ModuleNotFoundError("No module named 'edgekit.gone'", name="edgekit.gone"), 70),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_class_of_error_has_its_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> Answer:
        raise error

    a_verb_that(monkeypatch, fails)
    assert main(["verb"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("Traceback" in captured.err) == (code == 70)
    assert ("report it" in captured.err) == (code == 70)
    if isinstance(error, EdgekitError):
        assert f"error: {error.message}" in captured.err
        assert error.hint is None or f"\n  {error.hint}\n" in captured.err


def test_a_missing_extra_says_what_to_install() -> None:
    failure = explain(ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert failure.error == "BackendMissing"
    assert failure.hint is not None
    assert "pip install 'edgekit[compile]'" in failure.hint


@pytest.mark.parametrize("how", ["option", "environment"])
def test_debug_shows_the_traceback_of_a_user_error(
    how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if how == "environment":
        monkeypatch.setenv("EDGEKIT_DEBUG", "1")
    assert main([*(["--debug"] if how == "option" else []), "nonsense"]) == 2
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("EDGEKIT_DEBUG", "0")
    assert main(["nonsense"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_json_keeps_stdout_to_one_document(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def noisy() -> Answer:
        sys.stdout.write("a Python library prints\n")
        subprocess.run(["echo", "a C library prints"], check=True)
        return Answer(
            schema="edgekit.test/1", document={"value": 1.5, "nan": float("nan"), "at": Path("x")}, text="text"
        )

    a_verb_that(monkeypatch, noisy)
    assert main(["verb", "--json"]) == 0
    captured = capfd.readouterr()
    assert json.loads(captured.out) == {"schema": "edgekit.test/1", "value": 1.5, "nan": None, "at": "x"}
    assert "a Python library prints" in captured.err
    assert "a C library prints" in captured.err
    assert main(["verb"]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "text"


def test_an_answer_can_carry_an_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    a_verb_that(monkeypatch, lambda: Answer(schema="edgekit.test/1", document={}, text="", exit_code=5))
    assert main(["verb"]) == 5
    assert capsys.readouterr().out == ""


def test_a_reader_that_leaves_is_no_error() -> None:
    script = "import sys; sys.stdin.readline(); from edgekit.cli.main import main; sys.exit(main(['targets']))"
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None
    process.stdout.close()  # before the command has printed anything
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write("go\n")
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_interrupt_ends_quietly_with_130(tmp_path: Path) -> None:
    script = (
        "import sys, time, click; from edgekit.cli import main as m\n"
        "command = click.Command('verb', callback=lambda: (print('ready', flush=True), time.sleep(60)))\n"
        "type(m.cli).resolve_command = lambda self, context, words: ('verb', command, words[1:])\n"
        "sys.exit(m.main(['verb']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(edgekit.__file__).parents[1])},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    # Python may end by the signal itself where C code ran Python when it came; a shell shows 130 for both.
    assert process.returncode in (130, -signal.SIGINT)
    assert "interrupted" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(("variable", "coloured"), [("NO_COLOR", False), ("SOMETHING_ELSE", True)])
def test_colour_only_on_a_terminal_that_wants_it(variable: str, coloured: bool) -> None:
    ours, theirs = os.openpty()
    try:
        environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
        words = [sys.executable, "-m", "edgekit", "nonsense"]
        done = subprocess.run(words, stderr=theirs, env={**environment, variable: "1"}, timeout=60, check=False)
        text = os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 2
    assert b"unknown command" in text
    assert (b"\x1b[" in text) == coloured


def test_a_warning_is_one_line_without_a_place_in_the_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warns() -> Answer:
        warnings.warn("this CPU is slower at it", RuntimeWarning, stacklevel=1)
        return Answer(schema="edgekit.test/1", document={}, text="done")

    a_verb_that(monkeypatch, warns)
    assert main(["verb"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "done\n"
    assert captured.err == "warning: this CPU is slower at it\n"


def test_an_interrupt_that_a_library_turned_into_its_own_error_is_still_one(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept KeyboardInterrupt:\n    pass\n"
        "raise SystemError('a C function returned a result with an exception set')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "edgekit", "compile", str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(edgekit.__file__).parents[1]}"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        timeout=60,
        check=False,
    )
    # Python may end by the signal itself where C code ran Python when it came; a shell shows 130 for both.
    assert done.returncode in (130, -signal.SIGINT), done.stderr
    assert "Traceback" not in done.stderr
