"""A cutoff parts the books: a writer that has stamped a row is waited for, and the row is in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import OperationalError, connections, transaction

from billing.models import DailyUsage, RollupMark
from billing.rollup import refresh
from llm.books import clock
from llm.books.clock import database_now, lock_books
from llm.models import ApiKey
from tests.databases import only_on_postgresql
from tests.llm.admin.factories import make_account, make_key, save, usage_row

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def key() -> ApiKey:
    return make_key(make_account())


@contextmanager
def unfinished_write(key: ApiKey) -> Iterator[threading.Event]:
    """A row is stamped and written, in a transaction that ends when the event is set, at the latest with the block."""
    written, may_commit = threading.Event(), threading.Event()

    def write() -> None:
        with transaction.atomic():
            save(usage_row(key, recorded_at=lock_books()))
            written.set()
            may_commit.wait()
        connections.close_all()

    writer = threading.Thread(target=write)
    writer.start()
    assert written.wait(10)
    try:
        yield may_commit
    finally:
        may_commit.set()
        writer.join()


@pytest.mark.slow
def test_a_row_that_was_stamped_before_the_cutoff_is_waited_for_and_counted(key: ApiKey) -> None:
    with unfinished_write(key) as may_commit:
        threading.Timer(0.5, may_commit.set).start()
        moment = refresh()
    assert DailyUsage.objects.get().calls == 1
    assert RollupMark.objects.get().cutoff_at == moment


@only_on_postgresql("SQLite's wait is bounded by the connection")
def test_a_writer_that_never_ends_stops_the_refresh_and_not_the_gateway(
    key: ApiKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "TRIES", 2)
    monkeypatch.setattr(clock, "PAUSE_S", 0.01)
    monkeypatch.setattr(clock, "WAIT_MS", 20)
    with unfinished_write(key):
        with pytest.raises(OperationalError):
            refresh()
        with transaction.atomic():
            lock_books()
        assert (DailyUsage.objects.count(), RollupMark.objects.count()) == (0, 0)


def test_the_cutoff_is_the_databases_clock(key: ApiKey) -> None:
    before = database_now()
    moment = clock.take_cutoff()
    assert before <= moment <= database_now()
