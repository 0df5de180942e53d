"""One upstream call, from its open row to its closing one, whatever the upstream or the caller does meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from llm.books.operations import CloseCall, void_close
from llm.books.writer.thread import BooksWriter
from llm.calls.answers import Answer, Chunk, Complete, Connected, Head
from llm.calls.context import CallContext
from llm.calls.counting import CountedAnswer
from llm.calls.deadlines import Deadlines, Stopped, StopReason
from llm.calls.estimation import estimate
from llm.calls.log import report_call
from llm.calls.passthrough import PassedThroughAnswer
from llm.calls.relay import JSON, Audience, Relay, Reply
from llm.calls.settlement import Ending, close_of, close_of_undone, limits_after, outcome_of
from llm.calls.translation import TranslatedAnswer
from llm.dialects.base import Origin
from llm.enums import CallOutcome, UsageStatus
from llm.errors import RequestUnwritten, ShuttingDown, UpstreamError, UpstreamFailed, UpstreamRejected, UpstreamTimeout
from llm.money import format_usd, pico_to_usd
from llm.prices.pricing import priced_service
from llm.providers.failures import refuses_stream_options, upstream_error
from llm.providers.redaction import struck_out_of
from llm.providers.registry import configured_secrets
from llm.types import Reading, Service, TokenCounts

log = structlog.get_logger("llm.calls")

STOPPING = "This gateway process is shutting down. Try again."
_SETTLE_PATIENCE_S = 15.0
"""Longer than the writer needs to find that the database hangs, and to put a settlement into the spool instead."""
_HEAD_GRACE_S = 1.0
"""How long a stream's headers wait after its provider's for the first event: a refusal in it keeps its status."""
_MAX_BEFORE_HEAD_BYTES = 16 * 1024
_OUTCOMES = {StopReason.HANG_UP: CallOutcome.CLIENT_GONE, StopReason.SHUTDOWN: CallOutcome.SHUTDOWN}
_PROVIDERS_CHOICE = ("", "auto", "standard_only")


class UpstreamCall:
    """Reads a provider's answer and acts on it: the caller's bytes, the deadlines, the books.

    failure: why it has ended early. closing: the row that closes the call, once that is known. is_settled: whether the
    books were given it. They were wherever the caller has got something; else it is due, with the next call or by
    `settle`.
    """

    def __init__(self, context: CallContext, audience: Audience, writer: BooksWriter) -> None:
        self.context = context
        self.closing: CloseCall | None = None
        self.failure: UpstreamError | None = None
        self.is_settled = False
        self._audience = audience
        self._writer = writer
        self._answer = _answer_for(context)
        self._deadlines = Deadlines(context.bounds)
        self._started = time.monotonic()
        self._ended_at: float | None = None
        self._first_byte_at: float | None = None
        self._relay: Relay | None = None
        self._has_connected = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._before_head = b""
        self._drained_events = 0
        self._has_ended = False
        self._stopped_for: StopReason | None = None

    @property
    def has_failed_upstream(self) -> bool:
        """Whether it was the target that failed: not this caller's request, and nobody who stopped the call."""
        if self.failure is None or isinstance(self.failure, UpstreamRejected | RequestUnwritten):
            return False
        return self._deadlines.asked is None and self._stopped_for in (None, StopReason.FIRST_BYTE, StopReason.IDLE)

    @property
    def has_answered(self) -> bool:
        """Whether the target has answered: with a whole reply, or by refusing what this caller has sent."""
        if self.failure is None:
            return self._has_ended and not self.context.request.is_count
        return isinstance(self.failure, UpstreamRejected) and self.failure.upstream_status is not None

    @property
    def upstream_s(self) -> float:
        """From the call's begin to the end of the upstream's answer, or to where it was given up."""
        return (self._ended_at or time.monotonic()) - self._started

    async def run(self) -> UpstreamError | None:
        """The error if the caller has no answer; None if it has one, or has left. Raises ShuttingDown."""
        reason = self._deadlines.asked or (StopReason.HANG_UP if self._audience.is_gone else None)
        if reason is not None:
            await self._void(reason)
            return None
        try:
            await self._follow()
        except Exception as error:  # noqa: BLE001  # the outermost edge of a provider's code
            self._note_end()
            failure = self._failure_of(error)
            if not self._has_ended:
                self.failure = failure
                self._stopped_for = error.reason if isinstance(error, Stopped) else None
            return await self._end_early(failure)
        finally:
            self._stop_head_timer()
            self._close_stream()
            self._report()
        return None

    def stop(self, reason: StopReason, *, within_s: float) -> None:
        """End the call after that many seconds at most."""
        self._deadlines.stop(reason, within_s=within_s)

    async def settle(self) -> None:
        """Write the closing row to the books.

        Durable on return, unless the books are unavailable: then the writer keeps it, and the caller goes on.
        """
        closing = self.take_closing()
        written = self._writer.submit(closing)
        await asyncio.wait((written,), timeout=_SETTLE_PATIENCE_S)
        if not written.done():
            log.error("call.settlement_deferred", request_id=self.context.request_id, call_id=str(closing.id))

    def take_closing(self) -> CloseCall:
        """For the code that now submits it to the books."""
        if self.closing is None or self.is_settled:
            raise RuntimeError("a call is settled once, after it has ended")
        self.is_settled = True
        return self.closing

    def settled_limit_headers(self) -> dict[str, str]:
        """What limits leave after the call, so that a client that paces itself doesn't count the hold as used."""
        if self.closing is None or not self.context.limits:
            return {}
        return self.context.wire.limit_headers(limits_after(self.context.limits, self.closing), now=datetime.now(UTC))

    # --- While the provider answers -----------------------------------------------------------------------------------

    async def _follow(self) -> None:
        with self._deadlines:
            async with aclosing(self._answer.events()) as events:
                async for event in events:
                    if isinstance(event, Chunk):
                        await self._pass_on(event)
                    elif isinstance(event, Connected):
                        self._connect()
                    elif isinstance(event, Head):
                        self._begin_reply()
                    elif isinstance(event, Complete):
                        await self._complete(event)
                    else:
                        self._note_progress()
            if not self._has_ended:
                provider = self.context.target.provider
                raise UpstreamFailed(
                    f"The provider “{provider}” ended its response before it was complete.", may_have_worked=True
                )

    def _connect(self) -> None:
        """A stream's headers are sent with its provider's, or at the latest a moment later."""
        self._has_connected = True
        if self.context.request.is_stream:
            self._head_timer = asyncio.get_running_loop().call_later(_HEAD_GRACE_S, self._begin_reply)

    def _begin_reply(self) -> None:
        self._has_connected = True
        self._stop_head_timer()
        if self.context.request.is_stream:
            self._relay = self._audience.begin_stream(self.context.bounds, self.context.reply_headers)
            self._relay.add(self._before_head)
        else:
            self._note_progress()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _note_progress(self) -> None:
        """The provider has made progress: with an event of a stream, not a comment."""
        if self._first_byte_at is None:
            self._first_byte_at = time.monotonic()
            self._deadlines.note_first_byte()
        else:
            self._deadlines.note_progress()

    def _note_end(self) -> None:
        """The upstream has nothing more to say; what follows is the gateway's own work."""
        self._ended_at = self._ended_at or time.monotonic()

    async def _pass_on(self, chunk: Chunk) -> None:
        if chunk.events:
            self._note_progress()
            if self._audience.is_gone:
                # The events of a stream whose caller has left are bounded.
                self._drained_events += chunk.events
                if self._drained_events > self.context.bounds.drain_events:
                    self.stop(StopReason.HANG_UP, within_s=0)
        if self._relay is None:
            # Comments, which wait for the headers; missing some doesn't matter.
            if len(self._before_head) + len(chunk.data) <= _MAX_BEFORE_HEAD_BYTES:
                self._before_head += chunk.data
            return
        # Called for each chunk of each stream: a coroutine is created only if there is something to wait for.
        if self._relay.add(chunk.data):
            await self._relay.wait_for_room()

    async def _complete(self, complete: Complete) -> None:
        """The answer is complete: recorded durably before its last byte is sent."""
        self._deadlines.lift()
        self._note_end()
        outcome = CallOutcome.CLIENT_GONE if self._audience.is_gone else CallOutcome.OK
        self.closing = closing = self._close_of(self._ending(outcome))
        await self.settle()
        data = await complete.finish(closing.counts, self._visible_cost(closing))
        if self._relay is None:
            await self._answer_whole(data, closing)
        else:
            await self._relay.put(data)
            self._close_stream()
        self._has_ended = True
        self._deadlines.limit_rest()

    async def _answer_whole(self, body: bytes, closing: CloseCall) -> None:
        headers = {**self.context.reply_headers, **self.settled_limit_headers()}
        if (cost := self._visible_cost(closing)) is not None:
            headers["x-llm-cost"] = cost
        if self.context.keep_reply is not None:
            await self.context.keep_reply(body, headers)
        self._audience.answer(Reply(200, body, JSON, headers))

    def _visible_cost(self, closing: CloseCall) -> str | None:
        """The settled cost in USD, for callers whose account shows it."""
        if not self.context.caller.shows_cost or closing.cost_pico is None:
            return None
        return format_usd(pico_to_usd(closing.cost_pico))

    def _close_stream(self) -> None:
        if self._relay is not None:
            self._relay.close()

    # --- Where it ends before that ------------------------------------------------------------------------------------

    async def _void(self, reason: StopReason) -> None:
        """Opened and never sent: there is no stream to cut."""
        self.closing = void_close(self.context.opened, outcome=_OUTCOMES[reason])
        await self.settle()
        if reason is StopReason.SHUTDOWN:
            raise ShuttingDown(STOPPING)

    def _failure_of(self, error: Exception) -> UpstreamError:
        provider = self.context.target.provider
        if isinstance(error, UpstreamError):
            return error
        if not isinstance(error, Stopped):
            # The exception's text may contain a prompt or a key, so only its class is logged.
            log.warning("provider.failed", provider=provider, error=type(error).__name__)
            return upstream_error(error, provider=provider)
        if error.reason is StopReason.SHUTDOWN:
            return UpstreamFailed(
                "This gateway process had to stop before the answer was complete.", may_have_worked=True
            )
        return UpstreamTimeout(f"The provider “{provider}” did not answer in time.", may_have_worked=True)

    async def _end_early(self, error: UpstreamError) -> UpstreamError | None:
        """The error, to be reported as the reply, or not at all if another call follows."""
        if self._has_ended:
            # Anything after the answer changes nothing.
            return None
        if self.closing is None:
            self.closing = self._close_after(error)
        if self._relay is None:
            return error
        if not self.is_settled:
            await self.settle()
        await self._relay.put(
            self.context.wire.render_stream_error(
                error, request_id=self.context.request_id, origin=origin_of(self.context.reply_headers)
            )
        )
        return None

    # --- The closing row ----------------------------------------------------------------------------------------------

    def _close_after(self, error: UpstreamError) -> CloseCall:
        has_answered = self.context.request.is_stream and self._first_byte_at is not None
        if not has_answered and not error.may_have_worked:
            closing = close_of_undone(self.context.opened, error, duration_ms=self._elapsed_ms())
            is_our_own = self.context.asks_for_usage and refuses_stream_options(error)
            return replace(closing, status=UsageStatus.VOID) if is_our_own else closing
        asked = self._deadlines.asked
        outcome = outcome_of(error) if asked is None else _OUTCOMES[asked]
        ending = self._ending(outcome, reading=error.reading)
        return self._close_of(
            replace(ending, error_code=error.code, upstream_status=error.upstream_status or ending.upstream_status)
        )

    def _close_of(self, ending: Ending) -> CloseCall:
        served = self.context.price_served(ending.reading.model)
        is_other = served.is_of_another_model or _is_other_service(self.context.request.asked_service, ending.reading)
        return close_of(self.context.opened, served.price, ending, is_priced_as_reported=is_other)

    def _ending(self, outcome: CallOutcome, *, reading: Reading | None = None) -> Ending:
        first_byte_at = self._first_byte_at
        return Ending(
            reading=without_our_keys(reading or self._answer.reading),
            outcome=outcome,
            is_gone=self._audience.is_gone,
            estimate=self._estimate,
            tool_meters=self._answer.tool_meters,
            is_charged=not self.context.request.is_count,
            upstream_status=200 if self._has_connected else None,
            first_byte_ms=None if first_byte_at is None else int((first_byte_at - self._started) * 1000),
            duration_ms=self._elapsed_ms(),
        )

    def _estimate(self) -> TokenCounts:
        context, answer = self.context, self._answer
        if context.request.is_count:
            return TokenCounts()
        return estimate(
            context.provider, context.wire, context.request, answer.text, unkept_characters=answer.unkept_characters
        )

    def _report(self) -> None:
        if self.closing is None:
            return
        context = self.context
        price = context.price_served(self.closing.reported_model).price
        priced_as = "" if price is None else price.model
        report_call(context.caller, context.opened, self.closing, request_id=context.request_id, priced_as=priced_as)

    def _elapsed_ms(self) -> int:
        return int((time.monotonic() - self._started) * 1000)


