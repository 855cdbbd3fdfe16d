"""Models beyond the usual: no task, several inputs or outputs, any batch, one batch only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgekit
from edgekit.bundle import read_bundle
from edgekit.errors import ConfigError, ModelError
from edgekit.runtime import load
from tests.compiler.world import HERE, World, model_inputs, write_images


def test_a_raw_model_becomes_a_float_engine_and_the_report_says_why(world: World, tmp_path: Path) -> None:
    inputs = model_inputs(1, seed=2)[0][:1]
    report = edgekit.compile(world.net, target=HERE, example_inputs=(inputs,), output=tmp_path / "m.edge", threads=1)
    (target,) = report.targets
    assert "int8" not in {item.precision for item in target.candidates}
    assert target.latency == "measured"
    assert report.float_accuracy is None
    assert [line for line in report.warnings if "int8" in line] == [report.warnings[0]]
    assert "without a task spec" in report.warnings[0]
    with load(report.output, threads=1) as model:
        assert model.spec is None
        (spec,) = model.session.inputs
        (answer,) = model.infer({spec.name: inputs.numpy()}).values()
    np.testing.assert_allclose(answer, world.net(inputs).detach().numpy(), rtol=0.05, atol=0.05)


def test_a_raw_model_without_inputs_to_go_by_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the size of the model's input is not known"):
        edgekit.compile(world.net, target="x86-cpu", output=tmp_path / "m.edge")
    with pytest.raises(ConfigError, match="target 'jetson-orin-nano' does not run fp32"):
        edgekit.compile(world.net, target="jetson", precision="fp32", output=tmp_path / "m.edge")


class Pair(nn.Module):
    """Two inputs, and outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, image: torch.Tensor, bias: torch.Tensor) -> dict[str, torch.Tensor]:
        features = torch.relu(self.conv(image))
        return {"features": features, "scores": features.mean((2, 3)) + bias}


def test_two_inputs_and_a_dict_of_outputs_keep_their_names(tmp_path: Path) -> None:
    net = Pair().eval()
    inputs = (torch.rand(1, 3, 8, 8), torch.rand(1, 4))
    report = edgekit.compile(
        net, target="x86-cpu", example_inputs=inputs, precision="fp32", timing=False, output=tmp_path / "m.edge"
    )
    with load(report.output, threads=1) as model:
        feeds = dict(zip([spec.name for spec in model.session.inputs], [item.numpy() for item in inputs], strict=True))
        assert list(feeds) == ["image", "bias"]
        answers = model.infer(feeds)
    expected = net(*inputs)
    assert set(answers) == {"features", "scores"}
    for name, value in expected.items():
        np.testing.assert_allclose(answers[name], value.detach().numpy(), atol=1e-5)


def test_an_engine_of_any_batch_agrees_with_itself(world: World, tmp_path: Path) -> None:
    report = edgekit.compile(
        world.net,
        target=HERE,
        task=world.task,
        data=world.data,
        samples=40,
        precision="int8",
        dynamic_batch=True,
        output=tmp_path / "m.edge",
        threads=1,
    )
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    with load(report.output, threads=1) as model:
        assert model.session.inputs[0].shape == (None, 16, 16, 3)
        (together,) = model.infer({"image": images}).values()
        single = [next(iter(model.infer({"image": image[None]}).values())) for image in images]
    assert together.shape == (5, 4)
    np.testing.assert_allclose(together, np.concatenate(single), rtol=1e-4, atol=1e-4)


class Unbatched(nn.Module):
    """Written for one image: its reshape fixes the batch."""

    def __init__(self, batch: int = 1) -> None:
        super().__init__()
        self.batch = batch
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x)).reshape(self.batch, 4, 256).mean(2)


