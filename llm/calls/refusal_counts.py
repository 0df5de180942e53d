"""Counts refused requests, by minute, account, key, model, reason and limit, without a row or a wait for each.

A process counts in memory and adds its counts to the table every few seconds, beside the calls and after them. A
refusal only costs an entry in a dict. If the database is away, or the gateway overloaded, counts wait; whatever is
sent, their number is bounded. A process that is killed loses what it hasn't written: at most `WRITTEN_EACH_S`, and the
time that writing takes. A write whose answer was lost may be counted twice. So these are figures to find a cause by,
and nothing is billed by them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import structlog
from django.db import DatabaseError, connection

from llm.db.json_rows import moment_text
from llm.errors import BooksUnavailable, GatewayError, NotFound, RequestError
from llm.keys import Caller
from llm.models import RefusedRequests
from llm.models.refusals import OTHER_MODELS
from llm.types import clean_text

WRITTEN_EACH_S = 2.0
TRIED_AGAIN_S = 10.0
KEPT = timedelta(days=31)
MAX_MODELS_OF_KEY = 50
"""How many models of a key a process counts separately each day; the others are counted together."""
MAX_KEYS_REMEMBERED = 10_000
MAX_WAITING = 5_000
"""Counts in memory. Beyond them, requests are only counted by minute and reason, and these counts are bounded too."""
MAX_AT_A_TIME = 250
PRUNED_AT_ONCE = 500
PAUSE_SECONDS = 0.02
_MESSAGE_CHARACTERS = 300
_MODEL_CHARACTERS = 200

_log = structlog.get_logger("llm.calls")
_COLUMNS = (
    *("minute", "account_id", "api_key_id", "model", "code", "limit_id"),
    *("requests", "last_at", "last_message", "last_request_id"),
)


class _Key(NamedTuple):
    """minute: since the epoch."""

    minute: int
    account_id: int
    key_id: int
    model: str
    code: str
    limit_id: int


@dataclass(slots=True)
class _Count:
    requests: int
    last_at: float
    message: str
    request_id: str


Counts = Sequence[tuple[_Key, _Count]]


class RefusalCounts:
    """For one event loop. run_db: runs a writing function, and raises BooksUnavailable or DatabaseError."""

    def __init__(self, run_db: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        self._run_db = run_db
        self._waiting: dict[_Key, _Count] = {}
        self._models = _ModelsOfKeys()
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def note(self, error: GatewayError, caller: Caller | None, *, model: str = "", request_id: str = "") -> None:
        """A request was refused with this error. caller: None where its key isn't known."""
        now = time.time()
        account_id, key_id = _owner(error, caller)
        limit_id = error.limit_id if isinstance(error, RequestError) else 0
        name = self._models.bounded(key_id, model, int(now) // 86_400) if key_id and model else ""
        key = _Key(int(now) // 60, account_id, key_id, name, error.code[:50], limit_id)
        # The only message that repeats what anyone may send: a path, which may be anything.
        message = "" if isinstance(error, NotFound) else clean_text(error.message, limit=_MESSAGE_CHARACTERS)
        self._add(key, _Count(1, now, message, request_id))
        if self._timer is None and self._writing is None:
            self._write_in(WRITTEN_EACH_S)

    async def finish(self, *, within_s: float) -> None:
        """Write what waits, once."""
        self._stop_timer()
        if self._writing is None and self._waiting:
            self._begin_writing()
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=within_s)
        self._stop_timer()

    def _add(self, key: _Key, count: _Count) -> None:
        found = self._waiting.get(key)
        if found is None and len(self._waiting) >= MAX_WAITING:
            key = key._replace(account_id=0, key_id=0, model=OTHER_MODELS, limit_id=0)
            found = self._waiting.get(key)
            if found is None and len(self._waiting) >= 2 * MAX_WAITING:
                return
        if found is None:
            self._waiting[key] = count
            return
        found.requests += count.requests
        if count.last_at >= found.last_at:
            found.last_at, found.message, found.request_id = count.last_at, count.message, count.request_id

    def _write_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._begin_writing)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin_writing(self) -> None:
        self._timer = None
        self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        """What waits now; what comes meanwhile waits for the next time."""
        counts, self._waiting = list(self._waiting.items()), {}
        pause_s = WRITTEN_EACH_S
        try:
            while counts:
                batch = counts[:MAX_AT_A_TIME]
                await self._run_db(lambda batch=batch: write_counts(batch))  # type: ignore[misc]
                counts = counts[MAX_AT_A_TIME:]
        except BooksUnavailable:
            pause_s = TRIED_AGAIN_S
            for key, count in counts:
                self._add(key, count)
        except DatabaseError as error:
            # Trying again would fail again.
            _log.warning("refusals.not_counted", error=type(error).__name__, counts=len(counts))
        finally:
            self._writing = None
            if self._waiting:
                self._write_in(pause_s)


class _ModelsOfKeys:
    """Which models of a key are counted separately: the first of each day, since callers can make up any number."""

    def __init__(self) -> None:
        self._day = 0
        self._names: dict[int, set[str]] = {}

    def bounded(self, key_id: int, model: str, day: int) -> str:
        if day != self._day:
            self._day, self._names = day, {}
        name = clean_text(model[:_MODEL_CHARACTERS], limit=_MODEL_CHARACTERS)
        names = self._names.get(key_id)
        if names is None:
            if len(self._names) >= MAX_KEYS_REMEMBERED:
                del self._names[next(iter(self._names))]
            names = self._names[key_id] = set()
        if name not in names:
            if len(names) >= MAX_MODELS_OF_KEY:
                return OTHER_MODELS
            names.add(name)
        return name


def write_counts(counts: Counts) -> None:
    """Add these to the table, in one statement. In one order everywhere, so that two processes never wait in a ring."""
    rows = [_row(key, count) for key, count in sorted(counts, key=lambda pair: pair[0])]
    values = ", ".join([f"({', '.join(['%s'] * len(_COLUMNS))})"] * len(rows))
    key = ", ".join(_COLUMNS[:6])
    newer = ", ".join(
        f"{name} = CASE WHEN excluded.last_at >= t.last_at THEN excluded.{name} ELSE t.{name} END"
        for name in ("last_at", "last_message", "last_request_id")
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO llm_refusedrequests AS t ({', '.join(_COLUMNS)}) VALUES {values} "  # noqa: S608
            f"ON CONFLICT ({key}) DO UPDATE SET requests = t.requests + excluded.requests, {newer}",
            [value for row in rows for value in row],
        )


def prune_refusal_counts(*, now: datetime) -> int:
    """Delete counts older than `KEPT`; returns how many."""
    old = RefusedRequests.objects.filter(minute__lt=now - KEPT).order_by("minute")
    deleted = 0
    while ids := list(old.values_list("pk", flat=True)[:PRUNED_AT_ONCE]):
        deleted += RefusedRequests.objects.filter(pk__in=ids).delete()[0]
        # SQLite has one writer at a time: the books must get their turn.
        time.sleep(PAUSE_SECONDS)
    return deleted


def _owner(error: GatewayError, caller: Caller | None) -> tuple[int, int]:
    if caller is not None:
        return caller.account_id, caller.key_id
    return (error.owner if isinstance(error, RequestError) else None) or (0, 0)


def _row(key: _Key, count: _Count) -> tuple[int | str, ...]:
    vendor = connection.vendor
    minute, last_at = (
        moment_text(datetime.fromtimestamp(each, UTC), vendor) for each in (key.minute * 60, count.last_at)
    )
    return minute, *key[1:], count.requests, last_at, count.message, count.request_id[:40]
