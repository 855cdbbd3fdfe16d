from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from edgekit.errors import BackendMissing, StageError, UserError
from edgekit.runtime.session import Session
from edgekit.runtime.sessions import missing_backend, missing_device, open_session
from edgekit.tensorspec import TensorSpec
from tests.runtime.engines import CPU, SIZE, TinyEngine, color_engine, pair_engine, renamed

ROOT = Path(__file__).resolve().parents[3]


def opened(engine: TinyEngine, *, options: dict[str, Any] | None = None, **keys: Any) -> Session:
    return open_session(
        "openvino-ir", engine.files, CPU if options is None else options, engine.inputs, engine.outputs, **keys
    )


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def means(batch: np.ndarray) -> np.ndarray:
    return batch.mean((1, 2), dtype=np.float64)


def test_infer_answers_what_the_engine_computes() -> None:
    with opened(color_engine()) as session:
        for image in images(5):
            out = session.infer({"image": image[None]})
            assert list(out) == ["logits"]
            np.testing.assert_allclose(out["logits"], means(image[None]), rtol=1e-5)
            assert out["logits"].dtype == np.float32


def test_outputs_belong_to_the_caller_and_feeds_stay_as_they_are() -> None:
    with opened(color_engine()) as session:
        first, second = images(2)
        kept = first.copy()
        a = session.infer({"image": first[None]})["logits"]
        b = session.infer({"image": second[None]})["logits"]
        np.testing.assert_allclose(a, means(first[None]), rtol=1e-5)
        np.testing.assert_array_equal(first, kept)
        assert a.flags.owndata
        assert a.flags.writeable
        assert not np.shares_memory(a, b)
    np.testing.assert_allclose(b, means(second[None]), rtol=1e-5)


def test_any_strides_and_read_only_arrays_are_taken() -> None:
    wide = np.random.default_rng(1).integers(0, 256, (1, 2 * SIZE, SIZE, 6), dtype=np.uint8)
    frozen = images(1)
    frozen.setflags(write=False)
    with opened(color_engine()) as session:
        for feed in (wide[:, ::2, ::-1, 3:], np.asfortranarray(images(1)), frozen):
            np.testing.assert_allclose(session.infer({"image": feed})["logits"], means(feed), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_other_pixel_types(dtype: str) -> None:
    engine = color_engine(dtype=dtype)
    feed = (np.random.default_rng(2).random((1, SIZE, SIZE, 3)) * 60000).astype(dtype)
    with opened(engine) as session:
        np.testing.assert_allclose(session.infer({"image": feed})["logits"], means(feed), rtol=1e-5)
        swapped = feed.astype(feed.dtype.newbyteorder())
        np.testing.assert_allclose(session.infer({"image": swapped})["logits"], means(feed), rtol=1e-5)


@pytest.mark.parametrize("batch", [1, None])
def test_several_inputs_and_outputs_go_by_name(batch: int | None) -> None:
    engine = pair_engine(batch=batch)
    a, b = np.arange(4, dtype=np.float32)[None], np.full((1, 4), 10, np.float32)
    swapped = TinyEngine(files=engine.files, inputs=engine.inputs[::-1], outputs=engine.outputs[::-1])
    for each in (engine, swapped):
        with opened(each) as session:
            for out in (session.infer({"b": b, "a": a}), session.collect(session.submit({"a": a, "b": b}))):
                assert list(out) == [spec.name for spec in each.outputs]
                np.testing.assert_array_equal(out["sum"], a + b)
                np.testing.assert_array_equal(out["difference"], a - b)


def test_a_dynamic_batch_takes_any_number() -> None:
    with opened(color_engine(batch=None)) as session:
        assert session.inputs[0].shape == (None, SIZE, SIZE, 3)
        for count in (3, 1, 5):
            batch = images(count)
            np.testing.assert_allclose(session.infer({"image": batch})["logits"], means(batch), rtol=1e-5)
            np.testing.assert_allclose(
                session.collect(session.submit({"image": batch}))["logits"], means(batch), rtol=1e-5
            )
        with pytest.raises(UserError, match=r"expected uint8 \(N, 8, 8, 3\), got uint8 \(0, 8, 8, 3\)"):
            session.infer({"image": images(1)[:0]})
    with opened(pair_engine(batch=None)) as session, pytest.raises(UserError, match="differ in their batch size"):
        session.infer({"a": np.zeros((2, 4), np.float32), "b": np.zeros((3, 4), np.float32)})


def test_a_bounded_batch_refuses_more(tmp_path: Path) -> None:
    image = ops.parameter(ov.PartialShape([ov.Dimension(1, 4), SIZE]), np.float32, name="image")
    image.output(0).set_names({"image"})
    double = ops.add(image, image)
    double.output(0).set_names({"double"})
    ov.serialize(ov.Model([double], [image], "m"), tmp_path / "m.xml", tmp_path / "m.bin")
    engine = TinyEngine(
        files={role: (tmp_path / f"m.{role}").read_bytes() for role in ("xml", "bin")},
        inputs=(TensorSpec(name="image", dtype="float32", shape=(None, SIZE)),),
        outputs=(TensorSpec(name="double", dtype="float32", shape=(None, SIZE)),),
    )
    with opened(engine) as session:
        for count in (1, 4):
            batch = np.ones((count, SIZE), np.float32)
            np.testing.assert_array_equal(session.infer({"image": batch})["double"], 2 * batch)
        with pytest.raises(
            UserError, match="input 'image': a batch of 5; the engine was built for at most 4"
        ) as caught:
            session.infer({"image": np.ones((5, SIZE), np.float32)})
        assert "--batch" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, "input 'image': missing; the engine takes image"),
        ({"imag": images(1)}, "input 'imag': the engine has none of that name\n  did you mean 'image'"),
        ({"image": images(1), "mask": images(1)}, "input 'mask': the engine has none of that name"),
        ({"image": images(2)}, "input 'image': expected uint8 (1, 8, 8, 3), got uint8 (2, 8, 8, 3)"),
        ({"image": images(1)[0]}, "got uint8 (8, 8, 3)"),
        ({"image": images(1).astype(np.float32)}, "got float32 (1, 8, 8, 3)\n  pass the raw frame"),
        ({"image": images(1).tolist()}, "got list"),
    ],
)
def test_wrong_feeds_say_what_was_expected(feeds: Any, words: str) -> None:
    with opened(color_engine()) as session:
        for call in (session.infer, session.submit):
            with pytest.raises(UserError) as caught:
                call(feeds)
            assert words in str(caught.value)
        # Nothing was left behind: the session still works.
        assert session.infer({"image": images(1)})["logits"].shape == (1, 3)


