"""Refused requests are counted in memory, bounded whatever is sent, and added to the table beside the calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError

from llm.calls import refusal_counts
from llm.calls.refusal_counts import KEPT, RefusalCounts, prune_refusal_counts, write_counts
from llm.errors import BooksUnavailable, InvalidKey, InvalidRequest, NotFound, RateLimited
from llm.keys import Caller
from llm.models import RefusedRequests
from llm.models.refusals import OTHER_MODELS

NOW = datetime(2026, 12, 1, 10, 30, 15, tzinfo=UTC)
CALLER = Caller(2, 1, "acme", "production", frozenset(), shows_cost=True)


class Table:
    """Stands for the database. failures: raised by the next writes, one each."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.writes: list[dict[tuple[Any, ...], int]] = []

    async def run(self, write: Callable[[], None]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        write()

    def note(self, counts: refusal_counts.Counts) -> None:
        self.writes.append({tuple(key): count.requests for key, count in counts})

    @property
    def written(self) -> dict[tuple[Any, ...], int]:
        [write] = self.writes
        return write


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The moment that a refusal is counted for."""
    now = [NOW.timestamp()]
    monkeypatch.setattr("llm.calls.refusal_counts.time.time", lambda: now[0])
    return now


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    found = Table()
    monkeypatch.setattr(refusal_counts, "write_counts", found.note)
    return found


def counts_over(run: Callable[[Callable[[], None]], Awaitable[None]]) -> RefusalCounts:
    return RefusalCounts(run)


async def finish(counts: RefusalCounts) -> None:
    await counts.finish(within_s=5)


MINUTE = int(NOW.timestamp()) // 60


async def test_alike_refusals_of_a_minute_are_one_count(clock: list[float], table: Table) -> None:
    counts = counts_over(table.run)
    for _ in range(3):
        counts.note(RateLimited("Limit reached.").about_limit(7), CALLER, model="gpt-4o", request_id="req_1")
    clock[0] += 60
    counts.note(RateLimited("Limit reached.").about_limit(7), CALLER, model="gpt-4o", request_id="req_2")
    await finish(counts)
    key = (1, 2, "gpt-4o", "rate_limit_exceeded", 7)
    assert table.written == {(MINUTE, *key): 3, (MINUTE + 1, *key): 1}


async def test_strangers_are_one_line_and_a_key_that_no_longer_works_is_itself(
    clock: list[float], table: Table
) -> None:
    counts = counts_over(table.run)
    for number in range(100):
        counts.note(InvalidKey("Unknown."), None, model=f"made-up-{number}")
    counts.note(InvalidKey("Revoked.").about_key(3, 4), None)
    await finish(counts)
    assert table.written == {
        (MINUTE, 0, 0, "", "invalid_api_key", 0): 100,
        (MINUTE, 3, 4, "", "invalid_api_key", 0): 1,
    }


async def test_the_models_of_a_key_are_bounded_each_day(clock: list[float], table: Table) -> None:
    counts = counts_over(table.run)
    for number in range(60):
        counts.note(InvalidRequest("No."), CALLER, model=f"made-up-{number}")
    counts.note(InvalidRequest("No."), CALLER, model="made-up-0")
    await finish(counts)
    assert len(table.written) == 51
    assert table.written[MINUTE, 1, 2, OTHER_MODELS, "invalid_request", 0] == 10
    assert table.written[MINUTE, 1, 2, "made-up-0", "invalid_request", 0] == 2
    table.writes.clear()
    clock[0] += 86_400
    counts.note(InvalidRequest("No."), CALLER, model="made-up-55")
    await finish(counts)
    assert table.written == {(MINUTE + 1440, 1, 2, "made-up-55", "invalid_request", 0): 1}


async def test_memory_is_bounded_while_nothing_can_be_written(
    clock: list[float], table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal_counts, "MAX_WAITING", 10)
    counts = counts_over(table.run)
    for number in range(1000):
        clock[0] += 60
        counts.note(InvalidRequest("No."), CALLER, model=f"made-up-{number}")
    await finish(counts)
    assert sum(table.written.values()) == 20
    assert [key[2] for key in table.written] == [2] * 10 + [0] * 10


async def test_what_the_database_cannot_take_waits_and_is_counted_once(clock: list[float], table: Table) -> None:
    counts = counts_over(table.run)
    table.failures = [BooksUnavailable("Away.")]
    counts.note(InvalidRequest("No."), CALLER)
    await finish(counts)
    assert table.writes == []
    counts.note(InvalidRequest("No."), CALLER)
    await finish(counts)
    assert table.written == {(MINUTE, 1, 2, "", "invalid_request", 0): 2}


async def test_what_the_database_refuses_is_dropped(clock: list[float], table: Table) -> None:
    counts = counts_over(table.run)
    table.failures = [IntegrityError("No.")]
    counts.note(InvalidRequest("No."), CALLER)
    await finish(counts)
    await finish(counts)
    assert table.writes == []


async def test_counts_are_written_without_being_asked(
    clock: list[float], table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal_counts, "WRITTEN_EACH_S", 0.0)
    written = asyncio.Event()

    async def run(write: Callable[[], None]) -> None:
        write()
        written.set()

    counts_over(run).note(InvalidRequest("No."), CALLER)
    await asyncio.wait_for(written.wait(), 5)
    assert sum(table.written.values()) == 1


# --- The table --------------------------------------------------------------------------------------------------------


def count(message: str, *, requests: int = 1, later_s: int = 0, model: str = "gpt-4o") -> Any:
    key = refusal_counts._Key(MINUTE, 1, 2, model, "rate_limit_exceeded", 7)
    moment = NOW.timestamp() + later_s
    return key, refusal_counts._Count(requests, moment, message, f"req_{later_s}")


@pytest.mark.django_db
def test_counts_of_several_processes_add_up_and_the_last_example_stays() -> None:
    write_counts([count("second", requests=2, later_s=5), count("other", model="gpt-4")])
    write_counts([count("third", requests=3, later_s=9)])
    write_counts([count("first", requests=4, later_s=1)])
    row = RefusedRequests.objects.get(model="gpt-4o")
    assert RefusedRequests.objects.count() == 2
    assert (row.minute, row.requests) == (NOW.replace(second=0), 9)
    assert (row.last_at, row.last_message, row.last_request_id) == (NOW + timedelta(seconds=9), "third", "req_9")


@pytest.mark.django_db
def test_a_message_that_repeats_a_path_is_not_kept() -> None:
    counts = refusal_counts.RefusalCounts(lambda write: asyncio.sleep(0))

    async def note() -> None:
        counts.note(NotFound("There is no /v1/llm_secret here."), None)
        if counts._timer is not None:
            counts._timer.cancel()

    asyncio.run(note())
    write_counts(list(counts._waiting.items()))
    assert RefusedRequests.objects.get().last_message == ""


@pytest.mark.django_db
def test_old_counts_are_deleted() -> None:
    write_counts([count("x")])
    minute = NOW.replace(second=0)
    assert prune_refusal_counts(now=minute + KEPT) == 0
    assert prune_refusal_counts(now=minute + KEPT + timedelta(seconds=1)) == 1
    assert not RefusedRequests.objects.exists()
