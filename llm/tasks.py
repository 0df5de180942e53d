"""What Celery runs: each task calls one function, which finds its work by query, so any may be lost or run twice."""

from __future__ import annotations

from dataclasses import asdict

import structlog
from celery import shared_task

from llm import limits, outbox, signin
from llm.books import reaper
from llm.verification import verify

_log = structlog.get_logger("llm.tasks")

SEND_SECONDS = 240
"""Within a message's lease: what hangs beyond all timeouts is stopped before another sender takes the message."""


@shared_task(ignore_result=True, soft_time_limit=SEND_SECONDS, time_limit=SEND_SECONDS + 30)
def send_outbox() -> None:
    """Mails and webhooks that are due."""
    counts = asdict(outbox.send_due())
    if any(counts.values()):
        _log.info("outbox", **counts)


@shared_task(ignore_result=True)
def reap_lost_calls() -> None:
    """Calls of processes that died; says what it closed itself."""
    reaper.reap()


@shared_task(ignore_result=True)
def verify_books() -> None:
    """All rows and limits; what is wrong is kept for staff, and counted in the log."""
    findings = verify()
    log = _log.error if findings.problems else _log.info
    log("books verified", rows=findings.rows, windows=findings.windows, problems=findings.problems)


@shared_task(ignore_result=True)
def prune_windows() -> None:
    """Windows of limits that nobody asks for any more."""
    if deleted := limits.prune_windows():
        _log.info("windows pruned", deleted=deleted)


@shared_task(ignore_result=True)
def prune_sign_in_counts() -> None:
    """Attempts to sign in whose window is over."""
    if deleted := signin.prune_sign_in_counts():
        _log.info("sign-in counts pruned", deleted=deleted)
