"""Figures for people. Each also has an exact form, which pages show on hover or in full."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from uuid import UUID

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from llm.money import format_usd, round_half_away

NOTHING = "\N{EN DASH}"

_STEPS = ((10**9, "B"), (10**6, "M"), (10**3, "k"))
_EXACT_BELOW = 10_000
_SIGNIFICANT = 6

TONES = {
    "active": "good",
    "settled": "good",
    "ok": "good",
    "in force": "good",
    "free": "good",
    "open": "info",
    "pending": "info",
    "later": "info",
    "expires": "warn",
    "ends": "warn",
    "estimated": "warn",
    "suspended": "warn",
    "unpriced": "warn",
    "partly unpriced": "warn",
    "disputed": "bad",
    "expired": "mute",
    "revoked": "bad",
    "closed": "mute",
    "void": "mute",
    "superseded": "mute",
    "client_gone": "mute",
    "not_sent": "mute",
    "upstream_refused": "bad",
    "upstream_failed": "bad",
    "upstream_unreachable": "bad",
    "timeout": "bad",
    "shutdown": "bad",
    "lost": "bad",
    "corrected": "info",
    "ended": "mute",
    "alive": "good",
    "silent": "bad",
    "waiting": "info",
    "sent": "good",
    "not delivered": "bad",
    "problems": "bad",
    "no problems": "good",
}


def short_count(number: int) -> str:
    """9,999 in full, then 12.3k, 4.56M, 7.89B: three digits, truncated, so that 999,999 isn't “1000k”."""
    if abs(number) < _EXACT_BELOW:
        return f"{number:,}"
    for size, letter in _STEPS:
        if abs(number) >= size:
            decimals = 3 - len(str(abs(number) // size))
            cut = Decimal(abs(number) * 10**decimals // size).scaleb(-decimals)
            return f"{'-' if number < 0 else ''}{cut:f}{letter}"
    return f"{number:,}"


def short_usd(amount: Decimal) -> str:
    """Six significant digits at most, two decimals at least: 1,234.57, 0.0123, 0.00000275."""
    if not amount:
        return "0.00"
    decimals = max(2, _SIGNIFICANT - 1 - amount.adjusted())
    if amount.adjusted() >= 0:
        decimals = max(2, min(4, decimals))
    rounded = round_half_away(amount, decimals)
    return with_commas(format_usd(rounded))


def brief_usd(amount: Decimal) -> str:
    """Two decimals from 1, two significant digits below: 1,234.57, 0.25, 0.012, 0.0000027."""
    decimals = 2 if not amount or amount.adjusted() >= 0 else max(2, 1 - amount.adjusted())
    text = format_usd(round_half_away(abs(amount), decimals))
    return f"{'-' if amount < 0 else ''}${with_commas(text)}"


def with_commas(plain: str) -> str:
    """Adds thousands separators to a fixed-point text; decimals stay."""
    whole, dot, fraction = plain.partition(".")
    return f"{int(whole):,}{dot}{fraction}"


def milliseconds(value: int | None) -> str:
    """87 ms, 1.24 s, 3 min 05 s."""
    if value is None:
        return NOTHING
    if value < 1000:
        return f"{value} ms"
    if value < 60_000:
        return f"{(Decimal(value) / 1000).quantize(Decimal('0.01'), ROUND_HALF_UP)} s"
    minutes, rest = divmod(value // 1000, 60)
    return f"{minutes} min {rest:02d} s"


def moment(value: datetime | None) -> SafeString | str:
    """A moment in UTC: to the minute, with the exact second for machines and on hover."""
    if value is None:
        return NOTHING
    in_utc = value.astimezone(UTC)
    return format_html(
        '<time class="gw-time" datetime="{}" title="{} UTC">{}</time>',
        in_utc.isoformat(),
        in_utc.strftime("%Y-%m-%d %H:%M:%S"),
        in_utc.strftime("%Y-%m-%d %H:%M"),
    )


def calendar_day(value: datetime) -> SafeString:
    """The day in UTC; the full time shows on hover."""
    in_utc = value.astimezone(UTC)
    return format_html(
        '<time class="gw-time" datetime="{}" title="{} UTC">{}</time>',
        in_utc.isoformat(),
        in_utc.strftime("%Y-%m-%d %H:%M:%S"),
        in_utc.strftime("%Y-%m-%d"),
    )


def exact_moment(value: datetime) -> SafeString:
    """To the millisecond."""
    in_utc = value.astimezone(UTC)
    text = in_utc.isoformat(" ", "milliseconds").removesuffix("+00:00")
    return format_html('<time class="gw-time" datetime="{}">{} UTC</time>', in_utc.isoformat(), text)


def moment_of_id(identifier: UUID | None) -> datetime | None:
    """When a uuid7 was made."""
    return None if identifier is None else datetime.fromtimestamp((identifier.int >> 80) / 1000, UTC)


def badge(kind: str, text: str | None = None) -> SafeString:
    """kind: a key of `TONES`, which gives the colour; others are plain."""
    return format_html('<span class="gw-badge gw-badge-{}">{}</span>', TONES.get(kind, "mute"), text or kind)


def side_by_side(badges: Iterable[SafeString]) -> SafeString:
    return format_html_join(" ", "{}", ((one,) for one in badges))


def tokens(number: int) -> SafeString:
    return format_html('<span class="gw-num" title="{}">{}</span>', f"{number:,}", short_count(number))


def usd(amount: Decimal | None) -> SafeString | str:
    if amount is None:
        return NOTHING
    return format_html(
        '<span class="gw-num" title="${}">${}</span>', with_commas(format_usd(amount)), short_usd(amount)
    )


def usd_at_a_glance(amount: Decimal) -> SafeString:
    """`brief_usd`; the exact figure shows on hover."""
    return format_html('<span class="gw-num" title="{}">{}</span>', exact_usd(amount), brief_usd(amount))


def exact_usd(amount: Decimal | None) -> str:
    return NOTHING if amount is None else f"${with_commas(format_usd(amount))}"


def signed_count(number: int) -> str:
    """A difference: +1,200, -35, or a dash for none."""
    return f"{number:+,}" if number else NOTHING


def signed_usd(amount: Decimal | None) -> str:
    """An exact difference: +$1.25, -$0.03, or a dash for none."""
    if not amount:
        return NOTHING
    return f"{'-' if amount < 0 else '+'}{exact_usd(abs(amount))}"