def origin_of(reply_headers: Mapping[str, str]) -> Origin:
    """What an error event says about its call; before a stream has begun, headers say it."""
    if "x-llm-provider" not in reply_headers:
        # Not for a call that belongs to another request.
        return {}
    return {
        "call_id": reply_headers["x-llm-call-id"],
        "provider": reply_headers["x-llm-provider"],
        "attempts": int(reply_headers["x-llm-attempts"]),
    }


def _answer_for(context: CallContext) -> Answer:
    if context.chat is None:
        return PassedThroughAnswer(context)
    answer = CountedAnswer if context.request.is_count else TranslatedAnswer
    return answer(context, context.chat)


def without_our_keys(reading: Reading) -> Reading:
    """A reply's texts for the books. Its bytes were already searched, but not for a key written with escapes, or with
    characters that columns leave out.
    """
    secrets = configured_secrets()
    if not secrets:
        return reading
    return replace(
        reading,
        model=struck_out_of(reading.model, secrets),
        response_id=struck_out_of(reading.response_id, secrets),
        service=Service(*(struck_out_of(word, secrets) for word in reading.service)),
        absurd_usage=struck_out_of(reading.absurd_usage, secrets),
    )


def _is_other_service(asked: Service, reading: Reading) -> bool:
    """Whether it was served at other prices than requested; `auto` and the like leave the choice to the provider."""
    parts = zip(asked, reading.service, priced_service(asked), priced_service(reading.service), strict=True)
    return any(
        word not in _PROVIDERS_CHOICE and served != "" and priced != served_priced
        for word, served, priced, served_priced in parts
    )
