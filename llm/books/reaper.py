"""Closes calls of processes that died: estimated, and not billed until staff decide.

A process counts as dead after LLM_REAP_AFTER_SECONDS of silence during which the database was reachable, never because
its calls are old. Its spool is applied first; a spool found later overrides the estimate by an adjustment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from django.conf import settings
from django.db import transaction

from llm.books.clock import database_now
from llm.books.heartbeat import MISSED_BEATS, beat_interval_s
from llm.books.operations import CloseCall
from llm.books.spool.replay import commit_again, commit_by_account, replay_abandoned
from llm.enums import CallOutcome, UsageSource, UsageStatus
from llm.models import OpenCall, Process, ReaperState
from llm.prices.pricing import PriceSnapshot, known_cost, unusual_words
from llm.prices.snapshots import load_snapshots
from llm.types import TokenCounts

log = structlog.get_logger("llm.books")

BYTES_A_TOKEN = 4
"""Of a request's body, on average: the only basis for estimating its prompt."""

_LONGEST_GAP = timedelta(minutes=3)
_FORGET_AFTER = timedelta(days=30)
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class ReapReport:
    """reaped, replayed: calls closed. left: calls of accounts whose rows are locked.

    waits_s: seconds until anything can be said about dead processes, since the database may have been unavailable; 0 if
    now.
    """

    replayed: int
    reaped: int
    left: int
    waits_s: float = 0.0


def reap(*, at_once: bool = False) -> ReapReport:
    """at_once: three missed beats make a process dead, whatever happened before; for operators who know that it is."""
    replayed = replay_abandoned(Path(settings.LLM_SPOOL_DIR))
    now = database_now()
    after = timedelta(seconds=settings.LLM_REAP_AFTER_SECONDS)
    if at_once:
        reaped, left = _reap_rows(now, silence=timedelta(seconds=MISSED_BEATS * beat_interval_s()), age=timedelta())
        return ReapReport(replayed, reaped, left)
    waits = _steady_since(now) + after - now
    if waits > timedelta():
        return ReapReport(replayed, 0, 0, waits.total_seconds())
    age = max(after, timedelta(seconds=settings.LLM_TOTAL_TIMEOUT_SECONDS))
    reaped, left = _reap_rows(now, silence=after, age=age)
    Process.objects.filter(seen_at__lt=now - _FORGET_AFTER).delete()
    return ReapReport(replayed, reaped, left)


@transaction.atomic
def _steady_since(now: datetime) -> datetime:
    """Since when the reaper has run without a gap, so that heartbeats could be written all the time."""
    state, _ = ReaperState.objects.select_for_update().get_or_create(
        pk=1, defaults={"last_run_at": now, "steady_since": now}
    )
    if now - state.last_run_at > _LONGEST_GAP:
        state.steady_since = now
    state.last_run_at = now
    state.save()
    return state.steady_since


def _reap_rows(now: datetime, *, silence: timedelta, age: timedelta) -> tuple[int, int]:
    """How many rows were closed, and how many had to be left."""
    alive = Process.objects.filter(seen_at__gte=now - silence, ended_at=None).values("id")
    dead = OpenCall.objects.filter(opened_at__lt=now - age).exclude(process_id__in=alive).order_by("id")
    reaped = left = 0
    last_id = None
    while rows := list((dead if last_id is None else dead.filter(id__gt=last_id))[:_CHUNK]):
        last_id = rows[-1].pk
        # If a process has closed its row meanwhile, ours is refused, as it should be, without an alert.
        unwritten = commit_by_account(_closes(rows), commit_again)
        reaped += len(rows) - len(unwritten)
        left += len(unwritten)
    if reaped:
        log.warning("books.orphans_closed", calls=reaped)
    return reaped, left


def _closes(rows: Sequence[OpenCall]) -> list[CloseCall]:
    prices = load_snapshots(row.price_id for row in rows if row.price_id is not None)
    return [_close(row, None if row.price_id is None else prices[row.price_id]) for row in rows]


def _close(row: OpenCall, price: PriceSnapshot | None) -> CloseCall:
    counts = TokenCounts(prompt_tokens=row.request_bytes // BYTES_A_TOKEN)
    cost = known_cost(counts, price, row.service)
    return CloseCall(
        id=row.pk,
        status=UsageStatus.ESTIMATED,
        outcome=CallOutcome.LOST,
        usage_source=UsageSource.ESTIMATED,
        counts=counts,
        cost_pico=None if cost is None else cost.pico,
        rate_set_id=None if cost is None else cost.rate_set_id,
        is_billable=False,
        **row.service._asdict(),
        flags=("tier_unpriced",) if cost is None and unusual_words(row.service) else (),
        account_id=row.account_id,
    )
