"""However the sending of a reply ends, whoever makes the reply is told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from llm.api.handler import _HttpExchange
from llm.api.views import build_response
from llm.calls.relay import Audience, Relay, Reply
from llm.dialects.openai_chat.wire import OPENAI_CHAT

STARTED = "http.response.start"
SENT = "http.response.body"


class Server:
    """Takes messages up to one at which it stays, or breaks."""

    def __init__(self, *, stops_at: int, error: Exception | None = None) -> None:
        self.taken: list[str] = []
        self.has_stopped = asyncio.Event()
        self._stops_at = stops_at
        self._error = error

    async def receive(self) -> Mapping[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def send(self, message: Mapping[str, Any]) -> None:
        self.taken.append(message["type"])
        if len(self.taken) == self._stops_at:
            self.has_stopped.set()
            if self._error is not None:
                raise self._error
            await asyncio.get_running_loop().create_future()


async def a_stream() -> tuple[Audience, Relay]:
    audience = Audience()
    relay = Relay(most_bytes=100, stall_s=60, on_leave=audience.leave)
    audience.answer(Reply(200, relay, "text/event-stream", {}))
    await relay.put(b"data: 1\n\n")
    return audience, relay


def sending(server: Server, relay: Relay) -> asyncio.Task[None]:
    exchange = _HttpExchange(
        {"path": "/v1/chat/completions", "method": "POST", "headers": []}, server.receive, server.send
    )
    response = build_response(Reply(200, relay, "text/event-stream", {}), OPENAI_CHAT, request_id="req_1")
    return asyncio.create_task(exchange._send_response(response))


@pytest.mark.parametrize(("stops_at", "taken"), [(1, [STARTED]), (2, [STARTED, SENT])])
async def test_a_send_that_is_cancelled_is_a_caller_who_has_left(stops_at: int, taken: list[str]) -> None:
    audience, relay = await a_stream()
    server = Server(stops_at=stops_at)
    task = sending(server, relay)
    await server.has_stopped.wait()
    assert not audience.is_gone
    task.cancel()
    await asyncio.wait((task,))
    assert (task.cancelled(), audience.is_gone, server.taken) == (True, True, taken)


@pytest.mark.parametrize("stops_at", [1, 2])
async def test_a_send_that_breaks_is_a_caller_who_has_left(stops_at: int) -> None:
    audience, relay = await a_stream()
    with pytest.raises(ConnectionResetError):
        await sending(Server(stops_at=stops_at, error=ConnectionResetError()), relay)
    assert audience.is_gone


async def test_a_caller_who_is_cancelled_while_the_relay_has_nothing_has_left() -> None:
    audience, relay = await a_stream()
    server = Server(stops_at=0)
    task = sending(server, relay)
    for _ in range(5):
        await asyncio.sleep(0)
    assert server.taken == [STARTED, SENT]
    task.cancel()
    await asyncio.wait((task,))
    assert audience.is_gone


async def test_a_stream_that_was_sent_whole_was_left_by_nobody() -> None:
    audience, relay = await a_stream()
    relay.close()
    server = Server(stops_at=0)
    await sending(server, relay)
    assert (audience.is_gone, server.taken) == (False, [STARTED, SENT, SENT])
