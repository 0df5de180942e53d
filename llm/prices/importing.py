"""genai-prices into our rows: insert what is new, keep what exists."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from llm.enums import PriceSource
from llm.models import Price
from llm.prices import genai
from llm.prices.terms import NewPrice, PriceTerms, content_of, lock_catalog, write_prices

History = list[tuple[datetime, PriceTerms]]


@dataclass(frozen=True)
class PriceImportSummary:
    """The result of one import, counted in models except `new_prices`; `without_price`: models not billed by token."""

    models: int
    new_prices: int
    unchanged: int
    rounded: int
    partly_unpriced: int
    without_price: tuple[str, ...]


@transaction.atomic
def import_prices(
    providers: Collection[str] = tuple(genai.PROVIDER_IDS), *, effective_from: datetime | None = None
) -> PriceImportSummary:
    """Update the imported prices of these providers to the installed genai-prices; a second run writes nothing.

    A new model gets its whole history. For an existing model, a change becomes a new price from `effective_from`
    (default: now) or from its own later start date: what was recorded before keeps its price.
    """
    lock_catalog()
    now = effective_from or timezone.now()
    recorded = _recorded_histories(providers)
    new: list[NewPrice] = []
    histories: list[History] = []
    without_price: list[str] = []
    unchanged = 0
    for provider in providers:
        for model in genai.list_models(provider):
            history = genai.price_history(model)
            if not history:
                without_price.append(model.id)
                continue
            missing = _missing_prices(history, recorded[provider, model.id], now)
            new += [NewPrice(provider, model.id, start, PriceSource.IMPORTED, content) for start, content in missing]
            unchanged += not missing
            histories.append(history)
    if new:
        write_prices(new)
    return PriceImportSummary(
        models=len(histories),
        new_prices=len(new),
        unchanged=unchanged,
        rounded=sum(any(genai.ROUNDED in content.note for _, content in history) for history in histories),
        partly_unpriced=sum(bool(history[-1][1].unpriced_meters) for history in histories),
        without_price=tuple(without_price),
    )


def _recorded_histories(providers: Collection[str]) -> defaultdict[tuple[str, str], History]:
    prices = Price.objects.filter(source=PriceSource.IMPORTED, provider__in=providers)
    histories: defaultdict[tuple[str, str], History] = defaultdict(list)
    for price in prices.prefetch_related("rate_sets__rates").order_by("effective_from"):
        histories[price.provider, price.model].append((price.effective_from, content_of(price)))
    return histories


def _missing_prices(wanted: History, recorded: History, now: datetime) -> History:
    """The prices to add to the recorded history so that from `now` on it equals the wanted one."""
    if not recorded:
        return wanted
    known_until = max((start for start, _ in recorded if start <= now), default=now)
    moments = {now}
    moments |= {start for start, _ in wanted if start > known_until}
    moments |= {start for start, _ in recorded if start > now}
    timeline = dict(recorded)
    missing: History = []
    for moment in sorted(moments):
        # A recorded price at exactly that moment can't change: one a microsecond later replaces it.
        start = moment
        while start in timeline:
            start += timedelta(microseconds=1)
        content = _in_force(wanted, moment)
        if content is not None and content != _in_force(sorted(timeline.items(), key=_start), start):
            timeline[start] = content
            missing.append((start, content))
    return missing


def _in_force(history: History, moment: datetime) -> PriceTerms | None:
    return next((content for start, content in reversed(history) if start <= moment), None)


def _start(entry: tuple[datetime, PriceTerms]) -> datetime:
    return entry[0]
