"""What an invoice's buttons do: each asks for confirmation on its own page, then calls billing's services.

Whether a step is allowed is decided by the services at the moment it is taken; the page shows their message. A step
that confirms figures applies only to the figures that its page showed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, OperationalError, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from billing.admin.invoices.formatting import sentence_case
from billing.admin.invoices.step_forms import (
    BillAgainForm,
    CreditForm,
    OneOffForm,
    PaymentForm,
    ReasonedForm,
    RemoveOneOffForm,
    StepForm,
    UndoPaymentForm,
)
from billing.admin.pages import page_context, user_of
from billing.currencies import format_money
from billing.enums import InvoiceAction, InvoiceKind, InvoiceState
from billing.errors import BillingError, InvoiceError
from billing.invoices import crediting, drafting, review
from billing.invoices.blockers import find_blockers, why_too_early
from billing.invoices.drafting import lock_profile
from billing.invoices.one_off_changes import add_one_off, removable_lines, remove_one_off
from billing.invoices.payments import balance_of
from billing.models import Invoice, Payment
from billing.models.invoices import FINAL_STATES
from llm.admin.base import ReadOnlyAdmin
from llm.admin.concurrent_edits import digest_value
from llm.admin.confirmation import SEEN_FIELD

if TYPE_CHECKING:
    from django.contrib.auth.models import User


BUSY = "Someone else is working on this account's invoices right now. Try again in a moment."

CHANGED = "The invoice was changed since this page was opened. Nothing was done: check its amounts and try again."


@dataclass(frozen=True, slots=True)
class Step:
    """consequence: what the step leads to, in a sentence. perform: (invoice id, user=, reason=, details of the form).

    joint: between the label and the invoice's name, in the page's title.
    confirms: returns the figures that the step's page shows and the user agrees to.
    """

    action: InvoiceAction
    label: str
    consequence: str
    perform: Callable[..., Invoice]
    form: type[StepForm] = StepForm
    is_main: bool = False
    is_dangerous: bool = False
    confirms: Callable[[Invoice], object] | None = None
    joint: str = " "

    @property
    def name(self) -> str:
        return self.action.value

    def figures_of(self, invoice: Invoice) -> str:
        """Digest of those figures, for the step's form; "" if the step confirms none."""
        return "" if self.confirms is None else digest_value(self.confirms(invoice))


def _content(invoice: Invoice) -> object:
    return invoice.content_digest, invoice.currency, invoice.total


def _what_is_left(invoice: Invoice) -> object:
    return crediting.creditable(invoice)


def _payments(invoice: Invoice) -> object:
    """So that a form that is sent twice records one payment."""
    return list(Payment.objects.filter(invoice=invoice).values_list("pk", flat=True)), balance_of(invoice).outstanding


def _mails(invoice: Invoice) -> object:
    """So that a form that is sent twice sends one mail."""
    return invoice.events.filter(action=InvoiceAction.MAIL).count()


def _one_offs(invoice: Invoice) -> object:
    """So that a form that is sent twice adds one line."""
    return [line.pk for line in removable_lines(invoice)]


def _recompute(invoice_id: int, *, user: User, reason: str) -> Invoice:
    return drafting.recompute(invoice_id, user=user)


