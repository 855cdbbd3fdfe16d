"""What an archive says of its nodes' origin: the words for a message, and nothing else of it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.frontend.archive_origins import clean_metadata
from edgekit.frontend.sources import source_line

TRACE = (
    'File "/home/me/net.py", line 40, in forward\n    return self.head(self.body(x))\n'
    '  File "/home/me/heads.py", line 12, in forward\n    return torch.linalg.det(x)\n'
    '  File "/opt/lib/python3.11/site-packages/torch/nn/modules/linear.py", line 134, in forward\n    return F.linear()'
)
STACK = "L__self__,,nets.Net;L__self___head,head,heads.Head;L__self___head_fc,head.fc,torch.nn.modules.linear.Linear"


def test_the_innermost_frame_outside_torch_is_kept_without_its_folder() -> None:
    made = clean_metadata({"stack_trace": TRACE, "nn_module_stack": STACK, "torch_fn": "det_1;builtin.det"})
    assert made["stack_trace"] == 'File "heads.py", line 12, in forward\n    return torch.linalg.det(x)'
    assert source_line(made["stack_trace"]) == source_line(TRACE) == "heads.py, line 12: return torch.linalg.det(x)"
    assert set(made) == {"stack_trace", "nn_module_stack"}


def test_a_path_of_another_system_is_the_user_s_own_too() -> None:
    made = clean_metadata({"stack_trace": 'File "C:\\Users\\me\\heads.py", line 3, in forward\n    x'})
    assert made["stack_trace"].startswith('File "heads.py", line 3')


@pytest.mark.parametrize(
    ("stack", "path"),
    [
        (STACK, "head.fc"),
        ("L__self__,,nets.Net;k,layers.0,nets.Layer", "layers.0"),
        ("k,head@1,nets.Head", "head"),
        ("k,head,some.Kind[a,b]", "head"),
    ],
)
def test_the_innermost_module_is_kept(stack: str, path: str) -> None:
    kind = "torch.nn.modules.module.Module"
    assert clean_metadata({"nn_module_stack": stack}) == {
        "nn_module_stack": f"L__self__,,{kind};L__self__m,{path},{kind}"
    }


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        [],
        "stack_trace",
        {},
        {"stack_trace": None, "nn_module_stack": 3},
        {"stack_trace": ["File"], "nn_module_stack": {"a": "b"}},
        {"stack_trace": "no frame", "nn_module_stack": "no level"},
        {"stack_trace": TRACE.splitlines()[-2]},
        {"nn_module_stack": "L__self__,,nets.Net"},
        {"nn_module_stack": "k,head\x1b[2J,nets.Head"},
        {"nn_module_stack": "k,a b,nets.Head"},
        {"nn_module_stack": "k,__import__('os').system('x'),nets.Head"},
        {"nn_module_stack": "k," + "a." * 200 + "b,nets.Head"},
    ],
)
def test_another_form_tells_nothing(metadata: Any) -> None:
    assert clean_metadata(metadata) == {}


@pytest.mark.parametrize("evil", ["\r", "\x0b", "\x0c", "\x1b[31m", "\x00", "\u2028", "\u202e", "\x85", "\x7f"])
def test_control_characters_are_left_out(evil: str) -> None:
    trace = f'File "/a/he{evil}ads.py", line 12, in forward\n    return {evil}det(x){evil}open("marker", "w")'
    text = clean_metadata({"stack_trace": trace})["stack_trace"]
    head, code = text.split("\n")
    assert head.isprintable()
    assert code.isprintable()
    assert "det(x)" in code


def test_long_texts_are_cut_and_take_no_time() -> None:
    started = time.perf_counter()
    for trace in (
        f'File "{"a" * 10**6}.py", line 1, in f\n    {"x" * 10**6}',
        'File "a.py", line 1, in f\n' + "\n " * 10**6,
        'File "' * 10**6,
        f'{"b" * 10**7}\nFile "a.py", line {"9" * 400}, in f\n    x',
        f'{"b" * 10**7}\nFile "{"long" * 50}.py", line 1, in f\n    {"x" * 500}',
    ):
        text = clean_metadata({"stack_trace": trace, "nn_module_stack": "k," * 10**6}).get("stack_trace", "")
        assert len(text) < 300
    assert time.perf_counter() - started < 5


@given(st.text(), st.text(), st.text())
def test_whatever_is_in_it_comes_out_in_the_one_form(file: str, code: str, stack: str) -> None:
    made = clean_metadata(
        {"stack_trace": f'File "{file}", line 7, in f\n    {code}', "nn_module_stack": f"k,{stack},m.M"}
    )
    for text in made.values():
        assert all(line.isprintable() for line in text.split("\n"))
        assert text.count("\n") <= 1
        assert len(text) < 400
    if "nn_module_stack" in made:
        assert [len(level.split(",")) for level in made["nn_module_stack"].split(";")] == [3, 3]