def test_threads_hammering_it_get_their_own_answers() -> None:
    batch = images(64, seed=3)
    expected = means(batch)
    with opened(color_engine(), threads=1) as session, ThreadPoolExecutor(8) as workers:

        def ask(index: int) -> np.ndarray:
            feed = {"image": batch[index % 64][None]}
            return session.infer(feed)["logits"] if index % 3 else session.collect(session.submit(feed))["logits"]

        answers = list(workers.map(ask, range(1000)))
    for index, answer in enumerate(answers):
        np.testing.assert_allclose(answer[0], expected[index % 64], rtol=1e-5)


def test_tickets_are_collected_in_any_order_and_never_block() -> None:
    batch = images(20, seed=4)
    with opened(color_engine(), threads=1) as session:
        tickets = [session.submit({"image": image[None]}) for image in batch]
        np.testing.assert_allclose(session.infer({"image": batch[:1]})["logits"], means(batch[:1]), rtol=1e-5)
        for index in np.random.default_rng(0).permutation(20):
            answer = session.collect(tickets[index])["logits"]
            np.testing.assert_allclose(answer, means(batch[index][None]), rtol=1e-5)
        with pytest.raises(UserError, match="redeemed before"):
            session.collect(tickets[0])


def test_a_ticket_belongs_to_its_session() -> None:
    with opened(color_engine()) as session, opened(color_engine()) as other:
        ticket = session.submit({"image": images(1)})
        with pytest.raises(UserError, match="of this session's submit"):
            other.collect(ticket)
        with pytest.raises(UserError, match="of this session's submit, got int"):
            session.collect(3)  # type: ignore[arg-type]
        session.collect(ticket)


def test_a_closed_session_says_so_and_closing_waits_for_what_runs() -> None:
    session = opened(color_engine())
    batch = images(1)
    ticket = session.submit({"image": batch})
    session.close()
    session.close()
    np.testing.assert_allclose(session.collect(ticket)["logits"], means(batch), rtol=1e-5)
    for call in (
        lambda: session.infer({"image": batch}),
        lambda: session.submit({"image": batch}),
        session.layers,
        session.describe,
    ):
        with pytest.raises(UserError, match="closed"):
            call()


def test_closing_wakes_who_waits_for_a_request() -> None:
    """Threads keep asking until they are told that the session is closed; nobody hangs."""
    session = opened(color_engine(), threads=1)
    told = []

    def ask() -> None:
        try:
            while True:
                session.infer({"image": images(1)})
        except UserError as error:
            told.append(error.message)

    workers = [threading.Thread(target=ask, daemon=True) for _ in range(6)]
    for worker in workers:
        worker.start()
    session.close()
    for worker in workers:
        worker.join(timeout=30)
    assert told == ["this model is closed"] * 6


def test_layers_say_what_ran_in_execution_order() -> None:
    with opened(color_engine()) as session:
        layers = session.layers()
    compute = [layer for layer in layers if layer.compute]
    assert [(layer.name, layer.kind, layer.precision) for layer in compute] == [("conv", "Convolution", "fp32")]
    kinds = [layer.kind for layer in layers]
    assert not {"Input", "Output", "Const"} & set(kinds)
    assert kinds.index("Convolution") < kinds.index("Reduce")


