"""Who may move an invoice on, and that what was signed is what is issued."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from pytest_django import Settings

from billing.enums import InvoiceAction, InvoiceState
from billing.errors import InvoiceError
from billing.invoices.blockers import find_blockers, open_calls_note
from billing.invoices.drafting import draft_invoice
from billing.invoices.review import approve, issue, mark_paid, send_back, steps_open_to, submit, void
from billing.models import BillingProfile, Invoice, InvoiceEvent, InvoiceLine, InvoiceSeries
from billing.periods import BillingPeriod
from llm.db.triggers import drop_triggers, install_triggers
from llm.enums import AccountStatus
from llm.models import Account, Price
from tests.billing.calls import make_call, make_open_call, make_price
from tests.billing.factories import make_account, make_profile
from tests.billing.people import make_approver, make_person, make_preparer

pytestmark = pytest.mark.django_db

OCTOBER = BillingPeriod.parse("2026-10")


@pytest.fixture
def preparer() -> User:
    return make_preparer()


@pytest.fixture
def approver() -> User:
    return make_approver()


@pytest.fixture
def draft() -> Invoice:
    account = make_account()
    make_profile(account, payment_days=14, address="1 Street", email="pay@acme.example")
    make_call(account, price=make_price(), prompt_tokens=1_000_000)
    invoice = draft_invoice(account, OCTOBER)
    assert invoice is not None
    return invoice


@pytest.fixture
def submitted(draft: Invoice, preparer: User) -> Invoice:
    return submit(draft.pk, user=preparer)


@pytest.fixture
def issued(submitted: Invoice, approver: User) -> Invoice:
    approve(submitted.pk, user=approver)
    return issue(submitted.pk, user=approver)


def assert_unchanged(invoice: Invoice, state: InvoiceState) -> None:
    events = InvoiceEvent.objects.filter(invoice=invoice).count()
    invoice.refresh_from_db()
    assert (invoice.state, invoice.events.count()) == (state, events)


def test_the_whole_course_is_on_record(issued: Invoice, preparer: User, approver: User) -> None:
    today = timezone.now().date()
    assert (issued.label, issued.issued_on, issued.due_on) == (
        f"INV-{today.year}-000001",
        today,
        today + timedelta(days=14),
    )
    assert issued.content_digest == issued.approved_digest != ""
    assert issued.bill_to["legal_name"] == "Acme"
    paid = mark_paid(issued.pk, user=approver, paid_on=today, reason="wire 4711")
    assert paid.state == InvoiceState.PAID
    course = [(event.action, event.from_state, event.to_state, event.user) for event in paid.events.order_by("id")]
    assert course == [
        ("draft", "", "draft", None),
        ("submit", "draft", "in_review", preparer),
        ("approve", "in_review", "approved", approver),
        ("issue", "approved", "issued", approver),
        ("pay", "issued", "paid", approver),
    ]
    assert paid.events.last() is not None
    assert paid.events.order_by("-id")[0].reason == "wire 4711"


def test_who_submitted_cannot_approve(draft: Invoice) -> None:
    both = make_person("bo", "prepare_invoice", "approve_invoice")
    submit(draft.pk, user=both)
    with pytest.raises(InvoiceError, match="someone else must approve"):
        approve(draft.pk, user=both)
    assert_unchanged(draft, InvoiceState.IN_REVIEW)
    draft.refresh_from_db()
    assert InvoiceAction.APPROVE not in steps_open_to(draft, both)


def test_the_database_too_wants_a_second_person(submitted: Invoice, preparer: User) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Invoice.objects.filter(pk=submitted.pk).update(
            state=InvoiceState.APPROVED, approved_by=preparer, approved_digest=submitted.content_digest
        )
    assert_unchanged(submitted, InvoiceState.IN_REVIEW)


def test_up_to_an_amount_one_person_is_enough(draft: Invoice, settings: object) -> None:
    settings.BILLING_SECOND_PERSON_ABOVE_USD = 2  # type: ignore[attr-defined]  # pytest-django's settings
    both = make_person("bo", "prepare_invoice", "approve_invoice")
    assert submit(draft.pk, user=both).needs_second_person is False
    assert approve(draft.pk, user=both).state == InvoiceState.APPROVED


@pytest.mark.parametrize("permission", ["approve_invoice", "issue_invoice", "credit_invoice", "view_invoice"])
def test_submitting_takes_the_permission_for_it(draft: Invoice, permission: str) -> None:
    with pytest.raises(InvoiceError, match="have permission for this"):
        submit(draft.pk, user=make_person("someone", permission))
    assert_unchanged(draft, InvoiceState.DRAFT)


def test_a_person_who_was_deactivated_may_do_nothing(submitted: Invoice, approver: User) -> None:
    approver.is_active = False
    approver.save()
    with pytest.raises(InvoiceError, match="have permission for this"):
        approve(submitted.pk, user=approver)
    assert_unchanged(submitted, InvoiceState.IN_REVIEW)


def test_steps_out_of_order_are_refused(draft: Invoice, approver: User) -> None:
    for step in (approve, issue):
        with pytest.raises(InvoiceError, match="status is “draft”"):
            step(draft.pk, user=approver)
    with pytest.raises(InvoiceError, match="status is “draft”"):
        mark_paid(draft.pk, user=approver, paid_on=date(2026, 11, 24))
    assert_unchanged(draft, InvoiceState.DRAFT)


def test_sent_back_it_follows_the_books_again(submitted: Invoice, approver: User, preparer: User) -> None:
    with pytest.raises(InvoiceError, match="Give a reason"):
        send_back(submitted.pk, user=approver, reason=" ")
    sent = send_back(submitted.pk, user=approver, reason="the PO number is missing")
    assert (sent.state, sent.content_digest, sent.prepared_by) == (InvoiceState.DRAFT, "", None)
    make_call(sent.account, price=sent.account.usage.get().price, prompt_tokens=1_000_000)
    assert submit(sent.pk, user=preparer).total == Decimal(4)


def test_a_profile_that_changes_after_submit_changes_nothing(submitted: Invoice, approver: User) -> None:
    BillingProfile.objects.update(legal_name="Other Ltd")
    approve(submitted.pk, user=approver)
    assert issue(submitted.pk, user=approver).bill_to["legal_name"] == "Acme"


def test_calls_in_flight_are_billed_late_and_the_draft_says_how_many(
    draft: Invoice, preparer: User, approver: User
) -> None:
    for _ in range(2):
        make_open_call(draft.account)
    assert open_calls_note(draft) == "2 calls of 2026-10 still in flight: late usage, billed on the next invoice."
    submit(draft.pk, user=preparer)
    approve(draft.pk, user=approver)
    assert issue(draft.pk, user=approver).total == Decimal(2)
    assert "open" in Invoice.objects.get().flags
    make_call(draft.account, price=Price.objects.get(), prompt_tokens=1_000_000)
    following = draft_invoice(draft.account, OCTOBER.following)
    assert following is not None
    assert [(line.period_start, line.amount) for line in following.lines.all()] == [(OCTOBER.start, Decimal(2))]


def test_unpriced_calls_stop_the_issue(draft: Invoice, preparer: User, approver: User) -> None:
    make_call(draft.account, model="mystery-1", prompt_tokens=10)
    submit(draft.pk, user=preparer)
    approve(draft.pk, user=approver)
    with pytest.raises(InvoiceError, match="1 call of 2026-10 to openai mystery-1 has no price"):
        issue(draft.pk, user=approver)


@pytest.mark.parametrize(
    ("zone", "last_moment"),
    [
        ("UTC", datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC)),
        ("Asia/Tokyo", datetime(2026, 10, 31, 14, 59, 59, tzinfo=UTC)),
        ("America/Los_Angeles", datetime(2026, 11, 1, 6, 59, 59, tzinfo=UTC)),
    ],
)
def test_a_month_that_is_not_over_where_the_account_is_cannot_be_submitted(
    preparer: User, zone: str, last_moment: datetime
) -> None:
    account = make_account(time_zone=zone)
    make_call(account, price=make_price(), prompt_tokens=1_000_000)
    invoice = draft_invoice(account, OCTOBER)
    assert invoice is not None
    with time_machine.travel(last_moment, tick=False):
        [sentence] = find_blockers(invoice)
        assert sentence.startswith(f"2026-10 has not ended in {zone} yet: the invoice can be submitted from 2026-11-01")
        with pytest.raises(InvoiceError, match="has not ended in"):
            submit(invoice.pk, user=preparer)
    assert_unchanged(invoice, InvoiceState.DRAFT)
    with time_machine.travel(last_moment + timedelta(seconds=1), tick=False):
        assert submit(invoice.pk, user=preparer).state == InvoiceState.IN_REVIEW


def test_content_that_was_frozen_before_the_month_was_over_is_not_issued(submitted: Invoice, approver: User) -> None:
    """As earlier versions let it be submitted."""
    approve(submitted.pk, user=approver)
    drop_triggers(connection)
    Invoice.objects.filter(pk=submitted.pk).update(submitted_at=datetime(2026, 10, 10, tzinfo=UTC))
    install_triggers()
    with pytest.raises(InvoiceError, match="It was submitted on 2026-10-10, before 2026-10 had ended: send it back"):
        issue(submitted.pk, user=approver)
    assert_unchanged(submitted, InvoiceState.APPROVED)
    assert not InvoiceSeries.objects.filter(last_number__gt=0).exists()


def test_an_account_that_is_closed_ends_its_month_that_day(preparer: User, approver: User) -> None:
    today = timezone.now().date()
    account = make_account()
    make_call(account, day=today, price=make_price(), prompt_tokens=1_000_000)
    invoice = draft_invoice(account, BillingPeriod.of(today))
    assert invoice is not None
    Account.objects.update(status=AccountStatus.CLOSED, closed_at=timezone.now())
    submit(invoice.pk, user=preparer)
    approve(invoice.pk, user=approver)
    assert issue(invoice.pk, user=approver).total == Decimal(2)


# --- Numbers and dates ------------------------------------------------------------------------------------------------


def approved(name: str, preparer: User, approver: User, **values: Any) -> Invoice:
    account = make_account(name, **values)
    make_call(account, price=Price.objects.first() or make_price(), prompt_tokens=1_000_000)
    invoice = draft_invoice(account, OCTOBER)
    assert invoice is not None
    submit(invoice.pk, user=preparer)
    return approve(invoice.pk, user=approver)


@pytest.mark.slow
def test_the_seller_dates_invoices_wherever_customers_are(preparer: User, approver: User, settings: Settings) -> None:
    settings.BILLING_SELLER_TIME_ZONE = "Europe/Berlin"
    zones = {"A": "Pacific/Kiritimati", "B": "Pacific/Pago_Pago", "C": "UTC"}
    invoices = [approved(name, preparer, approver, time_zone=zone) for name, zone in zones.items()]
    new_year = datetime(2026, 12, 31, 23, 30, tzinfo=UTC)
    with time_machine.travel(new_year, tick=False):
        issued = [issue(invoice.pk, user=approver) for invoice in invoices]
    found = [(invoice.label, invoice.issued_on) for invoice in issued]
    assert found == [(f"INV-2027-00000{number}", date(2027, 1, 1)) for number in (1, 2, 3)]


@pytest.mark.slow
def test_dates_never_run_against_the_numbers(preparer: User, approver: User, settings: Settings) -> None:
    """The seller moved west, or a clock was wrong, or the customer's zone dated it in an earlier version."""
    first, second, third = (approved(name, preparer, approver) for name in ("A", "B", "C"))
    settings.BILLING_SELLER_TIME_ZONE = "Pacific/Kiritimati"
    at = datetime(2026, 12, 31, 12, tzinfo=UTC)
    with time_machine.travel(at, tick=False):
        ahead = issue(first.pk, user=approver)
        settings.BILLING_SELLER_TIME_ZONE = "Pacific/Pago_Pago"
        behind = issue(second.pk, user=approver)
    assert [(each.label, each.issued_on) for each in (ahead, behind)] == [
        ("INV-2027-000001", date(2027, 1, 1)),
        ("INV-2027-000002", date(2027, 1, 1)),
    ]
    with time_machine.travel(datetime(2027, 1, 5, tzinfo=UTC), tick=False):
        later = issue(third.pk, user=approver)
    assert (later.label, later.issued_on) == ("INV-2027-000003", date(2027, 1, 4))


