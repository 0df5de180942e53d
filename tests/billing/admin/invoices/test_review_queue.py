from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from billing.enums import InvoiceState
from billing.models import Invoice
from billing.periods import BillingPeriod
from billing.rollup import refresh
from tests.billing.admin.pages import (
    APPROVER,
    PREPARER,
    make_approved,
    make_draft,
    make_issued,
    make_submitted,
    sign_in,
    text_of,
)
from tests.billing.calls import make_call
from tests.billing.factories import make_account, make_invoice, make_profile
from tests.pages import seen_on

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

QUEUE = "/admin/billing/invoice/"


def shown(client: Client, query: str = "") -> list[str]:
    """Accounts in their order."""
    return [invoice.account.name for invoice in client.get(f"{QUEUE}{query}").context["cl"].result_list]


def act(client: Client, action: str, *invoices: Invoice, **values: Any) -> Any:
    chosen = [str(invoice.pk) for invoice in invoices]
    data = {"action": action, "_selected_action": chosen}
    seen = seen_on(client, QUEUE, data) if "confirmed" in values else {}
    return client.post(QUEUE, {**data, **seen, **values}, follow=True)


def unflag(invoice: Invoice) -> Invoice:
    Invoice.objects.filter(pk=invoice.pk).update(flags=[])
    invoice.flags = []
    return invoice


def make_unflagged(name: str, **values: Any) -> Invoice:
    """In review, submitted by somebody else unless `prepared_by` is given: what submit froze stays."""
    defaults = {"needs_second_person": False, "cost_usd": Decimal(0)}
    return make_invoice(make_profile(make_account(name)), state=InvoiceState.IN_REVIEW, **{**defaults, **values})


def test_a_row_says_what_a_reviewer_asks(admin_client: Client) -> None:
    make_draft("Acme", tokens=617_250_000)

    page = text_of(admin_client.get(QUEUE))

    assert '1,234.50 <span class="gw-hint">USD</span>' in page
    assert ">new<" in page
    assert "$0.00" in page
    assert "first invoice" in page
    assert "draft" in page


def test_change_and_margin_are_reckoned(admin_client: Client) -> None:
    make_invoice(
        make_profile(),
        lines=({"amount": "15.00"},),
        previous_total=Decimal("12.00"),
        cost_usd=Decimal(10),
        estimated_permille=123,
    )

    page = text_of(admin_client.get(QUEUE))

    assert "+25.0 %" in page
    assert "$5.00" in page
    assert "33.3 %" in page
    assert "12.3 %" in page


def test_what_waits_for_people_comes_first(admin_client: Client) -> None:
    make_draft("Draft")
    make_issued("Issued")
    make_submitted("In review")
    make_invoice(make_profile(make_account("Approved")), state=InvoiceState.APPROVED)
    make_invoice(make_profile(make_account("Void")), state=InvoiceState.VOID)
    make_invoice(make_profile(make_account("Paid")), state=InvoiceState.PAID, number=400)

    assert shown(admin_client) == ["In review", "Approved", "Draft", "Issued", "Paid", "Void"]


def test_filters_and_search(admin_client: Client) -> None:
    draft = make_draft("Draft")
    issued = make_issued("Issued")
    unflag(draft)

    assert shown(admin_client, "?state__exact=issued") == ["Issued"]
    assert shown(admin_client, "?flagged=yes") == ["Issued"]
    assert shown(admin_client, "?flagged=no") == ["Draft"]
    assert shown(admin_client, "?month=2026-10") == ["Draft", "Issued"]
    assert shown(admin_client, "?month=2026-09") == []
    assert shown(admin_client, "?month=nonsense") == []
    assert shown(admin_client, f"?account={draft.account_id}") == ["Draft"]
    assert shown(admin_client, "?kind__exact=credit_note") == []
    assert shown(admin_client, f"?q={issued.label}") == ["Issued"]
    assert shown(admin_client, "?q=dra") == ["Draft"]


