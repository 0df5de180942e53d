"""Invoices by mail: the text, and the PDF whose bytes stay the same from the first sending on."""

from __future__ import annotations

import hashlib
from decimal import Decimal

from django.conf import settings

from billing.currencies import format_money
from billing.documents import pdf_file_name, render_pdf
from billing.documents.context import TITLES
from billing.documents.wording import one_line, text_of_day, text_of_month
from billing.enums import InvoiceKind
from billing.invoices.messages import ACCOUNT_EVENTS, MAIL_EVENT, PART_PAID_EVENT, REMINDER_EVENT, STAFF_EVENTS
from billing.invoices.parties import seller_of
from billing.models import ArchivedPdf, Invoice
from billing.models.invoices import FINAL_STATES
from llm.alerts.messages import Attachment, Facts, Mail, Notice, add_events
from llm.models import Account


def pdf_of(invoice: Invoice) -> bytes:
    """As it was mailed, if it was; otherwise as it looks now."""
    archived = ArchivedPdf.objects.filter(invoice=invoice).first() if invoice.state in FINAL_STATES else None
    return render_pdf(invoice) if archived is None else bytes(archived.content)


def archive_pdf(invoice: Invoice) -> bytes:
    """The archived PDF, made if there is none. Two senders at once get the same one."""
    archived = ArchivedPdf.objects.filter(invoice=invoice).first()
    if archived is None:
        content = render_pdf(invoice)
        digest = hashlib.sha256(content).hexdigest()
        archived, _ = ArchivedPdf.objects.get_or_create(
            invoice=invoice, defaults={"content": content, "digest": digest}
        )
    return bytes(archived.content)


def register_messages() -> None:
    """Called once, when the apps are ready."""
    webhooks = (*ACCOUNT_EVENTS.values(), PART_PAID_EVENT)
    builders = {MAIL_EVENT: _invoice_mail, REMINDER_EVENT: _reminder, **dict.fromkeys(webhooks, _facts)}
    add_events(builders, staff=STAFF_EVENTS.values(), mailed=(MAIL_EVENT, REMINDER_EVENT))


def _facts(account: Account, payload: Facts, shows_cost: bool) -> Notice:
    return Notice(payload, Mail(subject="", text=""))


def _invoice_mail(account: Account, payload: Facts, shows_cost: bool) -> Notice:
    invoice = _load(payload)
    title = TITLES[InvoiceKind(invoice.kind)]
    due = f", due on {text_of_day(invoice.due_on)}" if invoice.due_on and invoice.total > 0 else ""
    amount = f"{format_money(invoice.total, invoice.currency)} {invoice.currency}"
    text = f"Please find attached {title.lower()} {invoice.label} for {text_of_month(invoice.period)}: {amount}{due}."
    return _mail(invoice, payload, f"{title} {invoice.label}", text)


def _reminder(account: Account, payload: Facts, shows_cost: bool) -> Notice:
    invoice = _load(payload)
    left = f"{format_money(Decimal(payload['outstanding']), invoice.currency)} {invoice.currency}"
    due = "" if invoice.due_on is None else f" was due on {text_of_day(invoice.due_on)}, and"
    text = (
        f"Invoice {invoice.label} for {text_of_month(invoice.period)}{due} {left} are outstanding. It is "
        "attached again. If you have paid it in the meantime, please ignore this message."
    )
    return _mail(invoice, payload, f"Reminder: invoice {invoice.label}", text)


def _load(payload: Facts) -> Invoice:
    return Invoice.objects.select_related("account", "original", "exchange_rate").get(pk=payload["invoice"])


def _mail(invoice: Invoice, payload: Facts, subject: str, text: str) -> Notice:
    seller = seller_of(invoice)
    payment = f"\n{seller.payment}\n" if seller.payment and invoice.total > 0 else ""
    return Notice(
        payload,
        Mail(
            subject=one_line(f"{subject} from {seller.name}"),
            text=f"{text}\n{payment}\n{one_line(seller.name)}\n",
            to=payload["to"],
            sender=settings.BILLING_MAIL_FROM,
            reply_to=settings.BILLING_MAIL_REPLY_TO,
            attachments=(Attachment(pdf_file_name(invoice), archive_pdf(invoice), "application/pdf"),),
        ),
    )