STEPS: Sequence[Step] = (
    Step(
        InvoiceAction.SUBMIT,
        "Submit",
        "Amounts are recalculated once more, then locked until it is issued or sent back.",
        review.submit,
        is_main=True,
    ),
    Step(
        InvoiceAction.APPROVE,
        "Approve",
        "You confirm these charges. The invoice can then be issued.",
        review.approve,
        is_main=True,
        confirms=_content,
    ),
    Step(
        InvoiceAction.ISSUE,
        "Issue",
        "It gets the next number in its series. An issued invoice can't be changed or withdrawn; an "
        "overcharge is refunded by a credit note.",
        review.issue,
        is_main=True,
        confirms=_content,
    ),
    Step(
        InvoiceAction.PAY,
        "Mark as paid",
        "Records a payment. Once nothing is outstanding, the invoice is paid.",
        review.mark_paid,
        PaymentForm,
        confirms=_payments,
    ),
    Step(
        InvoiceAction.UNPAY,
        "Undo a payment",
        "For a payment recorded by mistake. Its reversal is recorded too, and the amount is outstanding again.",
        review.undo_payment,
        UndoPaymentForm,
        joint=" on ",
    ),
    Step(
        InvoiceAction.MAIL,
        "Send by mail",
        "Sends the PDF to the address in the billing profile, again if it was sent before. The bytes stay the same.",
        review.mail,
        confirms=_mails,
        joint=": ",
    ),
    Step(
        InvoiceAction.RECOMPUTE,
        "Recalculate",
        "The draft is recalculated from the current usage, plan and billing profile.",
        _recompute,
    ),
    Step(
        InvoiceAction.ADD_LINE,
        "Add a line",
        "Adds a charge or an allowance that isn't usage. The draft is recalculated, and keeps the line whenever it is "
        "recalculated again.",
        add_one_off,
        OneOffForm,
        confirms=_one_offs,
        joint=" to ",
    ),
    Step(
        InvoiceAction.REMOVE_LINE,
        "Remove a line",
        "Removes a one-off line from the draft, which is recalculated.",
        remove_one_off,
        RemoveOneOffForm,
        joint=" from ",
    ),
    Step(
        InvoiceAction.SEND_BACK,
        "Send back",
        "The invoice becomes a draft again and is recalculated every hour; any approval is dropped.",
        review.send_back,
        ReasonedForm,
    ),
    Step(
        InvoiceAction.CREDIT,
        "Credit",
        "For goodwill: creates a draft credit note that gives money back. The usage it credits stays "
        "billed and is never charged again. Later reductions for the same month are offset against it.",
        crediting.credit,
        CreditForm,
        confirms=_what_is_left,
    ),
    Step(
        InvoiceAction.BILL_AGAIN,
        "Credit and bill again",
        "For mistakes: creates a draft credit note for the rest of these lines. Once it is issued, the "
        "account's next draft bills them again, with the plan, exchange rate, tax and address in force "
        "then.",
        crediting.credit_and_bill_again,
        BillAgainForm,
        confirms=_what_is_left,
    ),
    Step(
        InvoiceAction.VOID,
        "Void",
        "It will never be issued. Its usage is charged on the account's next invoice.",
        review.void,
        ReasonedForm,
        is_dangerous=True,
    ),
)
_BY_NAME = {step.name: step for step in STEPS}


def may(user: User, step: Step) -> bool:
    """Users who may prepare invoices may also recalculate them."""
    action = InvoiceAction.SUBMIT if step.action == InvoiceAction.RECOMPUTE else step.action
    try:
        review.require_permission(user, action)
    except InvoiceError:
        return False
    return True


def open_steps(invoice: Invoice, user: User) -> list[Step]:
    """The buttons that this user sees, given the invoice's current state."""
    actions = set(review.steps_open_to(invoice, user))
    is_credit_note = invoice.kind == InvoiceKind.CREDIT_NOTE
    if invoice.state == InvoiceState.DRAFT and invoice.kind == InvoiceKind.REGULAR:
        actions.add(InvoiceAction.ADD_LINE)
    if removable_lines(invoice):
        actions.add(InvoiceAction.REMOVE_LINE)
    if invoice.state == InvoiceState.DRAFT and not is_credit_note:
        actions.add(InvoiceAction.RECOMPUTE)
    if invoice.state in FINAL_STATES and not is_credit_note:
        actions |= {InvoiceAction.CREDIT, InvoiceAction.BILL_AGAIN}
    if invoice.state in FINAL_STATES:
        actions.add(InvoiceAction.MAIL)
    return [step for step in STEPS if step.action in actions and may(user, step)]


