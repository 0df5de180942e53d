"""1,500 streams at once, through one worker, each whole and each on the books."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from llm.models import OpenCall
from tests.books import closed_usage
from tests.e2e.callers import Application, hello
from tests.fakes import FakeUpstream, Script
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

STREAMS = 1_500
WORDS = 4
PATIENCE_S = 240


@pytest.fixture
def many_files() -> Iterator[None]:
    """Each stream takes two sockets of this process: the caller's and the upstream's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 16_384)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_streams_at_once_are_all_served_and_all_on_the_books(
    many_files: None, application: Application, start_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    # On a busy machine the crowd alone takes seconds to be let in, and each read counts them.
    application = application.at(start_gateway(LLM_DB_STATEMENT_TIMEOUT_MS="60000"))
    upstream.set_default(Script(chunks=WORDS, waits_for_calls=STREAMS))
    replies = asyncio.run(stream_many(application))
    assert {reply.count(b"data: ") for reply in replies} == {WORDS + 3}
    assert all(reply.count(b"data: [DONE]") == 1 for reply in replies)
    rows = closed_usage(STREAMS)
    assert {(row.status, row.usage_source, row.outcome) for row in rows} == {("settled", "reported", "ok")}
    assert {(row.prompt_tokens, row.completion_tokens) for row in rows} == {(9, WORDS)}
    entries = upstream.ledger.entries()
    assert {row.upstream_response_id for row in rows} == {entry.response_id for entry in entries}
    assert len(entries) == STREAMS
    assert OpenCall.objects.count() == 0


async def stream_many(application: Application) -> list[bytes]:
    """All of them open at the same time, each read to its end. The first that fails ends the others."""
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        streams = [group.create_task(stream(application)) for _ in range(STREAMS)]
    return [each.result() for each in streams]


async def stream(application: Application) -> bytes:
    address = urlsplit(application.gateway.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(application.request_bytes(hello(stream=True)))
        return await read_stream(reader)
    finally:
        writer.close()
        await writer.wait_closed()


async def read_stream(reader: asyncio.StreamReader) -> bytes:
    reply = b""
    while b"data: [DONE]" not in reply:
        piece = await reader.read(65_536)
        assert piece, f"the stream ended early: {reply!r}"
        reply += piece
        assert reply.startswith(b"HTTP/1.1 200"), reply
    return reply
