"""Where settlements wait for the database: one file a process, fsynced, locked by whoever writes or replays it.

A settlement that is in the file is as safe as the disk that it lies on. The file of a process that died is replayed by
the next one that finds it unlocked. A reserve is kept on the disk, so that calls under way can still be settled when it
is full; new ones are refused then.
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
"""Room for the settlements of some four thousand calls under way."""

SUFFIX = ".spool"
_READ_BYTES = 1024**2
_LOCK_TRIES = 20
_LOCK_PAUSE_S = 0.05


class SpoolFile:
    """A spool that this process holds the lock of. Raises OSError wherever the disk does.

    What it holds is read once from its beginning to its end. A close that can't be written yet is deferred: it stays
    in the file, and comes again after all others. Only a file of which all is written shrinks, to nothing.
    """

    def __init__(self, path: Path, fd: int) -> None:
        """`create` and `take_over` make one."""
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
            # Whoever looks for spools of the dead has found it before we had locked it, and lets go in a moment.
            time.sleep(_LOCK_PAUSE_S)
        return cls(path, _locked(path, os.O_CREAT))

    @classmethod
    def take_over(cls, path: Path) -> Self:
        """Another's. Raises BlockingIOError where that process lives, FileNotFoundError where it is gone."""
        return cls(path, _locked(path))

    @property
    def waiting_bytes(self) -> int:
        return self._size if self._deferred else self._size - self._read_to

    def append(self, closes: Sequence[CloseCall]) -> None:
        """Durable when it returns; where it raises, the file is as before."""
        data = b"".join(encode_line(close) for close in closes)
        try:
            _write_all(self._fd, data, self._size)
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)

    def read(self, limit: int) -> list[CloseCall]:
        """The next closes that wait, up to that many; `forget_read` then says what became of them."""
        # What an earlier read has returned, and nobody has said anything of since, is not on the books.
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
        """What was read is on the books, but for what is deferred."""
        self._deferred = [*self._deferred[self._tried_again :], *deferred]
        self._tried_again = 0
        self._read_to = self._next
        if self._read_to >= self._size and not self._deferred and not self.damaged:
            os.ftruncate(self._fd, 0)
            os.fsync(self._fd)
            self._size = self._read_to = self._next = 0

    def close(self) -> None:
        """Let go of the file. Once all of it is written it goes; one with damage stays, under another name."""
        try:
            if not self.waiting_bytes and self.damaged:
                self.path.rename(self.path.with_suffix(".damaged"))
            elif not self.waiting_bytes:
                self.path.unlink(missing_ok=True)
        finally:
            os.close(self._fd)

    def _next_lines(self, limit: int) -> bytes:
        """At least one whole line, usually as many as are wanted."""
        data = _read_all(self._fd, max(_READ_BYTES, limit * 1024), self._read_to)
        while b"\n" not in data and self._read_to + len(data) < self._size:
            data += _read_all(self._fd, max(_READ_BYTES, len(data)), self._read_to + len(data))
        return data

    def _whole_lines(self) -> int:
        """Drop a last line that was torn by a crash: its settlement was never acknowledged."""
        found = os.fstat(self._fd).st_size
        size = self._end_of_last_line(found)
        if size < found:
            log.warning("spool.torn_record_dropped", file=self.path.name)
            os.ftruncate(self._fd, size)
        return size

    def _end_of_last_line(self, end: int) -> int:
        """Read from the end, a block at a time: the file may be larger than the memory, or than one call reads."""
        while end > 0:
            start = max(0, end - _READ_BYTES)
            newline = _read_all(self._fd, end - start, start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
        return 0


class Spool:
    """This process's spool file and its reserve, opened when first needed."""

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
        """Hold the file and the reserve; `is_full` says whether the disk had room for them."""
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
        """Durable when it returns; a full disk costs the reserve. Raises OSError when that didn't help."""
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
    """The spools of processes that are gone, locked by us, one after the other; the caller closes each."""
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
    """A descriptor of the file at that path, which is ours alone until it is closed."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, fd):
                return fd
        except OSError:
            os.close(fd)
            raise
        # Whoever had the lock before us has removed the file: what we would write into it, nobody would ever find.
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
    """Less than that only at the end of the file: one system call may return less, and never more than 2 GiB."""
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
    """A new file is safe only once its folder is."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
