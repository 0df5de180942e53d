"""What billing does in a month, each step timed on the same books. Django is set up before this is imported."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TypeVar

from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.urls import reverse

from benchmarks.billing_data import END, START, write_late_calls
from benchmarks.procstat import peak_rss_mb
from billing.invoices.closing import close_month
from billing.models import DailyUsage
from billing.periods import BillingPeriod
from billing.rollup import load_usage_sums, refresh
from billing.rollup.summaries import mark_all_stale, mark_stale, summarise
from llm.models import Account

MONTH = BillingPeriod.of(END.date()).previous
LATE_CALLS = 10_000
_T = TypeVar("_T")

# What the first refresh does, without adjustments, marks, or any care for others: a group by in plain SQL.
_BARE = """
INSERT INTO billing_dailyusage (account_id, local_day, api_key_id, provider, model, rate_set_id, is_billable,
    calls, estimated_calls, unpriced_calls, prompt_tokens, completion_tokens, cache_read_tokens,
    cache_write_5m_tokens, cache_write_1h_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens,
    cost, estimated_cost, digest_0, digest_1, digest_2, digest_3, digest_4, digest_5, digest_6, digest_7)
SELECT account_id, local_day, api_key_id, provider, model, rate_set_id, is_billable,
    count(*), count(*) FILTER (WHERE usage_source = 'estimated'), count(*) FILTER (WHERE cost IS NULL),
    sum(prompt_tokens), sum(completion_tokens), sum(cache_read_tokens), sum(cache_write_5m_tokens),
    sum(cache_write_1h_tokens), sum(reasoning_tokens), sum(audio_input_tokens), sum(audio_output_tokens),
    coalesce(sum(cost), 0) * 0.000000000001,
    coalesce(sum(cost) FILTER (WHERE usage_source = 'estimated'), 0) * 0.000000000001,
    sum(digest_0), sum(digest_1), sum(digest_2), sum(digest_3), sum(digest_4), sum(digest_5), sum(digest_6),
    sum(digest_7)
FROM llm_usage WHERE status IN ('settled', 'estimated')
GROUP BY account_id, local_day, api_key_id, provider, model, rate_set_id, is_billable
"""


class StepFailedError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Figure:
    """limit: what it may be at most, in the same unit; None where nothing is asked of it."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    note: str = ""

    @property
    def is_met(self) -> bool:
        return self.limit is None or self.value <= self.limit


def measure_rollups() -> Iterator[Figure]:
    bare = _measure_bare()
    yield bare
    yield _measure_first_refresh(bare)
    yield _measure_summaries()
    yield from _measure_next_refreshes()
    yield _measure_sums()


def _measure_bare() -> Figure:
    """Leaves nothing behind."""
    seconds, _ = _timed(_run_bare)
    rows = DailyUsage.objects.count()
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE billing_dailyusage")
    return Figure("bare INSERT ... SELECT ... GROUP BY", seconds, "s", note=f"{rows:,} rows")


def _measure_first_refresh(bare: Figure) -> Figure:
    seconds, _ = _timed(refresh)
    note = f"{DailyUsage.objects.count():,} rows; {seconds / bare.value:.2f} times the bare statement"
    with connection.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE) billing_dailyusage")
    return Figure("first refresh", seconds, "s", limit=2 * bare.value, note=note)


def _measure_summaries() -> Figure:
    mark_all_stale(START.date(), END.date())
    seconds, _ = _timed(summarise)
    return Figure("summing up all days again", seconds, "s", note="a part of the first refresh")


def _measure_next_refreshes() -> Iterator[Figure]:
    idle, _ = _timed(refresh)
    yield Figure("refresh with nothing new", idle, "s")
    write_late_calls(LATE_CALLS)
    busy, _ = _timed(refresh)
    yield Figure(f"refresh after {LATE_CALLS:,} calls of one day", busy, "s")


def _measure_sums() -> Figure:
    ids = list(Account.objects.values_list("id", flat=True))
    seconds, sums = _timed(lambda: load_usage_sums(ids, MONTH))
    return Figure("usage sums of a month, all accounts", seconds, "s", note=f"{sum(map(len, sums.values())):,} sums")


def measure_closing() -> Iterator[Figure]:
    yield _closing("close the month", limit=30)
    yield _closing("close it again", limit=None)


def _closing(name: str, *, limit: float | None) -> Figure:
    seconds, report = _timed(lambda: close_month(MONTH))
    note = f"{len(report.drafted)} drafts, {len(report.empty)} empty, {len(report.failed)} failed"
    return Figure(name, seconds, "s", limit=limit, note=note)


def measure_reports() -> Iterator[Figure]:
    """Pages as the admin shows them, the first visit of each; the templates were read before."""
    client = _client_of_staff()
    _page(client, MONTH.start - timedelta(days=1), MONTH.start - timedelta(days=1), by="key")
    whole, so_far = MONTH.last_day, MONTH.start + timedelta(days=25)
    for by in ("day", "account", "key"):
        yield _report(f"usage of a month by {by}, all accounts", client, whole, by=by)
    yield _report("usage by key until the 26th", client, so_far, by="key")
    busiest = Account.objects.order_by("id")[0]
    yield _report("usage of a month of the busiest account", client, whole, by="key", account=busiest.name)
    mark_stale([MONTH.last_day - timedelta(days=1), MONTH.last_day])
    yield _report("usage by key with two days that are stale", client, whole, by="key", limit=None)
    summarise()


def _client_of_staff() -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("bench"))
    return client


def _report(name: str, client: Client, last: date, *, limit: float | None = 300, **choices: str) -> Figure:
    seconds, size = _timed(lambda: _page(client, MONTH.start, last, **choices))
    return Figure(name, seconds * 1000, "ms", limit=limit, note=f"{size / 1000:,.0f} kB")


def _page(client: Client, first: date, last: date, **choices: str) -> int:
    """Bytes of the page. Raises StepFailedError where it is none."""
    query = {"first": f"{first}", "last": f"{last}", **choices}
    reply = client.get(
        reverse("admin:billing_dailyusage_changelist"), query, secure=True, headers={"host": "localhost"}
    )
    if reply.status_code != 200 or b"gw-sum" not in reply.content:
        raise StepFailedError(f"the page of {query} was answered with {reply.status_code}, or has no total")
    return len(reply.content)


def measure_export(folder: Path) -> Iterator[Figure]:
    """In a process of its own."""
    command = [sys.executable, "manage.py", "export_month", str(MONTH), "--include-drafts", "--format", "csv,jsonl"]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--out", str(folder / "export")])
    megabytes_of_memory = peak_rss_mb(process)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise StepFailedError(f"export_month ended with {process.returncode}")
    megabytes = sum(file.stat().st_size for file in (folder / "export").iterdir()) / 1e6
    yield Figure("export of a month, largest memory", megabytes_of_memory, "MB", limit=200)
    yield Figure("export of a month", seconds, "s", note=f"{megabytes:,.0f} MB of CSV and JSON lines")


def _run_bare() -> None:
    with connection.cursor() as cursor:
        cursor.execute(_BARE)


def _timed(step: Callable[[], _T]) -> tuple[float, _T]:
    started = time.perf_counter()
    result = step()
    return time.perf_counter() - started, result
