"""What must be settled before an invoice can be issued: calls whose figures or prices are not known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.db.models import Count, QuerySet
from django.utils import timezone

from billing.enums import InvoiceKind, InvoiceState
from billing.models import Invoice
from billing.parties import REQUIRED_OF_SELLER, missing_of_seller, missing_seller_settings
from billing.periods import Period
from billing.rollup import usage_sums
from billing.types import UsageSum
from llm.models import Account, Usage

MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class Unsettled:
    """Calls of a period of which something isn't known yet. unpriced: by "provider model".

    undecided_calls: lost ones. disputed_calls: undecided too, but they block nothing: by themselves they are never
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
    sender = _sender_sentences(invoice)
    if invoice.kind == InvoiceKind.CREDIT_NOTE:
        return sender
    sentences = (
        sender if _is_over(invoice.period, invoice.account, now or timezone.now()) else [*sender, _too_early(invoice)]
    )
    starts = {invoice.period_start, *invoice.lines.values_list("period_start", flat=True).distinct()}
    for start in sorted(starts):
        sentences += _sentences(Period(start), unsettled_of(invoice.account_id, Period(start)))
    return sentences


def _sender_sentences(invoice: Invoice) -> list[str]:
    if not (missing := missing_of_seller(invoice)):
        return []
    names = " and ".join(filter(None, (", ".join(missing[:-1]), missing[-1])))
    if not {*missing} & {*missing_seller_settings()}:
        return [f"It was submitted without {names}: send it back and submit it again."]
    hint = " (“none” if there is no tax ID)" if REQUIRED_OF_SELLER["tax_id"] in missing else ""
    then = "" if invoice.state == InvoiceState.DRAFT else ", send it back and submit it again"
    return [f"It doesn't say who sends it: set {names}{hint} in .env and restart{then}."]


def _is_over(period: Period, account: Account, now: datetime) -> bool:
    return now.astimezone(ZoneInfo(account.time_zone)).date() >= period.end


def _too_early(invoice: Invoice) -> str:
    return f"{invoice.period} is not over in {invoice.account.time_zone}: issue the invoice afterwards."


def _sentences(period: Period, unsettled: Unsettled) -> Iterator[str]:
    if number := unsettled.open_calls:
        yield f"{number:,} calls of {period} are still open: wait until they have ended, or until they are reaped."
    if number := unsettled.undecided_calls:
        yield f"{number:,} calls of {period} were lost with their process: decide what they used, under Usage."
    for name, number in unsettled.unpriced[:MOST_NAMED]:
        yield f"{number:,} calls of {period} to {name} have no price: set one and run “manage.py rerate”."
    if (more := len(unsettled.unpriced) - MOST_NAMED) > 0:
        yield f"{more:,} more models of {period} have calls without a price."
