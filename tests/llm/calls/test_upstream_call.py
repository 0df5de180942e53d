"""Whatever ends a call, it is closed once, with the reason, and nothing of it is left open."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from llm.calls.context import Bounds, CallContext
from llm.calls.deadlines import StopReason
from llm.calls.opening import choose_targets, open_call
from llm.calls.relay import Audience, Relay
from llm.calls.upstream_call import UpstreamCall
from llm.dialects.openai_chat.wire import OPENAI_CHAT
from llm.enums import CallOutcome, UsageSource, UsageStatus
from llm.errors import ShuttingDown, UpstreamError, UpstreamFailed, UpstreamRateLimited, UpstreamTimeout
from llm.ids import uuid7
from llm.prices.catalog import Resolution, Target
from tests.llm.calls.doubles import CALLER, COUNTS, WIDE, Books, Script, a_provider, a_request

SOON_S = 0.02
WAYS = [(False, False), (False, True), (True, False), (True, True)]
WAY_IDS = ["translated-whole", "translated-stream", "forwarded-whole", "forwarded-stream"]
every_way = pytest.mark.parametrize(("is_forwarding", "is_stream"), WAYS, ids=WAY_IDS)


class Scene:
    """One call between a provider and a caller who reads all that comes."""

    def __init__(
        self, script: Script, *, is_forwarding: bool, is_stream: bool, bounds: Bounds = WIDE, listens: bool = True
    ) -> None:
        self.script = script
        self.books = Books()
        self.audience = Audience()
        self.call = UpstreamCall(self._context(is_forwarding, is_stream, bounds), self.audience, self.books.writer)
        self.audience.on_leave(lambda: self.call.stop(StopReason.HANG_UP, within_s=0))
        self.received = b""
        self._listening = asyncio.create_task(self._listen() if listens else asyncio.sleep(0))

    def _context(self, is_forwarding: bool, is_stream: bool, bounds: Bounds) -> CallContext:
        provider = a_provider(self.script, is_forwarding=is_forwarding)
        target = Target("echo", "m", None)
        resolution = Resolution("m", (target,), version=1)
        request = a_request(is_stream=is_stream)
        [(_, chat)] = choose_targets(resolution.targets, request, OPENAI_CHAT, provider_of=lambda *_: provider)
        opened = open_call(
            request,
            CALLER,
            OPENAI_CHAT,
            resolution=resolution,
            target=target,
            request_id=uuid7(),
            attempt=1,
            counts=True,
            claim=None,
        )
        return CallContext(
            opened, CALLER, OPENAI_CHAT, request, {}, resolution, target, provider, chat, bounds, reply_headers={}
        )

    async def _listen(self) -> None:
        body = (await self.audience.wait()).body
        if isinstance(body, bytes):
            self.received = body
        else:
            async for piece in body:
                self.received += piece

    async def run(self) -> UpstreamError | None:
        try:
            async with asyncio.timeout(5):
                failure = await self.call.run()
            # Now, and not once the garbage collector has come by.
            assert self.script.open == 0
            return failure
        finally:
            if not self.audience.is_answered:
                self._listening.cancel()
            await asyncio.wait((self._listening,))
            assert all(timer.cancelled() for timer in self._timers())

    def _timers(self) -> list[Any]:
        deadlines = self.call._deadlines
        return [timer for timer in (deadlines._timer, deadlines._idle_timer) if timer is not None]


def bounds_for(reason: StopReason) -> Bounds:
    match reason:
        case StopReason.FIRST_BYTE:
            return replace(WIDE, first_byte_s=SOON_S)
        case StopReason.IDLE:
            return replace(WIDE, idle_s=SOON_S)
        case StopReason.TOTAL:
            return replace(WIDE, first_byte_s=2 * SOON_S, total_s=SOON_S)
    return WIDE


OUTCOMES = {StopReason.HANG_UP: CallOutcome.CLIENT_GONE, StopReason.SHUTDOWN: CallOutcome.SHUTDOWN}
BEFORE = [StopReason.FIRST_BYTE, StopReason.TOTAL, StopReason.HANG_UP, StopReason.SHUTDOWN]
AMIDST = [StopReason.IDLE, StopReason.TOTAL, StopReason.HANG_UP, StopReason.SHUTDOWN]


async def stop_when_it_stays(scene: Scene, reason: StopReason) -> UpstreamError | None:
    running = asyncio.create_task(scene.run())
    await scene.script.stays.wait()
    if reason in OUTCOMES:
        await asyncio.sleep(0)
        scene.call.stop(reason, within_s=0)
    return await running


@every_way
async def test_what_follows_the_upstreams_answer_is_not_its_time(is_forwarding: bool, is_stream: bool) -> None:
    scene = Scene(Script(), is_forwarding=is_forwarding, is_stream=is_stream)
    await scene.run()
    upstream_s = scene.call.upstream_s
    await asyncio.sleep(SOON_S)
    assert scene.call.upstream_s == upstream_s > 0


@every_way
async def test_an_answer_is_settled_once_and_before_its_last_byte(is_forwarding: bool, is_stream: bool) -> None:
    scene = Scene(Script(), is_forwarding=is_forwarding, is_stream=is_stream)
    scene.books.watch = lambda: b"DONE" in scene.received if is_stream else scene.audience.is_answered
    assert await scene.run() is None
    assert scene.books.seen == [False]
    [closing] = scene.books.closes
    assert (closing.status, closing.usage_source, closing.outcome) == (
        UsageStatus.SETTLED,
        UsageSource.REPORTED,
        CallOutcome.OK,
    )
    assert closing.counts == COUNTS
    assert scene.received.endswith(b"data: [DONE]\n\n" if is_stream else b"}")
    assert scene.call.is_settled
    with pytest.raises(RuntimeError):
        scene.call.take_closing()


@every_way
@pytest.mark.parametrize("reason", BEFORE)
async def test_stopped_before_the_first_byte(is_forwarding: bool, is_stream: bool, reason: StopReason) -> None:
    scene = Scene(Script(stays_at=1), is_forwarding=is_forwarding, is_stream=is_stream, bounds=bounds_for(reason))
    failure = await stop_when_it_stays(scene, reason)
    assert isinstance(failure, UpstreamFailed if reason is StopReason.SHUTDOWN else UpstreamTimeout)
    assert failure.may_have_worked
    # The caller has got nothing: who asked for the call closes it, with the next one or alone.
    assert (scene.books.closes, scene.call.is_settled, scene.audience.is_answered) == ([], False, False)
    closing = scene.call.take_closing()
    assert (closing.status, closing.outcome) == (UsageStatus.ESTIMATED, OUTCOMES.get(reason, CallOutcome.TIMEOUT))
    assert (closing.first_byte_ms, closing.counts.completion_tokens) == (None, 0)
    assert closing.counts.prompt_tokens > 0


@pytest.mark.parametrize("is_forwarding", [False, True])
@pytest.mark.parametrize("reason", AMIDST)
async def test_stopped_amidst_a_stream(is_forwarding: bool, reason: StopReason) -> None:
    scene = Scene(Script(stays_at=3), is_forwarding=is_forwarding, is_stream=True, bounds=bounds_for(reason))
    assert await stop_when_it_stays(scene, reason) is None
    [closing] = scene.books.closes
    assert (closing.status, closing.outcome) == (UsageStatus.ESTIMATED, OUTCOMES.get(reason, CallOutcome.TIMEOUT))
    assert closing.counts.completion_tokens > 0
    assert closing.first_byte_ms is not None
    assert b"You " in scene.received
    assert b'"error"' in scene.received
    assert b"[DONE]" not in scene.received


@pytest.mark.parametrize("reason", AMIDST)
async def test_stopped_amidst_a_whole_reply(reason: StopReason) -> None:
    scene = Scene(Script(stays_at=3), is_forwarding=True, is_stream=False, bounds=bounds_for(reason))
    failure = await stop_when_it_stays(scene, reason)
    assert failure is not None
    assert (scene.books.closes, scene.audience.is_answered) == ([], False)
    closing = scene.call.take_closing()
    assert (closing.status, closing.outcome) == (UsageStatus.ESTIMATED, OUTCOMES.get(reason, CallOutcome.TIMEOUT))
    assert closing.first_byte_ms is not None


@every_way
async def test_a_call_asked_to_end_before_it_began_is_void(is_forwarding: bool, is_stream: bool) -> None:
    scene = Scene(Script(), is_forwarding=is_forwarding, is_stream=is_stream)
    scene.call.stop(StopReason.SHUTDOWN, within_s=0)
    with pytest.raises(ShuttingDown):
        await scene.run()
    assert [(close.status, close.outcome) for close in scene.books.closes] == [(UsageStatus.VOID, CallOutcome.SHUTDOWN)]


@every_way
async def test_nothing_is_sent_for_a_caller_who_has_left(is_forwarding: bool, is_stream: bool) -> None:
    scene = Scene(Script(), is_forwarding=is_forwarding, is_stream=is_stream)
    scene.audience.leave()
    assert await scene.run() is None
    assert [(close.status, close.outcome) for close in scene.books.closes] == [
        (UsageStatus.VOID, CallOutcome.CLIENT_GONE)
    ]


@every_way
async def test_a_provider_that_refuses_is_told_to_who_asked_for_the_call(is_forwarding: bool, is_stream: bool) -> None:
    refusal = UpstreamRateLimited("Later.")
    refusal.upstream_status = 429
    scene = Scene(Script(errors={1: refusal}), is_forwarding=is_forwarding, is_stream=is_stream)
    assert await scene.run() is refusal
    closing = scene.call.take_closing()
    assert (closing.status, closing.outcome, closing.cost_pico) == (
        UsageStatus.SETTLED,
        CallOutcome.UPSTREAM_REFUSED,
        0,
    )


@pytest.mark.parametrize("is_forwarding", [False, True])
@pytest.mark.parametrize("error", [UpstreamFailed("Cut.", may_have_worked=True), KeyError("the prompt")])
async def test_what_breaks_a_stream_is_its_last_event(is_forwarding: bool, error: Exception) -> None:
    scene = Scene(Script(errors={3: error}), is_forwarding=is_forwarding, is_stream=True)
    assert await scene.run() is None
    [closing] = scene.books.closes
    assert (closing.status, closing.outcome) == (UsageStatus.ESTIMATED, CallOutcome.UPSTREAM_FAILED)
    assert b'"error"' in scene.received
    assert b"prompt" not in scene.received


async def test_what_follows_the_answer_has_a_second_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm.calls.deadlines._REST_SECONDS", SOON_S)
    # The step after [DONE].
    scene = Scene(Script(stays_at=7), is_forwarding=True, is_stream=True)
    assert await scene.run() is None
    assert scene.script.stays.is_set()
    [closing] = scene.books.closes
    assert (closing.outcome, closing.counts) == (CallOutcome.OK, COUNTS)
    assert scene.received.endswith(b"data: [DONE]\n\n")


async def test_a_later_end_than_that_of_the_first_byte_holds_once_it_has_come() -> None:
    script = Script(stays_at=3)
    scene = Scene(script, is_forwarding=True, is_stream=True, bounds=replace(WIDE, first_byte_s=SOON_S))
    running = asyncio.create_task(scene.run())
    await asyncio.sleep(0)
    scene.call.stop(StopReason.HANG_UP, within_s=3 * SOON_S)
    assert scene.call._deadlines.asked is None
    assert await running is None
    assert [close.outcome for close in scene.books.closes] == [CallOutcome.CLIENT_GONE]


async def test_the_shorter_of_two_ends_holds() -> None:
    scene = Scene(Script(stays_at=3), is_forwarding=True, is_stream=True)
    running = asyncio.create_task(scene.run())
    await scene.script.stays.wait()
    scene.call.stop(StopReason.HANG_UP, within_s=30)
    scene.call.stop(StopReason.SHUTDOWN, within_s=0)
    scene.call.stop(StopReason.HANG_UP, within_s=10)
    assert await running is None
    assert [close.outcome for close in scene.books.closes] == [CallOutcome.SHUTDOWN]


async def test_silence_while_a_caller_has_left_is_a_caller_who_has_left() -> None:
    scene = Scene(Script(stays_at=3), is_forwarding=True, is_stream=True, bounds=replace(WIDE, idle_s=SOON_S))
    running = asyncio.create_task(scene.run())
    await scene.script.stays.wait()
    scene.call.stop(StopReason.HANG_UP, within_s=30)
    assert await running is None
    assert [close.outcome for close in scene.books.closes] == [CallOutcome.CLIENT_GONE]


async def test_a_task_that_somebody_else_cancels_ends_for_them() -> None:
    scene = Scene(Script(stays_at=3), is_forwarding=True, is_stream=True)
    running = asyncio.create_task(scene.run())
    await scene.script.stays.wait()
    running.cancel()
    await asyncio.wait((running,))
    assert running.cancelled()
    assert (scene.script.open, scene.books.closes) == (0, [])


async def test_a_relay_that_nobody_reads_stops_a_call_that_may_not_be_read_on() -> None:
    scene = Scene(
        Script(),
        is_forwarding=True,
        is_stream=True,
        bounds=replace(WIDE, relay_bytes=1, relay_stall_s=SOON_S),
        listens=False,
    )
    assert await scene.run() is None
    assert isinstance(scene.audience.reply.result().body, Relay)
    [closing] = scene.books.closes
    assert (closing.status, closing.outcome) == (UsageStatus.ESTIMATED, CallOutcome.CLIENT_GONE)


@pytest.mark.parametrize("is_forwarding", [False, True])
async def test_a_call_that_is_stopped_while_it_waits_for_its_caller_leaves_nothing_open(is_forwarding: bool) -> None:
    """Then the provider isn't asked for anything, and doesn't notice by itself."""
    scene = Scene(
        Script(),
        is_forwarding=is_forwarding,
        is_stream=True,
        bounds=replace(WIDE, relay_bytes=1, relay_stall_s=5 * SOON_S),
        listens=False,
    )
    scene.books.watch = lambda: scene.script.open
    running = asyncio.create_task(scene.run())
    await asyncio.sleep(SOON_S)
    assert scene.script.open > 0
    scene.call.stop(StopReason.SHUTDOWN, within_s=0)
    assert await running is None
    assert [closing.outcome for closing in scene.books.closes] == [CallOutcome.SHUTDOWN]
    assert scene.books.seen == [0]
