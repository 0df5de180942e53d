"""The one-off lines of accounts' months, and what of them was billed. See `billing.models.OneOffLine`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal

from billing.currencies import format_money
from billing.errors import NotBillableError
from billing.models import Invoice, InvoiceLine, OneOffLine
from billing.periods import BillingPeriod
from llm.fields import ExactSum

OneOffs = Mapping[tuple[int, date], Sequence[OneOffLine]]
"""By account and first day of the month; without those that were removed."""


def load_one_offs(account_ids: Collection[int]) -> OneOffs:
    """Call it with the accounts' profiles locked: lines are added and removed under the same lock."""
    found: dict[tuple[int, date], list[OneOffLine]] = defaultdict(list)
    for each in OneOffLine.objects.filter(account__in=account_ids, removed_at=None).order_by("id"):
        found[each.account_id, each.period_start].append(each)
    return found


def keys_with_own_tax(account_id: int, period: BillingPeriod) -> set[str]:
    """Keys of lines whose tax rate says nothing about that of their month."""
    rows = OneOffLine.objects.filter(account=account_id, period_start=period.start, tax_percent__isnull=False)
    return {each.key for each in rows}


def billed_amounts(
    account_id: int, one_offs: Iterable[OneOffLine], *, among: Iterable[int] | None = None
) -> Mapping[str, Decimal]:
    """What documents that count charge for each, by key; among: only these documents."""
    documents = Invoice.objects.charging().filter(account=account_id)
    documents = documents if among is None else Invoice.objects.filter(pk__in=list(among))
    lines = InvoiceLine.objects.filter(invoice__in=documents, key__in=[each.key for each in one_offs]).order_by()
    return dict(lines.values_list("key").annotate(billed=ExactSum("amount")))


def require_currency(one_offs: Iterable[OneOffLine], currency: str) -> None:
    """Raises NotBillableError for a line that was added in another currency and isn't billed: it would be lost."""
    for each in one_offs:
        if each.currency != currency and not billed_amounts(each.account_id, [each]).get(each.key):
            raise NotBillableError(
                f"The one-off line “{each}” of {format_money(each.amount, each.currency)} {each.currency} can't be "
                f"billed in {currency}: remove it, and add it again in {currency}."
            )


def expected_one_offs(
    account_id: int, period: BillingPeriod, *, currency: str, among: Sequence[int]
) -> list[OneOffLine]:
    """The lines that the month should be billed with, for a check.

    among: the documents in question. A line that was removed after a correction had taken it back is still expected on
    the documents from before.
    """
    rows = list(OneOffLine.objects.filter(account=account_id, period_start=period.start, currency=currency))
    removed = [each for each in rows if each.removed_at is not None]
    billed = billed_amounts(account_id, removed, among=among) if removed else {}
    return [each for each in rows if each.removed_at is None or billed.get(each.key)]
