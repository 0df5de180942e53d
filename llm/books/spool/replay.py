"""From the spool into the books. Replaying is blind: what is already written stays unchanged."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
import structlog
from django.conf import settings
from django.db import OperationalError

from llm import metrics
from llm.books.batches.commit import commit_batch
from llm.books.batches.contention import SHORT_LOCK_MS
from llm.books.operations import CloseCall, Conflict, Failed, Indeterminate, OpenCall, Operation, Result
from llm.books.spool.files import SpoolFile, abandoned_files
from llm.books.spool.records import encode_document
from llm.db.outages import sqlstate
from llm.models import RefusedWrite

log = structlog.get_logger("llm.books")

_LOCK_STATES = frozenset({"55P03"})
_RETRY_STATES = frozenset({"40P01", "40001"})
_RETRIES = 5
_MAX_LOCKED = 3
"""How many locked accounts one step of a replay waits for; the gateway's calls wait meanwhile."""
_LONGEST_PAUSE_S = 30.0


def commit_surely(operations: Sequence[Operation], *, lock_timeout_ms: int = 0) -> list[Result]:
    """`commit_batch`, retried after a deadlock; what is rejected is kept for staff."""
    results = commit_again(operations, lock_timeout_ms=lock_timeout_ms)
    record_refusals(operations, results)
    return results


def commit_again(operations: Sequence[Operation], *, lock_timeout_ms: int = 0) -> list[Result]:
    """`commit_batch`, retried after a deadlock."""
    for _ in range(_RETRIES):
        try:
            return commit_batch(operations, lock_timeout_ms=lock_timeout_ms)
        except OperationalError as error:
            if sqlstate(error) not in _RETRY_STATES:
                raise
    raise OperationalError("the batch ran into repeated deadlocks")


class Replay:
    """The replay of one spool, in small steps."""

    def __init__(self, file: SpoolFile) -> None:
        self.file = file
        self._pause_s = 0.0
        self._due_at = 0.0

    @property
    def wait_s(self) -> float:
        """Seconds until the next step makes sense: locked accounts are retried at growing intervals."""
        return max(0.0, self._due_at - time.monotonic())

    def postpone(self) -> None:
        """The file can't be read at the moment."""
        self._due_at = time.monotonic() + _LONGEST_PAUSE_S

    def step(self) -> int:
        """Write the next closes of the file; returns how many. Raises OperationalError if the database is unavailable.

        Those of accounts whose rows are locked are deferred.
        """
        closes = self.file.read(settings.LLM_BATCH_SIZE)
        left = commit_by_account(closes, max_locked=_MAX_LOCKED) if closes else []
        self.file.forget_read(deferred=left)
        self._pause_s = min(max(1.0, self._pause_s * 2), _LONGEST_PAUSE_S) if left else 0.0
        self._due_at = time.monotonic() + self._pause_s
        return len(closes) - len(left)


def replay_abandoned(folder: Path) -> int:
    """Replay the spools of dead processes on this host; returns the closes written. Raises if the database is
    unavailable.
    """
    written = 0
    for file in abandoned_files(folder):
        replay = Replay(file)
        try:
            while file.waiting_bytes and not replay.wait_s:
                written += replay.step()
            log.info("spool.replayed", file=file.path.name, closes=written)
        finally:
            file.close()
    return written


def commit_by_account(
    closes: Sequence[CloseCall],
    commit: Callable[..., list[Result]] = commit_surely,
    *,
    max_locked: int | None = None,
) -> list[CloseCall]:
    """Write them account by account; returns those of accounts whose rows are locked.

    max_locked: after this many such accounts, no other is tried, and all the rest is returned too.
    """
    by_account: dict[int, list[CloseCall]] = defaultdict(list)
    for close in closes:
        by_account[close.account_id].append(close)
    locked: list[CloseCall] = []
    untried: list[CloseCall] = []
    locked_accounts = 0
    for group in by_account.values():
        if locked_accounts == max_locked:
            untried += group
        elif _commit_unless_locked(group, commit):
            locked_accounts += 1
            locked += group
    return [*untried, *locked]


def _commit_unless_locked(group: Sequence[CloseCall], commit: Callable[..., list[Result]]) -> bool:
    """False if the rows are locked, and it must be tried again."""
    try:
        results = commit(group, lock_timeout_ms=SHORT_LOCK_MS)
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise
        return True
    return bool(unanswered_closes(group, results))


def unanswered_closes(operations: Sequence[Operation], results: Sequence[Result]) -> list[CloseCall]:
    """The closes to try again."""
    return [
        operation
        for operation, result in zip(operations, results, strict=True)
        if isinstance(result, Indeterminate) and isinstance(operation, CloseCall)
    ]


def is_lock_timeout(error: Exception) -> bool:
    return sqlstate(error) in _LOCK_STATES


# --- Settlements that the books rejected, kept for staff --------------------------------------------------------------


def record_refusals(operations: Sequence[Operation], results: Sequence[Result]) -> None:
    """Log, count and keep settlements rejected for their content; once, however often they are replayed."""
    stillborn = {each.id for each in operations if isinstance(each, OpenCall) and each.is_stillborn}
    for operation, result in zip(operations, results, strict=True):
        if not isinstance(result, Conflict | Failed) or operation.id in stillborn:
            continue
        metrics.count_conflict()
        kind = "open" if isinstance(operation, OpenCall) else "close"
        log.error("books.write_rejected", call_id=str(operation.id), kind=kind, reason=result.reason)
        if isinstance(operation, CloseCall):
            _keep(operation, result.reason)


def _keep(close: CloseCall, reason: str) -> None:
    document = orjson.dumps(encode_document(close), option=orjson.OPT_SORT_KEYS)
    RefusedWrite.objects.get_or_create(
        digest=hashlib.sha256(document).hexdigest(),
        defaults={"usage_id": close.id, "reason": reason, "document": orjson.loads(document)},
    )
