"""What must be settled before an invoice can be issued: calls whose figures or prices are not known."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, Prefetch, Q, QuerySet
from django.utils import timezone

from billing.calendar import is_over, local_date
from billing.enums import InvoiceKind, InvoiceState
from billing.errors import InvoiceError
from billing.invoices.parties import REQUIRED_OF_SELLER, missing_of_seller, missing_seller_settings
from billing.models import Invoice
from billing.periods import BillingPeriod
from billing.rollup import usage_sums
from billing.types import UsageSum
from llm.books.figures import TOOLS_UNREPORTED, compute_figures
from llm.models import OpenCall, Usage, UsageAdjustment
from llm.models.usage import UsageQuerySet
from llm.money import plural
from llm.prices.pricing import unusual_words
from llm.types import Service

MAX_NAMED = 10


@dataclass(frozen=True, slots=True)
class Unsettled:
    """Calls of a period of which something isn't known yet. unpriced: by "provider model".

    open_calls: in flight; their usage is billed late. undecided_calls: lost ones. disputed_calls: undecided too, but
    they block nothing: they aren't billed unless staff decide so, and then on the next invoice; otherwise a broken
    upstream could hold up every month.
    """

    open_calls: int
    undecided_calls: int
    disputed_calls: int
    unpriced: tuple[tuple[str, int], ...]

    @property
    def unpriced_calls(self) -> int:
        return sum(calls for _, calls in self.unpriced)


def count_unsettled(account_id: int, period: BillingPeriod) -> Unsettled:
    """Counted from the rollups and the calls as they are now."""
    return unsettled_calls({account_id: usage_sums(account_id, period)}, period)[account_id]


def unsettled_calls(usage: Mapping[int, Iterable[UsageSum]], period: BillingPeriod) -> dict[int, Unsettled]:
    """By account. usage: the period's, by account; calls that aren't usage yet are found by their own indexes."""
    which = Q(account__in=usage, local_day__gte=period.start, local_day__lt=period.end)
    open_calls = _count(OpenCall.objects.filter(which), "account_id")
    undecided = _count(Usage.objects.filter(which).undecided(), "account_id", "is_disputed")
    return {
        account_id: Unsettled(
            open_calls[account_id,], undecided[account_id, False], undecided[account_id, True], _unpriced(sums)
        )
        for account_id, sums in usage.items()
    }


def _count(calls: QuerySet[Any], *group: str) -> Counter[tuple[Any, ...]]:
    counted = calls.order_by().values_list(*group).annotate(number=Count("id"))
    return Counter({tuple(key): number for *key, number in counted})


def _unpriced(usage: Iterable[UsageSum]) -> tuple[tuple[str, int], ...]:
    calls: Counter[tuple[str, str]] = Counter()
    for each in usage:
        calls[each.provider, each.model] += each.unpriced_calls
    return tuple((f"{provider} {model}", number) for (provider, model), number in sorted(calls.items()) if number)


def find_blockers(invoice: Invoice, *, now: datetime | None = None) -> list[str]:
    """Sentences, each with what to do; empty if the invoice can be issued once it is approved."""
    sentences = [*_sender_sentences(invoice)]
    if invoice.kind == InvoiceKind.CREDIT_NOTE and not invoice.is_reduction:
        return sentences
    if invoice.kind != InvoiceKind.CREDIT_NOTE:
        if invoice.total < 0:
            return ["Its total is negative: send it back. Refunds are made by separate credit notes."]
        sentences += _too_early(invoice, now or timezone.now())
    starts = {invoice.period_start, *invoice.lines.values_list("period_start", flat=True).distinct()}
    for start in sorted(starts):
        period, unsettled = BillingPeriod(start), count_unsettled(invoice.account_id, BillingPeriod(start))
        if not invoice.is_reduction:
            sentences += _undecided_sentences(period, unsettled)
        # A billed call may have lost its price since: the refund is unknown until it has one again.
        sentences += _unpriced_sentences(invoice, period, unsettled)
    return sentences


def require_ended(invoice: Invoice) -> None:
    """Raises InvoiceError with a sentence if the invoice's month isn't over."""
    if sentence := why_too_early(invoice):
        raise InvoiceError(sentence)


def why_too_early(invoice: Invoice) -> str:
    """A sentence if the invoice's month isn't over; "" if it is, and for credit notes, which needn't wait."""
    return "" if invoice.kind == InvoiceKind.CREDIT_NOTE else next(_too_early(invoice, timezone.now()), "")


