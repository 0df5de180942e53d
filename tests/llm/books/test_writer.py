"""The writer's thread: groups what waits, refuses what it can't write, keeps what has happened."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError

from llm.books import replay as replay_module
from llm.books import spool as spool_module
from llm.books import writer as writer_module
from llm.books.operations import Closed, Opened, Operation, Refused, Result
from llm.books.replay import commit_surely
from llm.books.writer import BooksWriter
from llm.errors import BooksUnavailable
from llm.ids import boot_id, uuid7
from llm.models import ApiKey, Usage
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
    monkeypatch.setattr(replay_module, "commit_surely", flaky)
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
    assert await Usage.objects.filter(pk=operation.id).aexists()


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
    assert await Usage.objects.acount() == 0


async def test_a_close_lies_in_the_spool_until_the_database_is_back(
    books: BooksWriter, key: ApiKey, database: FlakyDatabase
) -> None:
    operation = an_open(key)
    await books.submit(operation)
    database.is_away = True
    assert await books.submit(a_close(operation.id)) == [Closed()]
    assert books.spool.waiting_bytes > 0
    assert (await Usage.objects.aget(pk=operation.id)).status == "open"
    database.is_away = False
    await until(lambda: not books.spool.waiting_bytes)
    assert (await Usage.objects.aget(pk=operation.id)).status == "settled"


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
    assert (await Usage.objects.aget(pk=operation.id)).status == "settled"


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
    assert (await Usage.objects.aget(pk=first.id)).status == "settled"
    assert not await Usage.objects.exclude(status="void").filter(pk=second.id).aexists()


async def test_stopping_writes_what_waits(key: ApiKey) -> None:
    writer = BooksWriter()
    written = [writer.submit(an_open(key)) for _ in range(50)]
    assert await asyncio.to_thread(writer.stop, timeout_s=5)
    await asyncio.gather(*written)
    assert await Usage.objects.acount() == 50


async def test_a_stopped_writer_starts_again_when_it_is_needed(books: BooksWriter, key: ApiKey) -> None:
    await books.submit(an_open(key))
    await asyncio.to_thread(books.stop, timeout_s=5)
    await books.submit(an_open(key))
    assert await Usage.objects.acount() == 2
