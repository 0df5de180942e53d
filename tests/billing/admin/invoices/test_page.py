from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from billing.admin.invoices import steps
from billing.enums import InvoiceKind, InvoiceState
from billing.invoices import review
from billing.models import Invoice, InvoiceEvent
from billing.periods import BillingPeriod
from billing.rollup import refresh
from llm.enums import CallOutcome, UsageSource, UsageStatus
from llm.models import Account, Price
from tests.billing.admin.pages import (
    APPROVER,
    PREPARER,
    make_draft,
    make_issued,
    make_submitted,
    page_url,
    sign_in,
    step_url,
    text_of,
)
from tests.billing.calls import make_call, make_open_call
from tests.billing.factories import make_account, make_invoice, make_profile
from tests.pages import seen_on, send

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


def state_of(invoice: Invoice) -> str:
    invoice.refresh_from_db()
    return invoice.state


def buttons(client: Client, invoice: Invoice) -> list[str]:
    return [step.label for step in client.get(page_url(invoice)).context["page"].steps]


def test_the_page_says_what_a_reviewer_needs(admin_client: Client) -> None:
    invoice = make_issued(tokens=617_250_000, tax_percent=Decimal(19))

    response = admin_client.get(page_url(invoice))
    page = text_of(response)

    assert invoice.label in page
    assert "1,234.50" in page
    assert "1,469.06" in page
    assert "The account has not been billed before." in page
    assert invoice.content_digest in page
    assert "unchanged content, by alex" in page
    assert "At cost from 2000-01" in page
    assert f"/admin/billing/invoice/{invoice.pk}/lines/1/calls/" in page
    assert response.context["page"].days[14] == {"day": "2026-10-15", "calls": 1, "cost": "1234.500000000000"}
    assert len(response.context["page"].days) == 31
    assert [event.get_action_display() for event in response.context["page"].events] == [
        "issued",
        "approved",
        "submitted for review",
        "drafted",
    ]


def test_calls_that_block_the_issue_are_named_with_links(admin_client: Client) -> None:
    invoice = make_draft()
    make_open_call(invoice.account)
    make_call(invoice.account, model="nobody-knows", prompt_tokens=5)
    send(admin_client, step_url(invoice, "recompute"), {"reason": ""})

    page = text_of(admin_client.get(page_url(invoice)))

    assert "1 call of 2026-10 still in flight: late usage, billed on the next invoice." in page
    assert "1 call of 2026-10 to openai nobody-knows has no price" in page
    assert "cost=unpriced" in page


def test_the_page_takes_few_queries_for_any_number_of_lines(
    admin_client: Client, django_assert_max_num_queries: Any
) -> None:
    lines = tuple({"amount": "1.00", "description": f"line {number}"} for number in range(60))
    invoice = make_invoice(make_profile(), lines=lines)

    with django_assert_max_num_queries(27):
        page = text_of(admin_client.get(page_url(invoice)))

    assert "line 59" in page


def test_buttons_are_what_one_may_do_now() -> None:
    preparer, approver, viewer = sign_in("pia", *PREPARER), sign_in("ada", *APPROVER), sign_in("vera", "view_invoice")
    draft, submitted, issued = make_draft("Draft"), make_submitted("Submitted"), make_issued("Issued")
    note = make_invoice(
        issued.account.billing_profile,
        kind=InvoiceKind.CREDIT_NOTE,
        original=issued,
        credit_sequence=1,
        lines=({"amount": "-10.00"},),
    )

    assert buttons(preparer, draft) == ["Submit", "Recalculate", "Add a line"]
    assert buttons(preparer, submitted) == ["Send back"]
    assert buttons(preparer, issued) == []
    assert buttons(approver, draft) == ["Void"]
    assert buttons(approver, submitted) == ["Approve", "Send back", "Void"]
    assert buttons(approver, issued) == ["Mark as paid", "Send by mail", "Credit", "Credit and bill again"]
    assert buttons(preparer, note) == ["Submit"]
    assert buttons(viewer, draft) == []


def test_a_month_that_has_not_ended_is_not_submitted() -> None:
    preparer = sign_in("pia", *PREPARER)
    this_month = BillingPeriod.of(timezone.now().date())
    draft = make_invoice(make_profile(), period_start=this_month.start)
    sentence = f"{this_month} has not ended in UTC yet: the invoice can be submitted from {this_month.end}"

    assert buttons(preparer, draft) == ["Recalculate", "Add a line"]
    assert sentence in text_of(preparer.get(page_url(draft)))
    question = text_of(preparer.get(step_url(draft, "submit")))
    assert "It can't be submitted for review yet." in question
    assert sentence in question
    assert sentence in text_of(send(preparer, step_url(draft, "submit")))
    assert state_of(draft) == "draft"