def _sender_sentences(invoice: Invoice) -> list[str]:
    if not (missing := missing_of_seller(invoice)):
        return []
    names = " and ".join(filter(None, (", ".join(missing[:-1]), missing[-1])))
    if not {*missing} & {*missing_seller_settings()}:
        return [f"It was submitted without {names}: send it back and submit it again."]
    hint = " (“none” if there is no tax ID)" if REQUIRED_OF_SELLER["tax_id"] in missing else ""
    then = "" if invoice.state == InvoiceState.DRAFT else ", send it back and submit it again"
    return [f"The seller's details are incomplete: set {names}{hint} in .env and restart{then}."]


def _too_early(invoice: Invoice, now: datetime) -> Iterator[str]:
    """Usage continues until the end of the month, and an invoice frozen before that would miss the rest of it."""
    period, account = invoice.period, invoice.account
    if not is_over(period, account, now):
        yield (
            f"{period} has not ended in {account.time_zone} yet: the invoice can be submitted from "
            f"{period.end.isoformat()}, or once the account is closed."
        )
    elif invoice.is_frozen and invoice.submitted_at is not None and not is_over(period, account, invoice.submitted_at):
        day = local_date(account, invoice.submitted_at).isoformat()
        yield f"It was submitted on {day}, before {period} had ended: send it back and submit it again."


def open_calls_note(invoice: Invoice) -> str:
    """How many calls of the month are in flight: they hold up nothing and are billed late. "" if there are none."""
    if invoice.kind == InvoiceKind.CREDIT_NOTE:
        return ""
    number = count_unsettled(invoice.account_id, invoice.period).open_calls
    if not number:
        return ""
    return f"{_calls(number)} of {invoice.period} still in flight: late usage, billed on the next invoice."


def _calls(number: int) -> str:
    return plural(number, "call")


def _unpriced_services(account_id: int, period: BillingPeriod) -> dict[str, list[str]]:
    """How unpriced calls were served, if not in the standard way, by "provider model": callers may request a service
    tier or a tool of the provider that the model's price doesn't list.
    """
    calls = Usage.objects.filter(account=account_id, local_day__gte=period.start, local_day__lt=period.end)
    found: dict[str, set[str]] = defaultdict(set)
    for provider, model, flags, *service in _ways_of_unpriced(calls):
        found[f"{provider} {model}"] |= {*unusual_words(Service(*service))}
        if TOOLS_UNREPORTED in flags.split():
            found[f"{provider} {model}"].add(_TOOLS)
    return {name: sorted(words) for name, words in found.items()}


def _ways_of_unpriced(calls: UsageQuerySet) -> Iterator[tuple[str, ...]]:
    """Provider, model, flags and service of billable calls: each once as in the rows, then as corrected."""
    columns = ("provider", "model", "flags", *Service._fields)
    yield from calls.never_priced().filter(is_billable=True).order_by().values_list(*columns).distinct()
    for call in calls.cost_taken_back().prefetch_related(_IN_ORDER):
        figures = compute_figures(call, call.adjustments.all())
        if figures.is_billable:
            yield call.provider, call.model, figures.flags, *figures.service


_IN_ORDER = Prefetch("adjustments", queryset=UsageAdjustment.objects.order_by("id"))


_TOOLS = "tools that the provider ran and didn't report"


def _undecided_sentences(period: BillingPeriod, unsettled: Unsettled) -> Iterator[str]:
    if number := unsettled.undecided_calls:
        were, they = ("was", "it") if number == 1 else ("were", "they")
        lost = f"{_calls(number)} of {period} {were} lost when the gateway restarted"
        yield f"{lost}: decide what {they} used, under Usage."


def _unpriced_sentences(invoice: Invoice, period: BillingPeriod, unsettled: Unsettled) -> Iterator[str]:
    services = _unpriced_services(invoice.account_id, period) if unsettled.unpriced else {}
    for name, number in unsettled.unpriced[:MAX_NAMED]:
        words = services.get(name)
        why = f", some of them for {', '.join(words)}, which their price doesn't list" if words else ""
        which = "one with these rates" if words else "one"
        has = "has" if number == 1 else "have"
        todo = f"set {which} and apply it to past calls, under Prices"
        yield f"{_calls(number)} of {period} to {name} {has} no price{why}: {todo}."
    if (more := len(unsettled.unpriced) - MAX_NAMED) > 0:
        yield f"{plural(more, 'more model')} of {period} {'has' if more == 1 else 'have'} calls without a price."
