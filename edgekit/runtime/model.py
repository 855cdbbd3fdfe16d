"""``load``: from a bundle to a model that takes frames and gives typed results."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.bundle import Bundle, Entry, read_bundle
from edgekit.errors import BundleError, MachineMismatch, UserError
from edgekit.progress import Progress, progress_for
from edgekit.runtime.choice import choose_entry
from edgekit.runtime.golden import check_golden, golden_errors
from edgekit.runtime.pipeline import pipelined
from edgekit.runtime.preprocess import resize_frame
from edgekit.runtime.session import Session
from edgekit.runtime.sessions import open_session
from edgekit.runtime.tasks import get_runtime_task, spec_from_dict
from edgekit.runtime.tasks.base import Result, Spec
from edgekit.runtime.tensorrt import Flavour, flavour_of
from edgekit.runtime.tensorrt.engines import engine_cache, engine_for
from edgekit.tensorspec import TensorSpec

__all__ = ["Model", "check_self_test", "load", "open_entry"]

Array = npt.NDArray[Any]

_IMAGE = "image"


def load(
    path: str | Path,
    *,
    target: str | None = None,
    threads: int | None = None,
    streams: int | None = None,
    self_test: bool = True,
    cache_dir: str | Path | None = None,
    trust_plan: bool = False,
    build: bool = True,
    cuda_graphs: bool = True,
) -> Model:
    """Opens a bundle on this machine.

    The whole file is verified before anything else. Then the first entry that fits this machine is opened, and it must
    reproduce the bundle's golden outputs.

    Args:
        path: The ``.edge`` file.
        target: Name or alias of the target whose entry to open; None takes the best for this machine.
        threads: CPU threads of the engine; None leaves it to the engine's options.
        streams: Inferences that run side by side; None leaves it to the engine's options.
        self_test: Run the golden inputs and compare. Takes a few inferences.
        cache_dir: Folder for compiled engines, so that loading again is faster.
        trust_plan: Open an engine that is a TensorRT plan, which can run code, because you trust where the bundle
            comes from. Without it, and where another release made the plan, the engine is built here.
        build: Build the engine where it must be built on the device and the cache does not have it. Takes minutes.
        cuda_graphs: On NVIDIA GPUs: launch inferences as CUDA graphs where that is possible.

    Returns:
        The model; close it, or use it as a context manager.

    Raises:
        BundleError: Missing, damaged or tampered with, or of a newer format.
        MachineMismatch: No entry fits this machine, or the engine fails its self-test here.
        BackendMissing: The inference library is not installed.
        UserError: No such target in the bundle, or an illegal option.
        StageError: The inference library refuses the engine.
    """
    bundle = read_bundle(Path(path))
    folder = None if cache_dir is None else Path(cache_dir)
    choice = choose_entry(bundle, target=target, cache_dir=folder)
    if choice.warning is not None:
        warnings.warn(f"{bundle.path}: {choice.entry.target}: {choice.warning}", RuntimeWarning, stacklevel=2)
    session, _ = open_entry(
        bundle,
        choice.entry,
        threads=threads,
        streams=streams,
        cache_dir=folder,
        trusted=trust_plan,
        build=build,
        cuda_graphs=cuda_graphs,
        progress=progress_for(quiet=False),
    )
    try:
        if self_test:
            check_self_test(bundle, choice.entry, session)
        return Model(bundle=bundle, entry=choice.entry, session=session)
    except BaseException:
        session.close()
        raise


class Model:
    """A bundle's entry, opened on this machine. Thread-safe; made by :func:`load`.

    Args:
        bundle: The verified bundle.
        entry: The entry that ``session`` runs.
        session: Belongs to the model from here on.

    Raises:
        BundleError: The task spec does not fit the engine's input.
    """

    def __init__(self, *, bundle: Bundle, entry: Entry, session: Session) -> None:
        self.bundle = bundle
        self.entry = entry
        self.session = session
        self.spec: Spec | None = None
        if bundle.manifest.task is not None:
            self.spec = spec_from_dict(bundle.manifest.task, where=f"{bundle.path}: task")
            self._task = get_runtime_task(self.spec.task)
            _check_image_input(bundle, session.inputs, self.spec)

    def __call__(self, frame: Array) -> Result:
        """Runs one frame of any size.

        Args:
            frame: (H, W, 3) BGR, or (H, W) gray, of the spec's dtype (mostly uint8).

        Returns:
            The task's typed result, in coordinates of the frame.

        Raises:
            UserError: The bundle has no task, the frame is not one, or the model is closed.
            StageError: The engine failed.
        """
        return self.decode(self.session.infer(self.prepare(frame)), frame.shape)

    def stream(self, frames: Iterable[Array]) -> Iterator[Result]:
        """Runs frames one after the other, preparing and decoding while the engine works.

        Results come in the order of the frames, about ``session.in_flight`` frames behind. Frames are not kept: a
        camera may reuse its buffer.

        Args:
            frames: As for a call.

        Raises:
            UserError: As for a call.
            StageError: The engine failed.
        """

        def prepared() -> Iterator[tuple[tuple[int, ...], dict[str, Array]]]:
            for frame in frames:
                feeds = self.prepare(frame)
                for name, array in feeds.items():
                    if np.may_share_memory(array, frame):
                        feeds[name] = array.copy()
                yield frame.shape, feeds

        for shape, outputs in pipelined(self.session, prepared()):
            yield self.decode(outputs, shape)

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the engine below the task; see :meth:`edgekit.runtime.session.Session.infer`."""
        return self.session.infer(feeds)

    def prepare(self, frame: Array) -> dict[str, Array]:
        """Returns what the engine is fed for a frame: ``image``, (1, h, w, C). It may share the frame's memory.

        Raises:
            UserError: The bundle has no task, or the frame is not one.
        """
        return {_IMAGE: resize_frame(frame, self._spec().input)[None]}

    def decode(self, outputs: Mapping[str, Array], frame_shape: tuple[int, ...]) -> Result:
        """Turns the engine's outputs for one frame into the task's typed result.

        Args:
            outputs: Output name to array with a batch dimension of 1.
            frame_shape: Shape of the original frame.

        Raises:
            UserError: The bundle has no task, or the outputs do not fit it.
        """
        spec = self._spec()
        result: Result = self._task.decode({name: array[0] for name, array in outputs.items()}, spec, frame_shape)
        return result

    def close(self) -> None:
        """Frees the engine. A second call does nothing."""
        self.session.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _spec(self) -> Spec:
        if self.spec is None:
            raise UserError(
                f"{self.bundle.path}: has no task, so it does not know what to do with a frame",
                hint="use model.infer, or compile with a task spec: edgekit compile --task ...",
            )
        return self.spec


