"""Two connections and one call, which is open in one table or closed in the other, whatever waits for whom."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest
from django.db import connection, transaction

from llm import models
from llm.audit import verify
from llm.books.batches.commit import commit_batch
from llm.books.operations import (
    CloseCall,
    Closed,
    Conflict,
    Failed,
    OpenCall,
    Opened,
    Operation,
    Result,
    void_close,
)
from llm.books.spool.replay import commit_again
from llm.db.prepared import prepare_statements_of_this_thread
from llm.enums import CallOutcome, LimitMetric, LimitPer, UsageSource, UsageStatus
from llm.limits.admission import ReservationEstimate
from llm.limits.changes import set_limit
from llm.models import ApiKey, LimitWindow, Usage
from llm.types import TokenCounts
from tests.books import all_calls
from tests.databases import only_on_postgresql
from tests.llm.books.making import a_close, a_key, an_open

HELD, USED = 60, 10
ASK = ReservationEstimate(requests=1, input_tokens=50, output_tokens=10)
CALLS, THREADS = 12, 3


@dataclass(frozen=True)
class Scene:
    """Of one call. is_open: before the two come, of which `first` has written and not committed when `second` comes."""

    first: str
    second: str
    second_gets: Sequence[Result | type]
    status: str
    is_open: bool = True
    is_rolled_back: bool = False

    @property
    def used(self) -> int:
        return 0 if self.status == "void" else USED


SCENES = {
    "an open again while it is closed": Scene("close", "open", [Failed], status="settled"),
    "an open in doubt while it is closed": Scene("close", "void in doubt", [Failed, Conflict], status="settled"),
    "an open in doubt while it is voided": Scene(
        "void in doubt", "void in doubt", [Failed, Closed(is_new=False)], status="void"
    ),
    "a late open while it is voided": Scene("void in doubt", "open", [Failed], is_open=False, status="void"),
    "an open in doubt whose first one is committed after all": Scene(
        "open", "void in doubt", [Opened, Closed()], is_open=False, status="void"
    ),
    "an open in doubt whose first one was rolled back": Scene(
        "open", "void in doubt", [Opened, Closed()], is_open=False, is_rolled_back=True, status="void"
    ),
    "a close twice": Scene("close", "close", [Closed(is_new=False)], status="settled"),
    "a close whose first one was rolled back": Scene(
        "close", "close", [Closed()], is_rolled_back=True, status="settled"
    ),
    "a close with other figures": Scene("close", "other close", [Conflict], status="settled"),
    "a void beside a close": Scene("close", "void", [Conflict], status="settled"),
    "a close beside a void": Scene("void", "close", [Conflict], status="void"),
    "the reaper beside a close": Scene("close", "lost", [Conflict], status="settled"),
    "a close from a spool beside the reaper": Scene("lost", "close", [Closed()], status="estimated"),
}


def limited_key() -> ApiKey:
    key = a_key()
    set_limit(key.account, None, LimitMetric.TOKENS, LimitPer.TOTAL, 10**6, None)
    return key


def operations(call: OpenCall, name: str) -> list[Operation]:
    doubtful = replace(call, is_stillborn=True, ask=None)
    settled = a_close(call.id, counts=TokenCounts(USED), cost_pico=None, account_id=call.account_id)
    lost = CloseCall(
        id=call.id,
        status=UsageStatus.ESTIMATED,
        outcome=CallOutcome.LOST,
        usage_source=UsageSource.ESTIMATED,
        counts=TokenCounts(3),
        is_billable=False,
        account_id=call.account_id,
    )
    found: dict[str, list[Operation]] = {
        "open": [call],
        "void in doubt": [doubtful, void_close(doubtful)],
        "close": [settled],
        "other close": [replace(settled, counts=TokenCounts(USED + 1))],
        "void": [void_close(call)],
        "lost": [lost],
    }
    return found[name]


def in_thread(work: Callable[[], list[Result]]) -> list[Result]:
    """On a connection of its own, as the writer's."""

    def run() -> list[Result]:
        prepare_statements_of_this_thread()
        try:
            return work()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(run).result(timeout=60)


def wait_until_somebody_waits() -> None:
    deadline = time.monotonic() + 30
    sql = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
        "AND wait_event IN ('transactionid', 'tuple')"
    )
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            # Within a transaction the server shows what it showed before.
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(sql)
            if cursor.fetchone()[0]:
                return
        time.sleep(0.01)
    raise AssertionError("nobody waits")


def is_like(result: Result, expected: Result | type) -> bool:
    return isinstance(result, expected) if isinstance(expected, type) else result == expected


@only_on_postgresql("SQLite has one writer at a time")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES.keys())
def test_whoever_waits_brings_nothing_back_to_life(scene: Scene) -> None:
    call = an_open(limited_key(), ask=lambda: ASK)
    if scene.is_open:
        commit_batch([call])
    others = ThreadPoolExecutor(1)
    with others:
        with transaction.atomic():
            commit_batch(operations(call, scene.first))
            second = others.submit(in_thread, lambda: commit_batch(operations(call, scene.second)))
            wait_until_somebody_waits()
            transaction.set_rollback(scene.is_rolled_back)
        results = second.result(timeout=60)

    assert len(results) == len(scene.second_gets)
    assert all(map(is_like, results, scene.second_gets)), results
    [row] = Usage.objects.all()
    assert row.status == scene.status
    # Only a settlement that comes after the reaper corrects anything.
    assert row.adjustments.count() == (row.status == "estimated")
    assert not models.OpenCall.objects.exists()
    assert [(window.used, window.held) for window in LimitWindow.objects.all()] in ([(scene.used, 0)], [])
    assert verify().sentences == []


ORDERS = ["open", "open", "close", "close", "void", "void in doubt", "lost", "other close"]


@pytest.mark.slow
@only_on_postgresql("SQLite has one writer at a time")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("seed", [1, 2])
def test_in_any_order_on_several_connections_every_call_is_in_one_table(seed: int) -> None:
    key = limited_key()
    calls = [an_open(key, ask=lambda: ASK) for _ in range(CALLS)]
    start = threading.Barrier(THREADS)

    def work(number: int) -> list[Result]:
        order = random.Random(f"{seed} {number}")
        steps = [operations(call, name) for call in calls for name in order.sample(ORDERS, 5)]
        order.shuffle(steps)
        start.wait(timeout=30)
        return [result for step in steps for result in commit_again(step)]

    with ThreadPoolExecutor(THREADS) as threads:
        runs = [threads.submit(in_thread, lambda number=number: work(number)) for number in range(THREADS)]  # type: ignore[misc]
        results = [result for run in runs for result in run.result(timeout=120)]

    assert len(results) >= 5 * CALLS * THREADS
    assert models.OpenCall.objects.count() + Usage.objects.count() == len(all_calls())
    assert {call.pk for call in all_calls()} <= {call.id for call in calls}
    held = sum(HELD for _ in models.OpenCall.objects.exclude(holds=None))
    assert [window.held for window in LimitWindow.objects.all()] in ([held], [])
    assert verify().sentences == []
