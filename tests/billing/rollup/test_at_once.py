"""Workers, the gateway's writers and readers at once, and workers that are killed: nothing twice, nothing missed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date

import pytest
from django.db import OperationalError, connections, transaction
from django.db.models import Sum

from billing.models import DailyUsage, StaleDay
from billing.rollup import days_summed_wrongly, lock_rollups, refresh
from llm.books.batches.commit import commit_batch
from llm.books.operations import Operation
from llm.enums import AdjustmentSource
from llm.models import ApiKey, Usage
from llm.types import TokenCounts
from tests.billing.rollup_histories import cutoffs, expected_rows, rolled_up_rows
from tests.gateway_process import _database_environment
from tests.llm.books.making import a_close, a_key, adjust_now, an_open

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

ACCOUNTS = 4
PAUSE_S = 0.02
"""Whoever waits for SQLite's lock looks for it now and then; who takes it again at once keeps it."""


@pytest.fixture
def keys() -> list[ApiKey]:
    return [a_key(f"account {number}") for number in range(ACCOUNTS)]


def make_calls(keys: list[ApiKey], chance: random.Random) -> None:
    """A batch of the gateway's, and now and then a correction."""
    opens = [an_open(chance.choice(keys), model=chance.choice("ab")) for _ in range(5)]
    batch: list[Operation] = [*opens, *(a_close(opened.id) for opened in opens[1:])]
    commit_batch(batch)
    commit_batch([a_close(opens[0].id)])
    if chance.random() < 0.3:
        counts = TokenCounts(prompt_tokens=chance.randrange(100), completion_tokens=1)
        adjust_now(opens[1].id, AdjustmentSource.PROVIDER, counts=counts, cost_pico=7, is_billable=True, reason="told")


@contextmanager
def running(*jobs: Callable[[], None]) -> Iterator[None]:
    """Each job again and again in a thread of its own, until the block ends; then raises what one of them raised."""
    ended = threading.Event()
    errors: list[BaseException] = []

    def repeat(job: Callable[[], None]) -> None:
        try:
            while not ended.wait(PAUSE_S) and not errors:
                with suppress(OperationalError):  # SQLite makes nobody wait beyond some seconds; they try again.
                    job()
        except BaseException as error:  # noqa: BLE001  # it is raised in the test's thread
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=repeat, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


def read_as_one_state(key: ApiKey) -> None:
    with transaction.atomic():
        cutoff = lock_rollups([key.account_id])[key.account_id]
        if cutoff is not None:
            closed = Usage.objects.filter(account=key.account_id, status="settled", recorded_at__lte=cutoff)
            rolled_up = DailyUsage.objects.filter(account=key.account_id).aggregate(calls=Sum("calls"))["calls"] or 0
            assert rolled_up == closed.count()


def test_workers_writers_and_readers_at_once(keys: list[ApiKey]) -> None:
    with running(
        refresh_all,
        refresh_all,
        lambda: refresh_one(keys[0]),
        lambda: make_calls(keys, random.Random()),
        lambda: read_as_one_state(random.choice(keys)),
        check_sums,
    ):
        time.sleep(3)
    cutoff = refresh()
    assert Usage.objects.count() > 0
    assert cutoffs() == {cutoff}
    assert rolled_up_rows() == expected_rows(cutoff)
    check_sums()
    assert StaleDay.objects.count() == 0


def test_killed_workers_leave_nothing_counted_twice_or_missed(keys: list[ApiKey]) -> None:
    with running(lambda: make_calls(keys, random.Random()), lambda: read_as_one_state(random.choice(keys)), check_sums):
        for _ in range(3):
            kill_a_worker()
    cutoff = refresh()
    assert cutoffs() == {cutoff}
    assert rolled_up_rows() == expected_rows(cutoff)
    check_sums()
    assert StaleDay.objects.count() == 0


def check_sums() -> None:
    """Of days that are not stale, at any moment."""
    assert days_summed_wrongly(date(2000, 1, 1), date(2999, 12, 31)) == []


def refresh_all() -> None:
    refresh()


def refresh_one(key: ApiKey) -> None:
    refresh(account_ids=[key.account_id])


def kill_a_worker() -> None:
    """One that refreshes without end, somewhere in the middle of it."""
    program = (
        "import django; django.setup()\n"
        "from billing.rollup import refresh, sqlite\n"
        "sqlite.ROWS_AT_A_TIME = 1\n"
        "print(refresh(), flush=True)\n"
        "while True: refresh()"
    )
    environment = {**os.environ, **_database_environment()}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline()
        time.sleep(random.uniform(0.01, 0.3))
        worker.kill()
