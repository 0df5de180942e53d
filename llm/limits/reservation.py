"""What a call may use at most: the amount that limits reserve for it."""

from __future__ import annotations

from django.conf import settings

from llm.dialects.base import Extent, ParsedRequest, WireFormat
from llm.dialects.openai_chat.fields import is_search_model, variant_of
from llm.limits.admission import ReservationEstimate
from llm.prices.catalog import Target
from llm.prices.pricing import dearest_pico
from llm.providers.output_maxima import stated_maximum


def estimate_reservation(
    wire: WireFormat, request: ParsedRequest, target: Target, *, requests: int, default_maximum: int | None = None
) -> ReservationEstimate:
    """requests: 0 where an earlier call of the request counts already. default_maximum: what the provider is asked for
    where the caller says none, as far as that is known.

    A prompt of unknown size, and an output of which nobody knows a maximum, may fill the model's whole context window,
    where that is known. What a provider adds to the prompt by itself, once for each of its tools' runs, has no bound.
    """
    if request.is_count:
        return ReservationEstimate(requests=requests, input_tokens=0, output_tokens=0)
    price = target.price
    extent = wire.extent(request)
    window = None if price is None else price.context_window
    unbounded = _unbounded(extent, target)
    input_tokens = window if extent.input_tokens is None else extent.input_tokens
    own_maximum = default_maximum or stated_maximum(target.instance, target.upstream_model)
    output_tokens = request.max_output_tokens
    if output_tokens is None and (own_maximum is None or not request.takes_maximum):
        output_tokens = window
    why_unpriced = _why_unpriced(request, extent, target, input_tokens)
    input_pico = output_token_pico = None
    if not why_unpriced and price is not None:
        input_pico, output_token_pico = dearest_pico(price, prompt_tokens_bound=input_tokens or 0)
    return ReservationEstimate(
        requests=requests,
        input_tokens=None if unbounded else input_tokens,
        output_tokens=output_tokens,
        choices=request.choices,
        takes_maximum=request.takes_maximum,
        is_stated=request.max_output_tokens is not None,
        unstated_output_tokens=default_maximum
        or (own_maximum or settings.LLM_LIMIT_OUTPUT_TOKENS) + request.thinking_tokens,
        input_pico=input_pico,
        output_token_pico=output_token_pico,
        why_uncounted=f"it asks for {unbounded}, whose tokens can't be known in advance" if unbounded else "",
        why_unpriced=why_unpriced,
    )


def _why_unpriced(request: ParsedRequest, extent: Extent, target: Target, input_tokens: int | None) -> str:
    price = target.price
    if price is None:
        return "no price is known for this model"
    if (variant := variant_of(target.upstream_model)) and price.model.lower() != target.upstream_model.lower():
        return f"no price is known for the variant “{variant}” of this model"
    if unpriced := price.unpriced_words(request.asked_service):
        return f"no price is known for {unpriced}"
    if unbounded := _unbounded(extent, target):
        return f"it asks for {unbounded}, whose cost can't be known in advance"
    if request.routing_fields:
        return "it asks for a choice of models or providers, whose cost can't be known in advance"
    if price.is_free:
        # However many tokens it has.
        return ""
    if extent.unbounded_output:
        return f"it asks for {extent.unbounded_output}, whose cost can't be known in advance"
    return "the size of its images, audio or files can't be known in advance" if input_tokens is None else ""


def _unbounded(extent: Extent, target: Target) -> str:
    if not extent.unbounded and is_search_model(target.upstream_model):
        return "web searches"
    return extent.unbounded
