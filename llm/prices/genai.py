"""genai-prices -> our terms: the history of one model's prices as (start, content) pairs.

Source: genai-prices 0.2.3, types.py (read 2026-11): a tier applies if the input tokens *exceed* its start and then
prices every token (`calc_unit_price`); of conditional prices the last active one applies and a start date begins at
midnight UTC (`get_prices`); a variant overrides the standard prices key by key.

Omitted: `processing` variants (batch jobs, which can't be started through us), and prices that need another context
than a service tier or a speed. Of prices by time of day we take the most expensive. Added: Anthropic's surcharge for a
region. The note says what was changed, omitted or added.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from llm.enums import Meter
from llm.models.catalog import TOKENS_PER_PRICE
from llm.money import PRICE_DECIMALS, round_half_away
from llm.prices.pricing import STANDARD, unusual_words
from llm.prices.terms import PriceTerms, RateSetKey, RateValue
from llm.types import Service

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, PriceVariant, TieredPrices

PROVIDER_IDS: Mapping[str, str] = {"openai": "openai", "anthropic": "anthropic"}
"""Our providers that have a price list -> its name in genai-prices."""

ALWAYS = datetime(2000, 1, 1, tzinfo=UTC)
"""Start of a price without a start date, so that calls at any time have one."""

_TOKEN_METERS: Mapping[str, Meter] = {
    "input_mtok": Meter.INPUT,
    "output_mtok": Meter.OUTPUT,
    "cache_read_mtok": Meter.CACHE_READ,
    "cache_write_mtok": Meter.CACHE_WRITE_5M,
    "cache_write_5m_mtok": Meter.CACHE_WRITE_5M,
    "cache_write_1h_mtok": Meter.CACHE_WRITE_1H,
    "input_audio_mtok": Meter.AUDIO_INPUT,
    "output_audio_mtok": Meter.AUDIO_OUTPUT,
    "output_reasoning_mtok": Meter.REASONING,
}
# Units beside the tokens: they add up, so a separate rate is exact.
_PER_THOUSAND: Mapping[str, str] = {
    "web_searches_kcount": "web_searches",
    "social_searches_kcount": "social_searches",
    "storage_searches_kcount": "storage_searches",
    "code_executions_kcount": "code_executions",
    "rerank_searches_kcount": "rerank_searches",
    "requests_kcount": "requests",
}
_SERVICE_KEYS = ("service_tier", "speed")

# genai-prices 0.2.3 has no prices by region. Source: platform.claude.com/docs/en/manage-claude/data-residency, read
# 2026-11-30: `inference_geo: us` exists only on the Claude API and costs 1.1 times as much for every class of tokens,
# including fast mode; searches cost the same. Models before Opus 4.6 don't support it and answer with a 400.
_PLACE, _PLACE_FACTOR = "us", Decimal("1.1")
_HAS_PLACES = re.compile(r"claude-(?!v?\d|instant)(?!.*-4-[0-5]\b)")


def list_models(provider: str) -> list[ModelInfo]:
    """All models of one of our providers, from the installed data; nothing is fetched."""
    from genai_prices.data import providers

    wanted = PROVIDER_IDS[provider]
    return next(listed.models for listed in providers if listed.id == wanted)


def installed_version() -> str:
    from importlib.metadata import version

    return version("genai-prices")


def price_history(model: ModelInfo) -> list[tuple[datetime, PriceTerms]]:
    """What the model's tokens cost from when on, oldest first; empty if it has no token prices."""
    history: list[tuple[datetime, PriceTerms]] = []
    for start in _starts(model):
        content = _content_at(model, start)
        if content is not None and (not history or history[-1][1] != content):
            history.append((start, content))
    return history


def match_as_json(match: Any) -> dict[str, Any]:
    """A genai-prices clause as the JSON of `Price.match`."""
    ((name, operand),) = vars(match).items()
    kind = name.rstrip("_")
    return {kind: [match_as_json(part) for part in operand] if isinstance(operand, list) else operand}


def _starts(model: ModelInfo) -> list[datetime]:
    constraints = [price.constraint for price in model.prices] if isinstance(model.prices, list) else []
    constraints += [variant.constraint for _, variant in _service_variants(model)]
    dates = {getattr(constraint, "start_date", None) for constraint in constraints}
    return sorted({ALWAYS} | {datetime.combine(date, time(), UTC) for date in dates if date})


def _service_variants(model: ModelInfo) -> Iterator[tuple[Service, PriceVariant]]:
    """(service as providers report it, variant) for those that our callers can reach."""
    for variant in model.price_variants or ():
        ((key, value), *others) = variant.when.items()
        if key in _SERVICE_KEYS and not others and unusual_words(service := Service(**{key: value})):
            yield service, variant


