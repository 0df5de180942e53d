"""The lifecycle of an invoice: draft -> in review -> approved -> issued -> paid, recording who, when and why.

Each step is one transaction under the lock of the account's billing profile. Submitting recomputes the draft a last
time and freezes it; an approver signs the digest of the frozen content; issuing requires that digest, and takes a
number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from billing.calendar import sellers_date
from billing.enums import InvoiceAction, InvoiceKind, InvoiceState, LineKind
from billing.errors import InvoiceError
from billing.invoices.blockers import find_blockers, require_ended, why_too_early
from billing.invoices.credit_notes import require_covered, require_gives_back
from billing.invoices.digests import content_digest
from billing.invoices.drafting import build_event, compute, lock_profile, note_event
from billing.invoices.messages import REMINDER_EVENT, address_of, queue_mail, queue_webhook
from billing.invoices.numbering import next_number
from billing.invoices.parties import bill_to_facts, bill_to_of, seller_facts
from billing.invoices.payments import amount_to_record, balance_of, find_overdue, payments_to_undo
from billing.invoices.reductions import compute_reduction, look_again
from billing.invoices.taxes import set_taxes, taxes_of
from billing.models import BillingProfile, Invoice, InvoiceEvent, Payment
from billing.models.invoices import CONTENT_VERSION, FINAL_STATES
from billing.plans import lock_plans
from billing.rollup import refresh
from llm.money import exact_sum

if TYPE_CHECKING:
    from django.contrib.auth.models import User

MAX_REFERENCE = 100
_PERMISSIONS = {
    InvoiceAction.ADD_LINE: "billing.prepare_invoice",
    InvoiceAction.REMOVE_LINE: "billing.prepare_invoice",
    InvoiceAction.SUBMIT: "billing.prepare_invoice",
    InvoiceAction.SEND_BACK: "billing.prepare_invoice",
    InvoiceAction.APPROVE: "billing.approve_invoice",
    InvoiceAction.ISSUE: "billing.issue_invoice",
    InvoiceAction.PAY: "billing.issue_invoice",
    InvoiceAction.UNPAY: "billing.issue_invoice",
    InvoiceAction.MAIL: "billing.issue_invoice",
    InvoiceAction.VOID: "billing.issue_invoice",
    InvoiceAction.CREDIT: "billing.credit_invoice",
    InvoiceAction.BILL_AGAIN: "billing.credit_invoice",
}
_FROM: dict[InvoiceAction, Sequence[InvoiceState]] = {
    InvoiceAction.SUBMIT: (InvoiceState.DRAFT,),
    InvoiceAction.SEND_BACK: (InvoiceState.IN_REVIEW, InvoiceState.APPROVED),
    InvoiceAction.APPROVE: (InvoiceState.IN_REVIEW,),
    InvoiceAction.ISSUE: (InvoiceState.APPROVED,),
    InvoiceAction.PAY: (InvoiceState.ISSUED,),
    InvoiceAction.UNPAY: (InvoiceState.ISSUED, InvoiceState.PAID),
    InvoiceAction.VOID: (InvoiceState.DRAFT, InvoiceState.IN_REVIEW, InvoiceState.APPROVED),
}


def submit(invoice_id: int, *, user: User, reason: str = "") -> Invoice:
    """Compute the draft a last time, freeze it, and hand it to review. Raises InvoiceError or NotBillableError."""
    refresh(account_ids=[Invoice.objects.values_list("account_id", flat=True).get(pk=invoice_id)])
    with _step(invoice_id, InvoiceAction.SUBMIT, user, reason) as (invoice, profile):
        if invoice.is_reduction:
            lock_plans(profile)
            compute_reduction(invoice, profile, user=user)
        elif invoice.kind == InvoiceKind.CREDIT_NOTE:
            _bring_up_to_date(invoice)
        else:
            require_ended(invoice)
            lock_plans(profile)
            compute(invoice, profile, user=user)
        if not invoice.lines.exists():
            raise InvoiceError("There is nothing on this invoice: void it instead.")
        invoice.bill_to, invoice.seller = bill_to_facts(profile, period=invoice.period), seller_facts()
        invoice.content_digest = content_digest(invoice)
        invoice.needs_second_person = _total_usd(invoice) > settings.BILLING_SECOND_PERSON_ABOVE_USD
        invoice.prepared_by, invoice.submitted_at = user, timezone.now()
        invoice.state = InvoiceState.IN_REVIEW
    return invoice


def _bring_up_to_date(note: Invoice) -> None:
    """A note drafted under version 1 gets its taxes stated. Raises InvoiceError if it is positive, or more than is
    left.
    """
    require_gives_back(note)
    _require_covered(note)
    if not note.taxes:
        set_taxes(note, taxes_of(note))
    note.content_version = CONTENT_VERSION


def _require_covered(invoice: Invoice) -> None:
    """An older credit note may give back what an invoice of version 1 also gave back. Raises InvoiceError."""
    if invoice.original is not None:
        require_covered(invoice, invoice.original, invoice.lines.all())


def send_back(invoice_id: int, *, user: User, reason: str) -> Invoice:
    """Make it a draft again, which follows the books. Approvers may do this too."""
    _require_reason(reason)
    with _step(invoice_id, InvoiceAction.SEND_BACK, user, reason) as (invoice, _):
        invoice.approved_by = invoice.approved_at = invoice.submitted_at = invoice.prepared_by = None
        invoice.content_digest = invoice.approved_digest = ""
        invoice.state = InvoiceState.DRAFT
    return invoice


def approve(invoice_id: int, *, user: User, reason: str = "") -> Invoice:
    """Sign the digest of the frozen content. Raises InvoiceError if another person must, or the content has another
    digest.
    """
    with _step(invoice_id, InvoiceAction.APPROVE, user, reason) as (invoice, _):
        if invoice.needs_second_person and invoice.prepared_by_id == user.pk:
            raise InvoiceError("You submitted this invoice, so someone else must approve it.")
        _require_unchanged(invoice, invoice.content_digest)
        invoice.approved_by, invoice.approved_at = user, timezone.now()
        invoice.approved_digest = invoice.content_digest
        invoice.state = InvoiceState.APPROVED
    return invoice


def issue(invoice_id: int, *, user: User, reason: str = "") -> Invoice:
    """Give it a number; nothing changes afterwards. Raises InvoiceError with everything that stands in the way."""
    with _step(invoice_id, InvoiceAction.ISSUE, user, reason) as (invoice, _):
        _require_unchanged(invoice, invoice.approved_digest)
        if blockers := find_blockers(invoice):
            raise InvoiceError(" ".join(blockers))
        _require_covered(invoice)
        invoice.issued_at = timezone.now()
        taken = next_number(InvoiceKind(invoice.kind), _earliest_date(invoice, sellers_date(invoice.issued_at)))
        invoice.series, invoice.number, invoice.issued_on = taken
        if invoice.kind != InvoiceKind.CREDIT_NOTE:
            invoice.due_on = invoice.issued_on + timedelta(days=bill_to_of(invoice).payment_days)
        invoice.state = InvoiceState.ISSUED
    return invoice


def _earliest_date(invoice: Invoice, today: date) -> date:
    """A credit note is never dated before the document it credits, whatever happened to clocks and the seller's time
    zone.
    """
    credited = None if invoice.original is None else invoice.original.issued_on
    return today if credited is None else max(today, credited)


def mark_paid(
    invoice_id: int,
    *,
    user: User,
    paid_on: date,
    amount: Decimal | None = None,
    reference: str = "",
    reason: str = "",
) -> Invoice:
    """Record a payment; of a credit note, a refund. The invoice is paid once nothing is outstanding.

    paid_on: may precede the issue, but not the month, nor be after today in any time zone. amount: positive; None for
    all that is outstanding, which may be nothing.
    """
    with _step(invoice_id, InvoiceAction.PAY, user, reason) as (invoice, _):
        if not invoice.period_start <= paid_on <= timezone.now().date() + timedelta(days=1):
            raise InvoiceError(
                f"{paid_on.isoformat()} can't be the payment date of {invoice.label}: it must be between the start "
                "of the month and today."
            )
        recorded = amount_to_record(invoice, amount)
        if recorded:
            Payment.objects.create(
                invoice=invoice,
                amount=recorded,
                paid_on=paid_on,
                reference=reference.strip()[:MAX_REFERENCE],
                reason=reason[:500],
                recorded_by=user,
            )
        if amount is None or _is_settled(invoice):
            invoice.paid_on, invoice.state = paid_on, InvoiceState.PAID
    return invoice


def undo_payment(invoice_id: int, *, user: User, reason: str, payment_id: int) -> Invoice:
    """Reverse a payment that was recorded by mistake, by a row of its own. Raises InvoiceError if it was reversed
    already.
    """
    _require_reason(reason)
    with _step(invoice_id, InvoiceAction.UNPAY, user, reason) as (invoice, _):
        payment = next((each for each in payments_to_undo(invoice) if each.pk == payment_id), None)
        if payment is None:
            raise InvoiceError("This payment was undone already. Nothing was changed.")
        Payment.objects.create(
            invoice=invoice,
            amount=-payment.amount,
            paid_on=payment.paid_on,
            reference=payment.reference,
            reason=reason[:500],
            reverses=payment,
            recorded_by=user,
        )
        if not (payments_to_undo(invoice) and _is_settled(invoice)):
            invoice.paid_on, invoice.state = None, InvoiceState.ISSUED
    return invoice


def _is_settled(invoice: Invoice) -> bool:
    left = balance_of(invoice).outstanding
    return left >= 0 if invoice.total < 0 else left <= 0


def mail(invoice_id: int, *, user: User, reason: str = "") -> Invoice:
    """Queue an issued document for mail, to the profile's present address, whether it was mailed before or not."""
    require_permission(user, InvoiceAction.MAIL)
    account_id = Invoice.objects.values_list("account_id", flat=True).get(pk=invoice_id)
    with transaction.atomic():
        profile = lock_profile(account_id)
        invoice = Invoice.objects.select_for_update().get(pk=invoice_id)
        if invoice.state not in FINAL_STATES:
            raise InvoiceError("Only issued documents are mailed.")
        if not profile.email:
            raise InvoiceError("The billing profile has no email address.")
        _queue_mail(invoice, profile.email, user=user, reason=reason)
    return invoice


