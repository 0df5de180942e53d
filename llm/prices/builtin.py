"""Prices that needn't be looked up: the built-in echo provider costs nothing, under any model name."""

from __future__ import annotations

from datetime import UTC, datetime

from django.db import transaction

from llm.enums import PriceSource
from llm.models import Price
from llm.prices.terms import NewPrice, PriceTerms, lock_catalog, write_prices

ECHO = "echo"
_SINCE_EVER = datetime(2000, 1, 1, tzinfo=UTC)
_FREE = PriceTerms(
    rate_sets={}, match={"starts_with": ""}, is_free=True, note="built in: echo is a part of the gateway"
)


@transaction.atomic
def ensure_builtin_prices() -> bool:
    """Whether one was missing. Staff may still price echo: theirs take precedence."""
    lock_catalog()
    if Price.objects.filter(provider=ECHO, source=PriceSource.IMPORTED).exists():
        return False
    write_prices([NewPrice(ECHO, ECHO, _SINCE_EVER, PriceSource.IMPORTED, _FREE)])
    return True
