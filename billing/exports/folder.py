"""A folder that is there whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from billing.exports.base import ExportError


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`, which becomes it at the end of the block; after an exception it is gone.

    The files in it must be on disk by then. Raises ExportError where `target` holds something already, or can't be
    written.
    """
    _require_free(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    except OSError as error:
        raise ExportError(f"{target.parent} can't be written to: {error.strerror}.") from error
    try:
        yield partial
        _put_in_place(partial, target)
    except OSError as error:
        raise ExportError(f"The export could not be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_partials(target: Path) -> None:
    """What somebody who was killed has left of the same folder. Call it only where nobody else can be writing it."""
    for partial in target.parent.glob(f".{target.name}.*.partial"):
        shutil.rmtree(partial)


def _require_free(target: Path) -> None:
    for path in (target.parent, target):
        if path.exists() and not path.is_dir():
            raise ExportError(f"{path} is a file: give a folder that is empty or doesn't exist yet.")
    if target.is_dir() and any(target.iterdir()):
        raise ExportError(f"{target} is not empty: give a folder that is empty or doesn't exist yet.")


def _put_in_place(partial: Path, target: Path) -> None:
    """A folder takes an empty one's place in one step; it fails where somebody has put something into that."""
    _sync(partial)
    partial.rename(target)
    _sync(target.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
