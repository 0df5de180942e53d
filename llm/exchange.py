"""One upstream call, from its open row to its closing one, whatever the upstream or the caller does in between.

An exchange either answers the caller, having settled before the last byte, or raises the UpstreamError that ended it
and leaves the row that closes the call in `closing`, for the request's task to write.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

import structlog

from llm.books.operations import CloseCall, OpenCall
from llm.catalog import ServedPrice, Target
from llm.dialects.base import ParsedRequest, Reading, WireFormat
from llm.enums import Outcome
from llm.errors import UpstreamError, UpstreamFailed, UpstreamTimeout
from llm.estimation import estimate
from llm.money import format_usd, pico_to_usd
from llm.pricing import priced_service
from llm.providers.base import BaseLLMProvider
from llm.providers.failures import upstream_error
from llm.relay import Audience, Relay, Reply
from llm.settlement import Ending, close_of, close_of_undone, outcome_of
from llm.types import Service, TokenCounts

log = structlog.get_logger("llm.calls")

EVENT_STREAM = "text/event-stream; charset=utf-8"
JSON = "application/json"
_PROVIDERS_CHOICE = ("", "auto", "standard_only")

Settle = Callable[[CloseCall], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Within which a call must stay, in seconds and bytes; drain_events: of a stream whose caller has left."""

    first_byte_s: float
    idle_s: float
    total_s: float
    relay_bytes: int
    relay_stall_s: float
    drain_events: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What an exchange is to do; nothing of it changes while it runs.

    forwarded_headers: the caller's headers that an upstream of the same dialect gets too.
    price_served: what the call costs by the name of the model that the provider reports.
    max_output_tokens: to what a limit has lowered the output maximum of a choice; None where none did.
    """

    opened: OpenCall
    target: Target
    provider: BaseLLMProvider
    wire: WireFormat
    request: ParsedRequest
    shows_cost: bool
    forwarded_headers: Mapping[str, str]
    reply_headers: Mapping[str, str]
    request_id: str
    bounds: Bounds
    price_served: Callable[[str], ServedPrice]
    max_output_tokens: int | None = None


class Exchange:
    """The state of one call under way.

    `reading` and `text` are what the upstream has said so far; `unkept_characters` of its text were not kept.
    """

    def __init__(self, plan: Plan, audience: Audience, settle: Settle) -> None:
        self.plan = plan
        self.closing: CloseCall | None = None
        self.reading = Reading()
        self.text = ""
        self.unkept_characters = 0
        self._audience = audience
        self._settle = settle
        self._started = time.monotonic()
        self._first_byte_at: float | None = None
        self._progress_at = self._started
        self._idle_timer: asyncio.TimerHandle | None = None
        self._scope: asyncio.Timeout | None = None
        self._stopped_for: Outcome | None = None
        self._relay: Relay | None = None
        self._drained_events = 0

    async def run(self, talk: Callable[[Exchange], Awaitable[None]]) -> None:
        """Raises UpstreamError, with `closing` set, where the caller got nothing yet."""
        try:
            await self._talk_within_bounds(talk)
        except TimeoutError:
            await self._end_early(self._timeout_error())
        except UpstreamError as error:
            await self._end_early(error)
        except Exception as error:  # noqa: BLE001  # the outermost edge of a provider's code
            # The exception's text may hold a prompt or a key, so only its class is told.
            log.warning("provider failed", provider=self.plan.target.provider, error=type(error).__name__)
            await self._end_early(upstream_error(error, provider=self.plan.target.provider))
        finally:
            self.close_stream()

    async def _talk_within_bounds(self, talk: Callable[[Exchange], Awaitable[None]]) -> None:
        bounds = self.plan.bounds
        try:
            async with asyncio.timeout(min(bounds.first_byte_s, bounds.total_s)) as self._scope:
                await talk(self)
        finally:
            self._scope = None
            if self._idle_timer is not None:
                self._idle_timer.cancel()

    def stop(self, reason: Outcome, *, within_s: float) -> None:
        """End the call after that many seconds at most: the caller has left, or the process ends."""
        if self._scope is None or self.closing is not None:
            return
        when = asyncio.get_running_loop().time() + within_s
        current = self._scope.when()
        if current is None or when < current:
            self._stopped_for = reason
            self._scope.reschedule(when)

    # --- What the ways of talking to an upstream use ------------------------------------------------------------------

    def note_first_byte(self) -> None:
        """From now on silence and the total time are the limits, unless an earlier end was set."""
        if self._first_byte_at is not None:
            return
        self._first_byte_at = self._progress_at = time.monotonic()
        loop = asyncio.get_running_loop()
        self._idle_timer = loop.call_later(self.plan.bounds.idle_s, self._check_idle)
        if self._scope is not None and self._stopped_for is None:
            left = self.plan.bounds.total_s - (self._first_byte_at - self._started)
            self._scope.reschedule(loop.time() + left)

    def note_progress(self) -> None:
        """The upstream has sent something that counts."""
        self._progress_at = time.monotonic()

    def note_events(self, count: int) -> None:
        """So many events of the stream; those that nobody waits for any more are bounded."""
        if self._audience.is_gone:
            self._drained_events += count
            if self._drained_events > self.plan.bounds.drain_events:
                self.stop(Outcome.CLIENT_GONE, within_s=0)

    @property
    def is_streaming(self) -> bool:
        """Whether the caller has got the head of a stream, so that errors can only be events."""
        return self._relay is not None

    def start_stream(self) -> None:
        self.note_first_byte()
        bounds = self.plan.bounds
        self._relay = Relay(most_bytes=bounds.relay_bytes, stall_s=bounds.relay_stall_s, on_leave=self._audience.leave)
        headers = {**self.plan.reply_headers, "cache-control": "no-cache", "x-accel-buffering": "no"}
        self._audience.answer(Reply(200, self._relay, EVENT_STREAM, headers))

    async def put(self, data: bytes) -> None:
        if self._relay is not None:
            await self._relay.put(data)

    def close_stream(self) -> None:
        if self._relay is not None:
            self._relay.close()

    async def settle_complete(self) -> CloseCall:
        """The reply has come to its own end: put it on the books, durably."""
        outcome = Outcome.CLIENT_GONE if self._audience.is_gone else Outcome.OK
        return await self._close(self._ending(outcome, is_complete=True))

    def visible_cost(self) -> str | None:
        """The settled cost in USD, for callers whose account shows it."""
        if not self.plan.shows_cost or self.closing is None or self.closing.cost_pico is None:
            return None
        return format_usd(pico_to_usd(self.closing.cost_pico))

    def answer_whole(self, body: bytes) -> None:
        headers = dict(self.plan.reply_headers)
        if (cost := self.visible_cost()) is not None:
            headers["x-llm-cost"] = cost
        self._audience.answer(Reply(200, body, JSON, headers))

    def failed(self, what: str) -> UpstreamFailed:
        return UpstreamFailed(f"The provider “{self.plan.target.provider}” {what}.", may_have_worked=True)

    # --- Endings ------------------------------------------------------------------------------------------------------

    async def _end_early(self, error: UpstreamError) -> None:
        if self.closing is not None:
            # On the books already: what failed since is only the telling.
            await self._tell(error)
            return
        if not self.is_streaming and not error.may_have_worked:
            self.closing = close_of_undone(self.plan.opened, error, duration_ms=self._elapsed_ms())
            raise error
        ending = self._ending(self._stopped_for or outcome_of(error), is_complete=False)
        ending = replace(ending, error_code=error.code, upstream_status=error.upstream_status or ending.upstream_status)
        if not self.is_streaming:
            self.closing = self._close_of(ending)
            raise error
        await self._close(ending)
        await self._tell(error)

    async def _tell(self, error: UpstreamError) -> None:
        """As an event, or by raising it where the caller has got nothing yet."""
        if self._audience.is_answered:
            await self.put(self.plan.wire.render_stream_error(error, request_id=self.plan.request_id))
        else:
            raise error

    async def _close(self, ending: Ending) -> CloseCall:
        if self._scope is not None:
            # From here on the books decide how long it takes.
            self._scope.reschedule(None)
        self.closing = self._close_of(ending)
        await self._settle(self.closing)
        return self.closing

    def _close_of(self, ending: Ending) -> CloseCall:
        served = self.plan.price_served(ending.reading.model)
        is_other = served.is_of_another_model or _is_other_service(self.plan.request.asked_service, ending.reading)
        return close_of(self.plan.opened, served.price, ending, is_priced_as_reported=is_other)

    def _ending(self, outcome: Outcome, *, is_complete: bool) -> Ending:
        first_byte_at = self._first_byte_at
        return Ending(
            reading=self.reading,
            outcome=outcome,
            is_complete=is_complete,
            is_gone=self._audience.is_gone,
            estimate=self._estimate,
            upstream_status=None if first_byte_at is None else 200,
            first_byte_ms=None if first_byte_at is None else int((first_byte_at - self._started) * 1000),
            duration_ms=self._elapsed_ms(),
        )

    def _estimate(self) -> TokenCounts:
        plan = self.plan
        return estimate(plan.provider, plan.wire, plan.request, self.text, unkept_characters=self.unkept_characters)

    def _check_idle(self) -> None:
        """Called when silence may have lasted too long; sets no timer a piece, only one a period of silence."""
        loop = asyncio.get_running_loop()
        left = self.plan.bounds.idle_s - (time.monotonic() - self._progress_at)
        if left > 0:
            self._idle_timer = loop.call_later(left, self._check_idle)
        elif self._scope is not None and self.closing is None:
            self._scope.reschedule(loop.time())

    def _timeout_error(self) -> UpstreamError:
        if self._stopped_for is Outcome.SHUTDOWN:
            return UpstreamFailed(
                "This gateway process had to stop before the answer was complete.", may_have_worked=True
            )
        return UpstreamTimeout(
            f"The provider “{self.plan.target.provider}” did not answer in time.", may_have_worked=True
        )

    def _elapsed_ms(self) -> int:
        return int((time.monotonic() - self._started) * 1000)


def _is_other_service(asked: Service, reading: Reading) -> bool:
    """Whether it was served at other prices than was asked for; `auto` and the like leave that to the provider."""
    parts = zip(asked, reading.service, priced_service(asked), priced_service(reading.service), strict=True)
    return any(
        word not in _PROVIDERS_CHOICE and served != "" and priced != served_priced
        for word, served, priced, served_priced in parts
    )
