from __future__ import annotations

import pytest

from edgekit.runtime.jetson.board import parse_board
from edgekit.targets import list_targets
from tests.runtime.jetson.devices import AGX_ORIN_COMPATIBLE, ORIN_NX_COMPATIBLE, recorded, with_nuls

DEVICES = {
    "orin-nano": (recorded("orin-nano.compatible"), "p3767-0005", "tegra234", "jetson-orin-nano"),
    "orin-nano-r35": (recorded("orin-nano-r35.compatible"), "p3767-0003", "tegra234", "jetson-orin-nano"),
    "orin-nx": (ORIN_NX_COMPATIBLE, "p3767-0001", "tegra234", "jetson-orin-nx"),
    "agx-orin": (AGX_ORIN_COMPATIBLE, "p3701-0000", "tegra234", "jetson-agx-orin"),
    "thor": (recorded("thor.compatible"), "p3834-0008", "tegra264", "jetson-thor"),
}


@pytest.mark.parametrize("name", list(DEVICES))
@pytest.mark.parametrize("as_on_the_device", [True, False], ids=["with NUL", "as printed"])
def test_boards(name: str, as_on_the_device: bool) -> None:
    compatible, part, soc, target = DEVICES[name]
    text = with_nuls(compatible) if as_on_the_device else compatible.replace("\0", "")
    model = recorded(f"{name}.model")
    board = parse_board(model.strip() + "\0", text)
    assert board is not None
    assert board.model == model.strip()
    assert part in board.parts
    assert board.soc == soc
    assert [item.name for item in list_targets() if set(item.modules) & set(board.parts)] == [target]


def test_each_module_is_of_one_target() -> None:
    modules = [module for target in list_targets() for module in target.modules]
    assert len(modules) == len(set(modules)) > 0


@pytest.mark.parametrize(
    "compatible", ["", "raspberrypi,5-model-b\0brcm,bcm2712\0", recorded("agx-orin-r39.compatible-cut")]
)
def test_what_names_no_tegra_is_no_jetson(compatible: str) -> None:
    """The last is a real text that lost its end: that it is an Orin would be a guess."""
    assert parse_board("NVIDIA Jetson AGX Orin Developer Kit", compatible) is None


def test_a_carrier_of_another_maker_and_a_missing_name() -> None:
    board = parse_board("", "seeed,recomputer-j401\0nvidia,p3767-0000\0nvidia,tegra234\0")
    assert board is not None
    assert (board.model, board.parts) == ("", ("p3767-0000",))
