"""Reads of calls, apart from those of others; and readings that many share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from django.db import OperationalError, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from pytest_django import Settings

from llm.calls import runtime as runtime_module
from llm.calls.runtime import Runtime, close_runtime, runtime
from llm.db.reader_threads import ReadLane, Shared
from llm.errors import BooksUnavailable
from llm.keys import create_key, get_or_create_account


@pytest.fixture
async def lane(transactional_db: None) -> AsyncIterator[ReadLane]:
    lane = ReadLane("tests", threads=1)
    yield lane
    await lane.aclose()


def driver() -> object:
    connection.ensure_connection()
    return connection.connection


async def test_a_lane_keeps_its_connection(lane: ReadLane) -> None:
    """Where Django's own threads, which come and go, close theirs."""
    assert connections["default"].settings_dict["CONN_MAX_AGE"] == 0
    assert await lane.run(driver) is await lane.run(driver)


async def test_a_lane_connects_before_it_is_asked_and_keeps_that(lane: ReadLane) -> None:
    await asyncio.gather(*lane.connect())
    first = await lane.run(lambda: connection.connection)
    assert first is not None
    assert await lane.run(driver) is first


async def test_a_lane_whose_read_failed_connects_again(lane: ReadLane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm.db.reader_threads._AWAY_FOR_S", 0)

    def fail() -> None:
        raise OperationalError("server closed the connection unexpectedly")

    first = await lane.run(driver)
    with pytest.raises(BooksUnavailable, match="it ended the connection"):
        await lane.run(fail)
    assert await lane.run(driver) is not first


@pytest.mark.usefixtures("own_runtime")
async def test_reads_of_others_that_fail_or_hang_are_no_matter_to_calls() -> None:
    def fail() -> None:
        raise OperationalError("sorry, too many clients already")

    with pytest.raises(BooksUnavailable, match="it has too many connections"):
        await runtime().run_side_db(fail)
    with pytest.raises(BooksUnavailable, match="it has too many connections"):
        await runtime().run_side_db(lambda: None)
    assert await runtime().run_db(lambda: 1) == 1


@pytest.mark.usefixtures("own_runtime")
async def test_calls_are_read_for_while_all_that_others_have_is_taken() -> None:
    goes_on = threading.Event()
    others = [asyncio.create_task(runtime().run_side_db(lambda: goes_on.wait(20))) for _ in range(20)]
    await asyncio.sleep(0)
    try:
        assert await runtime().run_db(lambda: 1) == 1
        assert not any(other.done() for other in others)
    finally:
        goes_on.set()
        await asyncio.gather(*others)


@pytest.mark.usefixtures("own_runtime")
async def test_only_a_key_that_was_known_before_is_read_among_the_calls(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """Anybody can make up a well-formed key, and ask for lists with one of their own."""
    settings.LLM_KEY_CACHE_SECONDS = -1
    own, lanes = runtime(), list[str]()
    _, secret = await own.run_db(lambda: create_key(get_or_create_account("acme"), name="tests"))

    def noting(name: str) -> Callable[[Callable[[], object]], object]:
        run = getattr(own, name)

        async def noted(read: Callable[[], object]) -> object:
            lanes.append(name)
            return await run(read)

        return noted

    for name in ("run_db", "run_side_db"):
        monkeypatch.setattr(own, name, noting(name))
    await own.caller(secret, must_be_fresh=False)
    await own.caller(secret, must_be_fresh=False)
    await own.caller(secret, must_be_fresh=True)
    assert lanes == ["run_side_db", "run_db", "run_side_db"]


def test_a_loop_that_ended_without_closing_its_runtime_leaves_no_connection(transactional_db: None) -> None:
    """As where somebody embeds the gateway and runs a loop for each call."""
    seen: list[tuple[BaseDatabaseWrapper, object]] = []

    async def read() -> Runtime:
        await runtime().run_db(lambda: seen.append((connections["default"], driver())))
        return runtime()

    first = asyncio.run(read())
    asyncio.run(read_and_close(read))
    for thread in first._call_lane._executor._threads:
        thread.join(20)
    (wrapper, used), _ = seen
    assert used is not None
    assert wrapper.connection is None
    assert first not in runtime_module._runtimes.values()


async def read_and_close(read: Callable[[], Awaitable[Runtime]]) -> None:
    await read()
    await close_runtime()


# --- Sharing ----------------------------------------------------------------------------------------------------------


class Work:
    """Counts its runs; each ends when it is released."""

    def __init__(self) -> None:
        self.runs = 0
        self.begun = asyncio.Event()
        self.released = asyncio.Event()

    async def __call__(self) -> int:
        self.runs += 1
        number = self.runs
        self.begun.set()
        await self.released.wait()
        return number


async def test_all_who_ask_before_a_run_begins_share_it_and_who_asks_later_shares_the_next() -> None:
    """So nobody is told what was found before they asked, and a flood makes no more than two runs at a time."""
    work = Work()
    shared = Shared(work)
    early = [asyncio.create_task(shared.get()) for _ in range(100)]
    await work.begun.wait()
    late = [asyncio.create_task(shared.get()) for _ in range(100)]
    await asyncio.sleep(0)
    assert work.runs == 1
    work.released.set()
    assert await asyncio.gather(*early, *late) == [1] * 100 + [2] * 100
    assert await shared.get() == 3


async def test_who_leaves_takes_the_answer_from_nobody() -> None:
    work = Work()
    shared = Shared(work)
    gone, stays = asyncio.create_task(shared.get()), asyncio.create_task(shared.get())
    await work.begun.wait()
    gone.cancel()
    work.released.set()
    assert await stays == 1


async def test_a_run_that_fails_fails_for_all_of_its_own_and_for_no_other() -> None:
    outcomes = iter([ValueError("once"), None])

    async def work() -> str:
        if (error := next(outcomes)) is not None:
            raise error
        return "fine"

    shared = Shared(work)
    first = await asyncio.gather(shared.get(), shared.get(), return_exceptions=True)
    assert [type(each) for each in first] == [ValueError, ValueError]
    assert await shared.get() == "fine"