def open_entry(
    bundle: Bundle,
    entry: Entry,
    *,
    threads: int | None,
    streams: int | None,
    cache_dir: Path | None,
    trusted: bool,
    build: bool,
    cuda_graphs: bool = True,
    progress: Progress,
) -> tuple[Session, str]:
    """Opens an entry that fits this machine; the arguments are those of :func:`load`.

    Returns:
        The session, and why its engine was built just now; empty where it was not.
    """
    flavour = flavour_of(entry.backend)
    kind, why = "" if entry.engine is None else entry.engine.kind, ""
    if flavour is not None and not (trusted and _is_of_this_release(entry, flavour)):
        graph, cache = bundle.read(entry.graph), engine_cache(cache_dir)
        obtained = engine_for(flavour, graph, entry.options, cache=cache, build=build, progress=progress)
        kind, files, trusted, why = flavour.engine_kind, {"plan": obtained.data}, True, obtained.why_built
    else:
        assert entry.engine is not None
        files = bundle.engine_files(entry.engine)
    session = open_session(
        kind,
        files,
        entry.options,
        entry.inputs,
        entry.outputs,
        threads=threads,
        streams=streams,
        cache_dir=cache_dir,
        trusted=trusted,
        cuda_graphs=cuda_graphs,
    )
    return session, why


def _is_of_this_release(entry: Entry, flavour: Flavour) -> bool:
    """Whether the entry's plan was made by the very release that is installed here; no other could open it."""
    return (
        entry.engine is not None and entry.options.get("builder") == f"{flavour.title} {flavour.library().__version__}"
    )


def check_self_test(bundle: Bundle, entry: Entry, session: Session) -> dict[str, float]:
    """Runs the golden inputs through an opened entry.

    Returns:
        The relative L2 error of each output.

    Raises:
        MachineMismatch: An output is too far from its reference.
    """
    inputs = {name: bundle.array(file) for name, file in entry.golden.inputs.items()}
    outputs = {name: bundle.array(file) for name, file in entry.golden.outputs.items()}
    errors = golden_errors(session.infer, inputs, outputs)
    problem = check_golden(errors, entry.golden.rel_l2)
    if problem is not None:
        raise MachineMismatch(
            f"{bundle.path}: {entry.target} ({entry.precision}): the engine fails its self-test here: {problem}",
            hint="compile the model on this kind of machine; to look into it, load with self_test=False",
        )
    return errors


def _check_image_input(bundle: Bundle, inputs: tuple[TensorSpec, ...], spec: Spec) -> None:
    image = spec.input
    wanted = (*image.size, image.channels)
    if len(inputs) == 1:
        found = inputs[0]
        if (found.name, found.dtype, found.shape[1:]) == (_IMAGE, image.dtype, wanted) and found.shape[0] in (1, None):
            return
    have = ", ".join(f"'{item.name}' {item.dtype} {item.shape}" for item in inputs)
    raise BundleError(
        f"{bundle.path}: the task spec wants one input '{_IMAGE}' {image.dtype} {(1, *wanted)}, the engine takes {have}"
    )