def _queue_mail(invoice: Invoice, address: str, *, user: User, reason: str = "") -> None:
    said = f"to {address}" + (f": {reason}" if reason.strip() else "")
    queue_mail(invoice, note_event(invoice, InvoiceAction.MAIL, invoice.state, user=user, reason=said), to=address)


def remind_of_overdue(*, now: datetime | None = None) -> int:
    """Queue reminders of overdue invoices that were mailed; returns how many. One every BILLING_REMIND_AFTER_DAYS."""
    if not settings.BILLING_REMIND_AFTER_DAYS:
        return 0
    now = now or timezone.now()
    overdue = [invoice for invoice in find_overdue(now=now) if _may_remind(invoice, now)]
    return sum(_remind(invoice.pk, now) for invoice in overdue)


def _may_remind(invoice: Invoice, now: datetime) -> bool:
    """Whether it was mailed, and was due, or reminded of, long enough ago."""
    steps = InvoiceEvent.objects.filter(invoice=invoice)
    if invoice.due_on is None or not steps.filter(action=InvoiceAction.MAIL).exists():
        return False
    last = steps.filter(action=InvoiceAction.REMIND).order_by("-id").first()
    since = invoice.due_on if last is None else sellers_date(last.at)
    return sellers_date(now) - since >= timedelta(days=settings.BILLING_REMIND_AFTER_DAYS)


