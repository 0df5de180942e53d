"""Prepared statements of the books on PostgreSQL: a plan for each, made once, that reads rows by key."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest
from django.db import connection, transaction

from llm.books.batches.commit import commit_batch
from llm.books.claims import TABLE as CLAIMS
from llm.books.operations import Claim, Closed, Opened, Refused, Repeated
from llm.books.statements import TABLES
from llm.db.prepared import prepare_statements_of_this_thread
from llm.enums import LimitMetric, LimitPer
from llm.limits.admission import ReservationEstimate
from llm.limits.changes import set_limit
from llm.models import IdempotencyKey, LimitWindow, Usage
from tests.databases import only_on_postgresql
from tests.llm.books.making import a_close, a_key, an_open
from tests.threads import to_thread

pytestmark = [
    pytest.mark.django_db(transaction=True),
    only_on_postgresql("SQLite keeps plans by itself"),
]


def prepared(work: Callable[[], object]) -> None:
    """In a thread as the writer's."""

    def run() -> None:
        prepare_statements_of_this_thread()
        work()

    asyncio.run(to_thread(run))


def write_calls(count: int, *, claims: bool = False) -> None:
    """Opened and closed, under a limit. claims: with idempotency keys, which are released."""
    key = a_key()
    set_limit(key.account, None, LimitMetric.TOKENS, LimitPer.DAY, 10**9, None)
    opens = [an_open(key, claim=Claim(f"{number:064}", "c" * 64) if claims else None) for number in range(count)]
    assert {type(each) for each in commit_batch(opens)} == {Opened}
    assert {type(each) for each in commit_batch([a_close(each.id, releases_claim=claims) for each in opens])} == {
        Closed
    }


def plans() -> dict[str, str]:
    """By statement, of all that this thread's connection has prepared."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, statement, cardinality(parameter_types) FROM pg_prepared_statements")
        found = {}
        for name, statement, parameters in cursor.fetchall():
            arguments = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
            cursor.execute(f"EXPLAIN EXECUTE {name}{arguments}")
            found[statement] = "\n".join(line for (line,) in cursor.fetchall())
    return found


def test_plans_made_on_empty_tables_read_none_of_them_whole() -> None:
    def work() -> None:
        write_calls(3, claims=True)
        found = plans()
        assert len([statement for statement in found if CLAIMS in statement]) == 3
        assert len(found) >= 9
        for statement, plan in found.items():
            assert "Seq Scan" not in plan, (statement, plan)

    prepared(work)
    assert Usage.objects.filter(status="settled").count() == 3


def test_a_statement_is_prepared_once_and_anew_on_another_connection() -> None:
    def work() -> None:
        write_calls(1)
        first = plans().keys()
        write_calls(2)
        assert plans().keys() == first
        connection.close()
        write_calls(1)
        assert plans().keys() <= first

    prepared(work)
    assert Usage.objects.filter(status="settled").count() == 4


def test_a_batch_that_is_rolled_back_leaves_them_in_force() -> None:
    def work() -> None:
        key = a_key()
        call = an_open(key)
        assert isinstance(commit_batch([call])[0], Opened)
        assert type(commit_batch([an_open(key, id=call.id, request_id=call.request_id)])[0]) is Opened
        with connection.cursor() as cursor:
            for setting in ("plan_cache_mode", "enable_seqscan"):
                cursor.execute(f"SHOW {setting}")
                assert cursor.fetchone()[0] in ("force_generic_plan", "off")
        assert isinstance(commit_batch([a_close(call.id)])[0], Closed)

    prepared(work)


def test_nothing_is_prepared_elsewhere() -> None:
    write_calls(1)
    assert plans() == {}


def test_a_batch_that_waits_for_the_claims_to_be_rewritten_finds_them() -> None:
    key = a_key()
    claim, other = Claim("a" * 64, "c" * 64), Claim("b" * 64, "c" * 64)
    calls = [an_open(key, claim=each) for each in (claim, other, claim)]
    is_warm, is_rewritten = threading.Event(), threading.Event()
    results: list[object] = []

    def work() -> None:
        commit_batch(calls[:2])
        warm = an_open(key, claim=Claim("d" * 64, "c" * 64))
        commit_batch([warm])
        commit_batch([a_close(warm.id, releases_claim=True)])
        is_warm.set()
        assert is_rewritten.wait(10)
        results.extend(commit_batch([a_close(calls[1].id, releases_claim=True), calls[2]]))

    thread = threading.Thread(target=prepared, args=(work,))
    thread.start()
    assert is_warm.wait(30)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {CLAIMS} ADD COLUMN rewritten text DEFAULT gen_random_uuid()::text")
        is_rewritten.set()
        time.sleep(0.5)
    thread.join(30)
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {CLAIMS} DROP COLUMN rewritten")
    assert results == [Closed(), Repeated(calls[0].id, is_same=True, is_in_flight=True)]
    assert [each.call_id for each in IdempotencyKey.objects.all()] == [calls[0].id]


@pytest.mark.parametrize("table", TABLES)
def test_a_batch_that_waits_for_a_table_to_be_rewritten_finds_its_rows(table: str) -> None:
    """EXECUTE alone would take its snapshot before the wait, and find the table empty: no error, only wrong answers."""
    key = a_key()
    set_limit(key.account, None, LimitMetric.REQUESTS, LimitPer.TOTAL, 2, None)
    asked = partial(ReservationEstimate, requests=1, input_tokens=100, output_tokens=200)
    calls = [an_open(key, ask=asked) for _ in range(3)]
    is_warm, is_rewritten = threading.Event(), threading.Event()
    results: list[object] = []

    def work() -> None:
        commit_batch([calls[0]])
        commit_batch([a_close(calls[0].id)])
        commit_batch([calls[1]])
        is_warm.set()
        assert is_rewritten.wait(10)
        results.extend((*commit_batch([a_close(calls[1].id)]), *commit_batch([calls[2]])))

    thread = threading.Thread(target=prepared, args=(work,))
    thread.start()
    assert is_warm.wait(30)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} ADD COLUMN rewritten text DEFAULT gen_random_uuid()::text")
        is_rewritten.set()
        time.sleep(0.5)
    thread.join(30)
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} DROP COLUMN rewritten")
    closed, third = results
    assert closed == Closed()
    assert isinstance(third, Refused)
    assert third.exceeded is not None
    [window] = LimitWindow.objects.all()
    assert (window.used, window.held) == (2, 0)
