from __future__ import annotations

from edgekit.backends.openvino.refusal import explain_refusal

MESSAGE = """Exception from src/inference/src/cpp/core.cpp:105:
Check 'false' failed at src/frontends/common_translators/src/unconverted_ops_report.cpp:151:
Model wasn't fully converted. Failed operations detailed log:
-- Conv-20 with a message:
While validating ONNX node '<Node(Conv): conv_one>': Check 'data.get_partial_shape().rank().is_static()' failed at
conv.cpp:38: FrontEnd API failed with GeneralFailure:
The input data tensor's rank has to be known (static)

Summary:
-- No conversion rule found for operations: Bar-20, Foo-20
-- Conversion is failed for: Conv-20
"""


def test_operators_without_a_rule_come_first() -> None:
    refusal = explain_refusal(MESSAGE)
    assert refusal.operators == ("Bar", "Foo")
    assert refusal.summary == "no translation for operator Bar, Foo"
    assert "rank" in refusal.nodes["conv_one"]


def test_a_failing_node_is_named() -> None:
    refusal = explain_refusal(MESSAGE.replace("-- No conversion rule found for operations: Bar-20, Foo-20\n", ""))
    assert refusal.operators == ()
    assert refusal.summary.startswith("node 'conv_one' (Conv: ")


def test_an_unknown_message_is_kept() -> None:
    refusal = explain_refusal("Exception from core.cpp:1:\nsomething new\n")
    assert (refusal.operators, refusal.nodes, refusal.summary) == ((), {}, "something new")