def test_content_that_was_tampered_with_is_neither_approved_nor_issued(submitted: Invoice, approver: User) -> None:
    drop_triggers(connection)
    InvoiceLine.objects.filter(invoice=submitted).update(description="something else")
    install_triggers()
    with pytest.raises(InvoiceError, match="no longer matches the submitted digest"):
        approve(submitted.pk, user=approver)
    assert_unchanged(submitted, InvoiceState.IN_REVIEW)


def test_a_void_invoice_leaves_its_month_to_another(submitted: Invoice, approver: User) -> None:
    gone = void(submitted.pk, user=approver, reason="wrong plan")
    assert (gone.state, gone.number) == (InvoiceState.VOID, None)
    another = draft_invoice(gone.account, OCTOBER)
    assert another is not None
    assert another.pk != gone.pk


@pytest.mark.parametrize("days", [-100_000, 2])
def test_a_day_on_which_it_cannot_have_been_paid_is_refused(issued: Invoice, approver: User, days: int) -> None:
    paid_on = timezone.now().date() + timedelta(days=days)
    with pytest.raises(InvoiceError, match=f"{paid_on} can't be the payment date of INV-"):
        mark_paid(issued.pk, user=approver, paid_on=paid_on)
    assert_unchanged(issued, InvoiceState.ISSUED)


