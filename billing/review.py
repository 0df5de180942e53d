"""The course of an invoice: draft -> in review -> approved -> issued -> paid, with who, when and why at each step.

Each step is one transaction under the lock of the account's billing profile. Submitting computes the draft a last time
and freezes it; an approver signs the digest of what is frozen; issuing asks for that digest, and takes a number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from billing.blockers import blockers_of
from billing.content import content_digest, has_content
from billing.enums import InvoiceAction, InvoiceKind, InvoiceState
from billing.errors import InvoiceError
from billing.invoicing import compute, lock_profile, note_event
from billing.models import BillingProfile, Invoice
from billing.numbering import next_number
from billing.parties import bill_to_facts, bill_to_of, seller_facts
from billing.rollup import refresh

if TYPE_CHECKING:
    from django.contrib.auth.models import User

_PERMISSIONS = {
    InvoiceAction.SUBMIT: "billing.prepare_invoice",
    InvoiceAction.SEND_BACK: "billing.prepare_invoice",
    InvoiceAction.APPROVE: "billing.approve_invoice",
    InvoiceAction.ISSUE: "billing.issue_invoice",
    InvoiceAction.PAY: "billing.issue_invoice",
    InvoiceAction.VOID: "billing.issue_invoice",
    InvoiceAction.CREDIT: "billing.credit_invoice",
}
_FROM: dict[InvoiceAction, Sequence[InvoiceState]] = {
    InvoiceAction.SUBMIT: (InvoiceState.DRAFT,),
    InvoiceAction.SEND_BACK: (InvoiceState.IN_REVIEW, InvoiceState.APPROVED),
    InvoiceAction.APPROVE: (InvoiceState.IN_REVIEW,),
    InvoiceAction.ISSUE: (InvoiceState.APPROVED,),
    InvoiceAction.PAY: (InvoiceState.ISSUED,),
    InvoiceAction.VOID: (InvoiceState.DRAFT, InvoiceState.IN_REVIEW, InvoiceState.APPROVED),
}


def submit(invoice_id: int, *, user: User, reason: str = "") -> Invoice:
    """Compute the draft a last time, freeze it, and hand it to review. Raises InvoiceError or NotBillableError."""
    refresh(account_ids=[Invoice.objects.values_list("account_id", flat=True).get(pk=invoice_id)])
    with _step(invoice_id, InvoiceAction.SUBMIT, user, reason) as (invoice, profile):
        if invoice.kind != InvoiceKind.CREDIT_NOTE:
            compute(invoice, profile, user=user)
        if not invoice.lines.exists():
            raise InvoiceError("There is nothing on this invoice: void it instead.")
        invoice.bill_to, invoice.seller = bill_to_facts(profile, period=invoice.period), seller_facts()
        invoice.content_digest = content_digest(invoice)
        invoice.needs_second_person = _total_usd(invoice) > settings.BILLING_SECOND_PERSON_ABOVE_USD
        invoice.prepared_by, invoice.submitted_at = user, timezone.now()
        invoice.state = InvoiceState.IN_REVIEW
    return invoice


def send_back(invoice_id: int, *, user: User, reason: str) -> Invoice:
    """Make it a draft again, which follows the books. Approvers may do so too."""
    _require_reason(reason)
    with _step(invoice_id, InvoiceAction.SEND_BACK, user, reason) as (invoice, _):
        invoice.approved_by = invoice.approved_at = invoice.submitted_at = invoice.prepared_by = None
        invoice.content_digest = invoice.approved_digest = ""
        invoice.state = InvoiceState.DRAFT
    return invoice


def approve(invoice_id: int, *, user: User, reason: str = "") -> Invoice:
    """Sign the digest of what is frozen. Raises InvoiceError where somebody else must, or the content is not that."""
    with _step(invoice_id, InvoiceAction.APPROVE, user, reason) as (invoice, _):
        if invoice.needs_second_person and invoice.prepared_by_id == user.pk:
            raise InvoiceError("You submitted this invoice, so somebody else must approve it.")
        _require_unchanged(invoice, invoice.content_digest)
        invoice.approved_by, invoice.approved_at = user, timezone.now()
        invoice.approved_digest = invoice.content_digest
        invoice.state = InvoiceState.APPROVED
    return invoice


def issue(invoice_id: int, *, user: User, reason: str = "") -> Invoice:
    """Give it a number; nothing of it changes afterwards. Raises InvoiceError with all that stands in the way."""
    with _step(invoice_id, InvoiceAction.ISSUE, user, reason) as (invoice, _):
        _require_unchanged(invoice, invoice.approved_digest)
        if blockers := blockers_of(invoice):
            raise InvoiceError(" ".join(blockers))
        invoice.issued_at = timezone.now()
        invoice.issued_on = invoice.issued_at.astimezone(ZoneInfo(invoice.account.time_zone)).date()
        invoice.due_on = invoice.issued_on + timedelta(days=bill_to_of(invoice).payment_days)
        invoice.state = InvoiceState.ISSUED
        invoice.series, invoice.number = next_number(InvoiceKind(invoice.kind), invoice.issued_on)
    return invoice


def mark_paid(invoice_id: int, *, user: User, paid_on: date, reason: str = "") -> Invoice:
    """paid_on: maybe before the issue, but not before the month, nor after today, wherever that is."""
    with _step(invoice_id, InvoiceAction.PAY, user, reason) as (invoice, _):
        if not invoice.period_start <= paid_on <= timezone.now().date() + timedelta(days=1):
            raise InvoiceError(f"{paid_on.isoformat()} is not a day on which {invoice.label} can have been paid.")
        invoice.paid_on = paid_on
        invoice.state = InvoiceState.PAID
    return invoice


def void(invoice_id: int, *, user: User, reason: str) -> Invoice:
    """Before issue only; what it would have billed is billed by whichever invoice comes next."""
    _require_reason(reason)
    with _step(invoice_id, InvoiceAction.VOID, user, reason) as (invoice, _):
        invoice.approved_by = invoice.approved_at = None
        invoice.approved_digest = ""
        invoice.state = InvoiceState.VOID
    return invoice


def require_permission(user: User, action: InvoiceAction) -> None:
    """Raises InvoiceError. Who may approve may also send back."""
    allowed = user.has_perm(_PERMISSIONS[action])
    if action == InvoiceAction.SEND_BACK:
        allowed = allowed or user.has_perm("billing.approve_invoice")
    if not (user.is_active and allowed):
        raise InvoiceError(f"You have no permission for this: an invoice can't be {action.label} by you.")


def steps_open_to(invoice: Invoice, user: User) -> list[InvoiceAction]:
    """What this person may do with the invoice as it stands; the admin's buttons."""
    steps = []
    for action, states in _FROM.items():
        if invoice.state in states and _may(user, action):
            steps.append(action)
    if invoice.needs_second_person and invoice.prepared_by_id == user.pk and InvoiceAction.APPROVE in steps:
        steps.remove(InvoiceAction.APPROVE)
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
        invoice = Invoice.objects.select_for_update(of=("self",)).select_related("account").get(pk=invoice_id)
        former = InvoiceState(invoice.state)
        if former not in _FROM[action]:
            raise InvoiceError(f"This invoice is {former.label} by now: it can't be {action.label}.")
        yield invoice, profile
        invoice.save()
        note_event(invoice, action, former, user=user, reason=reason)


def _require_reason(reason: str) -> None:
    if not reason.strip():
        raise InvoiceError("Give a reason.")


def _require_unchanged(invoice: Invoice, digest: str) -> None:
    if not has_content(invoice, digest):
        raise InvoiceError("What stands here is not what was submitted: send the invoice back and submit it again.")


def _total_usd(invoice: Invoice) -> Decimal:
    """About: it decides who must look, not what is paid."""
    return abs(invoice.total) / (invoice.per_usd or 1)
