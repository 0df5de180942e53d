"""`manage.py set_exchange_rate`: what it takes and what it says."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from billing.models import ExchangeRate

pytestmark = pytest.mark.django_db


def run(currency: str, per_usd: str, on: str = "2026-10-31", source: str = "ECB reference rate") -> str:
    output = StringIO()
    call_command("set_exchange_rate", currency, per_usd, "--on", on, "--source", source, stdout=output)
    return output.getvalue()


def test_a_rate_is_recorded_and_said_back() -> None:
    assert run("EUR", "0.92") == "1 USD = 0.920000 EUR (ECB reference rate, 2026-10-31).\n"
    rate = ExchangeRate.objects.get()
    assert (rate.currency, rate.per_usd, rate.on, rate.source, rate.created_by) == (
        "EUR",
        Decimal("0.92"),
        date(2026, 10, 31),
        "ECB reference rate",
        None,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("EUR", "0,92"), "“0,92” is not a number such as 0.92"),
        (("EUR", "nan"), "not a number with at most 6 decimals"),
        (("EUR", "0"), "greater than or equal to 0.000001"),
        (("USD", "1"), "USD is the base currency"),
        (("EURO", "0.92"), "“EURO” is not a supported billing currency"),
        (("EUR", "0.92", "31.10.2026"), "“31.10.2026” is not a valid date, e.g. 2026-10-31"),
        (("EUR", "0.92", "2026-10-31", ""), "cannot be blank"),
    ],
)
def test_what_is_no_rate_is_refused_in_words(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(CommandError, match=words.replace("(", "\\(")):
        run(*arguments)
    assert not ExchangeRate.objects.exists()
