"""The catalog for admin pages: read once for many pages, never outdated."""

from __future__ import annotations

from decimal import Decimal

from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from llm.admin.format import NOTHING, badge
from llm.enums import Meter
from llm.models import CatalogVersion
from llm.money import format_usd, pico_to_per_million
from llm.prices.catalog import Catalog, CatalogCache, load_catalog
from llm.prices.pricing import STANDARD, PriceSnapshot

_cache = CatalogCache()


def current_catalog() -> Catalog:
    _cache.invalidate(CatalogVersion.current())
    catalog = _cache.current()
    if catalog is None:
        catalog = load_catalog()
        _cache.store(catalog)
    return catalog


def price_in_force(provider: str, model: str) -> SafeString:
    """The current standard rates, or a badge that says why there are none."""
    price = current_catalog().price_for(provider, model, at=timezone.now())
    if price is None:
        return badge("unpriced")
    if price.is_free:
        return badge("free")
    rates = _standard_rates(price)
    return format_html(
        '<span class="gw-num">${} in · ${} out</span> <span class="gw-hint">per million</span>',
        _per_million(rates.get(Meter.INPUT.value)),
        _per_million(rates.get(Meter.OUTPUT.value)),
    )


def _standard_rates(price: PriceSnapshot) -> dict[str, int]:
    standard = (rate_set for rate_set in price.rate_sets if rate_set.service == STANDARD)
    first = min(standard, key=lambda rate_set: rate_set.min_prompt_tokens, default=None)
    return dict(first.rates) if first else {}


def _per_million(pico: int | None) -> str:
    return NOTHING if pico is None else format_usd(pico_to_per_million(pico) if pico else Decimal(0))