def test_the_whole_course_by_two_people() -> None:
    preparer, approver = sign_in("pia", *PREPARER), sign_in("ada", *APPROVER)
    invoice = make_draft()

    for client, step, values, state in (
        (preparer, "submit", {"reason": "October"}, "in_review"),
        (approver, "send_back", {"reason": "look again"}, "draft"),
        (preparer, "submit", {}, "in_review"),
        (approver, "approve", {}, "approved"),
        (approver, "issue", {}, "issued"),
        (approver, "pay", {"paid_on": "2026-11-20", "reason": "wire 4711"}, "paid"),
    ):
        former = state_of(invoice)
        assert "Cancel" in text_of(client.get(step_url(invoice, step)))
        assert state_of(invoice) == former
        answer = send(client, step_url(invoice, step), values)
        assert (answer.status_code, answer.headers["Location"]) == (302, page_url(invoice))
        assert state_of(invoice) == state

    assert invoice.paid_on == date(2026, 11, 20)
    reasons = list(invoice.events.order_by("id").values_list("user__username", "reason"))
    assert reasons[1:3] == [("pia", "October"), ("ada", "look again")]
    assert reasons[-1] == ("ada", "wire 4711")


@pytest.mark.parametrize("step", ["send_back", "void"])
def test_a_reason_is_asked_for(step: str) -> None:
    invoice = make_submitted()

    answer = send(sign_in("ada", *APPROVER), step_url(invoice, step), {"reason": "  "})

    assert "This field is required." in text_of(answer)
    assert state_of(invoice) == "in_review"


def test_who_submitted_is_told_that_somebody_else_must_approve() -> None:
    both = sign_in("bo", *PREPARER, *APPROVER)
    invoice = make_draft()
    send(both, step_url(invoice, "submit"))

    answer = send(both, step_url(invoice, "approve"))

    assert "You submitted this invoice, so someone else must approve it." in text_of(answer)
    assert state_of(invoice) == "in_review"


def test_a_step_out_of_state_is_a_sentence() -> None:
    invoice = make_issued()
    events = InvoiceEvent.objects.count()
    approver = sign_in("ada", *APPROVER)

    assert "you can't do this" in text_of(approver.get(step_url(invoice, "approve")))
    answer = text_of(send(approver, step_url(invoice, "approve")))

    assert "The invoice&#x27;s status is “issued”: it can&#x27;t be approved." in answer
    assert (state_of(invoice), InvoiceEvent.objects.count()) == ("issued", events)


def lose_call(account: Account) -> None:
    lost: dict[str, Any] = {
        "status": UsageStatus.ESTIMATED,
        "usage_source": UsageSource.ESTIMATED,
        "outcome": CallOutcome.LOST,
    }
    make_call(account, is_billable=False, **lost)


def test_what_blocks_the_issue_is_said_on_its_page() -> None:
    invoice = make_submitted()
    approver = sign_in("ada", *APPROVER)
    send(approver, step_url(invoice, "approve"))
    lose_call(invoice.account)

    assert "It can't be issued yet." in text_of(approver.get(step_url(invoice, "issue")))
    assert "lost when the gateway restarted" in text_of(send(approver, step_url(invoice, "issue")))
    assert state_of(invoice) == "approved"


def test_a_lock_that_somebody_else_holds_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*args: Any, **values: Any) -> None:
        raise OperationalError("canceling statement due to lock timeout")

    invoice = make_submitted()
    monkeypatch.setattr("billing.invoices.review.lock_profile", locked)

    answer = send(sign_in("ada", *APPROVER), step_url(invoice, "approve"))

    assert steps.BUSY.replace("'", "&#x27;") in text_of(answer)


@pytest.mark.parametrize(
    "step", ["submit", "approve", "issue", "pay", "send_back", "void", "credit", "bill_again", "recompute"]
)
def test_steps_are_for_those_who_may(step: str) -> None:
    invoice = make_submitted()
    events = InvoiceEvent.objects.count()
    for client in (sign_in("vera", "view_invoice"), sign_in("stranger")):
        assert client.get(step_url(invoice, step)).status_code == 403
        assert send(client, step_url(invoice, step), {"reason": "mine", "scope": "whole"}).status_code == 403
    assert Client().post(step_url(invoice, step)).status_code == 302

    assert (state_of(invoice), InvoiceEvent.objects.count()) == ("in_review", events)


