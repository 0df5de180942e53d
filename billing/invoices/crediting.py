"""Credit notes made by staff: an issued invoice never changes; a document gives back what it charged.

Goodwill gives money back and nothing else: the usage stays billed. A correction takes back what a line charged, so that
the next draft bills it again, under the plan, exchange rate and tax that apply then. docs/accounting.md says when to
use which.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING

from django.db import transaction

from billing.currencies import DECIMALS, format_money
from billing.enums import CreditKind, InvoiceAction, InvoiceKind, LineKind
from billing.errors import InvoiceError
from billing.invoices.bulk_insert import insert_rows
from billing.invoices.charges import unbilled_rows
from billing.invoices.credit_notes import (
    charged_of_month,
    lasting_notes_of,
    left_by_line,
    new_note,
    require_covered,
    require_gives_back,
    set_credit_totals,
)
from billing.invoices.drafting import lock_profile, note_event
from billing.invoices.goodwill import DESCRIPTION, KEY
from billing.invoices.late_usage import added_lines, described
from billing.invoices.review import require_permission
from billing.invoices.taxes import percent_of
from billing.models import BilledUsage, Invoice, InvoiceLine
from billing.models.invoices import FINAL_STATES
from billing.periods import BillingPeriod
from billing.types import ChargeLine
from llm.digests import digest_hex
from llm.money import exact_sum, pico_to_usd, round_half_away

if TYPE_CHECKING:
    from django.contrib.auth.models import User


def credit(invoice_id: int, *, user: User, reason: str, amounts: Mapping[int, Decimal] | None = None) -> Invoice:
    """Draft a goodwill credit note for an issued invoice. It goes through review like any invoice.

    amounts: line id -> how much to credit, without tax, in the invoice's currency; None credits all that is left, also
    of what its months were charged on all documents together.
    Raises InvoiceError if the invoice isn't issued, or a line has less left.
    """
    with _crediting(invoice_id, InvoiceAction.CREDIT, user=user, reason=reason) as original:
        lines = [_goodwill(line, amount) for line, amount in _chosen(original, amounts)]
        return _draft(original, CreditKind.GOODWILL, lines, user=user, reason=reason)


def credit_and_bill_again(
    invoice_id: int, *, user: User, reason: str, line_ids: Collection[int] | None = None
) -> Invoice:
    """Draft a correcting credit note. Once it is issued, the account's next draft bills again what it takes back.

    line_ids: of the invoice's lines; None takes back all of them. All that is left of each is taken back. Raises
    InvoiceError if the invoice isn't issued, or nothing is left of these lines.
    """
    with _crediting(invoice_id, InvoiceAction.BILL_AGAIN, user=user, reason=reason) as original:
        lines = _corrected(original, line_ids)
        usage = unbilled_rows([original, *lasting_notes_of(original)]) if line_ids is None else []
        return _draft(original, CreditKind.CORRECTION, lines, usage, user=user, reason=reason)


@contextmanager
def _crediting(invoice_id: int, action: InvoiceAction, *, user: User, reason: str) -> Iterator[Invoice]:
    """Locks the invoice and its account; adds the step to the invoice's history afterwards."""
    require_permission(user, action)
    if not reason.strip():
        raise InvoiceError("Give a reason.")
    account_id = Invoice.objects.values_list("account_id", flat=True).get(pk=invoice_id)
    with transaction.atomic():
        lock_profile(account_id)
        original = Invoice.objects.select_for_update(of=("self",)).get(pk=invoice_id)
        if original.state not in FINAL_STATES or original.kind == InvoiceKind.CREDIT_NOTE:
            raise InvoiceError("Only an issued invoice can be credited.")
        yield original
        note_event(original, action, original.state, user=user, reason=reason)


def _draft(
    original: Invoice,
    kind: CreditKind,
    lines: Sequence[InvoiceLine],
    usage: Sequence[BilledUsage] = (),
    *,
    user: User,
    reason: str,
) -> Invoice:
    note = new_note(original, kind)
    require_covered(note, original, lines)
    set_credit_totals(note, original, lines)
    require_gives_back(note)
    note.save(force_insert=True)
    for position, line in enumerate(lines, start=1):
        line.invoice_id, line.position = note.pk, position
    for row in usage:
        row.invoice_id = note.pk
    insert_rows(InvoiceLine, lines)
    insert_rows(BilledUsage, usage)
    note_event(note, InvoiceAction.DRAFT, "", user=user, reason=reason)
    return note


def creditable(original: Invoice) -> dict[int, Decimal]:
    """What is left of each line, without tax: its amount less the credit notes that aren't void. By line id."""
    return left_by_line(original)


def _chosen(original: Invoice, amounts: Mapping[int, Decimal] | None) -> list[tuple[InvoiceLine, Decimal]]:
    """(line, amount to credit). Raises InvoiceError."""
    left = creditable(original)
    wanted = _all_left(original, left) if amounts is None else amounts
    if unknown := set(wanted) - set(left):
        raise InvoiceError(f"{len(unknown)} of these lines are not on invoice {original.label}.")
    for line_id, amount in wanted.items():
        _require_creditable(original, amount, left[line_id], is_whole=amounts is None)
    chosen = [(line, wanted[line.pk]) for line in original.lines.order_by("position") if wanted.get(line.pk)]
    if not chosen:
        raise InvoiceError("There is nothing left to credit.")
    return chosen


