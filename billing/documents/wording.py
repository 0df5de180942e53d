"""How numbers, dates and names are written in a document. Pure, and the same under every locale."""

from __future__ import annotations

import unicodedata
from datetime import UTC, date, datetime
from decimal import Decimal

from billing.periods import BillingPeriod, month_name


def text_of_day(day: date) -> str:
    """`3 November 2026`: no reader can swap day and month."""
    return f"{day.day} {text_of_month(BillingPeriod.of(day))}"


def text_of_month(period: BillingPeriod) -> str:
    return f"{month_name(period.start)} {period.start.year}"


def text_of_days(period: BillingPeriod) -> str:
    """`1–31 October 2026`."""  # noqa: RUF002
    return f"1–{text_of_day(period.last_day)}"  # noqa: RUF001


def text_of_moment(moment: datetime) -> str:
    """In UTC, to the microsecond if it has any."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(sep=' ')} UTC"


def text_of_exact(number: Decimal, *, min_decimals: int = 0) -> str:
    """All digits without trailing zeros, thousands separated: `1,234.50`, `0.0000025`."""
    whole, _, fraction = f"{number:,f}".partition(".")
    fraction = fraction.rstrip("0").ljust(min_decimals, "0")
    return f"{whole}.{fraction}" if fraction else whole


def one_line(text: str) -> str:
    """Text of a one-line field: accents composed, whitespace collapsed."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def several_lines(text: str) -> tuple[str, ...]:
    """The non-empty lines."""
    return tuple(line for line in map(one_line, text.splitlines()) if line)