def step_view(invoice_admin: ReadOnlyAdmin[Invoice], request: HttpRequest, object_id: int, name: str) -> HttpResponse:
    """A GET asks for confirmation; a POST takes the step, or says why not."""
    invoice, step = invoice_admin.get_object(request, str(object_id)), _BY_NAME.get(name)
    if invoice is None or step is None:
        raise Http404
    user = user_of(request)
    if not (invoice_admin.has_view_permission(request, invoice) and may(user, step)):
        raise PermissionDenied
    form = step.form(request.POST if request.method == "POST" else None, invoice=invoice)
    if form.is_bound and form.is_valid():
        try:
            reason, seen = form.cleaned_data["reason"], request.POST.get(SEEN_FIELD, "")
            done = perform(step, invoice, user=user, reason=reason, seen=seen, **form.details())
        except BillingError as error:
            form.add_error(None, str(error))
            invoice.refresh_from_db()
        else:
            invoice_admin.message_user(request, _said(done, step), messages.SUCCESS)
            return HttpResponseRedirect(reverse("admin:billing_invoice_change", args=(done.pk,)))
    context = page_context(
        invoice_admin,
        request,
        f"{step.label}{step.joint}{invoice}",
        invoice=invoice,
        step=step,
        form=form,
        is_open=step in open_steps(invoice, user),
        blockers=_blockers(step, invoice),
        warnings=_warnings(step, invoice),
        seen_field=SEEN_FIELD,
        seen=step.figures_of(invoice),
    )
    return TemplateResponse(request, "admin/billing/invoice/step.html", context)


def _blockers(step: Step, invoice: Invoice) -> list[str]:
    """What must be settled first, for a step that the invoice's state would allow."""
    if step.action == InvoiceAction.ISSUE and invoice.state == InvoiceState.APPROVED:
        return find_blockers(invoice)
    if step.action == InvoiceAction.SUBMIT and invoice.state == InvoiceState.DRAFT:
        return [sentence] if (sentence := why_too_early(invoice)) else []
    return []


def _warnings(step: Step, invoice: Invoice) -> list[str]:
    """What will block issuing, before anyone reviews or signs amounts that must change."""
    is_due = step.action == InvoiceAction.APPROVE and invoice.state == InvoiceState.IN_REVIEW
    if step.action == InvoiceAction.SUBMIT and invoice.state == InvoiceState.DRAFT:
        is_due = not why_too_early(invoice)
    return find_blockers(invoice) if is_due else []


def perform(step: Step, invoice: Invoice, *, user: User, reason: str, seen: str, **details: Any) -> Invoice:
    """seen: `figures_of` when the page was rendered.

    Raises BillingError with a sentence, also if the database refuses or another user was faster.
    """
    try:
        if step.confirms is None:
            return step.perform(invoice.pk, user=user, reason=reason, **details)
        with transaction.atomic():
            lock_profile(invoice.account_id)
            if step.figures_of(Invoice.objects.get(pk=invoice.pk)) != seen:
                raise InvoiceError(CHANGED)
            return step.perform(invoice.pk, user=user, reason=reason, **details)
    except OperationalError as error:
        raise InvoiceError(BUSY) from error
    except IntegrityError as error:
        raise InvoiceError("Another invoice prevents this: check the account's other drafts.") from error


def _said(invoice: Invoice, step: Step) -> str:
    if step.action in (InvoiceAction.CREDIT, InvoiceAction.BILL_AGAIN):
        return f"The draft credit note for {invoice.original} was created. Submit it next."
    if step.action == InvoiceAction.PAY and invoice.state == InvoiceState.ISSUED:
        left = format_money(balance_of(invoice).outstanding, invoice.currency)
        return f"The payment on {invoice} was recorded: {left} {invoice.currency} are outstanding."
    return f"{sentence_case(str(invoice))} was {step.action.label}."