def test_the_queue_takes_few_queries_for_any_number(admin_client: Client, django_assert_max_num_queries: Any) -> None:
    for number in range(30):
        make_invoice(make_profile(make_account(f"Account {number}")))

    with django_assert_max_num_queries(12):
        admin_client.get(QUEUE)


def test_drafts_are_submitted_after_a_question() -> None:
    client = sign_in("pat", *PREPARER)
    one, two = make_draft("One"), make_draft("Two")
    other = make_invoice(make_profile(make_account("Issued")), state=InvoiceState.ISSUED)

    question = act(client, "submit_selected", one, two, other)
    assert "2 invoices, " in text_of(question)
    assert Invoice.objects.filter(state=InvoiceState.DRAFT).count() == 2

    answer = act(client, "submit_selected", one, two, other, confirmed="yes", reason="October")
    assert "2 invoices submitted for review." in text_of(answer)
    assert "Unchanged: 1 not a draft." in text_of(answer)
    assert [invoice.state for invoice in (Invoice.objects.get(pk=one.pk), Invoice.objects.get(pk=two.pk))] == [
        "in_review",
        "in_review",
    ]
    assert Invoice.objects.get(pk=one.pk).events.order_by("-id")[0].reason == "October"


def test_drafts_of_a_month_that_has_not_ended_are_left_out() -> None:
    client = sign_in("pat", *PREPARER)
    this_month = BillingPeriod.of(timezone.now().date())
    early = make_invoice(make_profile(), period_start=this_month.start)

    question = act(client, "submit_selected", early)
    assert "None of the selected invoices can be submitted for review here." in text_of(question)
    answer = act(client, "submit_selected", early, confirmed="yes")

    assert "Unchanged: 1 for a month that has not ended." in text_of(answer)
    early.refresh_from_db()
    assert early.state == InvoiceState.DRAFT


def test_only_unflagged_invoices_of_others_are_approved_at_once() -> None:
    client = sign_in("alex", *APPROVER)
    good = make_unflagged("Good")
    flagged = make_submitted("Flagged")
    own = make_unflagged("Own", prepared_by_id=int(client.session["_auth_user_id"]), needs_second_person=True)

    question = text_of(act(client, "approve_unflagged", good, flagged, own))
    assert "1 invoice, " in question
    assert Invoice.objects.filter(state=InvoiceState.APPROVED).count() == 0

    answer = text_of(act(client, "approve_unflagged", good, flagged, own, confirmed="yes"))

    assert "1 invoice approved." in answer
    assert "Unchanged: 1 flagged, 1 submitted by you." in answer
    states = {name: Invoice.objects.get(account__name=name).state for name in ("Good", "Flagged", "Own")}
    assert states == {"Good": "approved", "Flagged": "in_review", "Own": "in_review"}


def test_batches_are_for_those_who_may() -> None:
    invoice = make_submitted()
    viewer = sign_in("vera", "view_invoice")

    assert "approve_unflagged" not in text_of(viewer.get(QUEUE))
    act(viewer, "approve_unflagged", invoice, confirmed="yes")
    act(viewer, "submit_selected", invoice, confirmed="yes")

    invoice.refresh_from_db()
    assert invoice.state == InvoiceState.IN_REVIEW


def test_of_many_only_those_whose_figures_were_seen_are_approved() -> None:
    client = sign_in("alex", *APPROVER)
    good, changed = make_unflagged("Good"), make_unflagged("Changed")
    data = {"action": "approve_unflagged", "_selected_action": [good.pk, changed.pk]}
    seen = seen_on(client, QUEUE, data)
    Invoice.objects.filter(pk=changed.pk).update(content_digest="0" * 64)

    answer = text_of(client.post(QUEUE, {**data, **seen, "confirmed": "yes"}, follow=True))

    assert "1 invoice approved." in answer
    assert "The invoice was changed since this page was opened." in answer
    states = {name: Invoice.objects.get(account__name=name).state for name in ("Good", "Changed")}
    assert states == {"Good": "approved", "Changed": "in_review"}