def _remind(invoice_id: int, now: datetime) -> bool:
    """Looks again under the account's lock: another run may have been faster, or a payment."""
    account_id = Invoice.objects.values_list("account_id", flat=True).get(pk=invoice_id)
    with transaction.atomic():
        profile = lock_profile(account_id)
        invoice = Invoice.objects.select_for_update().get(pk=invoice_id)
        address = address_of(profile)
        is_due = invoice.state == InvoiceState.ISSUED and balance_of(invoice).is_overdue(sellers_date(now))
        if not (address and is_due and _may_remind(invoice, now)):
            return False
        step = build_event(invoice, InvoiceAction.REMIND, invoice.state, user=None, reason=f"to {address}")
        step.at = now
        step.save(force_insert=True)
        queue_mail(invoice, step, to=address, event=REMINDER_EVENT)
    return True


def void(invoice_id: int, *, user: User, reason: str) -> Invoice:
    """Only before issue; what it would have billed is on the next invoice instead."""
    _require_reason(reason)
    with _step(invoice_id, InvoiceAction.VOID, user, reason) as (invoice, _):
        invoice.approved_by = invoice.approved_at = None
        invoice.approved_digest = ""
        invoice.state = InvoiceState.VOID
    return invoice


def require_permission(user: User, action: InvoiceAction) -> None:
    """Raises InvoiceError. Users who may approve may also send back."""
    allowed = user.has_perm(_PERMISSIONS[action])
    if action == InvoiceAction.SEND_BACK:
        allowed = allowed or user.has_perm("billing.approve_invoice")
    if not (user.is_active and allowed):
        raise InvoiceError(f"You don't have permission for this: the invoice can't be {action.label} by you.")