def _all_left(original: Invoice, left: Mapping[int, Decimal]) -> dict[int, Decimal]:
    """By line id. If all documents together charge less for a month, its largest lines are credited less."""
    wanted = dict(left)
    by_month: dict[BillingPeriod, list[int]] = defaultdict(list)
    for line_id, start in original.lines.order_by("position").values_list("pk", "period_start"):
        by_month[BillingPeriod(start)].append(line_id)
    for period, line_ids in by_month.items():
        charged = max(charged_of_month(original, period), Decimal(0))
        excess = exact_sum(left[line_id] for line_id in line_ids) - charged
        for line_id in sorted(line_ids, key=lambda each: left[each], reverse=True):
            less = max(min(left[line_id], excess), Decimal(0))
            wanted[line_id] -= less
            excess -= less
    return wanted


def _require_creditable(original: Invoice, amount: Decimal, left: Decimal, *, is_whole: bool) -> None:
    decimals = DECIMALS[original.currency]
    if is_whole:
        return
    if amount <= 0 or round_half_away(amount, decimals) != amount:
        raise InvoiceError(f"Credit a positive amount with at most {decimals} decimals, not {amount:f}.")
    if amount > left:
        raise InvoiceError(
            f"{format_money(amount, original.currency)} exceeds the {format_money(left, original.currency)} "
            f"{original.currency} left on this line."
        )


def _goodwill(line: InvoiceLine, amount: Decimal) -> InvoiceLine:
    row = _build_line(line, line.invoice)
    row.exact_amount = row.amount = -amount
    row.residual = Decimal(0)
    return row


def _build_line(line: InvoiceLine, original: Invoice) -> InvoiceLine:
    """What a credit note's line copies from the line that it credits: all but its figures."""
    return InvoiceLine(
        kind=line.kind,
        key=line.key,
        period_start=line.period_start,
        plan_version_id=line.plan_version_id,
        tax_percent=percent_of(line, original),
        per_usd=original.per_usd if line.per_usd is None else line.per_usd,
        description=line.description,
        provider=line.provider,
        model=line.model,
        meter=line.meter,
        credited_line=line,
    )


def _corrected(original: Invoice, line_ids: Collection[int] | None) -> list[InvoiceLine]:
    """What is left of these lines, taken back: the lines themselves, and what notes have changed of them since."""
    chosen = list(original.lines.order_by("position"))
    if line_ids is not None:
        if unknown := set(line_ids) - {line.pk for line in chosen}:
            raise InvoiceError(f"{len(unknown)} of these lines are not on invoice {original.label}.")
        chosen = [line for line in chosen if line.pk in line_ids]
    rows = [row for line in chosen for row in _taken_back(line, original, with_usage=line_ids is None)]
    if not any(row.amount for row in rows):
        raise InvoiceError("There is nothing left to credit.")
    if line_ids is not None:
        _require_reduced_lines(original, rows)
    return rows


def _require_reduced_lines(original: Invoice, rows: Iterable[InvoiceLine]) -> None:
    """A discount, allowance or goodwill isn't taken back without what it reduces. Checked by month."""
    by_month: dict[BillingPeriod, list[Decimal]] = defaultdict(list)
    for row in rows:
        by_month[BillingPeriod(row.period_start)].append(row.amount)
    for period, amounts in sorted(by_month.items()):
        if (charge := exact_sum(amounts)) > 0:
            raise InvoiceError(
                f"The lines of {period} come to {format_money(-charge, original.currency)} {original.currency}: "
                "also choose the lines that they reduce."
            )


def _taken_back(line: InvoiceLine, original: Invoice, *, with_usage: bool) -> Iterator[InvoiceLine]:
    """with_usage: also quantities, costs and calls, for a note that takes back the whole invoice and its usage."""
    notes = [each.pk for each in lasting_notes_of(original) if not each.is_goodwill]
    credited = InvoiceLine.objects.filter(invoice__in=notes, credited_line=line)
    billed = added_lines(InvoiceLine.objects.filter(pk=line.pk) | credited)
    for each in billed:
        if each.kind != LineKind.GOODWILL and (each.exact_amount or each.amount or each.quantity or each.cost_pico):
            yield _negative(each, line, original, with_usage=with_usage)
    goodwill = exact_sum(each.amount for each in billed if each.kind == LineKind.GOODWILL)
    given = [each.pk for each in lasting_notes_of(original) if each.is_goodwill]
    rows = InvoiceLine.objects.filter(invoice__in=given, credited_line=line)
    used_up = -exact_sum((goodwill, *rows.values_list("amount", flat=True)))
    if used_up:
        row = _build_line(line, original)
        row.kind, row.key = LineKind.GOODWILL, KEY
        row.description = described(DESCRIPTION, BillingPeriod(line.period_start), original)
        row.provider = row.model = row.meter = ""
        row.exact_amount = row.amount = used_up
        row.residual = Decimal(0)
        yield row


def _negative(billed: ChargeLine, line: InvoiceLine, original: Invoice, *, with_usage: bool) -> InvoiceLine:
    row = _build_line(line, original)
    row.kind, row.key, row.meter = billed.kind, billed.key, billed.meter
    row.description = described(billed.description, BillingPeriod(line.period_start), original)
    row.exact_amount, row.amount = -billed.exact_amount, -billed.amount
    row.residual = exact_sum((row.exact_amount, -row.amount))
    if with_usage:
        row.quantity = None if billed.quantity is None else -billed.quantity
        row.cost_usd = pico_to_usd(-billed.cost_pico)
        row.calls = -billed.calls
        digest = tuple(-word for word in billed.digest)
        row.digest = digest_hex(digest) if any(digest) else ""
    return row
