"""Invoices against the calls that they bill: everything is reckoned again from usage rows, not from rollups.

The books' own checks are in `llm.verification`; this one starts where those end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Count, Max

from billing.content import content_digest
from billing.currencies import DECIMALS
from billing.enums import InvoiceKind, InvoiceState
from billing.late import added_lines
from billing.models import BilledUsage, Invoice, InvoiceLine, InvoiceSeries
from billing.periods import Period
from billing.plans import terms_of
from billing.rating import rate
from billing.rollup import days_summed_wrongly, rates_of
from billing.totals import tax_of
from billing.types import ChargeLine, Progress, UsageSum
from llm.digests import DIGEST_FIELDS
from llm.enums import UsageStatus
from llm.models import Usage, UsageAdjustment
from llm.money import exact_sum, round_half_away, usd_to_pico
from llm.types import TOKEN_FIELDS, TokenCounts
from llm.verification import Findings

_CLOSED = (UsageStatus.SETTLED, UsageStatus.ESTIMATED)
_COMPARED = ("calls", *TOKEN_FIELDS, "cost_pico")

Key = tuple[str, str, int | None]


@dataclass
class _Sums:
    """What calls add up to, adjustments included."""

    calls: int = 0
    cost_pico: int = 0
    tokens: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(TOKEN_FIELDS, 0))
    digest: list[int] = field(default_factory=lambda: [0] * len(DIGEST_FIELDS))

    def figures(self) -> dict[str, int]:
        return {"calls": self.calls, **self.tokens, "cost_pico": self.cost_pico}

    def digest_words(self) -> list[int]:
        return [word % 2**32 for word in self.digest]


def verify_month(period: Period, *, account_id: int | None = None, on_progress: Progress | None = None) -> Findings:
    """Every frozen invoice of the month: `rows` counts the calls that were read, `windows` the invoices.

    on_progress: of regular invoices, whose calls are what takes long.
    """
    findings = Findings()
    invoices = _invoices(period, account_id)
    for invoice in invoices.select_related("account", "plan_version").order_by("account", "id"):
        findings.windows += 1
        for problem in (*_problems_of_sums(invoice), *_problems_of_course(invoice)):
            findings.add(f"{_name(invoice)}: {problem}.")
    regular = invoices.filter(kind=InvoiceKind.REGULAR).select_related("account", "plan_version").order_by("account")
    for done, invoice in enumerate(regular, start=1):
        for problem in _problems_of_usage(invoice, findings):
            findings.add(f"{invoice.account}, {period}: {problem}.")
        if on_progress is not None:
            on_progress(done, len(regular))
    for sentence in _problems_of_numbers():
        findings.add(sentence)
    if account_id is None:
        for sentence in _problems_of_summaries(period):
            findings.add(sentence)
    return findings


def _invoices(period: Period, account_id: int | None) -> Any:
    found = Invoice.objects.frozen().filter(period_start=period.start)
    return found if account_id is None else found.filter(account=account_id)


def _name(invoice: Invoice) -> str:
    return invoice.label or f"{invoice.get_kind_display()} {invoice.pk} of {invoice.account}, {invoice.period}"


# --- What an invoice says of itself -----------------------------------------------------------------------------------


def _problems_of_sums(invoice: Invoice) -> Iterator[str]:
    lines = list(invoice.lines.order_by("position"))
    if content_digest(invoice, lines) != invoice.content_digest:
        yield "what stands there is not what was submitted"
    for line in lines:
        if line.exact_amount != exact_sum((line.amount, line.residual)):
            yield f"line {line.position} is {line.amount:f} plus {line.residual:f}, not {line.exact_amount:f}"
        elif round_half_away(line.exact_amount, DECIMALS[invoice.currency]) != line.amount:
            yield f"line {line.position} rounds {line.exact_amount:f} to {line.amount:f}"
    subtotal = exact_sum(line.amount for line in lines)
    if subtotal != invoice.subtotal:
        yield f"its lines come to {subtotal:f}, its subtotal is {invoice.subtotal:f}"
    if invoice.kind != InvoiceKind.CREDIT_NOTE and invoice.tax != tax_of(
        invoice.subtotal, invoice.tax_percent, invoice.currency
    ):
        yield f"its tax is {invoice.tax:f}"
    if invoice.total != invoice.subtotal + invoice.tax:
        yield f"its total is {invoice.total:f}"


def _problems_of_course(invoice: Invoice) -> Iterator[str]:
    events = list(invoice.events.order_by("id").values_list("to_state", flat=True))
    if not events or events[-1] != invoice.state:
        yield "its history does not end in the state that it is in"
    if invoice.kind == InvoiceKind.CREDIT_NOTE and invoice.original is not None:
        notes = invoice.original.credit_notes.exclude(state=InvoiceState.VOID)
        credited = exact_sum(notes.values_list("total", flat=True))
        if invoice.original.total + credited < 0 <= invoice.original.total:
            yield f"its credit notes give back {-credited:f}, more than the invoice's {invoice.original.total:f}"


def _problems_of_numbers() -> Iterator[str]:
    for series in InvoiceSeries.objects.order_by("name"):
        found = Invoice.objects.filter(series=series).aggregate(numbered=Count("id"), highest=Max("number"))
        if found["numbered"] != series.last_number or (found["highest"] or 0) != series.last_number:
            yield (
                f"Series {series.name}: {series.last_number} numbers were given, {found['numbered']} invoices have "
                f"one, the highest is {found['highest'] or 0}."
            )


def _problems_of_summaries(period: Period) -> Iterator[str]:
    for day in days_summed_wrongly(period.start, period.last_day):
        yield (
            f"{day}: its sums over all accounts are not those of its rows; reports are wrong until “manage.py "
            f"rebuild_rollups --from {day} --to {day}” has run."
        )


# --- An invoice's usage, and what it should cost ----------------------------------------------------------------------


def _problems_of_usage(regular: Invoice, findings: Findings) -> Iterator[str]:
    """The month's calls against all that was billed of them, on this invoice and on later ones."""
    period = regular.period
    billing = Invoice.objects.frozen().filter(account=regular.account_id, currency=regular.currency)
    billing = billing.exclude(kind=InvoiceKind.CREDIT_NOTE)
    usage = BilledUsage.objects.filter(invoice__in=billing, period_start=period.start)
    lines = InvoiceLine.objects.filter(invoice__in=billing, period_start=period.start)
    # Not of the lines: what came late may have changed calls and digests alone.
    cutoff = usage.aggregate(last=Max("invoice__cutoff_at"))["last"] or regular.cutoff_at
    counted = _count_calls(regular.account_id, period, cutoff, findings)
    billed = _add_billed(usage)
    yield from _differences(counted, billed)
    expected = rate(
        _usage_sums(counted),
        terms_of(regular.plan_version),
        per_usd=regular.per_usd,
        decimals=DECIMALS[regular.currency],
    )
    yield from _problems_of_lines(expected, added_lines(lines))


