"""Months that now cost less than was billed for them: credit notes give back the difference.

A reduction is the difference from what was billed, as late usage is, when it is negative. It goes against the invoices
that billed the month, the last one first, each with the month's own tax and no further than what is left of it. So no
invoice is negative, and tax is never kept on an amount that was given back.

Drafts are recomputed with each run, and on submit. A run finds the accounts by their rollups' marks, which say from
which day on something was rebuilt. Everything happens under the lock of the account's profile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import structlog
from django.db import DEFAULT_DB_ALIAS, transaction
from django.db.models import OuterRef, Subquery
from django.db.models.functions import TruncMonth

from billing.currencies import DECIMALS
from billing.enums import CreditKind, InvoiceAction, InvoiceKind, InvoiceState
from billing.errors import BillingError, InvoiceError
from billing.invoices.bulk_insert import insert_rows
from billing.invoices.charges import Lookups, MonthTerms, Part, build_row, part_of_month
from billing.invoices.credit_notes import charged_of_month, left_of_month, new_note, set_credit_totals
from billing.invoices.drafting import lock_profiles, note_event
from billing.invoices.late_usage import PriorInvoices, changed_periods, find_prior_invoices, load_invoices
from billing.invoices.one_offs import keys_with_own_tax, load_one_offs
from billing.invoices.taxes import percent_of
from billing.models import BilledUsage, BillingProfile, Invoice, InvoiceLine, RollupMark
from billing.models.invoices import FINAL_STATES
from billing.periods import BillingPeriod
from billing.rollup import FIRST_DAY, lock_rollups
from billing.types import NO_DIGEST, ChargeLine
from llm.models import Account
from llm.money import exact_sum

if TYPE_CHECKING:
    from django.contrib.auth.models import User

log = structlog.get_logger("billing")

REASON = "The month now costs less than was billed for it."
NOTHING_LEFT = "Nothing is left to give back."

_Place = tuple[int, BillingPeriod]
"""Id of an invoice, and the month whose charges a note takes back from it."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A credit note that should exist. usage: the month's usage that it takes back, on the last note of a month."""

    original: Invoice
    period: BillingPeriod
    terms: MonthTerms
    lines: Sequence[ChargeLine]
    usage: Sequence[BilledUsage]


@dataclass(slots=True)
class Reductions:
    """The result for an account. failed: months whose reduction can't be computed, and why; their drafts stay.

    is_waiting: something must be given back, but too little is left of what was issued.
    """

    drafts: list[Invoice] = field(default_factory=list)
    failed: dict[BillingPeriod, BillingError] = field(default_factory=dict)
    is_waiting: bool = False


@dataclass(slots=True)
class _Asked:
    """The credit notes that an account's books call for. outcome: without drafts yet."""

    wanted: list[_Wanted] = field(default_factory=list)
    outcome: Reductions = field(default_factory=Reductions)


def draft_reductions(accounts: Collection[Account], *, user: User | None = None) -> dict[int, Reductions]:
    """Draft the credit notes that the accounts' books call for, by account id; drafts no longer needed are deleted.

    Refresh the rollups first.
    """
    with transaction.atomic():
        return _draft(lock_profiles([account.pk for account in accounts]), user=user)


def accounts_to_look_at() -> set[int]:
    """Ids of accounts that may have undrafted reductions, or outdated drafts of them.

    Either a day of an issued month was rebuilt since they were last computed, or there are drafts.
    """
    issued = Invoice.objects.final().filter(account=OuterRef("account")).order_by("-period_start")
    marks = RollupMark.objects.filter(changed_from__isnull=False, cutoff_at__isnull=False)
    changed = marks.alias(month=TruncMonth("changed_from")).filter(
        month__lte=Subquery(issued.values("period_start")[:1])
    )
    drafts = Invoice.objects.filter(credit_kind=CreditKind.REDUCTION, state=InvoiceState.DRAFT)
    return {*changed.values_list("account_id", flat=True), *drafts.values_list("account_id", flat=True)}


def look_again(account_id: int) -> None:
    """Have the next run compute the account's reductions, even if no day has changed."""
    RollupMark.objects.filter(account=account_id).update(changed_from=FIRST_DAY)


def compute_reduction(note: Invoice, profile: BillingProfile, *, user: User | None) -> None:
    """Recompute the draft of a reduction, and the account's other ones. Raises InvoiceError if it isn't needed, or
    NotBillableError.
    """
    found = _draft({note.account_id: profile}, user=user).get(note.account_id, Reductions())
    _, period = _find_place(note)
    if period in found.failed:
        raise found.failed[period]
    if note.pk not in {each.pk for each in found.drafts}:
        raise InvoiceError(f"{NOTHING_LEFT} The next run withdraws this draft.")
    note.refresh_from_db()


