"""What a process holds: read once, shared by all, and brought to a clean end."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import pytest
from django.db import InterfaceError, OperationalError
from structlog.testing import capture_logs

from llm.calls import runtime as runtime_module
from llm.calls.runtime import close_runtime, runtime
from llm.calls.task import RequestTask
from llm.errors import BooksUnavailable, InvalidKey, ShuttingDown
from llm.keys import Caller, create_key, get_or_create_account, reload_caller, revoke_key
from llm.models import ApiKey, CatalogVersion
from llm.providers.base import ProviderSettings
from llm.providers.echo import EchoProvider

pytestmark = pytest.mark.usefixtures("own_runtime")


class Request:
    """Stands for a RequestTask: runs until it is released or stopped."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.was_stopped = False
        self.has_ended = False

    async def run(self) -> None:
        await self.released.wait()
        self.has_ended = True

    def stop_for_shutdown(self) -> None:
        self.was_stopped = True
        self.released.set()


def started(request: Request) -> Request:
    runtime().start(cast("RequestTask", request))
    return request


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was read from the database, in order."""
    done: list[str] = []
    for name in ("load_caller", "load_catalog"):
        read = getattr(runtime_module, name)

        def counted(*arguments: Any, name: str = name, read: Any = read) -> Any:
            done.append(name)
            return read(*arguments)

        monkeypatch.setattr(runtime_module, name, counted)
    return done


@pytest.fixture
def secret(transactional_db: None) -> str:
    return create_key(get_or_create_account("acme"), name="tests")[1]


async def test_an_event_loop_has_one_runtime_until_it_is_closed() -> None:
    first = runtime()
    assert runtime() is first
    await close_runtime()
    second = runtime()
    assert second is not first
    assert not second.is_draining


async def test_closing_what_never_was_does_nothing() -> None:
    await close_runtime()
    await close_runtime()


# --- Reads ------------------------------------------------------------------------------------------------------------


async def test_a_read_runs_in_a_thread_of_ours() -> None:
    name = await runtime().run_db(lambda: threading.current_thread().name)
    assert name.startswith("llm-db")


@pytest.mark.parametrize("kind", [OperationalError, InterfaceError])
async def test_a_database_that_is_away_is_told_as_such(kind: type[Exception]) -> None:
    def fail() -> None:
        raise kind("server closed the connection unexpectedly, hunter2")

    with pytest.raises(BooksUnavailable) as away, capture_logs() as entries:
        await runtime().run_db(fail)
    assert [(entry["event"], entry["during"], entry["error"], entry["reason"]) for entry in entries] == [
        ("database.unavailable", "read", kind.__name__, "gone")
    ]
    assert (away.value.http_status, away.value.retry_after_s) == (503, 5.0)
    assert "hunter2" not in away.value.message


async def test_a_refusal_of_a_read_stays_what_it_is(secret: str) -> None:
    with pytest.raises(InvalidKey):
        await runtime().caller(secret[:-1], must_be_fresh=False)


async def test_a_caller_is_read_once_and_then_remembered(secret: str, reads: list[str]) -> None:
    first = await runtime().caller(secret, must_be_fresh=False)
    assert await runtime().caller(secret, must_be_fresh=False) is first
    assert reads == ["load_caller"]


async def test_a_fresh_caller_is_read_again_and_a_revoked_one_refused(secret: str, reads: list[str]) -> None:
    await runtime().caller(secret, must_be_fresh=False)
    await runtime().run_db(lambda: revoke_key(ApiKey.objects.get()))
    with pytest.raises(InvalidKey):
        await runtime().caller(secret, must_be_fresh=True)
    assert reads == ["load_caller"] * 2


async def test_a_revoked_key_is_not_known_any_more_and_leaves_others_known(secret: str) -> None:
    other = await runtime().run_db(lambda: create_key(get_or_create_account("acme"), name="other")[1])
    for each in (secret, other):
        await runtime().caller(each, must_be_fresh=False)
    await runtime().run_db(lambda: revoke_key(ApiKey.objects.exclude(name="other").get()))
    with pytest.raises(InvalidKey):
        await runtime().caller(secret, must_be_fresh=True)
    assert [runtime().callers.knows(each) for each in (secret, other)] == [False, True]


async def test_a_key_that_asks_for_what_it_may_not_is_read_beside_the_calls_and_once_for_all_who_ask(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = await runtime().caller(secret, must_be_fresh=False)
    threads: list[str] = []

    def reload(known: Caller) -> Caller:
        threads.append(threading.current_thread().name)
        return reload_caller(known)

    monkeypatch.setattr(runtime_module, "reload_caller", reload)
    await asyncio.gather(*(runtime().fresh_caller(caller) for _ in range(50)))
    assert len(threads) == 1
    assert threads[0].startswith("llm-db-side")
    await runtime().run_db(lambda: ApiKey.objects.update(allowed_models=["gpt-4o"]))
    assert (await runtime().fresh_caller(caller)).allowed_models == frozenset(("gpt-4o",))
    # Put back, so that the next call needs no reading.
    remembered = runtime().callers.get(secret)
    assert remembered is not None
    assert remembered.allowed_models == frozenset(("gpt-4o",))
    assert runtime()._reloads == {}


async def test_a_refused_caller_is_not_remembered(reads: list[str]) -> None:
    for _ in range(2):
        with pytest.raises(InvalidKey):
            await runtime().caller("llm_nobody", must_be_fresh=False)
    assert reads == ["load_caller"] * 2


async def test_the_catalog_is_read_once_however_many_ask(reads: list[str]) -> None:
    catalogs = await asyncio.gather(*(runtime().catalog() for _ in range(20)))
    assert reads == ["load_catalog"]
    assert len({id(catalog) for catalog in catalogs}) == 1


async def test_a_catalog_is_read_again_only_for_another_version(reads: list[str]) -> None:
    catalog = await runtime().catalog()
    runtime().forget_catalog(catalog.version)
    assert await runtime().catalog() is catalog
    await runtime().run_db(CatalogVersion.bump)
    runtime().forget_catalog(await runtime().run_db(CatalogVersion.current))
    assert (await runtime().catalog()).version != catalog.version
    assert reads == ["load_catalog"] * 2


async def test_a_provider_is_built_once() -> None:
    provider = runtime().provider("echo")
    assert isinstance(provider, EchoProvider)
    assert runtime().provider("echo") is provider


async def test_a_provider_that_nobody_registered_is_an_error_of_ours() -> None:
    with pytest.raises(LookupError, match="“nobody” is not a provider that is configured"):
        runtime().provider("nobody")


# --- The end ----------------------------------------------------------------------------------------------------------


async def test_a_drain_waits_for_what_is_under_way() -> None:
    request = started(Request())
    draining = asyncio.create_task(runtime().drain())
    await asyncio.sleep(0.01)
    assert not draining.done()
    request.released.set()
    await draining
    assert (request.has_ended, request.was_stopped) == (True, False)


async def test_a_drain_stops_what_takes_too_long(settings: Any) -> None:
    settings.LLM_DRAIN_SECONDS = 0.02
    request = started(Request())
    await runtime().drain()
    assert (request.has_ended, request.was_stopped) == (True, True)


async def test_nothing_new_begins_while_draining() -> None:
    request = started(Request())
    draining = asyncio.create_task(runtime().drain())
    await asyncio.sleep(0)
    with pytest.raises(ShuttingDown) as refusal:
        started(Request())
    assert (refusal.value.http_status, refusal.value.retry_after_s) == (503, 1.0)
    request.released.set()
    await draining


async def test_a_drain_closes_providers_even_if_one_fails() -> None:
    class Closing(EchoProvider):
        is_closed = False

        async def aclose(self) -> None:
            self.is_closed = True
            raise RuntimeError("closing failed")

    own = runtime()
    one, other = Closing(ProviderSettings("one")), Closing(ProviderSettings("other"))
    own._providers.update(one=one, other=other)
    await own.drain()
    assert (one.is_closed, other.is_closed, own._providers) == (True, True, {})
