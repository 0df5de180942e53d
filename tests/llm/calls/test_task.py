"""A request whose caller leaves, or whose process ends, at each of its awaits: what was opened is closed, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from llm.api.handler import _HttpExchange
from llm.api.views import build_response
from llm.books.operations import Opened, Refused, Result
from llm.calls.relay import Relay
from llm.calls.task import RequestTask
from llm.dialects.openai_chat.wire import OPENAI_CHAT
from llm.enums import CallOutcome, UsageSource, UsageStatus
from llm.errors import BooksUnavailable, GatewayError, InvalidKey, UpstreamRateLimited
from tests.llm.calls.doubles import CALLER, COUNTS, Books, Host, Script, a_provider, a_request
from tests.llm.calls.test_upstream_call import every_way

_MAX_PASSES = 400
_DONE = b"data: [DONE]\n\n"


class Scene:
    """A request under way, and a caller who waits for its reply and reads it."""

    def __init__(
        self,
        script: Script,
        *,
        is_forwarding: bool,
        is_stream: bool,
        answers: Sequence[Result | Exception] = (),
        listens: bool = True,
    ) -> None:
        self.script = script
        self.books = Books(answers)
        self.host = Host(a_provider(script, is_forwarding=is_forwarding), self.books)
        request = a_request(is_stream=is_stream)
        self.task = RequestTask(self.host.runtime, CALLER, OPENAI_CHAT, request, forwarded_headers={})
        self.received = b""
        self.running = asyncio.create_task(self.task.run())
        self.caller = asyncio.create_task(self._listen() if listens else asyncio.sleep(0))

    async def _listen(self) -> None:
        body = (await self.task.audience.wait()).body
        if not isinstance(body, Relay):
            self.received = body
            return
        try:
            async for piece in body:
                self.received += piece
        finally:
            body.leave()

    async def pass_by(self, passes: int) -> bool:
        """So many passes of the loop; whether the request is still under way."""
        for _ in range(passes):
            await asyncio.sleep(0)
        return not self.running.done()

    async def end(self) -> None:
        async with asyncio.timeout(5):
            await self.running
            await asyncio.wait((self.caller,))
        assert self.books.is_even
        assert (self.script.open, self.host.drains) == (0, 0)

    async def failure(self) -> GatewayError:
        await self.end()
        error = self.caller.exception()
        assert isinstance(error, GatewayError)
        return error


def one_refusal() -> UpstreamRateLimited:
    """After which the same target is called again."""
    error = UpstreamRateLimited("Later.", retry_after_s=0.0001)
    error.upstream_status = 429
    return error


async def at_each_await(begin: Callable[[], Scene]) -> AsyncIterator[Scene]:
    """A request a pass of the loop that it takes, each as far as that."""
    for passes in range(1, _MAX_PASSES):
        scene = begin()
        if not await scene.pass_by(passes):
            await scene.end()
            assert passes > 5
            return
        yield scene
    raise AssertionError("it takes more passes than expected")


def beginning(*, is_forwarding: bool, is_stream: bool, fails_first: bool) -> Callable[[], Scene]:
    return lambda: Scene(
        Script(errors={1: one_refusal()} if fails_first else {}), is_forwarding=is_forwarding, is_stream=is_stream
    )


@every_way
@pytest.mark.parametrize("fails_first", [False, True])
async def test_a_caller_who_leaves_at_any_await_is_on_the_books_with_the_providers_figures(
    is_forwarding: bool, is_stream: bool, fails_first: bool
) -> None:
    begin = beginning(is_forwarding=is_forwarding, is_stream=is_stream, fails_first=fails_first)
    async for scene in at_each_await(begin):
        scene.caller.cancel()
        await scene.end()
        for closing in scene.books.closes:
            if closing.status is UsageStatus.VOID:
                assert closing.outcome is CallOutcome.CLIENT_GONE
            elif closing.outcome is not CallOutcome.UPSTREAM_REFUSED:
                assert (closing.status, closing.counts) == (UsageStatus.SETTLED, COUNTS)
                assert closing.outcome in (CallOutcome.OK, CallOutcome.CLIENT_GONE)


@every_way
async def test_a_caller_who_leaves_at_any_await_stops_a_call_that_is_not_read_on(
    is_forwarding: bool, is_stream: bool, settings: Any
) -> None:
    settings.LLM_DISCONNECT_POLICY = {"": "cancel"}
    async for scene in at_each_await(beginning(is_forwarding=is_forwarding, is_stream=is_stream, fails_first=False)):
        scene.caller.cancel()
        await scene.end()
        for closing in scene.books.closes:
            is_whole = closing.usage_source in (UsageSource.REPORTED, UsageSource.DRAINED)
            assert is_whole or closing.outcome is CallOutcome.CLIENT_GONE


@every_way
@pytest.mark.parametrize("fails_first", [False, True])
async def test_a_process_that_ends_at_any_await_leaves_nobody_waiting(
    is_forwarding: bool, is_stream: bool, fails_first: bool
) -> None:
    begin = beginning(is_forwarding=is_forwarding, is_stream=is_stream, fails_first=fails_first)
    async for scene in at_each_await(begin):
        scene.task.stop_for_shutdown()
        await scene.end()
        error = scene.caller.exception()
        assert isinstance(error, GatewayError) or scene.received
        if error is None and b'"error"' not in scene.received:
            assert scene.books.closes[-1].outcome is CallOutcome.OK


@pytest.mark.parametrize("is_forwarding", [False, True])
async def test_a_send_that_is_cancelled_is_on_the_books_as_a_caller_who_has_left(is_forwarding: bool) -> None:
    """At the head of a stream, when nothing has been read of it."""
    scene = Scene(Script(stays_at=3), is_forwarding=is_forwarding, is_stream=True, listens=False)
    reply = await scene.task.audience.wait()
    exchange = _HttpExchange({"path": "/v1/chat/completions", "method": "POST", "headers": []}, _silence, _silence)
    sending = asyncio.create_task(exchange._send_response(build_response(reply, OPENAI_CHAT, request_id="req_1")))
    await scene.pass_by(2)
    sending.cancel()
    await scene.pass_by(2)
    scene.script.go_on()
    await scene.end()
    [closing] = scene.books.closes
    assert (closing.outcome, closing.usage_source) == (CallOutcome.CLIENT_GONE, UsageSource.DRAINED)


async def _silence(*_: object) -> Any:
    await asyncio.get_running_loop().create_future()


async def test_the_row_of_a_call_that_failed_is_closed_with_the_next_one() -> None:
    scene = Scene(Script(errors={1: one_refusal()}), is_forwarding=True, is_stream=True)
    await scene.end()
    assert [(closing.outcome, closing.status) for closing in scene.books.closes] == [
        (CallOutcome.UPSTREAM_REFUSED, UsageStatus.SETTLED),
        (CallOutcome.OK, UsageStatus.SETTLED),
    ]
    assert [opened.attempt for opened in scene.books.opens] == [1, 2]
    assert scene.received.endswith(_DONE)


@pytest.mark.parametrize(
    ("answer", "error"),
    [(Refused("revoked"), UpstreamRateLimited), (BooksUnavailable("Away."), BooksUnavailable)],
    ids=["refused", "away"],
)
async def test_where_no_other_call_can_follow_the_one_before_is_closed_once(
    answer: Result | Exception, error: type[GatewayError]
) -> None:
    scene = Scene(
        Script(errors={1: one_refusal()}),
        is_forwarding=True,
        is_stream=False,
        answers=[Opened(datetime.now(UTC)), answer],
    )
    assert isinstance(await scene.failure(), error)
    assert [closing.outcome for closing in scene.books.closes] == [CallOutcome.UPSTREAM_REFUSED]


async def test_what_is_refused_is_not_on_the_books() -> None:
    scene = Scene(Script(), is_forwarding=True, is_stream=False, answers=[Refused("revoked")])
    assert isinstance(await scene.failure(), InvalidKey)
    assert (scene.books.opens, scene.books.closes) == ([], [])


async def test_all_that_fails_is_on_the_books_before_the_caller_hears_of_it() -> None:
    errors = {step: one_refusal() for step in range(1, 20)}
    scene = Scene(Script(errors=errors), is_forwarding=True, is_stream=False)
    scene.books.watch = lambda: scene.task.audience.is_answered
    assert isinstance(await scene.failure(), UpstreamRateLimited)
    assert len(scene.books.closes) == 2
    assert not any(scene.books.seen)
