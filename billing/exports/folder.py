"""A folder that appears complete or not at all."""

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
    """A temporary folder beside `target`, renamed to it at the end of the block and deleted after an exception.

    The files in it must be flushed to disk by then. Raises ExportError if `target` isn't empty, or can't be written.
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
    """Delete what killed processes left of this folder. Call it only if no other process can be writing it."""
    for partial in target.parent.glob(f".{target.name}.*.partial"):
        shutil.rmtree(partial)


def _require_free(target: Path) -> None:
    for path in (target.parent, target):
        if path.exists() and not path.is_dir():
            raise ExportError(f"{path} is a file: give a folder that is empty or doesn't exist yet.")
    if target.is_dir() and any(target.iterdir()):
        raise ExportError(f"{target} is not empty: give a folder that is empty or doesn't exist yet.")


def _put_in_place(partial: Path, target: Path) -> None:
    """Renaming onto an empty folder is atomic, and fails if something was put into it."""
    _sync(partial)
    partial.rename(target)
    _sync(target.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