def test_a_model_for_one_image_compiles_and_refuses_other_batches(world: World, tmp_path: Path) -> None:
    net = Unbatched().eval()
    report = edgekit.compile(
        net, target=HERE, task=world.task, data=world.data, samples=40, max_drop=100, timing=False,
        output=tmp_path / "m.edge", threads=1,
    )  # fmt: skip
    assert report.targets[0].candidate("int8").status == "shipped"
    assert any(skipped.what == "dynamic batch" for record in report.history["float"] for skipped in record.skipped)
    with pytest.raises(ModelError, match="takes one image at a time, and a dynamic batch was asked for: ") as caught:
        edgekit.compile(
            net, target="x86-cpu", task=world.task, precision="fp32", dynamic_batch=True, output=tmp_path / "d.edge"
        )
    assert "export it with a dynamic batch" in str(caught.value.hint)
    with pytest.raises(ModelError, match="and batch 1/4/16 was asked for: "):
        edgekit.compile(
            net, target="x86-cpu", task=world.task, precision="fp32", batch="1/4/16", output=tmp_path / "d.edge"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["m.edge"]


def test_a_model_for_two_images_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected a first dimension that may be 1") as caught:
        edgekit.compile(
            Unbatched(2).eval(),
            target="x86-cpu",
            example_inputs=(torch.rand(2, 3, 16, 16),),
            output=tmp_path / "m.edge",
        )
    assert caught.value.hint is not None
    assert "batch of 1" in caught.value.hint


def test_golden_inputs_from_data_are_the_user_s_and_the_manifest_says_so(world: World, tmp_path: Path) -> None:
    def compiled(folder: Path) -> tuple[np.ndarray, str]:  # type: ignore[type-arg]
        report = edgekit.compile(
            world.net, target="x86-cpu", task=world.task, data=folder, samples=40, precision="fp32", timing=False,
            golden=3, golden_from_data=True, output=tmp_path / "m.edge", threads=1,
        )  # fmt: skip
        bundle = read_bundle(report.output)
        golden = bundle.manifest.entries[0].golden
        return bundle.array(golden.inputs["image"]), golden.source

    images, source = compiled(world.data)
    assert source == "user"
    assert (images.shape, images.dtype) == ((3, 16, 16, 3), np.uint8)
    assert np.array_equal(compiled(world.data)[0], images)
    other = write_images(tmp_path / "other", count=10, seed=5)
    assert not np.array_equal(compiled(other)[0], images)


def test_unlabelled_data_ships_int8_and_says_what_is_not_known(world: World, tmp_path: Path) -> None:
    data = write_images(tmp_path / "flat", count=10, flat=True)
    report = edgekit.compile(
        world.net, target=HERE, task=world.task, data=data, timing=False, output=tmp_path / "m.edge", threads=1
    )
    (target,) = report.targets
    assert target.shipped == ("int8",)
    assert all(item.accuracy is None for item in target.candidates)
    assert report.data.evaluation_source == "none: --data has no labels"
    assert any("accuracy of the engine was not checked" in line for line in report.warnings)
    assert read_bundle(report.output).manifest.entries[0].accuracy == "none"


def test_unreadable_images_are_skipped_with_a_count(world: World, tmp_path: Path) -> None:
    data, held_out = write_images(tmp_path / "data", count=12), write_images(tmp_path / "test", count=12, seed=1)
    (data / "red" / "red000.png").write_bytes(b"no image")
    (held_out / "blue" / "blue003.png").write_bytes(b"")
    report = edgekit.compile(
        world.net, target=HERE, task=world.task, data=data, eval_data=held_out, timing=False,
        output=tmp_path / "m.edge", threads=1,
    )  # fmt: skip
    assert (report.data.calibration, report.data.evaluation) == (47, 47)
    assert report.float_accuracy is not None
    assert report.float_accuracy.samples == 47
    assert [line.split(":")[0] for line in report.data.skipped] == ["red/red000.png", "blue/blue003.png"]
    (warning,) = [line for line in report.warnings if "skipped" in line]
    assert warning.startswith("2 images could not be read and were skipped: red/red000.png: cannot decode")
    assert str(tmp_path) not in str(read_bundle(report.output).report())


def test_too_many_unreadable_images_are_an_error(world: World, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", count=12)
    for number in range(8):
        (data / "red" / f"red{number:03d}.png").write_bytes(b"no image")
    with pytest.raises(edgekit.errors.DataError, match="too many unreadable images: "):
        edgekit.compile(world.net, target="x86-cpu", task=world.task, data=data, output=tmp_path / "m.edge")
    assert not (tmp_path / "m.edge").exists()
