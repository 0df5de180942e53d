"""The life of a server: it drains when asked to stop, and leaves a true book behind when it is killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx2
import psutil
import pytest
from django.db import connection

from llm.keys import revoke_key
from llm.models import ApiKey, OpenCall, Usage
from tests.books import all_calls, closed_usage
from tests.e2e.callers import Application, hello, read_to_end, read_until
from tests.e2e.test_endings import Ending, ending_of
from tests.fakes import FakeUpstream, Script
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PATIENCE_S = 30.0
# SQLite has one web worker by design.
WORKERS = [1] if connection.vendor == "sqlite" else [pytest.param(2, marks=pytest.mark.postgres)]

StartOwn = Callable[..., Application]


@pytest.fixture
def start_own(
    gateway_environment: dict[str, str], api_key: str, http: httpx2.Client
) -> Iterator[Callable[..., Application]]:
    """Starts a gateway of this test alone, which it may kill."""
    with ExitStack() as stack:

        def start(*, workers: int = 1, **environment: str) -> Application:
            gateway = stack.enter_context(Gateway({**gateway_environment, **environment}, workers=workers))
            return Application(gateway, api_key, stack.enter_context(httpx2.Client(trust_env=False, timeout=20)))

        yield start


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


def is_served(application: Application) -> bool:
    """Whether a call is answered, on a connection of its own."""
    try:
        with application.connect() as connection:
            connection.sendall(application.request_bytes(hello()))
            return b" 200 OK" in connection.recv(65_536)
    except OSError:
        return False


# --- Asked to stop ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_asked_to_stop_ends_its_streams_first(
    start_own: StartOwn, upstream: FakeUpstream, signum: signal.Signals, workers: int
) -> None:
    application = start_own(workers=workers)
    upstream.enqueue(Script(chunks=20, event_delay_s=0.1))
    stream = application.begin("gpt-4o", stream=True)
    begun = read_until(stream, b'"word0 "')
    application.gateway.process.send_signal(signum)
    wait_until(lambda: not is_served(application), "new calls are refused")
    assert application.gateway.process.poll() is None
    rest = read_until(stream, b"data: [DONE]")
    stream.close()
    assert (begun + rest).count(b'"content":"word') == 20
    assert application.gateway.process.wait(PATIENCE_S) == 0
    # What was still served in the moment before the signal arrived is on the books too.
    rows = [row for row in Usage.objects.all() if row.is_stream]
    assert [ending_of(row) for row in rows] == [Ending("settled", "reported", "ok", (9, 20))]
    assert OpenCall.objects.count() == 0


def test_a_server_that_is_asked_to_stop_again_and_again_still_ends_its_streams_first(
    start_own: StartOwn, upstream: FakeUpstream
) -> None:
    application = start_own()
    processes = (application.gateway.process, *application.gateway.workers())
    upstream.enqueue(Script(chunks=30, event_delay_s=0.1))
    stream = application.begin("gpt-4o", stream=True)
    read_until(stream, b'"word0 "')
    for _ in range(5):
        for process in processes:
            process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    application.gateway.process.send_signal(signal.SIGTERM)
    read_until(stream, b"data: [DONE]")
    stream.close()
    assert application.gateway.process.wait(PATIENCE_S) == 0
    assert ending_of(closed_usage()[0]) == Ending("settled", "reported", "ok", (9, 30))


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_call_that_outlives_the_time_to_stop_is_estimated_and_its_caller_told(
    start_own: StartOwn, upstream: FakeUpstream, is_stream: bool
) -> None:
    application = start_own(LLM_DRAIN_SECONDS="1")
    caller = application.begin("fake-hang-3" if is_stream else "fake-hang-headers", stream=is_stream)
    upstream.ledger.wait_for_open(1)
    begun = read_until(caller, b'"said: "') if is_stream else b""
    application.gateway.process.send_signal(signal.SIGTERM)
    reply = begun + read_to_end(caller)
    caller.close()
    assert application.gateway.process.wait(PATIENCE_S) == 0
    assert b"upstream_error" in reply
    assert is_stream or b" 502 Bad Gateway" in reply
    [row] = closed_usage()
    assert (row.status, row.usage_source, row.outcome) == ("estimated", "estimated", "shutdown")


def test_a_caller_who_left_is_read_on_for_while_the_server_stops(start_own: StartOwn, upstream: FakeUpstream) -> None:
    application = start_own()
    upstream.enqueue(Script(chunks=10, event_delay_s=0.1))
    stream = application.begin("gpt-4o", stream=True)
    read_until(stream, b'"word0 "')
    stream.close()
    application.gateway.process.send_signal(signal.SIGTERM)
    assert application.gateway.process.wait(PATIENCE_S) == 0
    assert ending_of(closed_usage()[0]) == Ending("settled", "drained", "client_gone", (9, 10))


@pytest.mark.parametrize("moment_s", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("workers", WORKERS)
def test_a_server_that_is_asked_to_stop_while_it_starts_stops(
    gateway_environment: dict[str, str], workers: int, moment_s: float
) -> None:
    with Gateway(gateway_environment, workers=workers, is_awaited=False) as gateway:
        wait_until(lambda: len(gateway.workers()) == workers, "the workers are forked")
        time.sleep(moment_s)
        assert gateway.stop(timeout_s=PATIENCE_S) == 0
        assert gateway.log().count("Stopped worker") == workers
        assert "refused to gracefully stop" not in gateway.log()


# --- Killed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("is_stream", [False, True])
def test_a_worker_that_is_killed_leaves_its_open_row_and_another_serves_on(
    start_own: StartOwn, upstream: FakeUpstream, is_stream: bool, workers: int
) -> None:
    application = start_own(workers=workers)
    assert is_served(application)
    closed_usage()
    caller = application.begin("fake-hang-3" if is_stream else "fake-hang-headers", stream=is_stream)
    upstream.ledger.wait_for_open(1)
    killed = application.gateway.workers()
    for worker in killed:
        worker.kill()
    wait_until(lambda: is_served(application), "a new worker serves")
    caller.close()
    assert len(application.gateway.workers()) == workers
    assert not {worker.pid for worker in killed} & {worker.pid for worker in application.gateway.workers()}
    rows = all_calls()
    assert [row.status for row in rows] == ["settled", "open", "settled"]
    assert (rows[1].usage_source, rows[1].cost, rows[1].closed_at) == ("none", None, None)


@pytest.mark.parametrize("workers", WORKERS)
def test_a_main_process_that_is_killed_leaves_no_worker_behind_and_the_next_start_carries_on(
    start_own: StartOwn, upstream: FakeUpstream, workers: int
) -> None:
    application = start_own(workers=workers)
    caller = application.begin("fake-hang-3", stream=True)
    upstream.ledger.wait_for_open(1)
    orphans = application.gateway.workers()
    assert len(orphans) == workers
    application.gateway.process.kill()
    application.gateway.process.wait()
    _, alive = psutil.wait_procs(orphans, timeout=5)
    assert alive == []
    caller.close()
    assert [row.status for row in all_calls()] == ["open"]
    assert is_served(start_own(workers=workers))
    assert sorted(row.status for row in all_calls()) == ["open", "settled"]


# --- Several workers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", WORKERS)
def test_every_worker_serves_and_obeys_a_revocation_at_once(
    start_own: StartOwn, upstream: FakeUpstream, workers: int
) -> None:
    application = start_own(workers=workers)
    wait_until(
        lambda: is_served(application) and len(set(Usage.objects.values_list("process_id", flat=True))) == workers,
        "each worker has served a call",
    )
    served = Usage.objects.count()
    assert len(upstream.ledger.entries()) == served
    revoke_key(ApiKey.objects.get())
    assert not any(is_served(application) for _ in range(20))
    assert Usage.objects.count() == len(upstream.ledger.entries()) == served
