"""(token counts, price) -> exact cost, and upper bounds for holds. Pure: whole pico-units, no I/O.

How tokens become meters. Every token is priced once:

    input        prompt_tokens without the parts below
    cache_read   cached tokens; without a rate of their own they cost as input, as OpenAI bills such models
    cache_write  per lifetime; only at their own rate (they cost more than input, so a fallback would under-bill)
    audio        in and out; only at their own rate, for the same reason
    output       completion_tokens, reasoning included unless it has a rate of its own
    extra meters units beside the tokens (`web_searches`, named as in genai-prices); only at their own rate

A nonzero meter without a rate makes the call unpriced (`PriceMissing`), never cheaper. With a free price, tokens of the
standard service cost nothing; it has no rates for anything else.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from llm.enums import Meter
from llm.errors import PriceMissing
from llm.types import Service, TokenCounts

# Names under which providers report their standard service: OpenAI `default`, Anthropic `standard`, Groq `on_demand`.
# Others (`priority`, `flex`, `scale`, `batch`) cost differently and need rates of their own.
STANDARD_SERVICE_TIERS = frozenset({"", "auto", "default", "standard", "on_demand"})
# Anthropic's words for a call that ran anywhere, and for a model without a choice of region.
STANDARD_WORDS = (STANDARD_SERVICE_TIERS, frozenset({"", "standard"}), frozenset({"", "global", "not_available"}))
"""For each part of a `Service`."""
# Anthropic's fast mode was stored as a service tier before there was a column for the speed: in old rows and prices.
_FAST = "fast"

STANDARD = Service()

MAX_PICO = 2**63 - 1
"""The maximum of a column: over nine million USD, which no call costs."""

REQUESTS = "requests"
"""The extra meter of which every call is one unit: a fee per request."""

_INPUT, _OUTPUT, _REASONING = Meter.INPUT.value, Meter.OUTPUT.value, Meter.REASONING.value
_CACHE_READ, _WRITE_5M, _WRITE_1H = Meter.CACHE_READ.value, Meter.CACHE_WRITE_5M.value, Meter.CACHE_WRITE_1H.value
_AUDIO_INPUT, _AUDIO_OUTPUT = Meter.AUDIO_INPUT.value, Meter.AUDIO_OUTPUT.value

_PROMPT_METERS = (_INPUT, _CACHE_READ, _WRITE_5M, _WRITE_1H, _AUDIO_INPUT)
_COMPLETION_METERS = (_OUTPUT, _AUDIO_OUTPUT, _REASONING)


class ImpossibleCountsError(ValueError):
    """The parts of a total exceed it, or a count is negative: no cost can be computed."""


@dataclass(frozen=True, slots=True)
class RateSetSnapshot:
    """rates: meter -> pico-units per unit. service: what they price. dearest_*: over all classes of token."""

    id: int
    min_prompt_tokens: int
    service: Service
    rates: Mapping[str, int]
    dearest_prompt_rate: int = field(init=False, repr=False, compare=False)
    dearest_completion_rate: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for meter, pico in self.rates.items():
            if type(pico) is not int or pico < 0:
                raise TypeError(f"the rate of {meter} must be whole pico-units of 0 or more, not {pico!r}")
        for name, meters in (("dearest_prompt_rate", _PROMPT_METERS), ("dearest_completion_rate", _COMPLETION_METERS)):
            object.__setattr__(self, name, max(self.rates.get(meter, 0) for meter in meters))


@dataclass(frozen=True, slots=True)
class PriceSnapshot:
    """A price as it applies to one model of one provider in [effective_from, effective_until).

    context_window: tokens of input and output at most, if known. unpriced_meters: see `llm.models.Price`.
    """

    id: int
    provider: str
    model: str
    effective_from: datetime
    effective_until: datetime | None
    is_free: bool
    rate_sets: tuple[RateSetSnapshot, ...]
    context_window: int | None = None
    unpriced_meters: tuple[str, ...] = ()
    _by_service: dict[Service, tuple[RateSetSnapshot, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found: dict[Service, tuple[RateSetSnapshot, ...]] = {}
        for rate_set in sorted(self.rate_sets, key=lambda rate_set: -rate_set.min_prompt_tokens):
            service = priced_service(rate_set.service)
            found[service] = (*found.get(service, ()), rate_set)
        object.__setattr__(self, "_by_service", found)

    def unpriced_words(self, service: Service) -> str:
        """The part of a service without rates here, for a sentence; "" if it has rates, or is standard."""
        words = unusual_words(service)
        return "" if not words or priced_service(service) in self._by_service else ", ".join(words)

    def costs_as(self, other: PriceSnapshot) -> bool:
        """Whether every call costs the same at both."""
        return (self.is_free, self._rates()) == (other.is_free, other._rates())

    def _rates(self) -> list[tuple[object, ...]]:
        return sorted(
            (priced_service(each.service), each.min_prompt_tokens, sorted(each.rates.items()))
            for each in self.rate_sets
            if not self.is_free
        )

    def rate_set_for(self, prompt_tokens: int, service: Service) -> RateSetSnapshot:
        """The set that prices the whole request: of that service, the highest context tier that is reached.

        Raises PriceMissing for a service that the price doesn't list: standard rates could under-bill it.
        """
        wanted = priced_service(service)
        for rate_set in self._by_service.get(wanted, ()):
            if prompt_tokens >= rate_set.min_prompt_tokens:
                return rate_set
        raise PriceMissing(unusual_words(service) or ("service_tier:standard",))


@dataclass(frozen=True, slots=True)
class Cost:
    """pico: whole pico-units of USD, unrounded. rate_set_id: the rates applied; None for a free price."""

    pico: int
    rate_set_id: int | None


def without_standard_words(service: Service) -> Service:
    """A provider's words for its standard service become ""."""
    parts = zip(service, STANDARD_WORDS, strict=True)
    return Service(*("" if word in words else word for word, words in parts))


