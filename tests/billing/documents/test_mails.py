"""Invoices by mail: once, the same bytes, and nothing that was issued before."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core import mail
from django.db import DatabaseError, transaction
from django.utils import timezone
from pytest_django import Settings

from billing.documents import render_pdf
from billing.documents.mails import pdf_of
from billing.enums import InvoiceAction
from billing.errors import InvoiceError
from billing.invoices import review
from billing.invoices.crediting import credit
from billing.invoices.review import mark_paid, remind_of_overdue, undo_payment
from billing.models import ArchivedPdf, BillingProfile, Invoice, Payment
from llm.alerts.outbox import LEASE, PATIENCE, SendReport, send_due
from llm.models import Account, Outbox
from tests.billing.admin.pages import make_approved, make_issued, page_url, sign_in, step_url, text_of
from tests.billing.months import approver, preparer, through_review
from tests.llm.receivers import running_mailbox
from tests.pages import seen_on

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


@pytest.fixture(autouse=True)
def _settings(settings: Settings) -> None:
    settings.BILLING_MAIL_FROM = "billing@seller.example"
    settings.BILLING_MAIL_REPLY_TO = "questions@seller.example"
    settings.LLM_WEBHOOK_URL = settings.LLM_ALERT_EMAIL = ""


def issued(**profile: Any) -> Invoice:
    """2.00, of an account with invoices by mail."""
    return make_issued(mails_invoices=True, **profile)


def mails() -> list[Any]:
    send_due()
    return mail.outbox


def test_an_issued_invoice_is_mailed_once_with_its_pdf() -> None:
    invoice = issued()
    [sent] = mails()
    assert (sent.to, sent.from_email, sent.reply_to) == (
        ["pay@acme.example"],
        "billing@seller.example",
        ["questions@seller.example"],
    )
    assert sent.subject.startswith(f"Invoice {invoice.label} from ")
    assert "October 2026: 2.00 USD, due on" in sent.body
    [attached] = sent.attachments
    assert (attached.filename, attached.mimetype) == (f"{invoice.label}.pdf", "application/pdf")
    archived = ArchivedPdf.objects.get()
    assert attached.content == bytes(archived.content) == render_pdf(invoice)
    assert archived.digest == hashlib.sha256(attached.content).hexdigest()
    assert len(mails()) == 1
    assert [event.reason for event in invoice.events.filter(action=InvoiceAction.MAIL)] == ["to pay@acme.example"]


def test_nothing_is_mailed_that_was_issued_before_the_switch() -> None:
    make_issued()
    BillingProfile.objects.update(mails_invoices=True)
    assert mails() == []
    assert not Outbox.objects.exists()


def test_an_invoice_that_is_not_issued_is_not_mailed() -> None:
    make_approved(mails_invoices=True)
    assert mails() == []


def test_a_credit_note_is_mailed_too() -> None:
    note = through_review(credit(issued().pk, user=approver(), reason="an outage"))
    assert [sent.subject.partition(" from ")[0] for sent in mails()][1:] == [f"Credit note {note.label}"]


def test_the_bytes_stay_the_same_whatever_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    invoice = issued()
    [first] = mails()
    monkeypatch.setattr("billing.documents.mails.render_pdf", lambda _: b"%PDF of another release")
    review.mail(invoice.pk, user=approver(), reason="it was lost")
    assert mails()[1].attachments[0].content == first.attachments[0].content == pdf_of(invoice)
    with pytest.raises(DatabaseError, match="never changed"), transaction.atomic():
        ArchivedPdf.objects.update(content=b"x")
    with pytest.raises(DatabaseError, match="never changed"), transaction.atomic():
        ArchivedPdf.objects.get().delete()


def test_a_sender_that_was_killed_leads_to_one_more_mail_with_the_same_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """At least once, as all messages: mail programs recognise the id."""
    issued()
    now = timezone.now() + timedelta(seconds=1)
    with monkeypatch.context() as killed:
        killed.setattr("llm.alerts.outbox._deliver", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            send_due(now=now)
    assert send_due(now=now) == SendReport(0, 0, 0, 0)
    assert send_due(now=now + 2 * LEASE).sent == 1
    assert send_due(now=now + 4 * LEASE).sent == 0
    assert len({sent.extra_headers["Message-ID"] for sent in mail.outbox}) == len(mail.outbox) == 1


def test_a_refused_address_is_visible_and_it_is_sent_again_to_another(settings: Settings) -> None:
    invoice = issued()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST = "127.0.0.1"
    client = sign_in("ada", "issue_invoice", "view_invoice", "view_outbox")
    now = timezone.now() + timedelta(seconds=1)
    with running_mailbox() as mailbox:
        settings.EMAIL_PORT = mailbox.port
        mailbox.refusal = "550 no such user"
        assert send_due(now=now).failed == 1
        assert "SMTPRecipientsRefused" in text_of(client.get(page_url(invoice)))
        assert send_due(now=now + PATIENCE).given_up == 1
        assert "failed" in text_of(client.get(page_url(invoice)))
        mailbox.refusal = ""
        BillingProfile.objects.update(email="other@acme.example")
        asked = {"reason": "bounced", **seen_on(client, step_url(invoice, "mail"))}
        assert client.post(step_url(invoice, "mail"), asked).status_code == 302
        assert "was changed since" in text_of(client.post(step_url(invoice, "mail"), asked))
        assert send_due(now=now + PATIENCE).sent == 1
        assert mailbox.recipients[-1] == "other@acme.example"
        [pdf] = mailbox.mails[-1].iter_attachments()
        assert pdf.get_content() == bytes(ArchivedPdf.objects.get().content)
    assert "other@acme.example" in text_of(client.get(page_url(invoice)))


def test_only_who_may_issue_mails_and_only_what_is_issued() -> None:
    invoice = issued()
    with pytest.raises(InvoiceError, match="permission"):
        review.mail(invoice.pk, user=preparer())
    approved = make_approved("Other")
    with pytest.raises(InvoiceError, match="Only issued"):
        review.mail(approved.pk, user=approver())
    BillingProfile.objects.update(email="", mails_invoices=False)
    with pytest.raises(InvoiceError, match="no email address"):
        review.mail(invoice.pk, user=approver())
    assert Outbox.objects.count() == 1


def test_reminders_of_what_is_overdue(settings: Settings) -> None:
    invoice = issued(payment_days=10)
    make_issued("Not mailed")
    mails()

    def remind(days: int) -> int:
        return remind_of_overdue(now=timezone.now() + timedelta(days=days))

    assert remind(300) == 0
    settings.BILLING_REMIND_AFTER_DAYS = 7
    assert [remind(16), remind(17), remind(18)] == [0, 1, 0]
    reminder = mails()[1]
    assert reminder.subject.startswith(f"Reminder: invoice {invoice.label}")
    assert "2.00 USD are outstanding" in reminder.body
    assert reminder.attachments[0].content == mail.outbox[0].attachments[0].content
    mark_paid(invoice.pk, user=approver(), paid_on=timezone.now().date())
    assert remind(300) == 0
    undo_payment(invoice.pk, user=approver(), reason="bounced", payment_id=Payment.objects.get().pk)
    BillingProfile.objects.update(mails_invoices=False)
    assert remind(300) == 0


def test_steps_are_webhooks_of_the_account_from_the_issue_on(settings: Settings) -> None:
    settings.LLM_WEBHOOK_URL = "https://hooks.example/staff"
    approved = make_approved()
    Account.objects.update(webhook_url="https://hooks.example/acme")
    issue = review.issue(approved.pk, user=approver())
    paid_on = timezone.now().date()
    mark_paid(issue.pk, user=approver(), paid_on=paid_on, amount=Decimal("0.50"))
    mark_paid(issue.pk, user=approver(), paid_on=paid_on)
    undo_payment(issue.pk, user=approver(), reason="x", payment_id=Payment.objects.latest("id").pk)
    messages = list(Outbox.objects.order_by("id"))
    assert [(each.event, each.account is None) for each in messages] == [
        ("invoice.submitted", True),
        ("invoice.approved", True),
        ("invoice.issued", False),
        ("invoice.payment_recorded", False),
        ("invoice.paid", False),
        ("invoice.payment_undone", False),
    ]
    assert [each.payload["outstanding"] for each in messages[2:]] == ["2", "1.5", "0", "1.5"]
    assert messages[2].payload["number"] == issue.label


def test_nobody_listens_to_no_webhook() -> None:
    make_issued()
    assert not Outbox.objects.exists()


def test_the_switch_needs_an_address() -> None:
    client = sign_in("paula", "change_billingprofile", "view_billingprofile")
    profile = make_issued(email="").account.billing_profile
    url = f"/admin/billing/billingprofile/{profile.pk}/change/"
    assert "Invoices by mail" in text_of(client.get(url))
    profile.mails_invoices = True
    with pytest.raises(Exception, match="give an email above"):
        profile.clean()
