"""What must be settled before an invoice can be issued: calls whose figures or prices are not known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, QuerySet
from django.utils import timezone

from billing.calendar import is_over, local_date
from billing.enums import InvoiceKind
from billing.errors import InvoiceError
from billing.models import Invoice
from billing.periods import Period
from billing.rollup import usage_sums
from billing.types import UsageSum
from llm.models import Usage

MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class Unsettled:
    """Calls of a period of which something isn't known yet. unpriced: by "provider model".

    open_calls: in flight; what they use is billed late. undecided_calls: lost ones. disputed_calls:
    undecided too, but they block nothing: by themselves they are never
    billed, and what staff decide later goes to the next invoice; else a broken upstream could hold up every month.
    """

    open_calls: int
    undecided_calls: int
    disputed_calls: int
    unpriced: tuple[tuple[str, int], ...]

    @property
    def unpriced_calls(self) -> int:
        return sum(calls for _, calls in self.unpriced)


def unsettled_of(account_id: int, period: Period) -> Unsettled:
    """As the rollups and the calls are now."""
    return unsettled_calls({account_id: usage_sums(account_id, period)}, period)[account_id]


def unsettled_calls(usage: Mapping[int, Iterable[UsageSum]], period: Period) -> dict[int, Unsettled]:
    """By account. usage: the period's, by account; of calls that are no usage yet there are indexes of their own."""
    calls = Usage.objects.filter(account__in=usage, local_day__gte=period.start, local_day__lt=period.end)
    open_calls = _count(calls.open(), "account_id")
    undecided = _count(calls.undecided(), "account_id", "is_disputed")
    return {
        account_id: Unsettled(
            open_calls[account_id,], undecided[account_id, False], undecided[account_id, True], _unpriced(sums)
        )
        for account_id, sums in usage.items()
    }


def _count(calls: QuerySet[Usage], *group: str) -> Counter[tuple[Any, ...]]:
    counted = calls.order_by().values_list(*group).annotate(number=Count("id"))
    return Counter({tuple(key): number for *key, number in counted})


def _unpriced(usage: Iterable[UsageSum]) -> tuple[tuple[str, int], ...]:
    calls: Counter[tuple[str, str]] = Counter()
    for each in usage:
        calls[each.provider, each.model] += each.unpriced_calls
    return tuple((f"{provider} {model}", number) for (provider, model), number in sorted(calls.items()) if number)


def blockers_of(invoice: Invoice, *, now: datetime | None = None) -> list[str]:
    """Sentences, each with what to do; empty where the invoice can be issued once it is approved."""
    if invoice.kind == InvoiceKind.CREDIT_NOTE:
        return []
    sentences = list(_too_early(invoice, now or timezone.now()))
    starts = {invoice.period_start, *invoice.lines.values_list("period_start", flat=True).distinct()}
    for start in sorted(starts):
        sentences += _sentences(Period(start), unsettled_of(invoice.account_id, Period(start)))
    return sentences


def require_ended(invoice: Invoice) -> None:
    """Raises InvoiceError with a sentence where the invoice's month isn't over."""
    for sentence in _too_early(invoice, timezone.now()):
        raise InvoiceError(sentence)


def _too_early(invoice: Invoice, now: datetime) -> Iterator[str]:
    """Usage goes on until the month's end, and what is frozen before leaves the rest of it out."""
    period, account = invoice.period, invoice.account
    if not is_over(period, account, now):
        yield (
            f"{period} is not over in {account.time_zone}: the invoice can be submitted from {period.end.isoformat()} "
            "on, or once the account is closed."
        )
    elif invoice.is_frozen and invoice.submitted_at is not None and not is_over(period, account, invoice.submitted_at):
        day = local_date(account, invoice.submitted_at).isoformat()
        yield f"It was submitted on {day}, before {period} was over: send it back and submit it again."


def open_calls_note(invoice: Invoice) -> str:
    """How many calls of the month are in flight: they hold up nothing, and are billed late. "" where there are none."""
    if invoice.kind == InvoiceKind.CREDIT_NOTE:
        return ""
    number = unsettled_of(invoice.account_id, invoice.period).open_calls
    calls = "1 call" if number == 1 else f"{number:,} calls"
    return f"{calls} of {invoice.period} still in flight: late usage, billed on the next invoice." if number else ""


def _sentences(period: Period, unsettled: Unsettled) -> Iterator[str]:
    if number := unsettled.undecided_calls:
        yield f"{number:,} calls of {period} were lost with their process: decide what they used, under Usage."
    for name, number in unsettled.unpriced[:MOST_NAMED]:
        yield f"{number:,} calls of {period} to {name} have no price: set one and run “manage.py rerate”."
    if (more := len(unsettled.unpriced) - MOST_NAMED) > 0:
        yield f"{more:,} more models of {period} have calls without a price."