def test_pages_that_are_not_there(admin_client: Client) -> None:
    invoice = make_draft()
    assert admin_client.get(step_url(invoice, "draft")).status_code == 404
    assert admin_client.get(step_url(Invoice(pk=999), "submit")).status_code == 404
    assert admin_client.get("/admin/billing/invoice/999/pdf/").status_code == 404
    assert admin_client.post(page_url(invoice), {"currency": "EUR"}).status_code == 403
    assert admin_client.post(f"/admin/billing/invoice/{invoice.pk}/delete/", {"post": "yes"}).status_code == 403


def test_an_invoice_is_credited_by_line_or_whole() -> None:
    approver = sign_in("ada", *APPROVER)
    invoice = make_issued()
    line = invoice.lines.get()
    url = step_url(invoice, "credit")

    assert "of 2.00" in text_of(approver.get(url))
    assert "Enter an amount" in text_of(send(approver, url, {"scope": "lines", "reason": "too much"}))
    too_much = {"scope": "lines", "reason": "too much", f"line_{line.pk}": "2.01"}
    assert "exceeds the 2.00 USD left" in text_of(send(approver, url, too_much))
    unclear = {"scope": "whole", "reason": "too much", f"line_{line.pk}": "1"}
    assert "would be ignored" in text_of(send(approver, url, unclear))
    assert Invoice.objects.count() == 1

    send(approver, url, {"scope": "lines", "reason": "too much", f"line_{line.pk}": "0.50"})
    first = Invoice.objects.get(kind=InvoiceKind.CREDIT_NOTE)
    assert first.total == Decimal("-0.50")
    answer = send(approver, url, {"scope": "whole", "reason": "all of it"})
    second = Invoice.objects.filter(kind=InvoiceKind.CREDIT_NOTE).latest("id")

    assert (second.total, answer.headers["Location"]) == (Decimal("-1.50"), page_url(second))
    assert "-1.50" in text_of(approver.get(page_url(invoice)))
    assert invoice.label in text_of(approver.get(page_url(second)))
    assert "There is nothing left to credit." in text_of(send(approver, url, {"scope": "whole", "reason": "again"}))


def test_lines_are_credited_to_be_billed_again() -> None:
    approver = sign_in("ada", *APPROVER)
    invoice = make_issued()
    line = invoice.lines.get()
    url = step_url(invoice, "bill_again")

    assert "next draft bills them again" in text_of(approver.get(url))
    assert "Choose at least one line." in text_of(send(approver, url, {"scope": "lines", "reason": "wrong plan"}))
    unclear = {"scope": "whole", "reason": "wrong plan", f"line_{line.pk}": "on"}
    assert "You chose lines" in text_of(send(approver, url, unclear))
    assert "This field is required." in text_of(send(approver, url, {"scope": "whole", "reason": ""}))
    assert Invoice.objects.count() == 1

    answer = send(approver, url, {"scope": "lines", "reason": "wrong plan", f"line_{line.pk}": "on"})
    note = Invoice.objects.get(kind=InvoiceKind.CREDIT_NOTE)

    assert (note.credit_kind, note.total, answer.headers["Location"]) == ("correction", Decimal(-2), page_url(note))
    assert [event.action for event in invoice.events.order_by("id")][-1] == "bill_again"
    assert "There is nothing left to credit." in text_of(send(approver, url, {"scope": "whole", "reason": "again"}))


def test_the_document_and_its_pdf() -> None:
    invoice = make_issued()
    viewer = sign_in("vera", "view_invoice")

    html = viewer.get(f"/admin/billing/invoice/{invoice.pk}/document/")
    pdf = viewer.get(f"/admin/billing/invoice/{invoice.pk}/pdf/")

    assert invoice.label in text_of(html)
    assert "default-src 'self'" in html.headers["Content-Security-Policy"]
    assert pdf.content[:5] == b"%PDF-"
    assert pdf.headers["Content-Disposition"] == f'attachment; filename="{invoice.label}.pdf"'
    assert sign_in("nobody").get(f"/admin/billing/invoice/{invoice.pk}/pdf/").status_code == 403
    assert sign_in("nobody2").get(page_url(invoice)).status_code == 403


