"""Reads a folder of images: one folder per class, or a flat folder without labels.

The rules:

1. Folders inside the root are classes, and their images are directly inside; the class order is the spec's label order,
   or the sorted folder names when no labels are given.
2. Images directly in the root are an unlabelled set. Both at once, or folders inside class folders, are an error.
3. A class folder that is not among the labels is an error. A label without a folder (or with an empty one) is allowed
   and noted: a calibration set need not have every class.
4. Names that begin with a dot are hidden and skipped. Files that are no images by their suffix are ignored and counted.
5. Everything is sorted by name, so the file system's order never matters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgekit.config import nearest
from edgekit.data.dataset import Dataset, Sample
from edgekit.errors import DataError

__all__ = ["IMAGE_SUFFIXES", "read_folder"]

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".dib", ".jp2", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Suffixes (lower case) of files that count as images: what every OpenCV build decodes."""

_EXPECTED = "expected images directly inside (no labels), or one folder of images per class"
_SHOWN = 5


def read_folder(root: Path, labels: tuple[str, ...] | None) -> Dataset:
    """Lists the images of a folder with their labels; reads no pixels.

    Args:
        root: The folder.
        labels: Class names in the order of the model's outputs; None takes the sorted folder names.

    Returns:
        Samples sorted by class folder and file name; ``classes`` is ``labels`` (or the folder names), or None for a
        flat folder.

    Raises:
        DataError: The folder is missing, is a file, cannot be read, holds no image, mixes layouts, or has class folders
            that are not among ``labels``.
    """
    folders, files = _entries(root)
    images = [path for path in files if _is_image(path)]
    if folders and images:
        raise DataError(
            f"{root}: holds {len(images)} images ({_few(path.name for path in images)}) beside "
            f"{len(folders)} folders ({_few(path.name for path in folders)})",
            hint=f"{_EXPECTED}, not both",
        )
    if folders:
        return _labelled(root, folders, labels, ignored=len(files))
    if not images:
        ignored = f"; {len(files)} other files were ignored ({_few(path.name for path in files)})" if files else ""
        raise DataError(
            f"{root}: no images found{ignored}", hint=f"{_EXPECTED}; image suffixes: {' '.join(sorted(IMAGE_SUFFIXES))}"
        )
    samples = tuple(Sample(path=path, label=None) for path in images)
    return Dataset(samples=samples, classes=None, ignored=len(files) - len(images))


def _labelled(root: Path, folders: Sequence[Path], labels: tuple[str, ...] | None, *, ignored: int) -> Dataset:
    names = [_normal(folder.name) for folder in folders]
    classes = tuple(names) if labels is None else labels
    index = {_normal(label): position for position, label in enumerate(classes)}
    extra = [name for name in names if name not in index]
    absent = [label for label in classes if _normal(label) not in set(names)]
    if extra:
        raise DataError(
            f"{root}: {len(extra)} class folders are not among the task's {len(classes)} labels: {_few(extra)}; "
            f"labels without a folder: {_few(absent) if absent else 'none'}",
            hint=f"for '{extra[0]}': {nearest(extra[0], absent if absent else classes)} Rename the folder or label; "
            "images without labels go directly into one folder",
        )
    samples: list[Sample] = []
    empty: list[str] = []
    for folder, name in zip(folders, names, strict=True):
        inner_folders, files = _entries(folder)
        if inner_folders:
            raise DataError(
                f"{folder}: a class folder holds folders ({_few(path.name for path in inner_folders)}), not images",
                hint=f"give the folder one level deeper (such as {folder}) if its folders are the classes",
            )
        images = [path for path in files if _is_image(path)]
        ignored += len(files) - len(images)
        if not images:
            empty.append(name)
        samples.extend(Sample(path=path, label=index[name]) for path in images)
    if not samples:
        raise DataError(
            f"{root}: no images in its {len(folders)} class folders ({_few(names)}); {ignored} other files ignored",
            hint=f"{_EXPECTED}; image suffixes: {' '.join(sorted(IMAGE_SUFFIXES))}",
        )
    missing = [*absent, *empty]
    notes = (
        (f"{len(missing)} of {len(classes)} classes have no image in the folder: {_few(missing)}",) if missing else ()
    )
    return Dataset(samples=tuple(samples), classes=classes, notes=notes, ignored=ignored)


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Returns visible folders and files, each sorted by name; a broken link is a file, so that reading reports it."""
    if not folder.exists():
        raise DataError(f"{folder}: no such folder", hint="check the path")
    if not folder.is_dir():
        raise DataError(f"{folder}: is a file, expected a folder", hint=_EXPECTED)
    try:
        entries = sorted(
            (path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name
        )
    except OSError as error:
        raise DataError(f"{folder}: cannot list the folder: {error.strerror}", hint="check its permissions") from error
    return [path for path in entries if path.is_dir()], [path for path in entries if not path.is_dir()]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _normal(name: str) -> str:
    """Composes accents: archives made on macOS store folder names decomposed, TOML files hold them composed."""
    return unicodedata.normalize("NFC", name)


def _few(names: Iterable[str]) -> str:
    known = list(names)
    rest = len(known) - _SHOWN
    return ", ".join(known[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