def steps_open_to(invoice: Invoice, user: User) -> list[InvoiceAction]:
    """The steps that this user may take in the invoice's current state; the admin's buttons."""
    steps = []
    for action, states in _FROM.items():
        if invoice.state in states and _may(user, action):
            steps.append(action)
    if invoice.needs_second_person and invoice.prepared_by_id == user.pk and InvoiceAction.APPROVE in steps:
        steps.remove(InvoiceAction.APPROVE)
    if InvoiceAction.SUBMIT in steps and why_too_early(invoice):
        steps.remove(InvoiceAction.SUBMIT)
    if InvoiceAction.UNPAY in steps and not payments_to_undo(invoice):
        steps.remove(InvoiceAction.UNPAY)
    return steps


def _may(user: User, action: InvoiceAction) -> bool:
    try:
        require_permission(user, action)
    except InvoiceError:
        return False
    return True


@contextmanager
def _step(invoice_id: int, action: InvoiceAction, user: User, reason: str) -> Iterator[tuple[Invoice, BillingProfile]]:
    """One step: locks, checks, and after the block the new state and its event, all or nothing."""
    require_permission(user, action)
    account_id = Invoice.objects.values_list("account_id", flat=True).get(pk=invoice_id)
    with transaction.atomic():
        profile = lock_profile(account_id)
        # Without a join, which after waiting for the lock would return the account as it was before.
        invoice = Invoice.objects.select_for_update().get(pk=invoice_id)
        former = InvoiceState(invoice.state)
        if former not in _FROM[action]:
            raise InvoiceError(
                f"The invoice's status is “{former.label}”: it can't be {action.label}. Nothing was changed."
            )
        yield invoice, profile
        # A part of a payment leaves the invoice as it is, and issued ones aren't written.
        if invoice.state != former or former not in FINAL_STATES:
            invoice.save()
        step = note_event(invoice, action, former, user=user, reason=reason)
        queue_webhook(invoice, step)
        if action == InvoiceAction.ISSUE and (address := address_of(profile)):
            _queue_mail(invoice, address, user=user)
        if invoice.kind == InvoiceKind.CREDIT_NOTE and not invoice.is_reduction:
            # What a credit note gives back affects reductions, and what it takes back is billed under other terms.
            look_again(account_id)


def _require_reason(reason: str) -> None:
    if not reason.strip():
        raise InvoiceError("Give a reason.")


def _require_unchanged(invoice: Invoice, digest: str) -> None:
    if content_digest(invoice) != digest:
        raise InvoiceError(
            "The content no longer matches the submitted digest: send the invoice back and submit it again."
        )


def _total_usd(invoice: Invoice) -> Decimal:
    """Approximate: it decides who must review, not what is paid. An allowance counts as what it waives."""
    one_offs = invoice.lines.filter(kind=LineKind.ONE_OFF).values_list("amount", flat=True)
    waived = 0 if invoice.kind == InvoiceKind.CREDIT_NOTE else -exact_sum(min(each, Decimal(0)) for each in one_offs)
    return (abs(invoice.total) + waived) / (invoice.per_usd or 1)