def _draft(profiles: Mapping[int, BillingProfile], *, user: User | None) -> dict[int, Reductions]:
    """The number of queries doesn't depend on the number of accounts, as long as none of them has a reduction."""
    invoices = {
        account_id: found
        for account_id, found in load_invoices(profiles).items()
        if any(each.state in FINAL_STATES for each in found)
    }
    cutoffs = lock_rollups(list(invoices))
    asked = _asked_by_account(profiles, {pk: found for pk, found in invoices.items() if cutoffs[pk] is not None})
    for account_id, each in asked.items():
        each.outcome.drafts = _replace(invoices[account_id], each, cutoffs[account_id], user=user)
    outcomes = {account_id: each.outcome for account_id, each in asked.items()}
    done = [account_id for account_id, each in outcomes.items() if not (each.failed or each.is_waiting)]
    RollupMark.objects.filter(account__in=done, changed_from__isnull=False).update(changed_from=None)
    return outcomes


def _replace(
    invoices: Sequence[Invoice], asked: _Asked, cutoff_at: datetime | None, *, user: User | None
) -> list[Invoice]:
    """Make the drafts of one account what they should be. Those of months that can't be computed stay."""
    former = {_find_place(each): each for each in invoices if each.is_reduction and each.state == InvoiceState.DRAFT}
    by_place = {(each.original.pk, each.period): each for each in asked.wanted}
    for place in former.keys() - by_place.keys():
        if place[1] not in asked.outcome.failed:
            _withdraw(former[place], user=user)
    return [_write(former.get(place), each, cutoff_at, user=user) for place, each in by_place.items()]


def _find_place(note: Invoice) -> _Place:
    starts = note.lines.order_by("position").values_list("period_start", flat=True)
    return (note.original_id or 0, BillingPeriod(starts.first() or note.period_start))


def _asked_by_account(
    profiles: Mapping[int, BillingProfile], invoices: Mapping[int, Sequence[Invoice]]
) -> dict[int, _Asked]:
    """In every currency in which an account was billed."""
    asked = {account_id: _Asked() for account_id in invoices}
    lookups = Lookups(load_one_offs(list(profiles)))
    for currency in sorted({each.currency for found in invoices.values() for each in found}):
        others = {
            account_id: find_prior_invoices(
                Invoice(account_id=account_id, currency=currency), found, profile=profiles[account_id]
            )
            for account_id, found in invoices.items()
            if any(each.currency == currency for each in found)
        }
        for account_id, periods in changed_periods(others).items():
            for period in periods:
                _ask(asked[account_id], profiles[account_id], period, others[account_id], lookups)
    return asked


def _ask(
    asked: _Asked, profile: BillingProfile, period: BillingPeriod, others: PriorInvoices, lookups: Lookups
) -> None:
    try:
        part = part_of_month(profile.account_id, period, others, profile, lookups)
    except BillingError as error:
        log.warning("invoices.reduction_failed", account=profile.account_id, reason=str(error))
        asked.outcome.failed[period] = error
        return
    if part.net < 0:
        notes = list(_notes_for(part, others))
        asked.wanted += notes
        asked.outcome.is_waiting |= not notes


def _notes_for(part: Part, others: PriorInvoices) -> Iterator[_Wanted]:
    """None if too little is left of what was issued: another document is under way and must be finished first."""
    issued = [each for each in others.charging if each.state in FINAL_STATES and each.kind != InvoiceKind.CREDIT_NOTE]
    left = [(each, left_of_month(each, part.period)) for each in sorted(issued, key=_issued_last)]
    left = [(each, amount) for each, amount in left if amount > 0]
    if not left:
        return
    unit = Decimal(1).scaleb(-DECIMALS[others.currency])
    available = min(exact_sum(amount for _, amount in left), charged_of_month(left[0][0], part.period))
    if available <= 0 or -part.net - available > unit * len(part.lines):
        return
    takes = list(_takes(left, min(-part.net, available)))
    shares = split([amount for _, amount in takes], part.lines)
    for (original, _), lines in zip(takes, shares, strict=True):
        usage = part.usage if lines is shares[-1] else ()
        yield _Wanted(original, part.period, part.terms, lines, usage)


def _issued_last(invoice: Invoice) -> tuple[float, int]:
    issued_at = 0.0 if invoice.issued_at is None else invoice.issued_at.timestamp()
    return (-issued_at, -invoice.pk)