# --- Issued and paid together -----------------------------------------------------------------------------------------


def test_approved_invoices_are_issued_in_the_order_of_the_queue_and_once() -> None:
    client = sign_in("alex", *APPROVER)
    chosen = [make_approved(name) for name in ("Charlie", "Alpha", "Bravo")]
    waiting = make_submitted("In review")

    question = text_of(act(client, "issue_selected", *chosen, waiting))
    assert "3 invoices, " in question
    assert "not approved" in question
    assert Invoice.objects.filter(state=InvoiceState.ISSUED).count() == 0

    answer = text_of(act(client, "issue_selected", *chosen, waiting, confirmed="yes", reason="October"))
    assert "3 invoices issued." in answer
    assert "Unchanged: 1 not approved." in answer
    issued = Invoice.objects.filter(state=InvoiceState.ISSUED).order_by("number")
    assert [invoice.account.name for invoice in issued] == ["Alpha", "Bravo", "Charlie"]
    assert [invoice.number for invoice in issued] == [1, 2, 3]
    assert issued[0].events.order_by("-id")[0].reason == "October"

    again = text_of(act(client, "issue_selected", *chosen, confirmed="yes"))
    assert "No invoices issued." in again
    assert list(issued.values_list("number", flat=True)) == [1, 2, 3]


def test_what_blocks_an_invoice_is_said_before_and_the_others_are_issued() -> None:
    client = sign_in("alex", *APPROVER)
    good, blocked = make_approved("Good"), make_approved("Blocked")
    make_call(blocked.account, prompt_tokens=5)
    refresh()

    question = text_of(act(client, "issue_selected", good, blocked))
    assert "1 invoice, " in question
    assert "blocked: " in question
    answer = text_of(act(client, "issue_selected", good, blocked, confirmed="yes"))

    assert "1 invoice issued." in answer
    assert "Unchanged: 1 blocked." in answer
    blocked.refresh_from_db()
    assert (blocked.state, blocked.number) == (InvoiceState.APPROVED, None)


def test_issued_invoices_are_marked_as_paid_with_a_date() -> None:
    client = sign_in("alex", *APPROVER)
    one, two, waiting = make_issued("One"), make_issued("Two"), make_approved("Waiting")
    chosen = (one, two, waiting)

    odd = text_of(act(client, "mark_selected_paid", *chosen, confirmed="yes", paid_on="yesterday"))
    assert "Enter a valid date." in odd
    assert "2 invoices, " in odd
    early = text_of(act(client, "mark_selected_paid", *chosen, confirmed="yes", paid_on="2020-01-01"))
    assert "2020-01-01 can&#x27;t be the payment date" in early
    assert not Invoice.objects.filter(state=InvoiceState.PAID).exists()

    today = timezone.now().date()
    answer = text_of(act(client, "mark_selected_paid", *chosen, confirmed="yes", paid_on=today.isoformat()))
    assert "2 invoices marked as paid." in answer
    assert "Unchanged: 1 not issued." in answer
    assert set(Invoice.objects.filter(state=InvoiceState.PAID).values_list("account__name", "paid_on")) == {
        ("One", today),
        ("Two", today),
    }
    again = text_of(act(client, "mark_selected_paid", one, two, confirmed="yes", paid_on="2026-11-02"))
    assert "Unchanged: 2 already paid." in again
    assert Invoice.objects.filter(paid_on=today).count() == 2


def test_who_only_prepares_issues_and_marks_nothing() -> None:
    client = sign_in("pat", *PREPARER)
    approved, issued = make_approved("Approved"), make_issued("Issued")
    for action in ("issue_selected", "mark_selected_paid"):
        assert action not in text_of(client.get(QUEUE))
        client.post(QUEUE, {"action": action, "_selected_action": [approved.pk, issued.pk], "confirmed": "yes"})
    states = set(Invoice.objects.values_list("account__name", "state"))
    assert states == {("Approved", InvoiceState.APPROVED), ("Issued", InvoiceState.ISSUED)}
