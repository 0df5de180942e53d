"""Corrections and reductions beside other things: currencies, closed accounts, drafts, exports, each other."""

from __future__ import annotations

import importlib
import threading
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from django.apps import apps
from django.db import IntegrityError, connection, connections, transaction

from billing.enums import CreditKind, InvoiceKind, InvoiceState, LineKind
from billing.errors import InvoiceError
from billing.invoices.closing import close_month
from billing.invoices.crediting import credit_and_bill_again
from billing.invoices.digests import content_digest
from billing.invoices.reductions import split
from billing.invoices.review import approve, send_back, submit, void
from billing.jobs.exports import export_month
from billing.models import BillingProfile, Invoice, InvoiceEvent, Plan
from billing.plans import add_version
from billing.rating.lines import month_line
from llm.db.triggers import drop_triggers, install_triggers
from llm.enums import AccountStatus
from llm.models import Account, Price
from tests.billing.calls import make_call, make_price
from tests.billing.exports.months import verify
from tests.billing.factories import former_invoices, make_account, make_exchange_rate, make_invoice, make_profile
from tests.billing.months import (
    IN_SEPTEMBER,
    NOVEMBER,
    OCTOBER,
    SEPTEMBER,
    approver,
    charged,
    close_and_issue,
    drafts_of,
    findings,
    preparer,
    reprice,
    through_review,
)
from tests.databases import only_on_postgresql

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


def september(*, tax: str = "0") -> Invoice:
    """A million tokens at 100.00, and as many of output at 50.00."""
    account = make_account()
    make_profile(account, tax_percent=Decimal(tax))
    price = make_price(input="100", output="50")
    make_call(account, day=IN_SEPTEMBER, price=price, prompt_tokens=1_000_000, completion_tokens=1_000_000)
    [invoice] = close_and_issue(account, SEPTEMBER)
    return invoice


def corrected(invoice: Invoice, *, lines: list[int] | None = None) -> Invoice:
    return through_review(credit_and_bill_again(invoice.pk, user=approver(), reason="wrong", line_ids=lines))


def late_call(account: Account, tokens: int = 500_000) -> None:
    make_call(account, day=IN_SEPTEMBER, price=Price.objects.earliest("id"), prompt_tokens=tokens)


def test_only_the_lines_chosen_are_billed_again() -> None:
    invoice = september()
    output = invoice.lines.get(meter="output")
    note = corrected(invoice, lines=[output.pk])
    assert (note.total, note.billed_usage.count()) == (Decimal(-50), 0)
    [october] = close_and_issue(invoice.account, OCTOBER)
    assert [(line.meter, line.amount) for line in october.lines.all()] == [("output", Decimal(50))]
    assert charged(invoice.account) == Decimal(150)
    assert findings(SEPTEMBER, OCTOBER) == []


def test_nothing_is_billed_again_before_the_correction_is_issued() -> None:
    invoice = september()
    note = credit_and_bill_again(invoice.pk, user=approver(), reason="wrong")
    submit(note.pk, user=preparer())
    approve(note.pk, user=approver())
    reprice("60")
    assert close_month(OCTOBER, account=invoice.account).drafted == []
    void(note.pk, user=approver(), reason="it was right")
    [reduction] = close_and_issue(invoice.account, OCTOBER)
    assert (reduction.credit_kind, reduction.total) == (CreditKind.REDUCTION, Decimal(-40))
    assert charged(invoice.account) == Decimal(110)


def test_a_correction_takes_back_what_reductions_left() -> None:
    invoice = september(tax="19")
    reprice("60")
    [reduction] = close_and_issue(invoice.account, OCTOBER)
    assert (reduction.subtotal, reduction.total) == (Decimal(-40), Decimal("-47.6"))
    BillingProfile.objects.update(tax_percent=Decimal(7))
    note = corrected(invoice)
    assert (note.subtotal, note.tax) == (Decimal(-110), Decimal("-20.9"))
    [november] = close_and_issue(invoice.account, NOVEMBER)
    assert (november.subtotal, november.tax) == (Decimal(110), Decimal("7.7"))
    assert charged(invoice.account) == Decimal("117.7")
    assert findings(SEPTEMBER, OCTOBER, NOVEMBER) == []


