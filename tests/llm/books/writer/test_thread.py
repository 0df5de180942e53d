"""The writer's thread: groups what waits, refuses what it can't write, keeps what has happened."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
from asgiref.sync import sync_to_async
from django.db import OperationalError, connection
from structlog.testing import capture_logs

from llm import models
from llm.books.operations import Closed, OpenCall, Opened, Operation, Refused, Result
from llm.books.spool import files as spool_module
from llm.books.spool.replay import commit_surely, replay_abandoned
from llm.books.writer import backlog as backlog_module
from llm.books.writer import thread as turns
from llm.books.writer import thread as writer_module
from llm.books.writer.thread import BooksWriter
from llm.enums import LimitMetric, LimitPer
from llm.errors import BooksUnavailable
from llm.ids import boot_id, uuid7
from llm.limits.admission import ReservationEstimate
from llm.limits.changes import set_limit
from llm.models import ApiKey, RefusedWrite, Usage
from tests.books import all_calls, find_call, get_call
from tests.databases import only_on_postgresql
from tests.llm.books.making import a_close, a_key, an_open

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def key() -> ApiKey:
    return a_key()


@pytest.fixture(autouse=True)
def spool_folder(settings: Any, tmp_path: Path) -> Path:
    """Of this test alone: a spool has one writer."""
    settings.LLM_SPOOL_DIR = tmp_path
    return tmp_path


@pytest.fixture
async def books(spool_folder: Path) -> AsyncIterator[BooksWriter]:
    writer = BooksWriter()
    yield writer
    assert await asyncio.to_thread(writer.stop, timeout_s=5)


class FlakyDatabase:
    """Stands for `commit_surely`: away as long as `is_away`, and remembers the sizes of the batches it wrote.

    loses_answers: what it is away for is written nevertheless.
    """

    def __init__(self) -> None:
        self.is_away = self.loses_answers = False
        self.gate = threading.Event()
        self.gate.set()
        self.was_called = threading.Event()
        self.sizes: list[int] = []

    def beat(self) -> None:
        if self.is_away:
            raise OperationalError("the server closed the connection unexpectedly")

    def __call__(self, operations: Sequence[Operation], *, lock_timeout_ms: int = 0) -> list[Result]:
        self.was_called.set()
        self.gate.wait(5)
        if self.loses_answers:
            commit_surely(operations, lock_timeout_ms=lock_timeout_ms)
        if self.is_away:
            raise OperationalError("the server closed the connection unexpectedly")
        self.sizes.append(len(operations))
        return commit_surely(operations, lock_timeout_ms=lock_timeout_ms)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> FlakyDatabase:
    flaky = FlakyDatabase()
    monkeypatch.setattr(writer_module, "commit_surely", flaky)
    monkeypatch.setattr(writer_module, "beat", flaky.beat)
    monkeypatch.setattr(backlog_module, "commit_surely", flaky)
    monkeypatch.setattr(writer_module, "_RETRY_S", 0.01)
    return flaky


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # the writer's thread tells no event loop
            await asyncio.sleep(0.005)


async def test_what_is_written_is_there_when_the_wait_ends(books: BooksWriter, key: ApiKey) -> None:
    operation = an_open(key)
    [result] = await books.submit(operation)
    assert isinstance(result, Opened)
    assert await sync_to_async(find_call)(operation.id)


async def test_what_waits_meanwhile_goes_into_one_transaction(
    books: BooksWriter, key: ApiKey, database: FlakyDatabase
) -> None:
    database.gate.clear()
    first = books.submit(an_open(key))
    await asyncio.to_thread(database.was_called.wait, 5)
    others = [books.submit(an_open(key)) for _ in range(20)]
    database.gate.set()
    await asyncio.gather(first, *others)
    assert database.sizes == [1, 20]


async def test_operations_of_one_submission_share_a_batch(books: BooksWriter, key: ApiKey) -> None:
    first, second = an_open(key), an_open(key)
    await books.submit(first)
    results = await books.submit(a_close(first.id), second)
    assert results[0] == Closed()
    assert isinstance(results[1], Opened)


async def test_a_refusal_is_a_result(books: BooksWriter, key: ApiKey) -> None:
    assert await books.submit(an_open(key, key_id=key.pk + 1000)) == [Refused("unknown")]


async def test_an_open_is_refused_at_once_while_the_database_is_away(
    books: BooksWriter, key: ApiKey, database: FlakyDatabase
) -> None:
    database.is_away = True
    with pytest.raises(BooksUnavailable):
        await books.submit(an_open(key))
    database.is_away = False
    assert await sync_to_async(all_calls)() == []


async def test_a_close_lies_in_the_spool_until_the_database_is_back(
    books: BooksWriter, key: ApiKey, database: FlakyDatabase
) -> None:
    operation = an_open(key)
    await books.submit(operation)
    database.is_away = True
    assert await books.submit(a_close(operation.id)) == [Closed()]
    assert books.spool.waiting_bytes > 0
    assert (await sync_to_async(get_call)(operation.id)).status == "open"
    database.is_away = False
    await until(lambda: not books.spool.waiting_bytes)
    assert (await sync_to_async(get_call)(operation.id)).status == "settled"


async def test_a_close_in_the_spool_outlives_its_writer(
    key: ApiKey, database: FlakyDatabase, spool_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, spool_file = BooksWriter(), spool_folder / f"{boot_id()}.spool"
    operation = an_open(key)
    await first.submit(operation)
    database.is_away = True
    await first.submit(a_close(operation.id))
    assert await asyncio.to_thread(first.stop, timeout_s=5)
    assert spool_file.exists()
    database.is_away = False
    second_id = uuid7()
    monkeypatch.setattr(spool_module, "boot_id", lambda: second_id)
    second = BooksWriter()
    second.start()
    await until(lambda: not spool_file.exists())
    assert await asyncio.to_thread(second.stop, timeout_s=5)
    assert (await sync_to_async(get_call)(operation.id)).status == "settled"


async def test_an_open_whose_commit_nobody_has_heard_of_is_voided(
    books: BooksWriter, key: ApiKey, database: FlakyDatabase
) -> None:
    await books.submit(an_open(key))
    database.is_away = database.loses_answers = True
    operation = an_open(key)
    with pytest.raises(BooksUnavailable):
        await books.submit(operation)
    database.is_away = database.loses_answers = False
    await until(lambda: not books.waiting)
    row = await Usage.objects.aget(pk=operation.id)
    assert (row.status, row.outcome) == ("void", "not_sent")


async def test_the_close_of_a_refused_submission_is_kept_too(
    books: BooksWriter, key: ApiKey, database: FlakyDatabase
) -> None:
    first, second = an_open(key), an_open(key)
    await books.submit(first)
    database.is_away = True
    with pytest.raises(BooksUnavailable):
        await books.submit(a_close(first.id), second)
    database.is_away = False
    await until(lambda: not books.is_away)
    await books.submit(an_open(key))
    assert (await sync_to_async(get_call)(first.id)).status == "settled"
    assert not await Usage.objects.exclude(status="void").filter(pk=second.id).aexists()


async def test_stopping_writes_what_waits(key: ApiKey) -> None:
    writer = BooksWriter()
    written = [writer.submit(an_open(key)) for _ in range(50)]
    assert await asyncio.to_thread(writer.stop, timeout_s=5)
    await asyncio.gather(*written)
    assert len(await sync_to_async(all_calls)()) == 50


async def test_a_stopped_writer_starts_again_when_it_is_needed(books: BooksWriter, key: ApiKey) -> None:
    await books.submit(an_open(key))
    await asyncio.to_thread(books.stop, timeout_s=5)
    await books.submit(an_open(key))
    assert len(await sync_to_async(all_calls)()) == 2


# --- Whatever goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_failure_of_the_spool_itself_ends_neither_the_thread_nor_a_wait(
    books: BooksWriter, key: ApiKey, database: FlakyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = an_open(key), an_open(key)
    await books.submit(first)
    append = spool_module.Spool.append
    monkeypatch.setattr(spool_module.Spool, "append", lambda *_: [].pop())
    database.is_away = True
    with pytest.raises(BooksUnavailable):
        await asyncio.wait_for(books.submit(a_close(first.id), second), 5)
    monkeypatch.setattr(spool_module.Spool, "append", append)
    database.is_away = False
    await until(lambda: not books.waiting and not books.is_away)
    assert (await sync_to_async(get_call)(first.id)).status == "settled"
    assert isinstance((await books.submit(an_open(key)))[0], Opened)


async def test_a_close_that_neither_database_nor_disk_takes_is_kept_in_memory(
    books: BooksWriter, key: ApiKey, database: FlakyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = an_open(key)
    await books.submit(operation)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool_module, "_write_all", full)
    database.is_away = True
    written = books.submit(a_close(operation.id))
    await until(lambda: books.spool.is_full and books.waiting == 1)
    assert not written.done()
    assert not books.takes_calls
    database.is_away = False
    await until(lambda: not books.waiting)
    assert (await sync_to_async(get_call)(operation.id)).status == "settled"


async def test_a_full_disk_refuses_new_calls_and_settles_those_under_way(books: BooksWriter, key: ApiKey) -> None:
    operation = an_open(key)
    await books.submit(operation)
    books.spool.is_full = True
    with pytest.raises(BooksUnavailable):
        await books.submit(an_open(key))
    assert await books.submit(a_close(operation.id)) == [Closed()]
    assert len(await sync_to_async(all_calls)()) == 1


async def test_an_open_does_not_wait_behind_a_batch_that_hangs(
    books: BooksWriter, key: ApiKey, database: FlakyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    await books.submit(an_open(key))
    database.gate.clear()
    database.was_called.clear()
    first = books.submit(an_open(key))
    await asyncio.to_thread(database.was_called.wait, 5)
    monkeypatch.setattr(turns, "_SLOW_S", 0.0)
    with capture_logs() as entries:
        for _ in range(2):
            with pytest.raises(BooksUnavailable):
                await books.submit(an_open(key))
    assert [entry["event"] for entry in entries] == ["books.slow"]
    database.gate.set()
    assert isinstance((await first)[0], Opened)


async def test_what_comes_while_the_writer_stops_is_written_too(key: ApiKey, database: FlakyDatabase) -> None:
    writer = BooksWriter()
    await writer.submit(an_open(key))
    database.gate.clear()
    database.was_called.clear()
    before = writer.submit(an_open(key))
    await asyncio.to_thread(database.was_called.wait, 5)
    stopped = asyncio.create_task(asyncio.to_thread(writer.stop, timeout_s=5))
    await until(lambda: writer.waiting == 1)
    after = writer.submit(an_open(key))
    database.gate.set()
    assert await stopped
    await asyncio.wait_for(asyncio.gather(before, after), 5)
    assert len(await sync_to_async(all_calls)()) == 3


async def test_what_comes_after_the_writers_last_look_goes_to_the_spool(
    key: ApiKey, spool_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread has said goodbye and won't write to the database again."""
    writer, opened = BooksWriter(), an_open(key)
    await writer.submit(opened)
    loop = asyncio.get_running_loop()

    async def submit_now() -> tuple[asyncio.Future[Any], asyncio.Future[Any]]:
        return writer.submit(a_close(opened.id)), writer.submit(an_open(key))

    late: list[Any] = []

    def say_goodbye() -> None:
        late.append(asyncio.run_coroutine_threadsafe(submit_now(), loop).result(5))

    monkeypatch.setattr(writer_module, "say_goodbye", say_goodbye)
    assert await asyncio.to_thread(writer.stop, timeout_s=5)
    [(close, other)] = late
    assert await asyncio.wait_for(close, 5) == [Closed()]
    with pytest.raises(BooksUnavailable):
        await asyncio.wait_for(other, 5)
    assert (await models.OpenCall.objects.acount(), await Usage.objects.acount()) == (1, 0)
    spool = spool_folder / f"{boot_id()}.spool"
    assert str(opened.id).encode() in await asyncio.to_thread(spool.read_bytes)


