"""Steps for many invoices at once: a page shows what they would do, then each invoice is handled on its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from billing.admin.invoices.step_forms import StepForm
from billing.admin.invoices.steps import STEPS, Step, perform
from billing.admin.pages import page_context, user_of
from billing.enums import InvoiceAction, InvoiceState
from billing.errors import BillingError
from billing.invoices.blockers import find_blockers, why_too_early
from billing.models import Invoice
from llm.admin.base import ReadOnlyAdmin
from llm.admin.confirmation import SEEN_FIELD
from llm.money import exact_sum

if TYPE_CHECKING:
    from django.contrib.auth.models import User


MAX_AT_ONCE = 200
"""Each is a transaction of its own, and a user waits for the page."""

MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class BulkStep:
    """why_not: returns why this user can't take the step on an invoice, and it is skipped; "" if they can.

    A reason starts with a word or two that can be counted; details follow a colon.
    """

    name: str
    label: str
    step: Step
    why_not: Callable[[Invoice, User], str]


@dataclass(frozen=True, slots=True)
class CurrencyTotal:
    """Totals of the invoices in one currency."""

    currency: str
    amount: Decimal
    number: int


def _why_not_submit(invoice: Invoice, user: User) -> str:
    if invoice.state != InvoiceState.DRAFT:
        return "not a draft"
    return "for a month that has not ended" if why_too_early(invoice) else ""


def _why_not_approve(invoice: Invoice, user: User) -> str:
    if invoice.state != InvoiceState.IN_REVIEW:
        return "not in review"
    if invoice.flags:
        return "flagged"
    is_own = invoice.needs_second_person and invoice.prepared_by_id == user.pk
    return "submitted by you" if is_own else ""


def _why_not_issue(invoice: Invoice, user: User) -> str:
    if invoice.state != InvoiceState.APPROVED:
        return "not approved"
    sentences = find_blockers(invoice)
    return f"blocked: {' '.join(sentences)}" if sentences else ""


def _why_not_paid(invoice: Invoice, user: User) -> str:
    if invoice.state == InvoiceState.PAID:
        return "already paid"
    return "" if invoice.state == InvoiceState.ISSUED else "not issued"


_STEPS = {step.action: step for step in STEPS}
SUBMIT = BulkStep("submit_selected", "Submit selected drafts", _STEPS[InvoiceAction.SUBMIT], _why_not_submit)
APPROVE = BulkStep(
    "approve_unflagged", "Approve selected (flagged are skipped)", _STEPS[InvoiceAction.APPROVE], _why_not_approve
)
ISSUE = BulkStep("issue_selected", "Issue selected", _STEPS[InvoiceAction.ISSUE], _why_not_issue)
PAY = BulkStep("mark_selected_paid", "Mark selected as paid", _STEPS[InvoiceAction.PAY], _why_not_paid)


def run_batch(
    invoice_admin: ReadOnlyAdmin[Invoice], request: HttpRequest, batch: BulkStep, queryset: QuerySet[Invoice]
) -> HttpResponse | None:
    """The confirmation page; None once the steps are done, which returns to the list."""
    invoices = list(queryset.select_related("account__billing_profile")[: MAX_AT_ONCE + 1])
    if len(invoices) > MAX_AT_ONCE:
        invoice_admin.message_user(request, f"Choose at most {MAX_AT_ONCE} at once.", messages.ERROR)
        return None
    user = user_of(request)
    reasons = {invoice.pk: batch.why_not(invoice, user) for invoice in invoices}
    chosen = [invoice for invoice in invoices if not reasons[invoice.pk]]
    left_out = [(invoice, reasons[invoice.pk]) for invoice in invoices if reasons[invoice.pk]]
    form = batch.step.form(request.POST if request.POST.get("confirmed") else None)
    if form.is_valid():
        _perform_all(invoice_admin, request, batch, chosen, form)
        _tell_left_out(invoice_admin, request, [reason for _, reason in left_out])
        return None
    context = page_context(
        invoice_admin,
        request,
        batch.label,
        batch=batch,
        form=form,
        chosen=chosen,
        totals=_totals(chosen),
        left_out=left_out,
        selected=invoices,
        seen_field=SEEN_FIELD,
        seen=" ".join(f"{invoice.pk}={batch.step.figures_of(invoice)}" for invoice in chosen),
        action_checkbox_name=ACTION_CHECKBOX_NAME,
    )
    return TemplateResponse(request, "admin/billing/invoice/batch.html", context)


def _perform_all(
    invoice_admin: ReadOnlyAdmin[Invoice],
    request: HttpRequest,
    batch: BulkStep,
    invoices: Sequence[Invoice],
    form: StepForm,
) -> None:
    """In the order of the list, each in a transaction of its own. form: is valid."""
    reason, refused = form.cleaned_data["reason"], []
    seen = dict(each.partition("=")[::2] for each in request.POST.get(SEEN_FIELD, "").split())
    for invoice in invoices:
        try:
            figures = seen.get(str(invoice.pk), "")
            perform(batch.step, invoice, user=user_of(request), reason=reason, seen=figures, **form.details())
        except BillingError as error:
            refused.append(f"{invoice}: {error}")
    done = len(invoices) - len(refused)
    said = f"{done or 'No'} invoice{'' if done == 1 else 's'} {batch.step.action.label}."
    invoice_admin.message_user(request, said, messages.SUCCESS if done else messages.WARNING)
    for sentence in refused[:MAX_NAMED]:
        invoice_admin.message_user(request, sentence, messages.ERROR)
    if (more := len(refused) - MAX_NAMED) > 0:
        invoice_admin.message_user(request, f"{more} more were refused.", messages.ERROR)


def _tell_left_out(invoice_admin: ReadOnlyAdmin[Invoice], request: HttpRequest, reasons: Sequence[str]) -> None:
    if not reasons:
        return
    counts = Counter(reason.partition(":")[0] for reason in reasons)
    counted = ", ".join(f"{number} {reason}" for reason, number in sorted(counts.items()))
    invoice_admin.message_user(request, f"Unchanged: {counted}.", messages.WARNING)


def _totals(invoices: Sequence[Invoice]) -> list[CurrencyTotal]:
    by_currency: dict[str, list[Decimal]] = {}
    for invoice in invoices:
        by_currency.setdefault(invoice.currency, []).append(invoice.total)
    return [
        CurrencyTotal(currency, exact_sum(amounts), len(amounts)) for currency, amounts in sorted(by_currency.items())
    ]
