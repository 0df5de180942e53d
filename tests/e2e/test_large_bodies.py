"""Bodies of many megabytes, at once: refused where they are too much, and the process stays as large as it was."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator

import httpx2
import pytest

from llm.models import Usage
from tests.e2e.callers import CHAT, Application, assert_nothing_happened, error_of
from tests.fakes import FakeUpstream
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("large bodies")]

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


def test_millions_of_numbers_at_once_are_refused_and_leave_no_memory_behind(
    roomy: Application, upstream: FakeUpstream
) -> None:
    before = memory_mb(roomy)
    replies = send_at_once(roomy, NUMBERS, 12)
    assert len(replies) == 12
    codes = Counter((reply.status_code, error_of(reply)["code"]) for reply in replies)
    assert set(codes) <= {(400, "invalid_request"), (503, "overloaded")}
    # Four of 31 MB are all that one key may have in work.
    assert codes[400, "invalid_request"] >= 4
    for reply in replies:
        if reply.status_code == 503:
            assert reply.headers["retry-after"] == "1"
        else:
            assert error_of(reply)["message"] == "The request body has more than 500,000 values."
    # Sixteen million objects each would be gigabytes; freed memory is given back a second later.
    assert memory_mb(roomy) < before + 500
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


def test_a_deep_or_wide_body_of_the_native_format_is_refused_too(roomy: Application, upstream: FakeUpstream) -> None:
    reply = roomy.send("POST", "/api/chat", body=NUMBERS)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"] == "The request body has more than 500,000 values."
    assert_nothing_happened(upstream)
