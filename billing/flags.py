"""What a reviewer should look at. Flags stop nothing: `blockers` do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, time
from decimal import Decimal

from billing.blockers import Unsettled
from billing.models import BillingProfile, Invoice, InvoiceLine
from billing.parties import missing_of_seller
from billing.periods import Period
from llm.models import ApiKey

FLAGS: Mapping[str, str] = {
    "open": "open calls",
    "undecided": "lost calls",
    "disputed": "disputed calls",
    "unpriced": "unpriced calls",
    "estimated": "many estimates",
    "jump": "jump against last month",
    "first": "first invoice",
    "new_key": "new key",
    "late": "late usage",
    "negative": "negative line",
    "loss": "charged below cost",
    "profile": "incomplete profile",
    "seller": "incomplete seller",
}

ESTIMATED_PERMILLE = 50
"""From this share of the cost on, estimates are worth a look."""
JUMP_PERCENT = 50


def flags_of(
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
        "jump": _jumps(invoice.total, invoice.previous_total),
        "first": is_first,
        "new_key": is_key_new,
        "late": any(line.period_start != invoice.period_start for line in lines),
        "negative": any(line.amount < 0 for line in _charges(lines)),
        "loss": _is_below_cost(invoice),
        "profile": not (profile.address and profile.email),
        "seller": bool(missing_of_seller(invoice)),
    }
    return [code for code in FLAGS if found[code]]


def labels_of(invoice: Invoice) -> list[str]:
    return [FLAGS.get(code, code) for code in invoice.flags]


def _jumps(total: Decimal, previous: Decimal | None) -> bool:
    if previous is None:
        return False
    return abs(total - previous) * 100 > abs(previous) * JUMP_PERCENT


def _charges(lines: Sequence[InvoiceLine]) -> Iterator[InvoiceLine]:
    """Allowances and discounts are negative by nature."""
    return (line for line in lines if line.kind not in ("allowance", "discount"))


def _is_below_cost(invoice: Invoice) -> bool:
    return invoice.subtotal < invoice.cost_usd * (invoice.per_usd or 1)


def accounts_with_new_keys(account_ids: Iterable[int], period: Period) -> frozenset[int]:
    """Those of which a key was made in the period, by UTC days."""
    first, end = (datetime.combine(day, time.min, UTC) for day in (period.start, period.end))
    keys = ApiKey.objects.filter(account__in=account_ids, created_at__gte=first, created_at__lt=end)
    return frozenset(keys.order_by().values_list("account_id", flat=True).distinct())