async def test_a_failure_of_ours_is_logged_without_its_text(key: ApiKey, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise ValueError("a caller's secret words")

    writer = BooksWriter()
    with capture_logs() as entries:
        monkeypatch.setattr(writer_module, "log", structlog.get_logger("llm.books"))
        monkeypatch.setattr(writer, "_commit", fail)
        with pytest.raises(BooksUnavailable):
            await writer.submit(an_open(key))
        assert await asyncio.to_thread(writer.stop, timeout_s=5)
    [entry] = [entry for entry in entries if entry["event"] == "books.writer_failed"]
    assert (entry["error"], entry["causes"], entry["where"][-1].split()[-1]) == ("ValueError", [], "fail")
    assert "secret words" not in repr(entries)


async def test_a_call_that_may_have_been_opened_is_void_also_where_its_process_died_meanwhile(
    key: ApiKey, database: FlakyDatabase, spool_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = BooksWriter()
    await first.submit(an_open(key))
    database.is_away = database.loses_answers = True
    operation = an_open(key)
    with pytest.raises(BooksUnavailable):
        await first.submit(operation)
    assert await asyncio.to_thread(first.stop, timeout_s=5)
    assert (await sync_to_async(get_call)(operation.id)).status == "open"
    database.is_away = database.loses_answers = False
    assert await asyncio.to_thread(replay_from, spool_folder, monkeypatch) == 1
    row = await Usage.objects.aget(pk=operation.id)
    assert (row.status, row.outcome) == ("void", "not_sent")


async def test_a_call_that_was_not_opened_after_all_leaves_no_refused_write(
    key: ApiKey, database: FlakyDatabase, spool_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = BooksWriter()
    await first.submit(an_open(key))
    database.is_away = True
    with pytest.raises(BooksUnavailable):
        await first.submit(an_open(key))
    assert await asyncio.to_thread(first.stop, timeout_s=5)
    database.is_away = False
    await asyncio.to_thread(replay_from, spool_folder, monkeypatch)
    assert len(await sync_to_async(all_calls)()) == 1
    assert await RefusedWrite.objects.acount() == 0
    assert not await asyncio.to_thread(lambda: list(spool_folder.iterdir()))


async def test_a_spool_that_cannot_be_read_is_no_outage_of_the_database(
    books: BooksWriter, key: ApiKey, database: FlakyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = an_open(key)
    await books.submit(operation)
    database.is_away = True
    await books.submit(a_close(operation.id))

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(spool_module.SpoolFile, "read", broken)
    database.is_away = False
    await until(lambda: not books.is_away and books.spool.is_full)
    with pytest.raises(BooksUnavailable):
        await books.submit(an_open(key))
    assert not books.is_away
    assert books.spool.waiting_bytes > 0


def replay_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """As another process does."""
    other = uuid7()
    monkeypatch.setattr(spool_module, "boot_id", lambda: other)
    try:
        return replay_abandoned(folder)
    finally:
        connection.close()


# --- Rows that somebody sits on ---------------------------------------------------------------------------------------


def hold(sql: str, *parameters: object) -> Any:
    """Another connection, in a transaction that has run this; closing it gives the locks back."""
    import psycopg

    config = connection.get_connection_params()
    keywords = {name: config[name] for name in ("dbname", "user", "password", "host", "port") if config.get(name)}
    other = psycopg.connect(**keywords)
    other.execute(sql, list(parameters))
    return other


@pytest.fixture
def limited() -> tuple[ApiKey, ApiKey]:
    """Keys of two accounts with a limit each."""
    keys = a_key("locked"), a_key("free")
    for each in keys:
        set_limit(each.account, None, LimitMetric.REQUESTS, LimitPer.MONTH, 100, None)
    return keys


def asking(key: ApiKey) -> OpenCall:
    return an_open(key, ask=lambda: ReservationEstimate(requests=1, input_tokens=1, output_tokens=1))


@pytest.mark.postgres
@only_on_postgresql("SQLite has no row locks")
async def test_a_locked_window_keeps_only_its_own_account_waiting(
    books: BooksWriter, limited: tuple[ApiKey, ApiKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in the web process, of which the writer's connection is.
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "options", "-c lock_timeout=300")
    locked, free = limited
    under_way = asking(locked)
    await asyncio.gather(books.submit(under_way), books.submit(asking(free)))
    other = await asyncio.to_thread(
        hold,
        "SELECT 1 FROM llm_limitwindow w JOIN llm_limit l ON l.id = w.limit_id WHERE l.account_id = %s FOR UPDATE OF w",
        locked.account_id,
    )
    writes = [
        books.submit(a_close(under_way.id, account_id=locked.account_id)),
        books.submit(asking(locked)),
        books.submit(asking(free)),
    ]
    await asyncio.wait(writes, timeout=5)
    assert writes[0].result() == [Closed()]
    assert isinstance(writes[1].exception(), BooksUnavailable)
    assert isinstance(writes[2].result()[0], Opened)
    assert isinstance((await books.submit(asking(free)))[0], Opened)
    with pytest.raises(BooksUnavailable):
        await books.submit(asking(locked))
    assert not books.is_away
    assert (await sync_to_async(get_call)(under_way.id)).status == "open"
    other.close()
    await until(lambda: not books.spool.waiting_bytes)
    assert (await sync_to_async(get_call)(under_way.id)).status == "settled"
    await until(lambda: not books._lockouts.is_out(locked.account_id))
    assert isinstance((await books.submit(asking(locked)))[0], Opened)
