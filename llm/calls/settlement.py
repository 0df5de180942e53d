"""From what is known about an ended call to the row that closes it. Pure, except for logging what it can't price."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from llm.books.batches.decisions import used_by
from llm.books.figures import PRICED_AS_REPORTED, TOOLS_UNREPORTED
from llm.books.operations import CloseCall, OpenCall, clean_service
from llm.dialects.usage_figures import MAX_TOKENS
from llm.enums import CallOutcome, UsageSource, UsageStatus
from llm.errors import (
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from llm.prices.pricing import Cost, PriceSnapshot, known_cost, unusual_words
from llm.types import TOKEN_FIELDS, LimitState, Reading, Service, TokenCounts, clean_text

_MAX_DISPUTED_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class Ending:
    """How a call ended.

    estimate: counts what the upstream didn't report; called only if needed.
    is_gone: the caller had left before the reply was complete.
    tool_meters: extra meters of tools that the provider was to run. is_charged: False for calls that no provider
    charges
    for: they are on the books and on no invoice.
    """

    reading: Reading
    outcome: CallOutcome
    is_gone: bool
    estimate: Callable[[], TokenCounts]
    tool_meters: tuple[str, ...] = ()
    is_charged: bool = True
    error_code: str = ""
    upstream_status: int | None = 200
    first_byte_ms: int | None = None
    duration_ms: int | None = None


def close_of(
    opened: OpenCall, price: PriceSnapshot | None, ending: Ending, *, is_priced_as_reported: bool = False
) -> CloseCall:
    """The closing row: exact if the provider reported final figures, otherwise estimated and bounded.

    is_priced_as_reported: `price` isn't that of the requested model or service.

    Figures that can't be true, or that no column holds, are kept as they came: disputed, and not billed.
    """
    reading = _disputed_if_absurd(ending.reading)
    counts, source = _figures(replace(ending, reading=reading))
    unreported = () if reading.reports_tools else ending.tool_meters
    counts = _with_unreported(counts, unreported)
    service = clean_service(reading.service)
    cost = known_cost(counts, price, service)
    return CloseCall(
        id=opened.id,
        status=UsageStatus.ESTIMATED if source is UsageSource.ESTIMATED else UsageStatus.SETTLED,
        outcome=ending.outcome,
        usage_source=source,
        counts=counts,
        cost_pico=None if cost is None else cost.pico,
        rate_set_id=None if cost is None else cost.rate_set_id,
        is_billable=ending.is_charged and reading.absurd_usage is None,
        is_disputed=reading.absurd_usage is not None,
        disputed_usage=_kept(reading.absurd_usage),
        reported_model=clean_text(reading.model, limit=200),
        upstream_response_id=clean_text(reading.response_id, limit=200),
        **service._asdict(),
        flags=_flags(
            reading,
            cost,
            service,
            is_priced_as_reported=is_priced_as_reported,
            has_unreported_tools=bool(unreported),
        ),
        upstream_cost_pico=None if reading.upstream_cost is None else reading.upstream_cost.pico,
        error_code=clean_text(ending.error_code, limit=50),
        upstream_status=ending.upstream_status,
        first_byte_ms=ending.first_byte_ms,
        duration_ms=ending.duration_ms,
        account_id=opened.account_id,
    )


def close_of_undone(opened: OpenCall, error: UpstreamError, *, duration_ms: int) -> CloseCall:
    """For a call that certainly generated nothing: refused, or never sent."""
    was_sent = error.upstream_status is not None
    return CloseCall(
        id=opened.id,
        status=UsageStatus.SETTLED if was_sent else UsageStatus.VOID,
        outcome=outcome_of(error),
        cost_pico=0,
        error_code=clean_text(error.code, limit=50),
        upstream_status=error.upstream_status,
        duration_ms=duration_ms,
        account_id=opened.account_id,
        releases_claim=opened.claim is not None,
    )


def outcome_of(error: UpstreamError) -> CallOutcome:
    if isinstance(error, UpstreamTimeout):
        return CallOutcome.TIMEOUT
    if isinstance(error, UpstreamUnreachable):
        return CallOutcome.UPSTREAM_UNREACHABLE
    if isinstance(error, UpstreamRejected) and error.upstream_status is None:
        # The provider has no equivalent for it, which we knew without asking.
        return CallOutcome.NOT_SENT
    if isinstance(error, UpstreamRejected | UpstreamRateLimited):
        return CallOutcome.UPSTREAM_REFUSED
    return CallOutcome.UPSTREAM_FAILED


def _with_unreported(counts: TokenCounts, meters: tuple[str, ...]) -> TokenCounts:
    """Adds one unit of each: without a rate for it the call is unpriced, rather than charged for its tokens alone."""
    return replace(counts, extra_meters={**dict.fromkeys(meters, 1), **counts.extra_meters}) if meters else counts


def _flags(
    reading: Reading, cost: Cost | None, service: Service, *, is_priced_as_reported: bool, has_unreported_tools: bool
) -> tuple[str, ...]:
    """Words defined in docs/decisions/0024."""
    words = {
        PRICED_AS_REPORTED: is_priced_as_reported,
        TOOLS_UNREPORTED: has_unreported_tools,
        "tier_unpriced": cost is None and bool(unusual_words(service)),
        "upstream_cost_rounded": reading.upstream_cost is not None and reading.upstream_cost.is_rounded,
    }
    return tuple(word for word, holds in words.items() if holds)


def _figures(ending: Ending) -> tuple[TokenCounts, UsageSource]:
    """Final figures are taken as reported; others are only a lower bound."""
    reported = ending.reading.counts
    if reported is not None and ending.reading.is_final:
        return reported, UsageSource.DRAINED if ending.is_gone else UsageSource.REPORTED
    estimated = ending.estimate()
    if reported is None:
        return estimated, UsageSource.ESTIMATED
    if ending.reading.is_input_final:
        estimated = replace(estimated, prompt_tokens=reported.prompt_tokens)
    return _at_least(estimated, reported), UsageSource.ESTIMATED


def _at_least(estimated: TokenCounts, reported: TokenCounts) -> TokenCounts:
    larger = {name: max(getattr(estimated, name), getattr(reported, name)) for name in TOKEN_FIELDS}
    return replace(reported, **larger)


def _disputed_if_absurd(reading: Reading) -> Reading:
    counts = reading.counts
    if counts is None or _is_plausible(counts):
        return reading
    raw = {name: repr(getattr(counts, name))[:50] for name in (*TOKEN_FIELDS, "extra_meters")}
    return replace(reading, counts=None, absurd_usage=raw)


def _kept(usage: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Disputed figures as they came, or as a cleaned and shortened text if no JSON column could hold them."""
    if usage is None:
        return None
    try:
        text = orjson.dumps(usage).decode()
    except TypeError:
        text = repr(usage)
    else:
        # PostgreSQL's JSON can't contain NUL.
        if len(text) <= _MAX_DISPUTED_CHARACTERS and "\\u0000" not in text:
            return usage
    return {"text": clean_text(text, limit=_MAX_DISPUTED_CHARACTERS)}


def _is_plausible(counts: TokenCounts) -> bool:
    values = [getattr(counts, name) for name in TOKEN_FIELDS] + list(counts.extra_meters.values())
    if not all(type(value) is int and 0 <= value <= MAX_TOKENS for value in values):
        return False
    cached = counts.cache_read_tokens + counts.cache_write_5m_tokens + counts.cache_write_1h_tokens
    return (
        max(cached, counts.audio_input_tokens) <= counts.prompt_tokens
        and max(counts.reasoning_tokens, counts.audio_output_tokens) <= counts.completion_tokens
    )


def limits_after(limits: Sequence[LimitState], closing: CloseCall) -> tuple[LimitState, ...]:
    """What limits leave once the call has released the unused part of its reservation."""
    return tuple([_after(state, closing) for state in limits])


def _after(state: LimitState, closing: CloseCall) -> LimitState:
    used = used_by(closing, state.metric, state.held)
    return state._replace(remaining=max(0, state.remaining + state.held - used), held=0)
