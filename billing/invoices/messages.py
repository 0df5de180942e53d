"""Messages about an invoice, written to the outbox in the transaction of what they report.

An account that has invoices by mail gets each document once, when it is issued: nothing that was issued before. The
steps of an invoice are also webhooks: from its issue on the account's, or ours if it has none; before that only ours.
"""

from __future__ import annotations

from collections.abc import Mapping

from django.conf import settings
from django.utils import timezone

from billing.enums import InvoiceAction, InvoiceState
from billing.invoices.payments import balance_of
from billing.invoices.taxes import plain
from billing.models import BillingProfile, Invoice, InvoiceEvent
from llm.enums import OutboxKind
from llm.models import Account, Outbox

MAIL_EVENT = "invoice.mail"
REMINDER_EVENT = "invoice.reminder"
ACCOUNT_EVENTS: Mapping[InvoiceAction, str] = {
    InvoiceAction.ISSUE: "invoice.issued",
    InvoiceAction.PAY: "invoice.paid",
    InvoiceAction.UNPAY: "invoice.payment_undone",
}
PART_PAID_EVENT = "invoice.payment_recorded"
STAFF_EVENTS: Mapping[InvoiceAction, str] = {
    InvoiceAction.SUBMIT: "invoice.submitted",
    InvoiceAction.SEND_BACK: "invoice.sent_back",
    InvoiceAction.APPROVE: "invoice.approved",
    InvoiceAction.VOID: "invoice.voided",
}


def queue_webhook(invoice: Invoice, step: InvoiceEvent) -> None:
    """Nothing is queued if no webhook is configured. step: an entry of the invoice's history, saved."""
    action = InvoiceAction(step.action)
    if action in STAFF_EVENTS:
        if settings.LLM_WEBHOOK_URL:
            _write(OutboxKind.WEBHOOK, STAFF_EVENTS[action], invoice, step, None, facts_of(invoice))
    elif action in ACCOUNT_EVENTS and (invoice.account.webhook_url or settings.LLM_WEBHOOK_URL):
        is_part = action == InvoiceAction.PAY and invoice.state == InvoiceState.ISSUED
        event = PART_PAID_EVENT if is_part else ACCOUNT_EVENTS[action]
        _write(OutboxKind.WEBHOOK, event, invoice, step, invoice.account, facts_of(invoice))


def queue_mail(invoice: Invoice, step: InvoiceEvent, *, to: str, event: str = MAIL_EVENT) -> None:
    """step: the entry of the invoice's history that says so; there is one message for each."""
    left = plain(balance_of(invoice).outstanding)
    _write(
        OutboxKind.MAIL, event, invoice, step, invoice.account, {"invoice": invoice.pk, "to": to, "outstanding": left}
    )


def address_of(profile: BillingProfile) -> str:
    """Where the account's documents are mailed; "" if they aren't."""
    return profile.email if profile.mails_invoices else ""


def facts_of(invoice: Invoice) -> dict[str, object]:
    """An invoice in a webhook. Amounts are text, in its currency."""
    return {
        "invoice": invoice.pk,
        "number": invoice.label,
        "kind": invoice.kind,
        "state": invoice.state,
        "account": invoice.account.name,
        "period": str(invoice.period),
        "currency": invoice.currency,
        "total": plain(invoice.total),
        "outstanding": plain(balance_of(invoice).outstanding),
        "issued_on": None if invoice.issued_on is None else invoice.issued_on.isoformat(),
        "due_on": None if invoice.due_on is None else invoice.due_on.isoformat(),
        "paid_on": None if invoice.paid_on is None else invoice.paid_on.isoformat(),
    }


def find_mails(invoice: Invoice) -> list[Outbox]:
    """Latest first. Messages are deleted 90 days after they were sent; the invoice's history stays."""
    return list(Outbox.objects.filter(cause__startswith=f"invoice:{invoice.pk}:", kind=OutboxKind.MAIL).order_by("-id"))


def _write(
    kind: OutboxKind, event: str, invoice: Invoice, step: InvoiceEvent, account: Account | None, payload: object
) -> None:
    now = timezone.now()
    Outbox.objects.create(
        kind=kind,
        cause=f"invoice:{invoice.pk}:{step.pk}:{event}:{kind}",
        event=event,
        account=account,
        payload=payload,
        created_at=now,
        due_at=now,
    )
