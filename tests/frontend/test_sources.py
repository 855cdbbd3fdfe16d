"""The line of the model's source out of a stack trace."""

from __future__ import annotations

import pytest

from edgekit.frontend.sources import source_line

OWN = 'File "/home/me/heads.py", line 12, in forward\n    return det(x)'


@pytest.mark.parametrize(
    "inner",
    [
        'File "/opt/site-packages/torch/nn/modules/linear.py", line 134, in forward\n    return F.linear()',
        'File "C:\\lib\\site-packages\\torch\\nn\\functional.py", line 1, in relu\n    y',
        'File "<eval_with_key>.26", line 5, in forward\n    mul = torch.ops.aten.mul.Tensor(x, 2);  x = None',
    ],
)
def test_code_that_the_user_did_not_write_is_passed_over(inner: str) -> None:
    assert source_line(f"{OWN}\n  {inner}") == "heads.py, line 12: return det(x)"
    assert source_line(inner) == ""


def test_a_notebook_s_cell_is_the_user_s_code() -> None:
    assert source_line('File "<ipython-input-3-ab>", line 2, in forward\n    y') == "<ipython-input-3-ab>, line 2: y"


def test_without_a_frame_there_is_no_line() -> None:
    assert source_line(None) == source_line("") == source_line("no frame at all") == ""
