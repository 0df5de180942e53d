"""Celery tasks: each calls one function, which finds its work by query, so any may be lost or run twice."""

from __future__ import annotations

from dataclasses import asdict

import structlog
from celery import shared_task
from django.utils import timezone

from llm import signin
from llm.alerts import outbox
from llm.audit import verify_recent
from llm.books import reaper
from llm.books.claims import prune_claims
from llm.books.clock import database_now
from llm.calls import kept_replies
from llm.calls.refusal_counts import prune_refusal_counts
from llm.limits import changes as limits
from llm.models.processes import MAX_STARTS

_log = structlog.get_logger("llm.tasks")

SEND_SECONDS = 240
"""Within a message's lease: whatever hangs beyond all timeouts is stopped before another sender takes the message."""


@shared_task(
    name="llm.tasks.send_outbox", ignore_result=True, soft_time_limit=SEND_SECONDS, time_limit=SEND_SECONDS + 30
)
def send_outbox() -> None:
    """Send due mails and webhooks."""
    counts = asdict(outbox.send_due())
    if any(counts.values()):
        _log.info("outbox.flushed", **counts)


@shared_task(name="llm.tasks.reap_lost_calls", ignore_result=True, max_starts=MAX_STARTS)
def reap_lost_calls() -> None:
    """Close calls of processes that died; logs what it closed."""
    reaper.reap()


@shared_task(name="llm.tasks.verify_books", ignore_result=True, max_starts=MAX_STARTS)
def verify_books() -> None:
    """Audits new rows and a tenth of the older days; findings are stored for staff, and counted in the log."""
    findings = verify_recent()
    log = _log.error if findings.problems else _log.info
    log("books.verified", rows=findings.rows, windows=findings.windows, problems=findings.problems)


@shared_task(name="llm.tasks.prune_windows", ignore_result=True, max_starts=MAX_STARTS)
def prune_windows() -> None:
    """Delete windows of limits, and claims of idempotency keys, that are no longer needed."""
    if deleted := limits.prune_windows():
        _log.info("limits.windows_pruned", deleted=deleted)
    if deleted := prune_claims(now=database_now()):
        _log.info("idempotency.keys_pruned", deleted=deleted)


@shared_task(name="llm.tasks.prune_kept_replies", ignore_result=True, max_starts=MAX_STARTS)
def prune_kept_replies() -> None:
    """Replies for repeated requests whose time is over."""
    if deleted := kept_replies.prune_kept_replies(now=timezone.now()):
        _log.info("idempotency.replies_pruned", deleted=deleted)


@shared_task(name="llm.tasks.prune_refusals", ignore_result=True, max_starts=MAX_STARTS)
def prune_refusals() -> None:
    """Delete counts of refused requests of long ago."""
    if deleted := prune_refusal_counts(now=timezone.now()):
        _log.info("refusals.pruned", deleted=deleted)


@shared_task(name="llm.tasks.prune_outbox", ignore_result=True, max_starts=MAX_STARTS)
def prune_outbox() -> None:
    """Delete messages that were sent long ago."""
    if deleted := outbox.prune_sent():
        _log.info("outbox.pruned", deleted=deleted)


@shared_task(name="llm.tasks.prune_sign_in_counts", ignore_result=True, max_starts=MAX_STARTS)
def prune_sign_in_counts() -> None:
    """Delete sign-in attempts whose window is over."""
    if deleted := signin.prune_sign_in_counts():
        _log.info("signin.counts_pruned", deleted=deleted)
