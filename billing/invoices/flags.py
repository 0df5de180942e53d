"""What a reviewer should look at. Flags stop nothing: `blockers` do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

from django.db.models import Q
from django.utils import timezone

from billing.calendar import local_date
from billing.countries import is_country
from billing.enums import InvoiceKind, LineKind
from billing.invoices.blockers import Unsettled
from billing.invoices.glyphs import find_missing
from billing.invoices.parties import bill_to_of, missing_of_seller
from billing.models import BillingProfile, Invoice, InvoiceLine
from billing.periods import BillingPeriod
from llm.models import ApiKey

FLAGS: Mapping[str, str] = {
    "open": "open calls",
    "undecided": "lost calls",
    "disputed": "disputed calls",
    "unpriced": "unpriced calls",
    "estimated": "many estimates",
    "jump": "jump from previous month",
    "first": "first invoice",
    "new_key": "new key",
    "late": "late usage",
    "catch_up": "fees of an earlier month",
    "one_off": "one-off line",
    "negative": "negative line",
    "loss": "charged below cost",
    "profile": "incomplete profile",
    "seller": "incomplete seller",
    "glyphs": "characters without a font",
}

ESTIMATED_PERMILLE = 50
"""From this share of the cost on, estimates are flagged."""
JUMP_PERCENT = 50
_FARTHEST_FROM_UTC = timedelta(hours=14)


def find_flags(
    invoice: Invoice,
    lines: Sequence[InvoiceLine],
    *,
    profile: BillingProfile,
    unsettled: Unsettled,
    is_first: bool,
    is_key_new: bool,
) -> list[str]:
    """Codes of FLAGS, in their order."""
    found = {
        "open": unsettled.open_calls > 0,
        "undecided": unsettled.undecided_calls > 0,
        "disputed": unsettled.disputed_calls > 0,
        "unpriced": unsettled.unpriced_calls > 0,
        "estimated": invoice.estimated_permille >= ESTIMATED_PERMILLE,
        "jump": _jumps(invoice.total, invoice.previous_total) or _jumps(invoice.cost_usd, invoice.previous_cost_usd),
        "first": is_first,
        "new_key": is_key_new,
        "late": any(line.period_start != invoice.period_start for line in lines),
        "catch_up": _is_catching_up(invoice, lines),
        "one_off": any(line.kind == LineKind.ONE_OFF for line in lines),
        "negative": any(line.amount < 0 for line in _charges(lines)),
        "loss": _is_below_cost(invoice),
        "profile": not (profile.address and profile.email) or not _has_real_country(profile),
        "seller": bool(missing_of_seller(invoice)),
        "glyphs": bool(find_missing(invoice, lines, profile)),
    }
    return [code for code in FLAGS if found[code]]


def flags_of_note(note: Invoice, lines: Sequence[InvoiceLine]) -> list[str]:
    """Flags of a credit note: only missing characters. Everything else was reviewed with its invoice."""
    return ["glyphs"] if find_missing(note, lines, bill_to_of(note)) else []


def labels_of(invoice: Invoice) -> list[str]:
    return [FLAGS.get(code, code) for code in invoice.flags]


def _has_real_country(profile: BillingProfile) -> bool:
    """Older profiles may have two letters that aren't a country; they stay until a country is chosen."""
    return not profile.country or is_country(profile.country)


def _jumps(total: Decimal, previous: Decimal | None) -> bool:
    if previous is None:
        return False
    return abs(total - previous) * 100 > abs(previous) * JUMP_PERCENT


def _charges(lines: Sequence[InvoiceLine]) -> Iterator[InvoiceLine]:
    """Allowances and discounts are negative by nature, and one-off lines have a flag of their own."""
    return (line for line in lines if line.kind not in (LineKind.ALLOWANCE, LineKind.DISCOUNT, LineKind.ONE_OFF))


def _is_below_cost(invoice: Invoice) -> bool:
    return invoice.subtotal < invoice.cost_usd * (invoice.per_usd or 1)


def _is_catching_up(invoice: Invoice, lines: Sequence[InvoiceLine]) -> bool:
    """Whether it is an earlier month with fees only that wasn't billed in its time."""
    if invoice.kind != InvoiceKind.REGULAR or any(line.kind == LineKind.USAGE for line in lines):
        return False
    this_month = BillingPeriod.of(local_date(invoice.account, timezone.now()))
    return invoice.period < this_month.previous


def accounts_with_new_keys(account_ids: Iterable[int], period: BillingPeriod) -> frozenset[int]:
    """Accounts that got a key in the period, by their own days."""
    # Covers every time zone: a local day begins up to 14 hours before UTC's and ends up to 12 hours after it.
    first, end = (datetime.combine(day, time.min, UTC) for day in (period.start, period.end))
    near = Q(created_at__gte=first - _FARTHEST_FROM_UTC, created_at__lt=end + _FARTHEST_FROM_UTC)
    keys = ApiKey.objects.filter(near, account__in=account_ids).select_related("account__billing_profile")
    return frozenset(
        key.account_id for key in keys if BillingPeriod.of(local_date(key.account, key.created_at)) == period
    )