def _takes(left: Iterable[tuple[Invoice, Decimal]], due: Decimal) -> Iterator[tuple[Invoice, Decimal]]:
    for invoice, amount in left:
        if due > 0:
            taken = min(amount, due)
            due -= taken
            yield invoice, taken


def split(amounts: Sequence[Decimal], lines: Sequence[ChargeLine]) -> list[list[ChargeLine]]:
    """The lines of a reduction on several notes, which give back these amounts.

    All but the last have only amounts; the last has the rest, with quantities and costs. Where rounding each line by
    itself would give back more than was charged, a line of the last note gives back that much less.
    """
    rest = list(lines)
    shares = []
    for amount in amounts[:-1]:
        share, due = [], amount
        for position, line in enumerate(rest):
            piece = min(due, -line.amount)
            if piece > 0:
                due -= piece
                share.append(_money(line, -piece))
                rest[position] = _less(line, -piece)
        shares.append(share)
    excess = -exact_sum(line.amount for line in rest) - amounts[-1]
    if excess > 0:
        position = min(range(len(rest)), key=lambda index: rest[index].amount)
        rest[position] = replace(rest[position], amount=exact_sum((rest[position].amount, excess)))
    shares.append([line for line in rest if line.exact_amount or line.quantity or line.cost_pico])
    return shares


def _money(line: ChargeLine, amount: Decimal) -> ChargeLine:
    exact = exact_sum((amount, line.exact_amount * 0))
    return replace(
        line,
        exact_amount=exact,
        amount=amount,
        quantity=None,
        unit_price=None,
        cost_pico=0,
        calls=0,
        digest=NO_DIGEST,
    )


def _less(line: ChargeLine, amount: Decimal) -> ChargeLine:
    return replace(
        line,
        exact_amount=exact_sum((line.exact_amount, -amount)),
        amount=exact_sum((line.amount, -amount)),
        unit_price=None,
    )


def _withdraw(note: Invoice, *, user: User | None) -> None:
    former = note.state
    note.state = InvoiceState.VOID
    note.save(update_fields=["state"])
    note_event(note, InvoiceAction.VOID, former, user=user, reason=NOTHING_LEFT)


def _write(former: Invoice | None, wanted: _Wanted, cutoff_at: datetime | None, *, user: User | None) -> Invoice:
    """Write the note, new or replacing the existing draft."""
    note = former or new_note(wanted.original, CreditKind.REDUCTION)
    before = note.total
    note.cutoff_at = cutoff_at
    lines = list(_rows(note, wanted, cutoff_at))
    set_credit_totals(note, wanted.original, lines)
    note.save()
    if former is not None:
        InvoiceLine.objects.filter(invoice=note)._raw_delete(DEFAULT_DB_ALIAS)
        BilledUsage.objects.filter(invoice=note)._raw_delete(DEFAULT_DB_ALIAS)
    for position, line in enumerate(lines, start=1):
        line.invoice_id, line.position = note.pk, position
    for row in wanted.usage:
        row.invoice_id = note.pk
    insert_rows(InvoiceLine, lines)
    insert_rows(BilledUsage, wanted.usage)
    if former is None:
        note_event(note, InvoiceAction.DRAFT, "", user=user, reason=REASON)
    elif before != note.total:
        note_event(note, InvoiceAction.RECOMPUTE, "", user=user)
    return note


def _rows(note: Invoice, wanted: _Wanted, cutoff_at: datetime | None) -> Iterator[InvoiceLine]:
    """At the tax that the invoice charged for the month. Each cites a line of it, the one with the same key if there is
    one.
    """
    credited = list(wanted.original.lines.filter(period_start=wanted.period.start).order_by("position"))
    own_tax = keys_with_own_tax(wanted.original.account_id, wanted.period)
    taxed_alike = next((line for line in credited if line.key not in own_tax), credited[0])
    percent = percent_of(taxed_alike, wanted.original)
    terms = replace(wanted.terms, tax_percent=percent)
    for line in wanted.lines:
        row = build_row(note, line, wanted.period, terms, cutoff_at=cutoff_at)
        row.credited_line = min(credited, key=lambda each: _distance(each, line))
        yield row


def _distance(cited: InvoiceLine, line: ChargeLine) -> tuple[bool, ...]:
    return (
        cited.key != line.key,
        (cited.provider, cited.model, cited.meter) != (line.provider, line.model, line.meter),
        (cited.provider, cited.model) != (line.provider, line.model),
        cited.kind != line.kind,
    )