def priced_service(service: Service) -> Service:
    """The service as prices distinguish it: no standard words, and one word for the fast mode."""
    tier, speed, geo = without_standard_words(service)
    return Service("", _FAST, geo) if (tier, speed) == (_FAST, "") else Service(tier, speed, geo)


def unusual_words(service: Service) -> tuple[str, ...]:
    """The nonstandard parts, such as `speed:fast`."""
    named = zip(Service._fields, service, STANDARD_WORDS, strict=True)
    return tuple(f"{name}:{word}" for name, word, words in named if word not in words)


def cost_of(counts: TokenCounts, price: PriceSnapshot, service: Service = STANDARD) -> Cost:
    """Exact cost of one call, unrounded, in pico-units of USD.

    counts: parts are subsets of their totals (cached tokens are inside prompt_tokens).
    service: as the provider reported it.
    Raises PriceMissing when a meter that is not zero, or the service, has no rate; `.meters` names each.
    Raises ImpossibleCountsError when the parts can't be subsets.
    Source: genai-prices 0.2.3 (`decompose.py`, `types.py`: the tier is chosen by all input tokens and reprices all).
    """
    if price.is_free:
        return _cost_when_free(counts, service)
    if counts.prompt_tokens < 0:
        raise ImpossibleCountsError(f"{counts.prompt_tokens} prompt tokens")
    rate_set = price.rate_set_for(counts.prompt_tokens, service)
    rates = rate_set.rates
    pico = rates.get(REQUESTS, 0)
    missing: list[str] = []
    for meter, units in _metered(counts, rates):
        if units:
            rate = rates.get(meter)
            if rate is None:
                missing.append(meter)
            else:
                pico += units * rate
    if missing:
        raise PriceMissing(tuple(dict.fromkeys(missing)))
    return Cost(pico, rate_set.id)


def _cost_when_free(counts: TokenCounts, service: Service) -> Cost:
    """Only tokens of the standard service are free: a price without rates doesn't cover other charges."""
    missing = (*unusual_words(service), *(meter for meter, units in counts.extra_meters.items() if units))
    if missing:
        raise PriceMissing(missing)
    return Cost(0, None)


def known_cost(counts: TokenCounts, price: PriceSnapshot | None, service: Service = STANDARD) -> Cost | None:
    """None if no price is known for the usage; no usage costs nothing."""
    if counts.total_tokens == 0 and not any(counts.extra_meters.values()):
        return Cost(pico=0, rate_set_id=None)
    if price is None:
        return None
    try:
        cost = cost_of(counts, price, service)
    except (PriceMissing, ImpossibleCountsError):
        return None
    return cost if cost.pico <= MAX_PICO else None


def dearest_pico(price: PriceSnapshot, *, prompt_tokens_bound: int) -> tuple[int, int]:
    """Pico-units that a call's input and fees, and each token of its output, cost at most.

    Valid for any tiers and token classes, with a prompt of up to that many tokens. Of extra meters, only the fee per
    request is included.
    """
    if price.is_free:
        return 0, 0
    input_pico = output_pico = 0
    for each in price.rate_sets:
        if each.min_prompt_tokens <= prompt_tokens_bound:
            fee = each.rates.get(REQUESTS, 0)
            input_pico = max(input_pico, fee + prompt_tokens_bound * each.dearest_prompt_rate)
            output_pico = max(output_pico, each.dearest_completion_rate)
    return input_pico, output_pico


def token_meters(counts: TokenCounts, own: Container[str]) -> tuple[tuple[str, int], ...]:
    """Disjoint (meter, tokens) pairs, whatever the figures; a meter may appear twice. own: meters with a rate.

    The remainder of a total is negative if its parts overlap or exceed it. So the pairs of a sum of calls are the sums
    of the calls' pairs.
    """
    cache_read, audio_input = counts.cache_read_tokens, counts.audio_input_tokens
    audio_output = counts.audio_output_tokens
    write_5m, write_1h = counts.cache_write_5m_tokens, counts.cache_write_1h_tokens
    reasoning = counts.reasoning_tokens if _REASONING in own else 0
    return (
        (_INPUT, counts.prompt_tokens - cache_read - write_5m - write_1h - audio_input),
        (_CACHE_READ if _CACHE_READ in own else _INPUT, cache_read),
        (_WRITE_5M, write_5m),
        (_WRITE_1H, write_1h),
        (_AUDIO_INPUT, audio_input),
        (_OUTPUT, counts.completion_tokens - reasoning - audio_output),
        (_AUDIO_OUTPUT, audio_output),
        (_REASONING, reasoning),
    )


def _metered(counts: TokenCounts, rates: Mapping[str, int]) -> Iterable[tuple[str, int]]:
    """Disjoint (meter, units) pairs of one call. Raises if its figures are impossible."""
    pairs = token_meters(counts, rates)
    plain_input = pairs[0][1]
    if plain_input < 0 and plain_input + counts.audio_input_tokens >= 0:
        # Cached audio is in both figures, and how much of it isn't reported.
        raise PriceMissing(("cached_audio_input",))
    for meter, units in pairs:
        if units < 0:
            raise ImpossibleCountsError(f"the token counts leave {units} for {meter}")
    return (*pairs, *_extra(counts.extra_meters)) if counts.extra_meters else pairs


def _extra(extra_meters: Mapping[str, int]) -> Iterable[tuple[str, int]]:
    for meter, units in extra_meters.items():
        if units < 0:
            raise ImpossibleCountsError(f"{units} units of {meter}")
        yield meter, units
