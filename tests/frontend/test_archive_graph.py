"""What may stand in an archive's graph: arithmetic, plain names, known operators; nothing else."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import ModelError
from edgekit.frontend.archive_graph import checked_graph, checked_payload


def check(data: Any) -> dict[str, Any]:
    return checked_graph(json.dumps(data).encode(), where="here")[0]


@pytest.mark.parametrize(
    "text",
    [
        "s0",
        "Symbol('s77', positive=True, integer=True)",
        "Mul(Integer(32), Symbol('s77', positive=True, integer=True))",
        "Min(Integer(16), Mul(Integer(16), Symbol('s77', positive=True, integer=True)))",
        "FloorDiv(s0 - 1, 2) + 1",
        "Pow(s0, Integer(2))",
        "Eq(Mod(s0, 2), 0)",
        "((s0 + 3)//4)*2",
        "s0**2 >= 4",
        "Float('0.5', 53)",
        "Max(1, -u0)",
        "int_oo",
    ],
)
def test_arithmetic_passes_unchanged(text: str) -> None:
    assert check({"as_expr": {"expr_str": text}}) == {"as_expr": {"expr_str": text}}


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').getcwd()",
        "().__class__.__base__",
        "s0.__class__",
        "open('x')",
        "eval('1')",
        "Symbol('s0').func",
        "Symbol('x; y')",
        "Symbol(__import__('os'))",
        "Function('f')(s0)",
        "Lambda(s0, s0)",
        "lambda: 0",
        "[s0 for s0 in (1,)]",
        "s0[0]",
        "s0 if s0 else 1",
        "f'{s0}'",
        "(s0 := 1)",
        "'text'",
        "print",
        "9**9**9",
        "Pow(9, Pow(9, 9))",
        "1" + "0" * 99,
        "1; 2",
        "",
        "Integer(value=1)",
        "(" * 500 + "1" + ")" * 500,
        "1+" * 1500 + "1",
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="symbolic size"):
        check({"as_expr": {"expr_str": text}})


@given(st.text(max_size=60))
def test_no_text_crashes_the_check(text: str) -> None:
    with contextlib.suppress(ModelError):
        assert check({"expr_str": text}) == {"expr_str": text}


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.conv2d.default",
        "torch.ops.aten.add_.Tensor",
        "torch.ops.aten.sym_size.int",
        "torch.ops.prims.convert_element_type.default",
        "torch.ops.higher_order.wrap_with_set_grad_enabled",
        "_operator.mul",
        "_operator.getitem",
        "math.ceil",
        "torch.sym_max",
    ],
)
def test_known_operators_pass(target: str) -> None:
    assert check({"target": target}) == {"target": target}


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system",
        "torch.ops.load_library",
        "torch.ops.aten.__class__.default",
        "torch.ops.aten.save.default",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.no_such_operator.default",
        "torch.ops.higher_order.cond",
        "torch.ops.higher_order.cond.default",
        "torch.ops.mine.op.default",
        "_operator.attrgetter",
        "_operator.methodcaller",
        "math.__loader__",
        "#namespace:name",
        "os.system",
        "",
        None,
    ],
)
def test_other_operators_are_refused(target: Any) -> None:
    with pytest.raises(ModelError, match="operator"):
        check({"target": target})


def test_names_chosen_by_the_model_may_look_like_words_of_the_schema() -> None:
    data = {"tensor_values": {"target": {"dtype": 7}, "metadata": {"dtype": 7}}, "nodes": [{"name": "target"}]}
    assert check(data) == data


def test_text_arguments_may_hold_anything() -> None:
    data = {"arg": {"as_string": "bij,bjk->bik"}, "more": {"as_strings": ["a b", "c;d"]}}
    assert check(data) == data


@pytest.mark.parametrize("text", ["a b", "a;b", "a=b", "a(", "é(", 'a"', "a\nb", "a-b"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="plain name"):
        check({"anything": [text]})
    with pytest.raises(ModelError, match="plain name"):
        check({text: 1})


def test_custom_objects_are_refused_anywhere() -> None:
    for data in (
        {"as_custom_obj": {"name": "x"}},
        {"inputs": [{"custom_obj": {"name": "x"}}]},
        {"custom_obj_values": {"x": {}}},
    ):
        with pytest.raises(ModelError, match="custom object"):
            check(data)
    assert check({"custom_obj_values": {}}) == {"custom_obj_values": {}}


@pytest.mark.parametrize("text", [b"", b"[", b"[1]", b"\xff", b"[" * 100_000])
def test_what_is_no_table_is_an_error(text: bytes) -> None:
    for check_record in (checked_graph, checked_payload):
        with pytest.raises(ModelError, match="here: "):
            check_record(text, where="here")


@pytest.mark.parametrize("path", ["../weight_0", "custom_obj_0", "opaque_obj_0", "weight_x", "", None])
def test_payloads_lie_where_torch_puts_them(path: Any) -> None:
    data = json.dumps({"config": {"w": {"path_name": path}}}).encode()
    with pytest.raises(ModelError):
        checked_payload(data, where="here")
