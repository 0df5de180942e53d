"""From the spool into the books. Replaying is blind: what is written already stays as it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from django.conf import settings
from django.db import OperationalError

from llm.books.commit import commit_batch
from llm.books.operations import CloseCall, Operation, Result
from llm.books.refusals import record_refusals
from llm.books.spool import SpoolFile, abandoned_files

log = structlog.get_logger("llm.books")

SHORT_LOCK_MS = 100
"""How long a lock is waited for that somebody else has been seen to sit on."""

_LOCK_STATES = frozenset({"55P03"})
_RETRY_STATES = frozenset({"40P01", "40001"})
_RETRIES = 5


def commit_surely(operations: Sequence[Operation], *, lock_timeout_ms: int = 0) -> list[Result]:
    """`commit_batch`, again after a deadlock, with what was refused kept for staff."""
    results = commit_again(operations, lock_timeout_ms=lock_timeout_ms)
    record_refusals(operations, results)
    return results


def commit_again(operations: Sequence[Operation], *, lock_timeout_ms: int = 0) -> list[Result]:
    """`commit_batch`, again after a deadlock."""
    for _ in range(_RETRIES):
        try:
            return commit_batch(operations, lock_timeout_ms=lock_timeout_ms)
        except OperationalError as error:
            if sqlstate(error) not in _RETRY_STATES:
                raise
    raise OperationalError("the batch met one deadlock after the other")


def replay_some(file: SpoolFile, *, most: int) -> int:
    """The next closes of the file; how many were written. Those whose rows somebody has locked go to its end again."""
    closes = file.read(most)
    if closes:
        left = commit_by_account(closes)
        if left:
            file.append(left)
        file.forget_read()
        return len(closes) - len(left)
    file.forget_read()
    return 0


def replay_abandoned(folder: Path) -> int:
    """The spools of dead processes of this host; how many closes were written. Raises where the database is away."""
    written = 0
    for file in abandoned_files(folder):
        try:
            while count := replay_some(file, most=settings.LLM_BATCH_SIZE):
                written += count
            log.info("spool replayed", file=file.path.name, closes=written)
        finally:
            file.close()
    return written


def commit_by_account(
    closes: Sequence[CloseCall], commit: Callable[..., list[Result]] = commit_surely
) -> list[CloseCall]:
    """Write them account by account; returns those of accounts whose rows are locked by somebody."""
    by_account: dict[int, list[CloseCall]] = defaultdict(list)
    for close in closes:
        by_account[close.account_id].append(close)
    left: list[CloseCall] = []
    for group in by_account.values():
        try:
            commit(group, lock_timeout_ms=SHORT_LOCK_MS)
        except OperationalError as error:
            if not is_lock_timeout(error):
                raise
            left += group
    return left


def is_lock_timeout(error: Exception) -> bool:
    return sqlstate(error) in _LOCK_STATES


def is_statement_timeout(error: Exception) -> bool:
    return sqlstate(error) == "57014"


def sqlstate(error: Exception) -> str:
    """PostgreSQL's code of what happened; "" where there is none."""
    return getattr(error.__cause__, "sqlstate", None) or ""