def test_a_reduction_goes_first_against_the_invoice_that_billed_last() -> None:
    invoice = september(tax="19")
    late_call(invoice.account)
    [october] = close_and_issue(invoice.account, OCTOBER)
    assert october.subtotal == Decimal(50)
    reprice("20")
    close_month(NOVEMBER, account=invoice.account)
    notes = {note.original_id: note for note in drafts_of(invoice.account)}
    # 200 were billed; a million and a half tokens at 20 and a million at 50 cost 80: 120 go back.
    assert [(notes[each.pk].subtotal, notes[each.pk].tax) for each in (october, invoice)] == [
        (Decimal(-50), Decimal("-9.5")),
        (Decimal(-70), Decimal("-13.3")),
    ]
    for note in notes.values():
        through_review(note)
    assert charged(invoice.account) == Decimal("95.2")
    assert findings(SEPTEMBER, OCTOBER, NOVEMBER) == []


def test_a_reduction_that_is_no_longer_due_is_withdrawn() -> None:
    invoice = september()
    reprice("60")
    close_month(OCTOBER, account=invoice.account)
    [note] = drafts_of(invoice.account)
    late_call(invoice.account, 1_500_000)
    with pytest.raises(InvoiceError, match="Nothing is left to give back"):
        submit(note.pk, user=preparer())
    [october] = close_and_issue(invoice.account, OCTOBER)
    note.refresh_from_db()
    assert (note.state, october.kind, october.total) == (InvoiceState.VOID, InvoiceKind.REGULAR, Decimal(110))
    assert charged(invoice.account) == Decimal(260)


def test_a_reduction_waits_until_its_invoice_is_issued() -> None:
    account = make_account()
    make_profile(account)
    make_call(account, day=IN_SEPTEMBER, price=make_price(input="100"), prompt_tokens=1_000_000)
    close_month(SEPTEMBER, account=account)
    [draft] = drafts_of(account)
    submit(draft.pk, user=preparer())
    reprice("60")
    assert close_month(OCTOBER, account=account).credited == []
    send_back(draft.pk, user=preparer(), reason="the price was wrong")
    through_review(draft)
    assert (charged(account), close_and_issue(account, OCTOBER)) == (Decimal(60), [])


def test_a_corrected_month_is_billed_in_the_currency_of_the_profile() -> None:
    invoice = september()
    euros = Plan.objects.create(name="Cost in euros")
    add_version(euros, effective_from=date(2025, 1, 1), currency="EUR")
    make_exchange_rate("EUR", "0.5", on=date(2025, 1, 1))
    corrected(invoice)
    BillingProfile.objects.update(plan=euros, currency="EUR")
    [october] = close_and_issue(make_account(), OCTOBER)
    assert (october.currency, october.total) == ("EUR", Decimal(75))
    assert findings(SEPTEMBER, OCTOBER) == []
    late_call(invoice.account)
    [november] = close_and_issue(make_account(), NOVEMBER)
    assert (november.currency, november.total) == ("EUR", Decimal(25))


def test_a_corrected_month_of_a_closed_account_gets_a_supplement() -> None:
    invoice = september()
    Account.objects.update(status=AccountStatus.CLOSED)
    BillingProfile.objects.update(tax_percent=Decimal(10))
    corrected(invoice)
    [supplement] = close_and_issue(Account.objects.get(), OCTOBER)
    assert (supplement.kind, supplement.period, supplement.total) == (InvoiceKind.SUPPLEMENT, SEPTEMBER, Decimal(165))
    assert findings(SEPTEMBER, OCTOBER) == []