def test_description_and_options() -> None:
    with opened(color_engine(), threads=1) as session:
        facts = session.describe()
        assert facts["inference_num_threads"] == "1"
        assert facts["inference_precision_hint"] == "f32"
        assert facts["performance_hint"] == "LATENCY"
        assert facts["backend"].startswith("OpenVINO 20")
        assert all(isinstance(value, str) and value for value in facts.values())
    with opened(color_engine(), threads=2, streams=2) as session:
        assert session.describe()["num_streams"] == "2"
        assert session.in_flight == 3


@pytest.mark.parametrize(("keys", "words"), [({"threads": 0}, "threads: expected at"), ({"streams": -1}, "streams")])
def test_illegal_settings(keys: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        opened(color_engine(), **keys)


def test_a_compiled_engine_is_cached(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "cache"
    batch = images(1)
    for _ in range(2):
        with opened(color_engine(), cache_dir=folder) as session:
            np.testing.assert_allclose(session.infer({"image": batch})["logits"], means(batch), rtol=1e-5)
    assert len(list(folder.rglob("*.blob"))) == 1
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(UserError, match="cannot be made"):
        opened(color_engine(), cache_dir=blocked / "cache")


def test_an_engine_that_wants_the_cache_gets_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    opened(color_engine(), options={**CPU, "cache": True}).close()
    assert len(list(tmp_path.rglob("*.blob"))) == 1
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="compiled anew"):
        opened(color_engine(), options={**CPU, "cache": True}).close()


def test_what_openvino_refuses_is_an_error_of_the_stage() -> None:
    engine = color_engine()
    with pytest.raises(StageError, match="cannot compile this engine for CPU"):
        opened(TinyEngine(files={**engine.files, "xml": b"<net/>"}, inputs=engine.inputs, outputs=engine.outputs))
    with pytest.raises(StageError, match="outputs are logits; the bundle says scores"):
        opened(renamed(engine, "scores"))
    wrong = (TensorSpec(name="image", dtype="uint8", shape=(1, 9, 9, 3)),)
    with pytest.raises(StageError, match=r"input 'image': the engine has uint8 \(1, 8, 8, 3\); the bundle says"):
        opened(TinyEngine(files=engine.files, inputs=wrong, outputs=engine.outputs))


def test_a_device_that_is_not_here() -> None:
    with pytest.raises(BackendMissing, match="finds no FPGA on this machine, only"):
        opened(color_engine(), options={"device": "FPGA", "properties": {}})
    assert missing_device("openvino-ir", "CPU") is None
    assert missing_device("openvino-ir", "") is None
    problem = missing_device("openvino-ir", "FPGA")
    assert problem is not None
    assert "CPU" in problem


def test_an_unknown_kind_asks_for_an_update() -> None:
    error = missing_backend("quantum-plan")
    assert isinstance(error, BackendMissing)
    assert "openvino-ir" in error.message
    with pytest.raises(BackendMissing, match="no engines of kind 'quantum-plan'"):
        open_session("quantum-plan", {}, {}, (), ())


def test_a_library_that_cannot_be_imported_is_missing(tmp_path: Path) -> None:
    """A broken installation: the package is found, its import fails."""
    fake = tmp_path / "openvino"
    fake.mkdir()
    (fake / "__init__.py").write_text("raise ImportError('libopenvino.so: cannot open shared object file')")
    code = (
        "from edgekit.errors import BackendMissing\nfrom edgekit.runtime.sessions import open_session\n"
        "try: open_session('openvino-ir', {}, {'device': 'CPU'}, (), ())\n"
        "except BackendMissing as error: print(error.exit_code, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.stdout.startswith("5 OpenVINO is installed but cannot be imported: libopenvino.so"), done.stderr
    assert "pip install 'edgekit[openvino]'" in done.stdout


MEMORY = """
import gc, os
from pathlib import Path
import numpy as np
from edgekit.runtime.sessions import open_session
from tests.runtime.engines import CPU, heavy_engine

engine, feed = heavy_engine(mebibytes=16), {"x": np.ones((1, 1024), np.float32)}

closed = []  # kept, so that closing has to free and not the garbage collector

def cycle():
    with open_session("openvino-ir", engine.files, CPU, engine.inputs, engine.outputs) as session:
        closed.append(session)
        session.infer(feed)
        session.collect(session.submit(feed))
        session.submit(feed)

def resident_mib():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

for _ in range(3):
    cycle()
before = resident_mib()
for _ in range(10):
    cycle()
print(resident_mib() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
def test_closing_gives_the_memory_back() -> None:
    # One arena: with several, freed memory stays in whichever a thread of OpenVINO happened to take it from.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    # Ten engines of 16 MiB each; what stays must be less than one.
    assert float(done.stdout) < 8
