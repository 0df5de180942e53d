"""Bodies of many megabytes, at once: refused where they are too much, and the process stays as large as it was."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx2
import pytest

from llm.keys import create_key, get_or_create_account
from llm.models import Usage
from tests.e2e.callers import CHAT, Application, assert_nothing_happened, error_of, hello
from tests.fakes import FakeUpstream
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.wire, pytest.mark.slow, pytest.mark.xdist_group("large bodies")]

MEGABYTE = 1024**2
NUMBERS = b'{"model":"x","messages":[],"y":[' + b"1," * (31 * MEGABYTE // 2 - 20) + b"1]}"


@pytest.fixture
def roomy(start_gateway: Callable[..., Gateway], api_key: str) -> Iterator[Application]:
    with httpx2.Client(trust_env=False, timeout=120) as client:
        yield Application(start_gateway(LLM_RELAY_STALL_SECONDS="58"), api_key, client)


def memory_mb(application: Application) -> float:
    [worker] = application.gateway.workers()
    return float(worker.memory_info().rss) / MEGABYTE


def send_at_once(application: Application, body: bytes, count: int) -> list[httpx2.Response]:
    replies: list[httpx2.Response] = []

    def send() -> None:
        with httpx2.Client(trust_env=False, timeout=120) as client:
            replies.append(Application(application.gateway, application.secret, client).send("POST", CHAT, body=body))

    threads = [threading.Thread(target=send) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies


def slowest_healthz_s(application: Application, is_over: threading.Event) -> float:
    slowest = 0.0
    with httpx2.Client(trust_env=False, timeout=60) as client:
        while not is_over.wait(0.05):
            begun = time.perf_counter()
            assert client.get(f"{application.gateway.url}/healthz").status_code == 200
            slowest = max(slowest, time.perf_counter() - begun)
    return slowest


def test_millions_of_numbers_at_once_are_refused_and_leave_no_memory_behind(
    roomy: Application, upstream: FakeUpstream
) -> None:
    """`benchmarks.bodies` holds /healthz to 250 ms, on a machine that does nothing else."""
    assert roomy.send("GET", "/v1/models").status_code == 200
    before = memory_mb(roomy)
    is_over = threading.Event()
    with ThreadPoolExecutor(1) as watcher:
        slowest = watcher.submit(slowest_healthz_s, roomy, is_over)
        try:
            replies = send_at_once(roomy, NUMBERS, 20)
        finally:
            is_over.set()
        assert slowest.result() < 2
    assert len(replies) == 20
    codes = Counter((reply.status_code, error_of(reply)["code"]) for reply in replies)
    assert set(codes) <= {(400, "invalid_request"), (503, "overloaded")}
    # Four of 31 MB are all that one key may have in work.
    assert codes[400, "invalid_request"] >= 4
    for reply in replies:
        if reply.status_code == 503:
            assert reply.headers["retry-after"] == "1"
        else:
            assert error_of(reply)["message"] == "The request body has more than 100,000 values."
    # Sixteen million objects each would be gigabytes; freed memory is given back a second later.
    deadline = time.monotonic() + 30
    while memory_mb(roomy) > before + 100 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert memory_mb(roomy) <= before + 100
    assert_nothing_happened(upstream)


def test_a_prompt_of_31_megabytes_is_served(roomy: Application, upstream: FakeUpstream) -> None:
    words = 'Once upon a time, in a far-off country: {Bj\u00f6rn}, [and] \\"others\\".\\n'.encode()
    body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"' + words * (31 * MEGABYTE // len(words)) + b'"}]}'
    reply = roomy.send("POST", CHAT, body=body)
    assert reply.status_code == 200
    assert Usage.objects.count() == len(upstream.ledger.entries()) == 1


def test_a_key_can_hold_no_more_than_its_share(
    start_gateway: Callable[..., Gateway], roomy: Application, upstream: FakeUpstream
) -> None:
    small = roomy.at(start_gateway(LLM_BODIES_BYTES=str(3 * MEGABYTE), LLM_BODIES_BYTES_PER_KEY=str(2 * MEGABYTE)))
    reply = small.send("POST", CHAT, body=b" " * (2 * MEGABYTE + 1))
    assert (reply.status_code, error_of(reply)["code"]) == (503, "overloaded")
    assert reply.headers["retry-after"] == "1"
    assert_nothing_happened(upstream)
    # Nothing is left of what was refused.
    for _ in range(3):
        assert small.chat().status_code == 200


def held_open(application: Application, *, announced: int, sent: int) -> socket.socket:
    """A call whose body has come that far, and comes no further."""
    connection = application.connect()
    head = (
        f"POST {CHAT} HTTP/1.1",
        "host: localhost",
        f"authorization: Bearer {application.secret}",
        f"content-length: {announced}",
    )
    connection.sendall("\r\n".join((*head, "", "")).encode() + b" " * sent)
    return connection


def another_account(application: Application, name: str) -> Application:
    return application.using(create_key(get_or_create_account(name), name="tests")[1])


def large_chat(application: Application, megabytes: int) -> httpx2.Response:
    return application.send("POST", CHAT, body=hello("gpt-4o") + b" " * (megabytes * MEGABYTE))


def test_bodies_that_were_only_announced_take_no_room(roomy: Application, upstream: FakeUpstream) -> None:
    other = another_account(roomy, "globex")
    with ExitStack() as stack:
        for caller in (roomy, other) * 4:
            stack.enter_context(held_open(caller, announced=32 * MEGABYTE, sent=100))
        time.sleep(0.5)
        for caller in (roomy, other, another_account(roomy, "initech")):
            assert caller.chat().status_code == 200
        assert large_chat(other, 4).status_code == 200


def test_an_account_that_holds_all_it_may_takes_no_room_from_others_nor_from_small_bodies(
    start_gateway: Callable[..., Gateway], roomy: Application, upstream: FakeUpstream
) -> None:
    bounds = {"LLM_BODIES_BYTES": 16 * MEGABYTE, "LLM_BODIES_BYTES_PER_KEY": 8 * MEGABYTE}
    small = roomy.at(start_gateway(LLM_MAX_BODY_BYTES=str(4 * MEGABYTE), **{n: str(v) for n, v in bounds.items()}))
    with ExitStack() as stack:
        # Four keys of one account.
        for n in range(8):
            caller = small if n < 2 else another_account(small, "acme")
            stack.enter_context(held_open(caller, announced=4 * MEGABYTE, sent=4 * MEGABYTE - 1))
        time.sleep(1)
        refused = large_chat(small, 3)
        assert (refused.status_code, error_of(refused)["code"]) == (503, "overloaded")
        assert small.chat().status_code == 200
        assert large_chat(another_account(small, "globex"), 3).status_code == 200


def test_a_deep_or_wide_body_of_the_native_format_is_refused_too(roomy: Application, upstream: FakeUpstream) -> None:
    reply = roomy.send("POST", "/api/chat", body=NUMBERS)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"] == "The request body has more than 100,000 values."
    assert_nothing_happened(upstream)
