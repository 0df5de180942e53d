"""Days summed up by several at once, and written meanwhile: nobody waits for a writer, and no write is missed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import pytest
from django.db import connection, connections

from billing.models import AccountDay, KeyDay, KeyThird, ModelDay, StaleDay
from billing.rollup import days_summed_wrongly, summaries
from billing.rollup.summaries import Summary, summarise
from llm.models import ApiKey
from tests.billing.factories import make_account, make_daily_usage
from tests.billing.reported import UsageQuestion, by_account, usage_report
from tests.databases import only_on_postgresql
from tests.llm.admin.factories import make_key

pytestmark = [
    pytest.mark.django_db(transaction=True),
    only_on_postgresql("SQLite has one writer at a time"),
]

DAY = date(2026, 10, 5)
WAIT_S = 20.0


@pytest.fixture
def key() -> ApiKey:
    return make_key(make_account())


class Halt:
    """Stops the first thread that comes by, until it may go on."""

    def __init__(self) -> None:
        self.reached, self.may_go_on = threading.Event(), threading.Event()

    def __call__(self) -> None:
        if not self.reached.is_set():
            self.reached.set()
            assert self.may_go_on.wait(WAIT_S)


@contextmanager
def summing_up(halt: Halt) -> Iterator[None]:
    """A thread sums up, and has come as far as the halt; with the block's end it goes on, and ends."""
    with thread(summarise):
        assert halt.reached.wait(WAIT_S)
        try:
            yield
        finally:
            halt.may_go_on.set()


@contextmanager
def thread(job: Callable[[], None]) -> Iterator[None]:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001  # it is raised in the test's thread
            errors.append(error)
        finally:
            connections.close_all()

    running = threading.Thread(target=run)
    running.start()
    try:
        yield
    finally:
        running.join()
    if errors:
        raise errors[0]


@pytest.fixture
def halt(monkeypatch: pytest.MonkeyPatch) -> Callable[[Summary], Halt]:
    """Before the day is read for these sums, when it is no longer stale in the transaction that reads."""

    def make(summary: Summary) -> Halt:
        halt, original = Halt(), summaries._insert_sql

        def insert_sql(wanted: Any, *arguments: Any) -> str:
            if wanted is summary:
                halt()
            return original(wanted, *arguments)

        monkeypatch.setattr(summaries, "_insert_sql", insert_sql)
        return halt

    return make


def wait_for_a_lock() -> None:
    """Until somebody waits for another's."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if cursor.fetchone() != (0,):
                return
        time.sleep(0.01)
    pytest.fail("Nobody waited.")


def assert_report_of(calls: int) -> None:
    question = UsageQuestion(DAY, DAY)
    assert usage_report(question).total.calls == calls
    assert [each.figures.calls for each in by_account(question)] == [calls]
    assert days_summed_wrongly(DAY, DAY) == []


def test_the_second_of_two_waits_and_takes_in_what_came_meanwhile(key: ApiKey, halt: Callable[..., Halt]) -> None:
    make_daily_usage(key, DAY, calls=1)
    of_first = halt(ModelDay)
    with summing_up(of_first):
        make_daily_usage(key, DAY, calls=10, model="late")
        with thread(summarise):
            wait_for_a_lock()
            assert_report_of(11)
            of_first.may_go_on.set()
    assert StaleDay.objects.count() == 0
    assert_report_of(11)
    assert [summary.objects.count() for summary in (ModelDay, AccountDay, KeyDay, KeyThird)] == [2, 1, 1, 1]


@pytest.mark.parametrize("summary", [ModelDay, AccountDay, KeyDay, KeyThird])
def test_a_day_that_is_written_while_it_is_summed_up_stays_stale(
    key: ApiKey, halt: Callable[..., Halt], summary: Summary
) -> None:
    make_daily_usage(key, DAY, calls=1)
    with summing_up(halt(summary)):
        make_daily_usage(key, DAY, calls=10, model="late")
        assert_report_of(11)
    assert StaleDay.objects.count() == 1
    assert_report_of(11)
    summarise()
    assert StaleDay.objects.count() == 0
    assert_report_of(11)


def test_two_days_of_one_third_that_are_summed_up_at_once_are_both_in_its_sums(
    key: ApiKey, halt: Callable[..., Halt]
) -> None:
    make_daily_usage(key, DAY, calls=1)
    of_first, other_day = halt(KeyThird), DAY.replace(day=6)
    with summing_up(of_first):
        make_daily_usage(key, other_day, calls=10)
        with thread(lambda: summaries._sum_up([other_day])):
            wait_for_a_lock()
            of_first.may_go_on.set()
    assert KeyThird.objects.get().calls == 11
    assert days_summed_wrongly(DAY, other_day) == []


def test_two_who_sum_up_many_days_leave_the_sums_of_one(key: ApiKey) -> None:
    for number in range(1, 29):
        for model in "ab":
            make_daily_usage(key, DAY.replace(day=number), model=model)
    with thread(summarise), thread(summarise):
        summarise()
    models = (StaleDay, ModelDay, AccountDay, KeyDay, KeyThird)
    assert [model.objects.count() for model in models] == [0, 56, 28, 28, 3]
    assert days_summed_wrongly(DAY.replace(day=1), DAY.replace(day=28)) == []