def _content_at(model: ModelInfo, moment: datetime) -> PriceTerms | None:
    reader = _PriceReader()
    standard = reader.read(STANDARD, [model.get_prices(instant) for instant in _instants(model, moment)])
    if not any({Meter.INPUT, Meter.OUTPUT} & rates.keys() for rates in standard.values()):
        return None
    rate_sets = dict(standard)
    for service, variant in _service_variants(model):
        if variant.constraint is None or variant.constraint.active(moment):
            context = dict(variant.when)
            rate_sets |= reader.read(service, [model.get_prices(at, context) for at in _instants(model, moment)])
    if _HAS_PLACES.match(model.id):
        rate_sets |= reader.placed(rate_sets)
    return PriceTerms(
        rate_sets=rate_sets,
        match=match_as_json(model.match),
        context_window=model.context_window,
        unpriced_meters=tuple(sorted(reader.unpriced)),
        note=" ".join([f"From genai-prices {installed_version()}.", *reader.remarks, *_omissions(model)]),
    )


def _instants(model: ModelInfo, moment: datetime) -> list[datetime]:
    """The moment, and on its day each time at which another of the model's prices begins."""
    constraints = [price.constraint for price in model.prices] if isinstance(model.prices, list) else []
    edges = [getattr(constraint, edge, None) for constraint in constraints for edge in ("start_time", "end_time")]
    return [moment, *(datetime.combine(moment.date(), edge, edge.tzinfo or UTC) for edge in edges if edge)]


class _PriceReader:
    """Converts genai's prices to rates and collects what couldn't be kept."""

    def __init__(self) -> None:
        self.unpriced: set[str] = set()
        self.remarks: list[str] = []

    def read(self, service: Service, prices: list[ModelPrice]) -> dict[RateSetKey, dict[str, RateValue]]:
        """One rate set for each context tier; of several prices the most expensive of each meter."""
        keyed = [{key: value for key, value in vars(price).items() if value is not None} for price in prices]
        starts = {
            tier.start + 1 for values in keyed for value in values.values() for tier in getattr(value, "tiers", ())
        }
        if any(values != keyed[0] for values in keyed):
            self._remark("Prices vary by time of day; the highest was taken.")
        sets = {}
        for min_prompt_tokens in sorted({0} | starts):
            rates: dict[str, RateValue] = {}
            for values in keyed:
                for meter, rate in self._rates(values, min_prompt_tokens).items():
                    rates[meter] = max(rate, rates.get(meter, rate), key=lambda rate: rate.amount)
            sets[service, min_prompt_tokens] = rates
        return sets

    def placed(self, rate_sets: Mapping[RateSetKey, Mapping[str, RateValue]]) -> dict[RateSetKey, dict[str, RateValue]]:
        """The same rate set for calls that run in one region; extra meters cost the same everywhere."""
        self._remark(f"Added: {_PLACE_FACTOR:f} times as much for inference_geo={_PLACE}.")
        return {
            (service._replace(inference_geo=_PLACE), size): {
                meter: self._placed(meter, value) if meter in Meter.values else value for meter, value in rates.items()
            }
            for (service, size), rates in rate_sets.items()
        }

    def _placed(self, meter: str, value: RateValue) -> RateValue:
        return RateValue(self._rounded(f"{meter} in {_PLACE}", value.amount * _PLACE_FACTOR), value.per_units)

    def _rates(self, values: Mapping[str, Decimal | TieredPrices], prompt_tokens: int) -> dict[str, RateValue]:
        rates: dict[str, RateValue] = {}
        # Sorted, so that a price of 5 minute cache writes takes precedence over one of cache writes in general.
        for key, value in sorted(values.items()):
            literal = _amount_at(value, prompt_tokens)
            if key in _TOKEN_METERS:
                rates.setdefault(_TOKEN_METERS[key].value, RateValue(self._rounded(key, literal), TOKENS_PER_PRICE))
            elif key in _PER_THOUSAND:
                rates[_PER_THOUSAND[key]] = RateValue(self._rounded(key, literal), 1000)
            else:
                self.unpriced.add(key)
        return rates

    def _rounded(self, key: str, literal: Decimal) -> Decimal:
        rounded = round_half_away(literal, PRICE_DECIMALS)
        if rounded != literal:
            self._remark(f"{ROUNDED} {key} {literal:f} to {rounded:f}.")
        return rounded

    def _remark(self, remark: str) -> None:
        if remark not in self.remarks:
            self.remarks.append(remark)


ROUNDED = "Rounded"
"""Prefix of the remark on rounding; the summary counts these."""


def _amount_at(value: Decimal | TieredPrices, prompt_tokens: int) -> Decimal:
    if isinstance(value, Decimal):
        return value
    passed = [tier.price for tier in value.tiers if prompt_tokens > tier.start]
    return passed[-1] if passed else value.base


def _omissions(model: ModelInfo) -> list[str]:
    unknown = {
        f"{key}={value}"
        for variant in model.price_variants or ()
        for key, value in variant.when.items()
        if key != "processing" and (key not in _SERVICE_KEYS or len(variant.when) > 1)
    }
    return [f"Left out: prices for {', '.join(sorted(unknown))}."] if unknown else []
