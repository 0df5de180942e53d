"""Credit notes that people make: an issued invoice never changes; what it charged is given back by a document.

Goodwill gives money back and no more: what it is for stays billed. A correction takes back what a line charged, so that
the next draft bills it again, under the plan, the exchange rate and the tax that hold then. docs/accounting.md says
which is for what.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING

from django.db import transaction

from billing.credits import lasting_notes_of, left_by_line, left_of_month, new_note, set_credit_totals
from billing.currencies import DECIMALS, format_amount
from billing.enums import CreditKind, InvoiceAction, InvoiceKind, LineKind
from billing.errors import InvoiceError
from billing.goodwill import DESCRIPTION, KEY
from billing.invoicing import lock_profile, note_event
from billing.late import added_lines
from billing.models import BilledUsage, Invoice, InvoiceLine
from billing.models.invoices import FINAL_STATES
from billing.periods import Period
from billing.reckoning import unbilled_rows
from billing.review import require_permission
from billing.taxes import percent_of
from billing.types import ChargeLine
from llm.bulk import insert_rows
from llm.digests import digest_hex
from llm.money import exact_sum, pico_to_usd, round_half_away

if TYPE_CHECKING:
    from django.contrib.auth.models import User


def credit(invoice_id: int, *, user: User, reason: str, amounts: Mapping[int, Decimal] | None = None) -> Invoice:
    """A draft of a goodwill credit note over an issued invoice, which then goes through review as any invoice does.

    amounts: line id -> how much of it, without tax, in the invoice's currency; None credits all that is left of it.
    Raises InvoiceError where it was not issued, or a line has less left.
    """
    with _crediting(invoice_id, InvoiceAction.CREDIT, user=user, reason=reason) as original:
        lines = [_goodwill(line, amount) for line, amount in _chosen(original, amounts)]
        return _draft(original, CreditKind.GOODWILL, lines, user=user, reason=reason)


def credit_and_bill_again(
    invoice_id: int, *, user: User, reason: str, line_ids: Collection[int] | None = None
) -> Invoice:
    """A draft of a correcting credit note. Once it is issued, the next draft of the account bills what it takes back.

    line_ids: of the invoice's lines; None takes back all of them. Of each it takes all that is left. Raises
    InvoiceError where the invoice was not issued, or nothing is left of these lines.
    """
    with _crediting(invoice_id, InvoiceAction.BILL_AGAIN, user=user, reason=reason) as original:
        lines = _corrected(original, line_ids)
        usage = unbilled_rows([original, *lasting_notes_of(original)]) if line_ids is None else []
        return _draft(original, CreditKind.CORRECTION, lines, usage, user=user, reason=reason)


@contextmanager
def _crediting(invoice_id: int, action: InvoiceAction, *, user: User, reason: str) -> Iterator[Invoice]:
    """The invoice, locked with its account; afterwards its history says what was done."""
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
    _require_covered(original, lines)
    note = new_note(original, kind)
    set_credit_totals(note, original, lines)
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
    """What is left of each line, without tax: its amount and the credit notes that aren't void. By line id."""
    return left_by_line(original)


def _chosen(original: Invoice, amounts: Mapping[int, Decimal] | None) -> list[tuple[InvoiceLine, Decimal]]:
    """(line, what to credit of it). Raises InvoiceError."""
    left = creditable(original)
    wanted = left if amounts is None else amounts
    if unknown := set(wanted) - set(left):
        raise InvoiceError(f"{len(unknown)} of these lines are not on invoice {original.label}.")
    for line_id, amount in wanted.items():
        _require_creditable(original, amount, left[line_id], is_whole=amounts is None)
    chosen = [(line, wanted[line.pk]) for line in original.lines.order_by("position") if wanted.get(line.pk)]
    if not chosen:
        raise InvoiceError("There is nothing left to credit.")
    return chosen


def _require_creditable(original: Invoice, amount: Decimal, left: Decimal, *, is_whole: bool) -> None:
    decimals = DECIMALS[original.currency]
    if is_whole:
        return
    if amount <= 0 or round_half_away(amount, decimals) != amount:
        raise InvoiceError(f"Credit a positive amount with at most {decimals} decimals, not {amount:f}.")
    if amount > left:
        raise InvoiceError(
            f"{format_amount(amount, original.currency)} is more than the {format_amount(left, original.currency)} "
            f"{original.currency} that are left of this line."
        )


def _goodwill(line: InvoiceLine, amount: Decimal) -> InvoiceLine:
    row = _line_of(line, line.invoice)
    row.exact_amount = row.amount = -amount
    row.residual = Decimal(0)
    return row


def _line_of(line: InvoiceLine, original: Invoice) -> InvoiceLine:
    """What a credit note's line takes over from the one that it credits: all but its figures."""
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
    """What is left of these lines, taken back: they, and what notes have changed of them since."""
    chosen = list(original.lines.order_by("position"))
    if line_ids is not None:
        if unknown := set(line_ids) - {line.pk for line in chosen}:
            raise InvoiceError(f"{len(unknown)} of these lines are not on invoice {original.label}.")
        chosen = [line for line in chosen if line.pk in line_ids]
    rows = [row for line in chosen for row in _taken_back(line, original, with_usage=line_ids is None)]
    if not any(row.amount for row in rows):
        raise InvoiceError("There is nothing left to credit.")
    return rows


def _taken_back(line: InvoiceLine, original: Invoice, *, with_usage: bool) -> Iterator[InvoiceLine]:
    """with_usage: its quantities, costs and calls too; so where the note takes back the whole invoice and its usage."""
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
        row = _line_of(line, original)
        row.kind, row.key, row.description = LineKind.GOODWILL, KEY, DESCRIPTION
        row.provider = row.model = row.meter = ""
        row.exact_amount = row.amount = used_up
        row.residual = Decimal(0)
        yield row


def _negative(billed: ChargeLine, line: InvoiceLine, original: Invoice, *, with_usage: bool) -> InvoiceLine:
    row = _line_of(line, original)
    row.kind, row.key, row.meter = billed.kind, billed.key, billed.meter
    row.description = billed.description
    row.exact_amount, row.amount = -billed.exact_amount, -billed.amount
    row.residual = exact_sum((row.exact_amount, -row.amount))
    if with_usage:
        row.quantity = None if billed.quantity is None else -billed.quantity
        row.cost_usd = pico_to_usd(-billed.cost_pico)
        row.calls = -billed.calls
        digest = tuple(-word for word in billed.digest)
        row.digest = digest_hex(digest) if any(digest) else ""
    return row


def _require_covered(original: Invoice, lines: Iterable[InvoiceLine]) -> None:
    """Lines can come to more than their invoice, which has discounts: no more is given back than was asked for.

    For each month by itself, since each has its tax.
    """
    by_month: dict[Period, list[Decimal]] = defaultdict(list)
    for line in lines:
        by_month[Period(line.period_start)].append(-line.amount)
    for period, amounts in sorted(by_month.items()):
        asked, left = exact_sum(amounts), left_of_month(original, period)
        if asked > max(left, Decimal(0)):
            shown = [format_amount(each, original.currency) for each in (asked, left)]
            raise InvoiceError(
                f"{shown[0]} {original.currency} is more than the {shown[1]} that are left of invoice "
                f"{original.label} without tax: credit less, or all that is left of it."
            )
