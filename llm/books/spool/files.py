"""Where settlements wait for the database: one file per process, fsynced, locked by its writer or replayer.

A settlement in the file is as safe as the disk. The file of a process that died is replayed by the next process that
finds it unlocked. A reserve is kept on the disk, so that calls in flight can still be settled when the disk is full;
new calls are refused then.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import structlog

from llm.books.operations import CloseCall
from llm.books.spool.records import encode_line, read_lines
from llm.ids import boot_id

log = structlog.get_logger("llm.books")

RESERVE_BYTES = 4 * 1024**2
"""Room for the settlements of some four thousand calls in flight."""

SUFFIX = ".spool"
_READ_BYTES = 1024**2
_LOCK_TRIES = 20
_LOCK_PAUSE_S = 0.05


class SpoolFile:
    """A spool that this process has locked. Raises OSError whenever the disk does.

    It is read once from beginning to end. A close that can't be written yet is deferred: it stays in the file, and
    comes again after all others. Only a completely written file is truncated, to nothing.
    """

    def __init__(self, path: Path, fd: int) -> None:
        """Use `create` or `take_over`."""
        self.path = path
        self._fd = fd
        self._size = self._whole_lines()
        self._read_to = self._next = 0
        self._deferred: list[CloseCall] = []
        self._tried_again = 0
        self.damaged = 0

    @classmethod
    def create(cls, path: Path) -> Self:
        """This process's own."""
        for _ in range(_LOCK_TRIES):
            with contextlib.suppress(BlockingIOError):
                return cls(path, _locked(path, os.O_CREAT))
            # A process that looks for abandoned spools may have locked it before us, and releases it in a moment.
            time.sleep(_LOCK_PAUSE_S)
        return cls(path, _locked(path, os.O_CREAT))

    @classmethod
    def take_over(cls, path: Path) -> Self:
        """Another process's. Raises BlockingIOError if that process lives, FileNotFoundError if the file is gone."""
        return cls(path, _locked(path))

    @property
    def waiting_bytes(self) -> int:
        return self._size if self._deferred else self._size - self._read_to

    def append(self, closes: Sequence[CloseCall]) -> None:
        """Durable on return; if it raises, the file is unchanged."""
        data = b"".join(encode_line(close) for close in closes)
        try:
            _write_all(self._fd, data, self._size)
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)

    def read(self, limit: int) -> list[CloseCall]:
        """The next waiting closes, at most `limit`; report their fate by `forget_read`."""
        # Closes returned by an earlier read and not reported since aren't on the books.
        self._tried_again = 0
        if self._read_to >= self._size:
            self._tried_again = min(limit, len(self._deferred))
            return self._deferred[: self._tried_again]
        found: list[CloseCall] = []
        end = 0
        for close, line_end in read_lines(self._next_lines(limit)):
            if len(found) == limit:
                break
            if close is None:
                self.damaged += 1
                log.error("spool.record_corrupt", file=self.path.name)
            else:
                found.append(close)
            end = line_end
        self._next = self._read_to + end
        return found

    def forget_read(self, *, deferred: Sequence[CloseCall] = ()) -> None:
        """Everything read is on the books, except what is deferred."""
        self._deferred = [*self._deferred[self._tried_again :], *deferred]
        self._tried_again = 0
        self._read_to = self._next
        if self._read_to >= self._size and not self._deferred and not self.damaged:
            os.ftruncate(self._fd, 0)
            os.fsync(self._fd)
            self._size = self._read_to = self._next = 0

    def close(self) -> None:
        """Release the file. A completely written one is deleted; a damaged one is kept, under another name."""
        try:
            if not self.waiting_bytes and self.damaged:
                self.path.rename(self.path.with_suffix(".damaged"))
            elif not self.waiting_bytes:
                self.path.unlink(missing_ok=True)
        finally:
            os.close(self._fd)

    def _next_lines(self, limit: int) -> bytes:
        """At least one whole line, usually as many as requested."""
        data = _read_all(self._fd, max(_READ_BYTES, limit * 1024), self._read_to)
        while b"\n" not in data and self._read_to + len(data) < self._size:
            data += _read_all(self._fd, max(_READ_BYTES, len(data)), self._read_to + len(data))
        return data

    def _whole_lines(self) -> int:
        """Drop a last line that a crash has cut: its settlement was never acknowledged."""
        found = os.fstat(self._fd).st_size
        size = self._end_of_last_line(found)
        if size < found:
            log.warning("spool.torn_record_dropped", file=self.path.name)
            os.ftruncate(self._fd, size)
        return size

    def _end_of_last_line(self, end: int) -> int:
        """Searched from the end, block by block: the file may be larger than memory, or than one call can read."""
        while end > 0:
            start = max(0, end - _READ_BYTES)
            newline = _read_all(self._fd, end - start, start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
        return 0


class Spool:
    """This process's spool file and its reserve, opened on first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_full = False
        self._file: SpoolFile | None = None
        self._reserve = folder / f"{boot_id()}.reserve"

    @property
    def waiting_bytes(self) -> int:
        return 0 if self._file is None else self._file.waiting_bytes

    def open(self) -> SpoolFile:
        if self._file is None:
            self._file = SpoolFile.create(self.folder / f"{boot_id()}{SUFFIX}")
            _sync_folder(self.folder)
        return self._file

    def prepare(self) -> None:
        """Open the file and the reserve; `is_full` says whether the disk had no room for them."""
        was_full = self.is_full
        try:
            self.open()
            if not self._reserve.exists() or self._reserve.stat().st_size < RESERVE_BYTES:
                _allocate(self._reserve, RESERVE_BYTES)
            self.is_full = False
        except OSError as error:
            self._drop_reserve()
            self.is_full = True
            if not was_full:
                log.warning("spool.unwritable", error=error.strerror)

    def append(self, closes: Sequence[CloseCall]) -> None:
        """Durable on return; a full disk uses up the reserve. Raises OSError if that doesn't help."""
        try:
            self.open().append(closes)
        except OSError as error:
            log.warning("spool.reserve_used", error=error.strerror)
            self.is_full = True
            self._drop_reserve()
            self.open().append(closes)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._drop_reserve()

    def _drop_reserve(self) -> None:
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)


def abandoned_files(folder: Path) -> Iterator[SpoolFile]:
    """Spools of processes that are gone, locked by us, one after another; the caller closes each."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        if path.stem == str(boot_id()):
            continue
        try:
            file = SpoolFile.take_over(path)
        except (BlockingIOError, FileNotFoundError):
            continue
        except OSError as error:
            log.warning("spool.unreadable", file=path.name, error=error.strerror)
            continue
        with contextlib.suppress(OSError):
            path.with_suffix(".reserve").unlink(missing_ok=True)
        yield file


def _locked(path: Path, flags: int = 0) -> int:
    """A descriptor of the file at that path, locked by us until it is closed."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, fd):
                return fd
        except OSError:
            os.close(fd)
            raise
        # The previous owner has deleted the file: what we wrote into it would never be found.
        os.close(fd)


def _is_at(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


def _allocate(path: Path, size: int) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
        os.fsync(fd)
    finally:
        os.close(fd)


def _read_all(fd: int, size: int, position: int) -> bytes:
    """Fewer bytes only at the end of the file: one system call may return fewer, and never more than 2 GiB."""
    data = b""
    while len(data) < size and (piece := os.pread(fd, size - len(data), position + len(data))):
        data += piece
    return data


def _write_all(fd: int, data: bytes, position: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, position)
        view, position = view[written:], position + written


def _sync_folder(folder: Path) -> None:
    """A new file is safe only once its folder is synced."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