def _count_calls(account_id: int, period: Period, cutoff: datetime | None, findings: Findings) -> dict[Key, _Sums]:
    """From the rows themselves, as of the cutoff; nothing before there is one."""
    if cutoff is None:
        return {}
    rows = Usage.objects.filter(
        account=account_id, local_day__gte=period.start, local_day__lt=period.end, recorded_at__lte=cutoff
    ).filter(status__in=_CLOSED)
    adjustments: dict[UUID, list[UsageAdjustment]] = defaultdict(list)
    for adjustment in UsageAdjustment.objects.filter(usage__in=rows, recorded_at__lte=cutoff).order_by("id"):
        adjustments[adjustment.usage_id].append(adjustment)
    sums: dict[Key, _Sums] = defaultdict(_Sums)
    for row in rows.order_by().iterator(chunk_size=5000):
        findings.rows += 1
        _add_call(sums, row, adjustments.get(row.pk, []))
    return dict(sums)


def _add_call(sums: dict[Key, _Sums], row: Usage, adjustments: Iterable[UsageAdjustment]) -> None:
    adjustments = list(adjustments)
    is_billable, rate_set_id = row.is_billable, row.rate_set_id
    for adjustment in adjustments:
        is_billable = adjustment.is_billable
        rate_set_id = adjustment.rate_set_id or rate_set_id
    if not is_billable:
        return
    total = sums[row.provider, row.model, rate_set_id]
    total.calls += 1
    sources: list[Usage | UsageAdjustment] = [row, *adjustments]
    for source in sources:
        total.cost_pico += 0 if source.cost is None else usd_to_pico(source.cost)
        for name in TOKEN_FIELDS:
            total.tokens[name] += getattr(source, name)
        for position, name in enumerate(DIGEST_FIELDS):
            total.digest[position] += getattr(source, name)


def _add_billed(rows: Iterable[BilledUsage]) -> dict[Key, _Sums]:
    sums: dict[Key, _Sums] = defaultdict(_Sums)
    for row in rows:
        total = sums[row.provider, row.model, row.rate_set_id]
        total.calls += row.calls
        total.cost_pico += usd_to_pico(row.cost)
        for name in TOKEN_FIELDS:
            total.tokens[name] += getattr(row, name)
        for position, word in enumerate(row.digest_sums):
            total.digest[position] += word
    return dict(sums)


def _differences(counted: Mapping[Key, _Sums], billed: Mapping[Key, _Sums]) -> Iterator[str]:
    for key in sorted({*counted, *billed}, key=str):
        provider, model, rate_set_id = key
        name = f"{provider} {model}" if rate_set_id is None else f"{provider} {model} at rates {rate_set_id}"
        ours, theirs = counted.get(key, _Sums()), billed.get(key, _Sums())
        wrong = [what for what in _COMPARED if ours.figures()[what] != theirs.figures()[what]]
        for what in wrong:
            yield f"{name}: {theirs.figures()[what]:,} {what} are billed, its calls come to {ours.figures()[what]:,}"
        if not wrong and ours.digest_words() != theirs.digest_words():
            yield f"{name}: its calls are not those that were billed, though their figures agree"


def _usage_sums(counted: Mapping[Key, _Sums]) -> list[UsageSum]:
    rates = rates_of({rate_set_id for _, _, rate_set_id in counted if rate_set_id is not None})
    return [
        UsageSum(
            provider=provider,
            model=model,
            rate_set_id=rate_set_id,
            calls=sums.calls,
            counts=TokenCounts(**sums.tokens),
            cost_pico=sums.cost_pico,
            rates={} if rate_set_id is None else rates[rate_set_id],
            digest=tuple(sums.digest),
        )
        for (provider, model, rate_set_id), sums in sorted(counted.items(), key=lambda item: str(item[0]))
    ]


def _problems_of_lines(expected: Iterable[ChargeLine], billed: Iterable[ChargeLine]) -> Iterator[str]:
    wanted, found = ({line.key: line for line in lines} for lines in (expected, billed))
    for key in sorted({*wanted, *found}):
        line = wanted.get(key) or replace(found[key], quantity=0, exact_amount=Decimal(0))
        other = found.get(key)
        exact, quantity = (Decimal(0), 0) if other is None else (other.exact_amount, other.quantity)
        if exact != line.exact_amount:
            yield f"“{line.description}” is billed at {exact:f}, it should be {line.exact_amount:f}"
        elif (quantity or 0) != (line.quantity or 0):
            yield f"“{line.description}” is billed for {quantity or 0:,}, it should be {line.quantity or 0:,}"