def test_exports_of_a_month_that_was_billed_again_add_up(tmp_path: Path) -> None:
    invoice = september(tax="19")
    late_call(invoice.account)
    [october] = close_and_issue(invoice.account, OCTOBER)
    corrected(invoice)
    BillingProfile.objects.update(tax_percent=Decimal(7))
    [november] = close_and_issue(invoice.account, NOVEMBER)
    reprice("60")
    close_and_issue(invoice.account, NOVEMBER.following)
    for period in (SEPTEMBER, OCTOBER, NOVEMBER):
        folder = tmp_path / str(period)
        export_month(period, folder, ("csv", "jsonl", "focus", "xero"))
        status, said = verify(folder)
        assert (status, said.count("differs")) == (0, 0), said
    assert (october.total, november.subtotal) == (Decimal("59.5"), Decimal(150))


def test_no_invoice_is_negative() -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        make_invoice(lines=({"amount": "-0.01"},))
    with former_invoices():
        former = make_invoice(lines=({"amount": "-0.01"},), content_version=1)
    assert former.total == Decimal("-0.01")


def test_former_invoices_verify_under_their_version() -> None:
    with former_invoices():
        former = make_invoice(content_version=1, state=InvoiceState.ISSUED, bill_to={}, tax_percent="19")
    lines = list(former.lines.all())
    assert content_digest(former, lines) == former.content_digest
    lines[0].tax_percent = Decimal(7)
    assert content_digest(former, lines) == former.content_digest
    former.content_version = 2
    assert content_digest(former, lines) != former.content_digest


def test_credit_notes_of_before_are_goodwill() -> None:
    profile = make_profile()
    original = make_invoice(profile, state=InvoiceState.ISSUED)
    note = make_invoice(
        profile,
        kind=InvoiceKind.CREDIT_NOTE,
        credit_kind=CreditKind.CORRECTION,
        original=original,
        credit_sequence=1,
        state=InvoiceState.ISSUED,
        lines=({"amount": "-10.00"},),
    )
    migration = importlib.import_module("billing.migrations.0006_credit_notes_say_what_they_are")
    drop_triggers(connection)
    migration.former_notes_are_goodwill(apps, None)
    install_triggers()
    kinds = dict(Invoice.objects.values_list("pk", "credit_kind"))
    assert kinds == {original.pk: "", note.pk: "goodwill"}


def test_a_split_reduction_adds_up_and_gives_back_no_more_than_is_left() -> None:
    lines = [
        month_line(LineKind.USAGE, key, key, Decimal(exact), decimals=2)
        for key, exact in (("a", "-0.028"), ("b", "-100.004"), ("c", "60"))
    ]
    assert sum(line.amount for line in lines) == Decimal("-40.03")
    first, last = split([Decimal(10), Decimal("30.02")], lines)
    assert sum(line.amount for line in first) == Decimal(-10)
    assert sum(line.amount for line in last) == Decimal("-30.02")
    assert sum(line.exact_amount for line in (*first, *last)) == Decimal("-40.032")


@pytest.mark.django_db(transaction=True)
@only_on_postgresql("SQLite has one writer at a time")
def test_of_two_credits_at_once_one_is_refused() -> None:
    invoice = september()
    users = [approver(), preparer()]
    users[1].user_permissions.set(users[0].user_permissions.all())
    at_once, refused = threading.Barrier(2, timeout=20), []

    def run(user_id: int) -> None:
        from django.contrib.auth.models import User

        try:
            user = User.objects.get(pk=user_id)
            at_once.wait()
            credit_and_bill_again(invoice.pk, user=user, reason="wrong")
        except InvoiceError as error:
            refused.append(str(error))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(user.pk,)) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == ["There is nothing left to credit."]
    [note] = Invoice.objects.filter(kind=InvoiceKind.CREDIT_NOTE)
    assert note.total == Decimal(-150)


@pytest.mark.django_db(transaction=True)
@only_on_postgresql("SQLite has one writer at a time")
def test_two_runs_at_once_draft_one_reduction() -> None:
    invoice = september()
    reprice("60")
    at_once = threading.Barrier(2, timeout=20)

    def run() -> None:
        try:
            at_once.wait()
            close_month(OCTOBER, account=invoice.account)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [note] = drafts_of(invoice.account)
    assert note.total == Decimal(-40)
    assert InvoiceEvent.objects.filter(invoice=note).count() == 1
