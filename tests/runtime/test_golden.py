import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgekit.errors import StageError
from edgekit.runtime.golden import check_golden, golden_errors, rel_l2

Array = npt.NDArray[Any]


def double(feeds: Mapping[str, Array]) -> dict[str, Array]:
    assert all(len(value) == 1 for value in feeds.values())
    return {"y": feeds["x"] * 2.0}


def test_equal_is_zero_and_scale_is_relative() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert rel_l2(x, x) == 0.0
    assert rel_l2(x, x * 1.25) == pytest.approx(0.25)
    assert rel_l2(x.astype(np.uint8), (x + 1).astype(np.uint8)) == pytest.approx(math.sqrt(6 / 55))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_engine_that_answers_nan_is_infinitely_far(bad: float) -> None:
    reference = np.ones(4, np.float32)
    assert rel_l2(reference, np.array([1, 1, 1, bad], np.float32)) == math.inf
    assert check_golden({"y": math.nan}, 1.0) is not None


def test_zero_reference() -> None:
    zero = np.zeros(3)
    assert rel_l2(zero, zero) == 0.0
    assert rel_l2(zero, zero + 1e-9) == math.inf


def test_unequal_shapes_never_broadcast() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        rel_l2(np.ones((2, 1)), np.ones((2, 2)))


def test_samples_run_one_by_one_and_count_together() -> None:
    x = np.array([[1.0], [3.0], [4.0]])
    reference = x * 2.0
    assert golden_errors(double, {"x": x}, {"y": reference}) == {"y": 0.0}
    off = reference.copy()
    off[0] += 1.0
    assert golden_errors(double, {"x": x}, {"y": off})["y"] == pytest.approx(1.0 / math.sqrt(np.sum(off**2)))


def test_an_output_may_have_several_rows_a_sample() -> None:
    x = np.array([[1.0], [2.0]])
    rows = np.array([[1.0], [1.5], [2.0], [3.0]])
    errors = golden_errors(lambda feeds: {"y": np.concatenate([feeds["x"], feeds["x"] * 1.5])}, {"x": x}, {"y": rows})
    assert errors == {"y": 0.0}


def test_wrong_interfaces_are_named() -> None:
    x = np.ones((2, 3))
    with pytest.raises(StageError, match="'z': the engine lacks it; it gives y"):
        golden_errors(double, {"x": x}, {"z": x})
    with pytest.raises(StageError, match=r"'y': expected shape \(1, 2\), the engine gave \(1, 3\)"):
        golden_errors(double, {"x": x}, {"y": np.ones((2, 2))})
    with pytest.raises(StageError, match="same number of samples"):
        golden_errors(double, {"x": x, "w": np.ones((3, 1))}, {"y": x})
    with pytest.raises(StageError, match="at least one"):
        golden_errors(double, {"x": np.ones((0, 3))}, {"y": x})
    with pytest.raises(StageError, match="multiple of 2"):
        golden_errors(double, {"x": x}, {"y": np.ones((3, 3))})


def test_check_names_the_worst_first() -> None:
    assert check_golden({"a": 0.1, "b": 0.0}, 0.1) is None
    problem = check_golden({"a": 0.2, "b": math.inf, "c": 0.0}, 0.1)
    assert problem is not None
    assert problem.index("'b'") < problem.index("'a'")
    assert "'c'" not in problem