def test_an_issued_invoice_is_not_voided(issued: Invoice, approver: User) -> None:
    with pytest.raises(InvoiceError, match="status is “issued”"):
        void(issued.pk, user=approver, reason="no")
    assert_unchanged(issued, InvoiceState.ISSUED)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE billing_invoice SET total = subtotal, tax = tax, currency = 'EUR'",
        "UPDATE billing_invoice SET state = 'draft'",
        "UPDATE billing_invoice SET number = 2",
        "UPDATE billing_invoice SET state = 'paid', paid_on = '2026-11-24', due_on = '2027-01-01'",
        "DELETE FROM billing_invoice",
        "UPDATE billing_invoiceline SET amount = exact_amount",
        "DELETE FROM billing_invoiceline",
        "DELETE FROM billing_billedusage",
        "UPDATE billing_billedusage SET calls = 0",
        "UPDATE billing_invoiceevent SET reason = 'x'",
        "DELETE FROM billing_invoiceevent",
        "UPDATE billing_planversion SET note = 'x' WHERE id IN (SELECT plan_version_id FROM billing_invoice)",
    ],
)
def test_raw_sql_changes_nothing_of_an_issued_invoice(issued: Invoice, sql: str) -> None:
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql)
    assert_unchanged(issued, InvoiceState.ISSUED)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE billing_invoice SET needs_second_person = NOT needs_second_person",
        "UPDATE billing_invoice SET prepared_by_id = (SELECT max(id) FROM auth_user)",
        "UPDATE billing_invoice SET total = subtotal + 1",
    ],
)
def test_raw_sql_changes_neither_content_nor_preparer_under_review(
    submitted: Invoice, approver: User, sql: str
) -> None:
    """Nor whether a second person must look."""
    assert approver.pk != submitted.prepared_by_id
    with pytest.raises(IntegrityError, match="under review"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql)
    assert_unchanged(submitted, InvoiceState.IN_REVIEW)


def test_no_line_is_added_to_an_issued_invoice_nor_moved_to_it(issued: Invoice) -> None:
    line = issued.lines.get()
    line.pk, line.position, line.key = None, 2, "another"
    with pytest.raises(IntegrityError), transaction.atomic():
        line.save(force_insert=True)
    other = draft_invoice(issued.account, OCTOBER.following)
    assert other is None
    assert issued.lines.count() == 1


def test_replacing_an_issued_invoice_is_refused(issued: Invoice) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("INSERT OR REPLACE is SQLite's")
    columns = ", ".join(str(field.column) for field in Invoice._meta.concrete_fields)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA recursive_triggers = OFF")
        with pytest.raises(IntegrityError):
            cursor.execute(f"INSERT OR REPLACE INTO billing_invoice ({columns}) SELECT {columns} FROM billing_invoice")  # noqa: S608
        cursor.execute("PRAGMA recursive_triggers = ON")
    assert_unchanged(issued, InvoiceState.ISSUED)
