"""Verifies invoices against the calls that they bill: everything is computed again from the books, not from rollups.

The books' own checks are in `llm.audit`; this one builds on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, cast

from django.db.models import Count, Max

from billing.currencies import DECIMALS
from billing.enums import InvoiceKind
from billing.invoices.charges import Lookups, beside_plan, terms_of_month
from billing.invoices.late_usage import (
    PriorInvoices,
    as_billed_last,
    billed_lines,
    currency_of_month,
    find_prior_invoices,
    ids_that_can_bill,
    load_invoices,
)
from billing.invoices.one_offs import expected_one_offs
from billing.models import BilledUsage, BillingProfile, Invoice, InvoiceLine, InvoiceSeries
from billing.periods import BillingPeriod
from billing.plans import build_terms, profile_to_bill_by
from billing.rating import rate
from billing.rollup import days_summed_wrongly
from billing.types import Progress
from billing.verification.invoices import problems_of_course, problems_of_sums
from billing.verification.lines import problems_of_lines
from billing.verification.recount import add_billed, count_calls, problems_of_usage, usage_sums
from billing.verification.unbilled import problems_of_unbilled
from llm.audit import Findings, problems_of_protection
from llm.books.clock import database_now
from llm.money import plural


def verify_protected_month(
    period: BillingPeriod, *, account_id: int | None = None, on_progress: Progress | None = None
) -> Findings:
    """`verify_month`, and whether the books' protection has been in force: someone who verifies a month wants both."""
    findings = verify_month(period, account_id=account_id, on_progress=on_progress)
    for sentence in problems_of_protection():
        findings.add(sentence)
    return findings


def verify_month(
    period: BillingPeriod,
    *,
    account_id: int | None = None,
    now: datetime | None = None,
    on_progress: Progress | None = None,
) -> Findings:
    """Every frozen invoice of the month, and accounts without one: `rows` counts the invoices' calls, `windows` the
    invoices.

    now: up to when accounts had time to be billed. on_progress: of regular invoices, whose calls take the time.
    """
    findings = Findings()
    invoices = _invoices(period, account_id)
    for invoice in invoices.select_related("account", "plan_version").order_by("account", "id"):
        findings.windows += 1
        for problem in (*_as_sentences(problems_of_sums(invoice)), *_as_sentences(problems_of_course(invoice))):
            findings.add(f"{_name(invoice)}: {problem}.")
    regular = invoices.filter(kind=InvoiceKind.REGULAR).select_related("account", "plan_version").order_by("account")
    for done, invoice in enumerate(regular, start=1):
        for problem in _as_sentences(_problems_of_month(invoice, findings)):
            findings.add(f"{invoice.account}, {period}: {problem}.")
        if on_progress is not None:
            on_progress(done, len(regular))
    for sentence in (*problems_of_unbilled(period, account_id, now or database_now()), *_problems_of_numbers()):
        findings.add(sentence)
    if account_id is None:
        for sentence in _problems_of_summaries(period):
            findings.add(sentence)
    return findings


def _as_sentences(problems: Iterable[str]) -> Iterator[str]:
    """Turns an error caused by a forged value into a finding, so that the check continues."""
    try:
        yield from problems
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {str(error)[:100]}"
        yield f"it holds a value that can't be read ({what}); compare it with a backup"


def _invoices(period: BillingPeriod, account_id: int | None) -> Any:
    found = Invoice.objects.frozen().filter(period_start=period.start)
    return found if account_id is None else found.filter(account=account_id)


def _name(invoice: Invoice) -> str:
    return invoice.label or f"{invoice.get_kind_display()} {invoice.pk} of {invoice.account}, {invoice.period}"


def _problems_of_month(regular: Invoice, findings: Findings) -> Iterator[str]:
    """The month's calls compared with all that was billed for them: on this invoice, later ones and credit notes."""
    profile = profile_to_bill_by(regular.account_id)
    invoices = load_invoices([regular.account_id])[regular.account_id]
    currencies = {regular.currency, currency_of_month(regular.period, invoices, profile)}
    for currency in sorted(currencies):
        beside = Invoice(account_id=regular.account_id, currency=currency)
        others = as_billed_last(find_prior_invoices(beside, invoices, profile=profile), regular.period)
        if ids_that_can_bill(others, regular.period):
            yield from _problems_of_bills(regular, others, profile, findings)


def _problems_of_bills(
    regular: Invoice, others: PriorInvoices, profile: BillingProfile, findings: Findings
) -> Iterator[str]:
    """others: the documents in one currency."""
    period, billing = regular.period, ids_that_can_bill(others, regular.period)
    usage = BilledUsage.objects.filter(invoice__in=billing, period_start=period.start)
    lines = InvoiceLine.objects.filter(invoice__in=billing, period_start=period.start)
    # Not from the lines: late usage may have changed only calls and digests.
    cutoff = cast("datetime", usage.aggregate(last=Max("invoice__cutoff_at"))["last"] or regular.cutoff_at)
    counted = count_calls(regular.account_id, period, cutoff, findings)
    problems = list(problems_of_usage(counted, add_billed(usage)))
    yield from (sentence for _, sentence in problems)
    terms = terms_of_month(period, others, profile, Lookups(one_offs={}))
    expected = rate(
        usage_sums(counted),
        build_terms(terms.version),
        per_usd=terms.per_usd,
        decimals=DECIMALS[others.currency],
        billed=billed_lines(others, period),
    )
    one_offs = expected_one_offs(regular.account_id, period, currency=others.currency, among=billing)
    expected = beside_plan(expected, period, terms, others, one_offs)
    differing = {(provider, model) for (provider, model, _), _ in problems}
    yield from problems_of_lines(expected, lines, cutoff=cutoff, differing=differing)


def _problems_of_numbers() -> Iterator[str]:
    for series in InvoiceSeries.objects.order_by("name"):
        found = Invoice.objects.filter(series=series).aggregate(numbered=Count("id"), highest=Max("number"))
        if found["numbered"] != series.last_number or (found["highest"] or 0) != series.last_number:
            yield (
                f"Series {series.name}: {plural(series.last_number, 'number')} assigned, "
                f"{plural(found['numbered'], 'invoice')} numbered, the highest number is {found['highest'] or 0}."
            )


def _problems_of_summaries(period: BillingPeriod) -> Iterator[str]:
    for day in days_summed_wrongly(period.start, period.last_day):
        yield (
            f"{day}: the totals over all accounts don't match that day's rows; reports are wrong until “manage.py "
            f"rebuild_rollups --from {day} --to {day}” has run."
        )
