"""What isn't on the books yet: in the spool, in a dead process's spool, or at worst in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from llm.books.operations import CloseCall, OpenCall, void_close
from llm.books.spool.files import Spool, abandoned_files
from llm.books.spool.replay import Replay, commit_surely

log = structlog.get_logger("llm.books")


class Backlog:
    """Changed only by the writer's thread; other threads may read its counts."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder)
        self._kept: list[CloseCall] = []
        self._unknown_opens: list[OpenCall] = []
        self._own: Replay | None = None
        self._inherited: Replay | None = None

    @property
    def in_memory(self) -> int:
        """Operations that a crash would lose."""
        return len(self._kept) + len(self._unknown_opens)

    @property
    def spool_bytes(self) -> int:
        inherited = self._inherited
        return self.spool.waiting_bytes + (0 if inherited is None else inherited.file.waiting_bytes)

    @property
    def wait_s(self) -> float | None:
        """Seconds until something can be written; None if there is nothing."""
        if self.in_memory:
            return 0.0
        return min((replay.wait_s for replay in self._replays()), default=None)

    def keep(self, closes: Sequence[CloseCall]) -> bool:
        """Put them into the spool, or hold them in memory if the disk fails; returns whether they are safe."""
        waiting = [*self._kept, *closes]
        try:
            if waiting:
                self.spool.append(waiting)
        except OSError as error:
            log.critical("books.settlements_in_memory", waiting=len(waiting), error=error.strerror)
            self._kept = waiting
            return False
        self._kept = []
        return True

    def keep_in_memory(self, closes: Sequence[CloseCall]) -> None:
        """For operations that the spool can't take."""
        self._kept = [*self._kept, *closes]

    def doubt(self, opens: Sequence[OpenCall]) -> None:
        """It is unknown whether these were written. Nothing was sent for them, so they will be voided.

        On disk too, in case this process doesn't live to do it: voiding a row that doesn't exist does no harm.
        """
        self._unknown_opens += opens
        self.keep([void_close(each) for each in opens])

    def prepare(self) -> None:
        self.spool.prepare()

    def inherit(self) -> None:
        """Take over the spool of a dead process, if there is one and none has been taken over yet."""
        if self._inherited is None and (file := next(abandoned_files(self.spool.folder), None)) is not None:
            self._inherited = Replay(file)

    def write_some(self) -> None:
        """A bounded part. Raises OperationalError or InterfaceError if the database is unavailable."""
        if self._unknown_opens:
            self._void_unknown_opens()
        if self._kept:
            commit_surely(self._kept)
            self._kept = []
        for replay in list(self._replays()):
            if not replay.wait_s:
                self._step(replay)

    def close(self) -> None:
        """Leave nothing in memory, and either no spool or one that the next process finds."""
        if self._kept:
            self.keep(())
        self._let_go()
        self.spool.close()

    def _replays(self) -> Iterator[Replay]:
        """Replays of the spools that contain something."""
        if self.spool.waiting_bytes:
            if self._own is None or self._own.file is not self.spool.open():
                self._own = Replay(self.spool.open())
            yield self._own
        if self._inherited is not None:
            yield self._inherited

    def _step(self, replay: Replay) -> None:
        try:
            written = replay.step()
            if replay is self._inherited and not replay.file.waiting_bytes:
                log.info("spool.replayed", file=replay.file.path.name, closes=written)
                self._let_go()
        except OSError as error:
            # The disk's fault, not the database's: calls in flight continue to be settled.
            log.warning("spool.unreadable", file=replay.file.path.name, error=error.strerror)
            replay.postpone()
            self.spool.is_full |= replay is self._own

    def _let_go(self) -> None:
        inherited, self._inherited = self._inherited, None
        if inherited is not None:
            inherited.file.close()

    def _void_unknown_opens(self) -> None:
        """Written, perhaps again, only to be voided: the answer to the first attempt no longer matters."""
        opens = [replace(each, is_stillborn=True, ask=None) for each in self._unknown_opens]
        commit_surely([operation for each in opens for operation in (each, void_close(each))])
        self._unknown_opens = []
