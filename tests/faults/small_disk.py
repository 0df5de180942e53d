"""A disk of a few megabytes that can be filled to its last byte: a tmpfs, which only root may mount."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

_FILLER = ".filler"
_CHUNK = 1024**2


def can_mount() -> bool:
    return sys.platform == "linux" and os.geteuid() == 0


class SmallDisk:
    """Mounted at `path` as long as the context lasts."""

    def __init__(self, path: Path, *, megabytes: int) -> None:
        self.path = path
        self._megabytes = megabytes

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True, exist_ok=True)
        options = f"size={self._megabytes}m,mode=700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)], check=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Lazily: a process that is about to end may still have a file open.
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Not a byte is left, but what files have reserved."""
        filler = self.path / _FILLER
        try:
            with filler.open("wb", buffering=0) as file:
                _fill(file.fileno())
            yield
        finally:
            filler.unlink(missing_ok=True)


def _fill(fd: int) -> None:
    for size in (_CHUNK, 4096, 1):
        with contextlib.suppress(_DiskFullError):
            while True:
                _write(fd, bytes(size))


class _DiskFullError(Exception):
    """There was no room for that much."""


def _write(fd: int, data: bytes) -> None:
    try:
        if os.write(fd, data) < len(data):
            raise _DiskFullError
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _DiskFullError from error