def test_what_came_late_stands_under_its_own_month(admin_client: Client) -> None:
    invoice = make_invoice(
        make_profile(make_account("Late")),
        state=InvoiceState.DRAFT,
        lines=({"amount": "1.00"}, {"amount": "0.25", "period_start": date(2026, 9, 1), "model": "m", "calls": 3}),
    )

    page = text_of(admin_client.get(page_url(invoice)))

    assert "Late usage of 2026-09" in page
    assert "/calls/" in page


def test_only_the_content_that_was_seen_is_approved() -> None:
    """Sent back and submitted again meanwhile, with another call on it."""
    invoice = make_submitted()
    approver = sign_in("ada", *APPROVER)
    older = seen_on(approver, step_url(invoice, "approve"))
    preparer = User.objects.get(username="pat")
    review.send_back(invoice.pk, user=preparer, reason="a call is missing")
    make_call(invoice.account, price=Price.objects.get(), model="model of Acme", prompt_tokens=5_000_000)
    review.submit(invoice.pk, user=preparer)

    answer = text_of(approver.post(step_url(invoice, "approve"), older))

    assert steps.CHANGED in answer
    assert state_of(invoice) == "in_review"
    send(approver, step_url(invoice, "approve"))
    assert state_of(invoice) == "approved"


@pytest.mark.parametrize("step", ["credit", "bill_again"])
def test_what_was_credited_meanwhile_is_not_credited_by_an_older_page(step: str) -> None:
    approver = sign_in("ada", *APPROVER)
    invoice = make_issued()
    older = seen_on(approver, step_url(invoice, step))
    send(
        approver, step_url(invoice, "credit"), {"scope": "lines", "reason": "x", f"line_{invoice.lines.get().pk}": "1"}
    )

    answer = text_of(approver.post(step_url(invoice, step), {**older, "scope": "whole", "reason": "all of it"}))

    assert steps.CHANGED in answer
    assert "all of it" in answer
    assert Invoice.objects.filter(kind=InvoiceKind.CREDIT_NOTE).count() == 1


def test_a_one_off_line_is_added_once_and_removed() -> None:
    preparer = sign_in("pia", *PREPARER)
    draft = make_draft()
    url = step_url(draft, "add_line")
    asked = {"kind": "allowance", "description": "Welcome", "amount": "0.50", "tax_percent": "", "reason": "agreed"}
    asked |= seen_on(preparer, url)

    assert preparer.post(url, asked).status_code == 302
    again = text_of(preparer.post(url, asked))

    assert "was changed since this page was opened" in again
    page = text_of(preparer.get(page_url(draft)))
    assert "One-off lines" in page
    assert "agreed" in page
    [line] = draft.lines.filter(kind="one_off")
    assert (line.description, line.amount) == ("Welcome", Decimal("-0.50"))
    assert buttons(preparer, draft) == ["Submit", "Recalculate", "Add a line", "Remove a line"]

    remove = step_url(draft, "remove_line")
    assert "Welcome, -0.50 USD" in text_of(preparer.get(remove))
    one_off = line.key.partition("|")[2]
    assert preparer.post(remove, {"one_off": one_off, "reason": "no longer"}).status_code == 302
    assert not draft.lines.filter(kind="one_off").exists()
    assert "Select a valid choice" in text_of(preparer.post(remove, {"one_off": one_off, "reason": "no longer"}))


def test_reviewers_go_from_one_invoice_to_the_next(admin_client: Client) -> None:
    first, second, third = (make_submitted(name) for name in ("Alpha", "Beta", "Gamma"))
    make_draft("Draft")

    page = text_of(admin_client.get(page_url(second)))

    assert "2 of 3, in review" in page
    assert f'href="{page_url(first)}" rel="prev"' in page
    assert f'href="{page_url(third)}" rel="next"' in page
    assert 'rel="next"' not in text_of(admin_client.get(page_url(third)))


@pytest.mark.parametrize(("make", "step"), [(make_draft, "submit"), (make_submitted, "approve")])
def test_what_blocks_issuing_is_said_before_it_is_submitted_or_approved(
    admin_client: Client, make: Any, step: str
) -> None:
    invoice = make()
    assert "issued yet" not in text_of(admin_client.get(step_url(invoice, step)))
    make_call(invoice.account, model="nobody-knows", prompt_tokens=5)
    refresh(account_ids=[invoice.account_id])

    page = text_of(admin_client.get(step_url(invoice, step)))

    assert "1 call of 2026-10 to openai nobody-knows has no price" in page
