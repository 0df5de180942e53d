"""Exact money: whole numbers of pico-units in storage and arithmetic, `Decimal` USD for people. Never a float.

Prices are USD per million tokens with at most 6 decimals, so one token costs a whole number of pico-units (1e-12 USD).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from decimal import ROUND_HALF_UP, Context, Decimal, Inexact, InvalidOperation, Overflow, localcontext

PICO_DECIMALS = 12
PICO: int = 10**PICO_DECIMALS
"""Pico-units a USD."""

PRICE_DECIMALS = 6
"""Decimals that a price per million tokens may have."""

# Python's default context silently rounds at 28 digits; sums of pico-units may have 38.
_EXACT = Context(prec=100, traps=[Inexact, InvalidOperation, Overflow])
_ROUNDING = Context(prec=100, rounding=ROUND_HALF_UP, traps=[InvalidOperation, Overflow])
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)", re.ASCII)


def exact_arithmetic() -> AbstractContextManager[Context]:
    """Inside it the operators of Decimal are exact, or raise Inexact; outside they round at 28 digits."""
    return localcontext(_EXACT)


def exact_sum(amounts: Iterable[Decimal]) -> Decimal:
    """Of any number of digits; 0 for no amounts."""
    with exact_arithmetic():
        return sum(amounts, Decimal(0))


def to_units(amount: Decimal, decimals: int) -> int:
    """`amount` as a whole number of 10**-decimals. Raises ValueError if that isn't exact."""
    if not amount.is_finite():
        raise ValueError(f"{amount} is not a finite amount")
    try:
        scaled = amount.scaleb(decimals, context=_EXACT)
    except Inexact as error:
        raise ValueError(f"{amount} has more digits than an amount may have") from error
    units = int(scaled)
    if units != scaled:
        raise ValueError(f"{amount:f} has more than {decimals} decimals")
    return units


def from_units(units: int, decimals: int) -> Decimal:
    """The exact inverse of `to_units`, with exactly `decimals` decimals."""
    return Decimal(units).scaleb(-decimals, context=_EXACT)


def usd_to_pico(amount: Decimal) -> int:
    """Whole pico-units of an amount in USD; raises ValueError beyond 12 decimals."""
    return to_units(amount, PICO_DECIMALS)


def pico_to_usd(pico: int) -> Decimal:
    """USD with 12 decimals, exact for any number of digits."""
    return from_units(pico, PICO_DECIMALS)


def per_million_to_pico(price: Decimal) -> int:
    """USD per million tokens -> pico-units per token; raises ValueError beyond 6 decimals."""
    return to_units(price, PRICE_DECIMALS)


def pico_to_per_million(pico: int) -> Decimal:
    """Pico-units per token -> USD per million tokens, with 6 decimals."""
    return from_units(pico, PRICE_DECIMALS)


def parse_usd_per_million(text: str) -> Decimal:
    """A price as people type it, with at most 6 decimals and no exponent. Raises ValueError with a message for them."""
    text = text.strip()
    if not _PLAIN_NUMBER.fullmatch(text):
        raise ValueError(f"“{text}” is not a plain number such as 2.50")
    price = Decimal(text)
    if price.is_signed() and price:
        raise ValueError(f"“{text}” is negative; a price is 0 or more")
    try:
        return pico_to_per_million(per_million_to_pico(price))
    except ValueError as error:
        raise ValueError(f"“{text}” has more than {PRICE_DECIMALS} decimals") from error


def round_half_away(amount: Decimal, decimals: int) -> Decimal:
    """`amount` with exactly `decimals` decimals; rounds half away from zero, as on invoices. Never negative zero."""
    return _ROUNDING.plus(amount.quantize(Decimal(1).scaleb(-decimals), context=_ROUNDING))


def format_usd(amount: Decimal, *, min_decimals: int = 2) -> str:
    """Exact fixed-point text without exponent or trailing zeros beyond two decimals: 0.0000025, 2.50, 0.00."""
    text = f"{amount:f}"
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0").ljust(min_decimals, "0")
    if whole == "-0" and not fraction.strip("0"):
        whole = "0"
    return f"{whole}.{fraction}" if fraction else whole


def plural(number: int, noun: str) -> str:
    """A count in a sentence: `1 call`, `1,234 calls`; for nouns that take an s."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
