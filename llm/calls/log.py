"""What monitoring gets of a call: one log line and one set of figures. Never a key, never a prompt."""

from __future__ import annotations

import structlog

from llm import metrics
from llm.books.operations import CloseCall, OpenCall
from llm.keys import Caller
from llm.money import format_usd, pico_to_usd

log = structlog.get_logger("llm.calls")


def report_call(caller: Caller, opened: OpenCall, closing: CloseCall, *, request_id: str, priced_as: str) -> None:
    """priced_as: the model's name in the price list, "" without a price. Unlike the requested name, callers can't make
    it up.
    """
    cost = None if closing.cost_pico is None else pico_to_usd(closing.cost_pico)
    metrics.observe_call(
        provider=opened.provider,
        model=priced_as,
        outcome=closing.outcome,
        prompt_tokens=closing.counts.prompt_tokens,
        completion_tokens=closing.counts.completion_tokens,
        cost=cost,
        duration_s=(closing.duration_ms or 0) / 1000,
        first_byte_s=None if closing.first_byte_ms is None else closing.first_byte_ms / 1000,
    )
    log.info(
        "call.settled",
        call_id=str(opened.id),
        request_id=request_id,
        account=caller.account_name,
        key_id=caller.key_id,
        dialect=opened.dialect.value,
        stream=opened.is_stream,
        provider=opened.provider,
        instance=opened.provider_instance or opened.provider,
        model=opened.model,
        upstream_model=opened.upstream_model,
        attempt=opened.attempt,
        status=closing.status.value,
        outcome=closing.outcome.value,
        source=closing.usage_source.value,
        prompt_tokens=closing.counts.prompt_tokens,
        completion_tokens=closing.counts.completion_tokens,
        cost_usd=None if cost is None else format_usd(cost),
        first_byte_ms=closing.first_byte_ms,
        duration_ms=closing.duration_ms,
    )
