"""Currencies that accounts can be billed in, and how many decimals their amounts have (ISO 4217, 2024)."""

from __future__ import annotations

from decimal import Decimal

from django.core.exceptions import ValidationError

_CODES = {
    0: "CLP ISK JPY KRW PYG RWF UGX VND XAF XOF XPF",
    2: "AED ALL AMD ARS AUD AZN BAM BDT BGN BOB BRL CAD CHF CNY COP CRC CZK DKK DOP DZD EGP EUR GBP GEL GHS GTQ HKD "
    "HNL HUF IDR ILS INR JMD KES KGS KHR KZT LKR MAD MDL MKD MXN MYR NGN NIO NOK NPR NZD PAB PEN PHP PKR PLN QAR RON "
    "RSD RUB SAR SEK SGD THB TRY TTD TWD TZS UAH USD UYU UZS ZAR ZMW",
    3: "BHD IQD JOD KWD LYD OMR TND",
}

DECIMALS: dict[str, int] = {code: decimals for decimals, codes in _CODES.items() for code in codes.split()}

MAX_DECIMALS = 3

COST_CURRENCY = "USD"
"""The currency in which providers charge us."""


def currency_choices(*, without: str = "") -> list[tuple[str, str]]:
    """The codes, for a form's field."""
    return [(code, code) for code in sorted(DECIMALS) if code != without]


def validate_currency(code: str) -> None:
    if code not in DECIMALS:
        raise ValidationError(f"“{code}” is not a supported billing currency, such as USD, EUR or JPY.")


def format_money(amount: Decimal, currency: str) -> str:
    """As printed on an invoice: all of the currency's decimals, thousands separated, no symbol; `1,234.50`."""
    return f"{amount:,.{DECIMALS[currency]}f}"
