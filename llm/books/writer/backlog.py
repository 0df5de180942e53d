"""What has happened and is not on the books yet: in the spool, in a dead process's spool, or at worst in memory."""

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
    """The writer's thread alone changes it; anybody may look at its counts."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder)
        self._kept: list[CloseCall] = []
        self._unknown_opens: list[OpenCall] = []
        self._own: Replay | None = None
        self._inherited: Replay | None = None

    @property
    def in_memory(self) -> int:
        """Operations that a crash would take with it."""
        return len(self._kept) + len(self._unknown_opens)

    @property
    def spool_bytes(self) -> int:
        inherited = self._inherited
        return self.spool.waiting_bytes + (0 if inherited is None else inherited.file.waiting_bytes)

    @property
    def wait_s(self) -> float | None:
        """Seconds until something of it can be written; None when there is nothing."""
        if self.in_memory:
            return 0.0
        return min((replay.wait_s for replay in self._replays()), default=None)

    def keep(self, closes: Sequence[CloseCall]) -> bool:
        """Put them into the spool, or hold them in memory where the disk takes nothing; whether they are safe."""
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
        """Where something is wrong with the spool or with them."""
        self._kept = [*self._kept, *closes]

    def doubt(self, opens: Sequence[OpenCall]) -> None:
        """Nobody knows whether these were written. Nothing was sent for them: they are to be voided.

        On disk too, for the case that this process doesn't live to do it: a void of what isn't there is no harm.
        """
        self._unknown_opens += opens
        self.keep([void_close(each) for each in opens])

    def prepare(self) -> None:
        self.spool.prepare()

    def inherit(self) -> None:
        """Take over the spool of a process that is gone, if there is one and none is at hand."""
        if self._inherited is None and (file := next(abandoned_files(self.spool.folder), None)) is not None:
            self._inherited = Replay(file)

    def write_some(self) -> None:
        """A bounded part of it. Raises OperationalError or InterfaceError where the database is away."""
        if self._unknown_opens:
            self._void_unknown_opens()
        if self._kept:
            commit_surely(self._kept)
            self._kept = []
        for replay in list(self._replays()):
            if not replay.wait_s:
                self._step(replay)

    def close(self) -> None:
        """Leave nothing in memory, and no spool or one that the next process finds."""
        if self._kept:
            self.keep(())
        self._let_go()
        self.spool.close()

    def _replays(self) -> Iterator[Replay]:
        """Of the spools that hold something."""
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
            # The disk's fault, not the database's: calls that are under way go on being settled.
            log.warning("spool.unreadable", file=replay.file.path.name, error=error.strerror)
            replay.postpone()
            self.spool.is_full |= replay is self._own

    def _let_go(self) -> None:
        inherited, self._inherited = self._inherited, None
        if inherited is not None:
            inherited.file.close()

    def _void_unknown_opens(self) -> None:
        """Written, again or for the first time, only to be voided: whatever became of the first try comes too late."""
        opens = [replace(each, is_stillborn=True, ask=None) for each in self._unknown_opens]
        commit_surely([operation for each in opens for operation in (each, void_close(each))])
        self._unknown_opens = []
