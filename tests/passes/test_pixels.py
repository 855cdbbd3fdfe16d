from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekit.backends.openvino.backend import OpenVinoBackend
from edgekit.calibration import Recipe
from edgekit.errors import UserError
from edgekit.export import export_portable
from edgekit.frontend import load_program
from edgekit.passes import run_passes
from edgekit.passes.aten import is_call, node_facts, read_tensor
from edgekit.passes.fold import FoldBatchNorm, FoldPixels, FoldPreprocessing
from edgekit.passes.fold.exactness import Exactness
from edgekit.passes.quantize import Quantize
from edgekit.passes.quantize.grids import Grid
from edgekit.passes.quantize.pixels import pixel_grid
from edgekit.passes.quantize.policy import Site, moves_only
from edgekit.passes.samples import CalibrationData
from edgekit.program import Program
from edgekit.runtime.golden import rel_l2
from edgekit.runtime.machine import default_target
from edgekit.runtime.tasks.base import ImageInput
from edgekit.runtime.tasks.classification import ClassificationSpec
from edgekit.targets import QuantizeRules, load_target
from tests.networks import CONTEXT, LABELS, folded, pictures

SIZE = 16
QDQ = torch.ops.edgekit.qdq.default
RULES = QuantizeRules(activations="uint8-asymmetric", raw_pixels="fold")
IMAGENET = ImageInput(
    size=(SIZE, SIZE), color="rgb", scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
INPUTS = {
    "imagenet rgb": IMAGENET,
    "imagenet bgr": replace(IMAGENET, color="bgr"),
    "whole levels": ImageInput(size=(SIZE, SIZE), color="bgr", mean=(104, 117, 123), std=(1, 1, 1)),
    "zero to one": ImageInput(size=(SIZE, SIZE), scale=1 / 255),
    "raw": ImageInput(size=(SIZE, SIZE)),
    "minus one to one": ImageInput(size=(SIZE, SIZE), scale=1 / 127.5, mean=(1, 1, 1)),
    "gray": ImageInput(size=(SIZE, SIZE), channels=1, color="gray", scale=1 / 255, mean=(0.1307,), std=(0.3081,)),
}


class Stem(nn.Module):
    """A first layer and nothing else."""

    def __init__(
        self, channels: int = 3, kernel: int = 3, stride: int = 1, padding: int | str = 1, **more: int
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 6, kernel, stride, padding, **more)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class Changed(nn.Module):
    """A first layer behind, or beside, something else."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.other = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "padded with zeros":
            return self.conv(F.pad(x, (0, 1, 2, 1)))
        if self.how == "reflected":
            return self.conv(F.pad(x, (1, 1, 1, 1), mode="reflect"))
        if self.how == "two readers":
            return self.conv(x) + self.other(x)
        if self.how == "a pool":
            return self.conv(F.max_pool2d(x, 2))
        return self.conv(self.conv(x))


def spec(image: ImageInput) -> ClassificationSpec:
    return ClassificationSpec(task="classification", labels=LABELS, input=image)


def program(net: nn.Module, image: ImageInput = IMAGENET) -> Program:
    return run_passes(load_program(net.eval(), task=spec(image)), [FoldBatchNorm(), FoldPreprocessing()], CONTEXT)


def fold(item: Program, rules: QuantizeRules = RULES) -> Program:
    return run_passes(item, [FoldPixels(rules=rules)], CONTEXT)


def frames(channels: int, count: int = 3) -> torch.Tensor:
    """Noise, and a black and a white frame: (count + 2, SIZE, SIZE, channels) uint8."""
    noise = torch.randint(0, 256, (count, SIZE, SIZE, channels), generator=torch.Generator().manual_seed(5))
    ends = torch.tensor([0, 255]).view(2, 1, 1, 1).expand(2, SIZE, SIZE, channels)
    return torch.cat([noise, ends]).to(torch.uint8)


def why_left(item: Program) -> str:
    record = item.history[-1]
    assert record.changed == 0
    (skipped,) = record.skipped
    return skipped.why


SHAPES = [(3, 1, 1), (3, 2, 1), (7, 2, 3), (4, 4, 0), (3, 1, "same")]


@pytest.mark.parametrize(
    ("name", "shape"),
    [*(("imagenet rgb", shape) for shape in SHAPES), *((name, (3, 1, 1)) for name in INPUTS if name != "imagenet rgb")],
)
def test_the_folded_layer_pads_with_whole_levels_and_is_exact_otherwise(
    name: str, shape: tuple[int, int, int | str]
) -> None:
    torch.manual_seed(1)
    image, (kernel, stride, padding) = INPUTS[name], shape
    net = Stem(image.channels, kernel, stride, padding)
    before = program(net, image)
    after = fold(before)
    assert after.history[-1].changed == 1
    details = after.history[-1].details
    levels = torch.tensor(details["levels"][::-1] if image.color == "rgb" else details["levels"]).double()
    mean = torch.tensor(image.mean, dtype=torch.float64)
    assert float((levels - mean / image.scale).abs().max()) < 0.5001
    # Reference: the frame padded with these levels, then the trainer's preprocessing, and no padding after.
    width = (kernel - 1) // 2 if padding == "same" else int(padding)
    pixels, column = frames(image.channels), (1, -1, 1, 1)
    ordered = (pixels.flip(3) if image.color == "rgb" else pixels).permute(0, 3, 1, 2).double()
    padded = F.pad(ordered - levels.view(column), (width,) * 4) + levels.view(column)
    ready = (padded * image.scale - mean.view(column)) / torch.tensor(image.std).double().view(column)
    assert net.conv.bias is not None
    with torch.no_grad():
        expected = F.conv2d(ready, net.conv.weight.double(), net.conv.bias.double(), stride=stride)
    actual = after.run(pixels)[0].numpy()
    assert rel_l2(actual, expected.numpy()) < 1e-6
    # Against the program before: the same inside, and where the mean is a whole level at the border too.
    assert rel_l2(actual, before.run(pixels)[0].numpy()) < (0.02 if width else 1e-6)
    assert details["inside_rel_l2"] < 1e-6
    assert (details["border_rel_l2"] is None) == (width == 0)
    if name in ("whole levels", "raw", "zero to one"):
        assert details["border_levels"] < 1e-3


def test_a_border_error_is_told_in_pixel_levels() -> None:
    details = fold(program(Stem())).history[-1].details
    # ImageNet's means are 123.675, 116.28 and 103.53 levels; the largest remainder, of the blue one, is 0.47.
    assert details["levels"] == [104, 116, 124]
    assert 0.25 < details["border_levels"] < 0.475


def test_the_weight_keeps_its_magnitude_and_the_step_is_a_power_of_two() -> None:
    net = Stem()
    before = net.conv.weight.detach().clone()
    after = fold(program(net))
    (conv,) = [node for node in after.graph.graph.nodes if is_call(node, {torch.ops.aten.conv2d.default})]
    ratio = read_tensor(after.graph, conv.args[1]).detach().flip(1) / before
    assert 0.7 < float(ratio.min()) <= float(ratio.max()) < 1.5
    assert np.log2(after.history[-1].details["step"]) == -6


def test_a_layer_without_a_bias_gets_one_and_a_shared_one_is_left_to_the_others() -> None:
    class Sharing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
            self.two.bias = self.one.bias

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(self.one(x))

    for net in (Sharing(), Stem(padding=0, bias=False)):
        before = program(net)
        torch.testing.assert_close(fold(before).run(frames(3))[0], before.run(frames(3))[0], rtol=1e-4, atol=1e-4)


def test_padding_by_an_operator_of_its_own_is_the_layers_padding() -> None:
    before = program(Changed("padded with zeros"))
    after = fold(before)
    assert after.history[-1].changed == 1
    details = after.history[-1].details
    assert details["inside_rel_l2"] < 1e-6
    assert details["border_levels"] > 0.2
    # The colour order was an index, because the padding came first; now the weight has it.
    assert [node for node in before.graph.graph.nodes if is_call(node, {torch.ops.aten.flip.default})]
    assert not [node for node in after.graph.graph.nodes if is_call(node, {torch.ops.aten.flip.default})]
    assert rel_l2(after.run(frames(3))[0].numpy(), before.run(frames(3))[0].numpy()) < 0.02


def test_any_batch_still_goes_in() -> None:
    after = fold(folded("depthwise"))
    assert after.dynamic_batch
    images = pictures(5)
    one_by_one = torch.cat([after.run(image)[0] for image in images.split(1)])
    torch.testing.assert_close(after.run(images)[0], one_by_one, rtol=1e-4, atol=1e-5)


def test_the_given_program_stays_as_it_was() -> None:
    item = folded("residual")
    before = {name: value.clone() for name, value in item.graph.state_dict().items()}
    fold(item)
    after = item.graph.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (lambda: program(Changed("reflected")), "'pad' before the first convolution does not pad with zeros"),
        (lambda: program(Changed("two readers"), replace(IMAGENET, color="bgr")), "2 operators .* read the picture"),
        (lambda: program(Changed("a pool"), replace(IMAGENET, color="bgr")), "'max_pool2d' reads the picture"),
        (lambda: program(Changed("a pool")), "'max_pool2d' reads the picture"),
        (lambda: program(Changed("twice"), replace(IMAGENET, color="bgr")), "'conv' is shared"),
        (lambda: program(Stem(groups=3), replace(IMAGENET, color="bgr")), "has groups"),
        (lambda: program(Stem(), replace(IMAGENET, dtype="float32")), "the input is float32"),
        (lambda: load_program(Stem().eval(), task=spec(IMAGENET)), "the input is float32"),
        (lambda: program(Stem(), replace(IMAGENET, mean=(0.5, 0.5, -0.1))), "-25.5 pixel levels in channel 0.*25.5"),
        (lambda: program(Stem(), replace(IMAGENET, mean=(0.5, 1.2, 0.1))), "306.0 pixel levels in channel 1.*51.0"),
    ],
)
def test_what_is_left_alone_says_why(item: Callable[[], Program], reason: str) -> None:
    before = item()
    after = fold(before)
    assert re.search(reason, why_left(after)), why_left(after)
    assert list(after.graph.state_dict()) == list(before.graph.state_dict())


def test_a_target_decides_whether_pixels_are_folded() -> None:
    item = folded("residual")
    assert "normalised pixels" in why_left(fold(item, replace(RULES, raw_pixels="float")))
    assert "int8-symmetric" in why_left(fold(item, replace(RULES, activations="int8-symmetric")))
    assert load_target("x86-cpu").quantize.raw_pixels == "fold"
    assert load_target("nvidia-gpu").quantize.raw_pixels == "float"


def test_a_mean_that_no_pixel_has_does_no_harm_without_padding() -> None:
    before = program(Stem(padding=0), replace(IMAGENET, mean=(0.5, 1.2, -0.1)))
    after = fold(before)
    assert after.history[-1].changed == 1
    assert after.history[-1].details["levels"] == [0, 255, 128]
    torch.testing.assert_close(after.run(frames(3))[0], before.run(frames(3))[0], rtol=1e-4, atol=1e-4)


def test_a_fold_that_costs_more_in_int8_than_it_saves_is_not_done() -> None:
    # One large weight on a channel with a tenth of the others' std: folded, it takes the grid for itself.
    net = Stem(kernel=7, padding=3)
    with torch.no_grad():
        net.conv.weight.mul_(0.5)
        net.conv.weight[:, 0] = 0.0
        net.conv.weight[:, 0, 3, 3] = 1.0
    after = fold(program(net, replace(IMAGENET, color="bgr", std=(0.025, 0.25, 0.25))))
    assert "not worth it" in why_left(after)
    noise = after.history[-1].details["first_layer_int8_db"]
    assert noise["raw"] < noise["normalised"]


def test_what_the_comparison_finds_is_held_to_its_bounds() -> None:
    good = Exactness(inside_rel_l2=1e-7, border_rel_l2=0.002, border_levels=0.5, normalised_db=40.0, raw_db=42.0)
    assert good.why_not() is None
    assert "inside" in str(replace(good, inside_rel_l2=1e-4).why_not())
    assert "border" in str(replace(good, border_levels=0.6).why_not())
    assert "not worth it" in str(replace(good, raw_db=39.0).why_not())
    assert all(replace(good, **{name: float("nan")}).why_not() for name in ("inside_rel_l2", "border_levels", "raw_db"))


def test_a_quantized_program_is_refused() -> None:
    with pytest.raises(UserError, match="quantized already"):
        fold(quantized(folded("residual")))


# The grid


def grid_of(item: Program, rules: QuantizeRules = RULES) -> Grid | None:
    (conv,) = [node for node in item.graph.graph.nodes if is_call(node, {torch.ops.aten.conv2d.default})]
    value = conv.args[0]
    while moves_only(value):  # where the policy puts the pair
        value = value.args[0]
    frame = torch.zeros((2, *item.inputs[0].shape[1:]), dtype=getattr(torch, item.inputs[0].dtype))  # type: ignore[misc]
    facts = node_facts(item.graph, frame)
    return pixel_grid(item.graph, facts, [Site(node=value, role="conv")], rules)


@pytest.mark.parametrize("name", INPUTS)
def test_folded_pixels_lie_on_their_grid_bit_by_bit(name: str) -> None:
    image = INPUTS[name]
    after = fold(program(Stem(image.channels), image))
    grid = grid_of(after)
    assert grid is not None
    (conv,) = [node for node in after.graph.graph.nodes if is_call(node, {torch.ops.aten.conv2d.default})]
    seen: list[torch.Tensor] = []

    class Watcher(torch.fx.Interpreter):
        def run_node(self, node: torch.fx.Node) -> object:
            if node is conv:
                seen.append(self.fetch_args_kwargs_from_env(node)[0][0])
            return super().run_node(node)

    every = torch.arange(256, dtype=torch.uint8).view(1, SIZE, SIZE, 1).expand(1, SIZE, SIZE, image.channels)
    Watcher(after.graph).run(every)
    assert torch.equal(QDQ(seen[0], grid.scale, grid.zero_point, grid.axis, grid.qmin, grid.qmax), seen[0])
    assert grid.axis == (1 if len(set(after.history[-1].details["levels"])) > 1 else -1)
    # Read as integers, the tensor is the frame.
    zero = grid.zero_point.view(-1, 1, 1).float()
    assert torch.equal(seen[0] / grid.scale.view(-1, 1, 1) + zero, every.permute(0, 3, 1, 2).float())


def test_what_is_not_on_pixel_levels_has_no_such_grid() -> None:
    assert grid_of(program(Stem())) is None
    assert grid_of(program(Stem(), replace(IMAGENET, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))) is None
    caffe = program(Stem(), INPUTS["whole levels"])
    assert grid_of(caffe) is not None
    assert grid_of(caffe, replace(RULES, raw_pixels="float")) is None
    assert grid_of(caffe, replace(RULES, activations="int8-symmetric")) is None
    assert grid_of(program(Stem(), replace(INPUTS["raw"], dtype="uint16", color="bgr"))) is None


# int8


def quantized(item: Program, rules: QuantizeRules = RULES) -> Program:
    recipe = Recipe(name="test", title="", samples=32, batch_size=8)
    images = pictures(32)[..., : item.inputs[0].shape[-1]]
    data = CalibrationData(source=lambda: ((part,) for part in images.split(8)), count=32)
    return run_passes(item, [Quantize(rules=rules, recipe=recipe, data=data)], CONTEXT)


@pytest.mark.parametrize("name", ["residual", "depthwise", "attention", "dense"])
def test_int8_of_the_raw_frame_is_as_close_to_float(name: str) -> None:
    item, images = folded(name), pictures(64, seed=99)
    expected = item.run(images)[0]
    raw, normalised = quantized(fold(item)), quantized(item)
    error = [rel_l2(each.run(images)[0].numpy(), expected.numpy()) for each in (raw, normalised)]
    assert error[0] < 1.2 * error[1]


def executed(item: Program) -> tuple[list[tuple[str, str]], float]:
    """Layers up to the first convolution as OpenVINO runs them, by kind and precision, and the engine's error."""
    target = default_target()
    graph = export_portable(item, portable=target.portable, precision="int8", dynamic_batch=False)
    backend, frame = OpenVinoBackend(), pictures(1, seed=3)[..., : item.inputs[0].shape[-1]].contiguous()
    with backend.open(backend.build(graph, target), threads=1) as session:
        layers = [(layer.kind, layer.precision) for layer in session.layers()]
        (answer,) = session.infer({"image": frame.numpy()}).values()
    first = [kind for kind, _ in layers].index("Convolution")
    return layers[: first + 1], rel_l2(answer, item.run(frame)[0].numpy())


@pytest.mark.parametrize(
    "item",
    [
        lambda: folded("residual"),
        lambda: program(Stem(), INPUTS["minus one to one"]),
        lambda: program(Stem(1), INPUTS["gray"]),
        lambda: program(Changed("padded with zeros")),
    ],
    ids=["a zero-point a channel", "one zero-point", "gray", "padded before"],
)
def test_nothing_float_stands_between_the_frame_and_the_first_int8_convolution(item: Callable[[], Program]) -> None:
    pytest.importorskip("openvino")
    # Weights as wide as this CPU's sums allow.
    rules = replace(RULES, weight_bits=default_target().quantize.weight_bits)
    layers, error = executed(quantized(fold(item()), rules))
    assert error < 0.02
    assert layers[-1] == ("Convolution", "int8")
    assert {kind for kind, _ in layers[:-1]} <= {"Reorder", "Reshape", "Transpose"}
    assert all(precision == "int8" for kind, precision in layers if kind == "Reorder")


def test_without_the_fold_arithmetic_stands_there() -> None:
    pytest.importorskip("openvino")
    layers, _ = executed(quantized(folded("residual")))
    assert "Subgraph" in {kind for kind, _ in layers}
