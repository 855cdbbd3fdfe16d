"""torch's long messages, cut to what a user can act on."""

from __future__ import annotations

import logging
import warnings

import torch

from edgekit.frontend.reason import quiet, short_reason, user_line


def test_debugging_advice_is_cut() -> None:
    text = (
        'Constraints violated (L["x"].size()[0])! For more information, run with TORCH_LOGS="+dynamic".\n'
        "  - You marked it dynamic.\n\nThe error above occurred when calling torch.export.export."
    )
    assert short_reason(RuntimeError(text)) == "You marked it dynamic."


def test_long_and_empty_messages() -> None:
    assert short_reason(KeyError()) == "KeyError"
    assert len(short_reason(RuntimeError("x" * 5000))) == 300


def test_line_of_the_user_is_found_below_torch() -> None:
    def mine() -> None:
        torch.zeros(2, 3) @ torch.zeros(2, 3)

    try:
        mine()
    except RuntimeError as error:
        line = user_line(error)
    assert line is not None
    assert line.startswith("test_reason.py:")
    assert line.endswith("torch.zeros(2, 3) @ torch.zeros(2, 3)")


def test_no_line_without_a_frame() -> None:
    assert user_line(RuntimeError("x")) is None


def test_quiet_restores_what_it_changed() -> None:
    logger = logging.getLogger("torch")
    before = logger.level
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with quiet():
            warnings.warn("inside", stacklevel=1)
        warnings.warn("outside", stacklevel=1)
    assert logger.level == before
    assert [str(item.message) for item in seen] == ["outside"]
