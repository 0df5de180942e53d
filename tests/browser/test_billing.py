"""A month's end in a real browser: two people take an invoice from draft to PDF, and the policy has no complaint."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import Group, User
from playwright.sync_api import Page, expect

from billing.enums import MonthJobKind
from billing.jobs import exports, months
from billing.models import ExportJob, Invoice, MonthJob
from billing.staff.roles import make_groups
from tests.billing.admin.pages import make_draft, make_issued, make_submitted
from tests.billing.calls import make_call, make_price
from tests.billing.factories import make_account
from tests.browser.conftest import PASSWORD

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("browser")]

SignIn = Callable[[str], Page]


def join(name: str, group: str) -> None:
    make_groups()
    user = User.objects.create_user(name, password=PASSWORD, is_staff=True)
    user.groups.add(Group.objects.get(name=group))


@pytest.fixture
def preparer(sign_in: SignIn) -> Page:
    join("paula", "Billing preparers")
    return sign_in("paula")


@pytest.fixture
def approver(sign_in: SignIn) -> Page:
    join("abel", "Billing approvers")
    return sign_in("abel")


def press(page: Page, label: str, reason: str = "") -> None:
    """The button, and then the one on the page that asks."""
    page.locator(".object-tools").get_by_role("link", name=label).click()
    page.get_by_label("Reason").fill(reason)
    page.get_by_role("button", name=label).click()


def test_from_draft_to_pdf_by_two_people(preparer: Page, approver: Page, complaints: list[str], tmp_path: Path) -> None:
    invoice = make_draft()
    preparer.goto("/admin/billing/invoice/")
    preparer.locator("#result_list").get_by_role("link", name="Acme").click()
    preparer.wait_for_load_state("networkidle")
    press(preparer, "Submit", "October is complete")
    expect(preparer.get_by_text("was submitted for review")).to_be_visible()
    expect(preparer.locator(".object-tools").get_by_role("link", name="Approve")).to_have_count(0)

    approver.goto("/admin/billing/invoice/?state__exact=in_review")
    approver.locator("#result_list").get_by_role("link", name="Acme").click()
    expect(approver.get_by_text("October is complete")).to_be_visible()
    press(approver, "Approve")
    press(approver, "Issue")
    expect(approver.get_by_text("was issued")).to_be_visible()
    invoice.refresh_from_db()
    with approver.expect_download() as download:
        approver.get_by_role("link", name="PDF").click()
    download.value.save_as(tmp_path / "invoice.pdf")

    assert (invoice.state, str(invoice.approved_by), str(invoice.prepared_by)) == ("issued", "abel", "paula")
    assert download.value.suggested_filename == f"{invoice.label}.pdf"
    assert (tmp_path / "invoice.pdf").read_bytes().startswith(b"%PDF-")
    assert complaints == []


def test_drafts_are_submitted_together(preparer: Page, complaints: list[str]) -> None:
    make_draft("One")
    make_draft("Two")
    preparer.goto("/admin/billing/invoice/")
    preparer.locator("#action-toggle").check()
    preparer.locator("select[name=action]").select_option("submit_selected")
    preparer.get_by_role("button", name="Go").click()
    expect(preparer.get_by_text("2 invoices, 4.00 USD")).to_be_visible()
    preparer.get_by_role("button", name="Submit").click()
    expect(preparer.get_by_text("2 invoices submitted for review.")).to_be_visible()

    assert Invoice.objects.filter(state="in_review").count() == 2
    assert complaints == []


def test_the_queue_fits_a_laptop_and_shows_flags_once(preparer: Page) -> None:
    make_draft("Northwind Trading International", tokens=617_250_000)
    for width in (1300, 1700):
        preparer.set_viewport_size({"width": width, "height": 900})
        preparer.goto("/admin/billing/invoice/")
        table = preparer.locator("#changelist .results")

        assert table.evaluate("table => table.scrollWidth - table.clientWidth") == 0, width
        expect(table.get_by_text("first invoice").filter(visible=True)).to_have_count(1)


def test_what_a_profile_requires_is_marked(preparer: Page) -> None:
    preparer.goto("/admin/billing/billingprofile/add/")
    marks = {
        name: preparer.locator(f"label[for=id_{name}]").evaluate("label => getComputedStyle(label, '::after').content")
        for name in ("legal_name", "plan", "email")
    }

    assert marks == {"legal_name": '"*" / ""', "plan": '"*" / ""', "email": '""'}


def test_the_chart_of_the_month_is_drawn(approver: Page, complaints: list[str]) -> None:
    invoice = make_submitted()
    approver.goto(f"/admin/billing/invoice/{invoice.pk}/change/")
    approver.wait_for_load_state("networkidle")

    assert approver.evaluate("document.getElementById('day-chart').toDataURL().length") > 3000
    assert complaints == []


def test_who_spent_most_on_what_is_found_from_the_explorer(sign_in: SignIn, complaints: list[str]) -> None:
    User.objects.create_superuser("admin", password=PASSWORD)
    price = make_price()
    for name, tokens in (("Acme", 500_000), ("Big spender", 1_500_000)):
        account = make_account(name)
        make_call(account, price=price, prompt_tokens=tokens)
        make_call(account, model="free-model", provider="echo")
    page = sign_in("admin")
    page.goto("/admin/")
    page.get_by_role("link", name="Usage explorer", exact=True).first.click()
    page.get_by_label("From").fill("2026-10-01")
    page.get_by_label("To", exact=True).fill("2026-10-31")
    page.get_by_role("button", name="Show").click()
    page.wait_for_load_state("networkidle")
    chart = page.locator("#usage-chart")
    first_drawing = chart.evaluate("canvas => canvas.toDataURL()")
    names = page.locator(".bl-usage tbody th")

    expect(names).to_have_text(["Total", "Big spender", "Acme"])
    page.get_by_role("columnheader", name="Cost").get_by_role("link").click()
    expect(names).to_have_text(["Total", "Acme", "Big spender"])
    page.get_by_text("These bars as a table").click()
    expect(page.locator(".bl-grid tbody tr").nth(14)).to_contain_text("$3.00")
    page.get_by_role("link", name="Big spender", exact=True).click()
    expect(names.nth(1)).to_contain_text("production")
    page.get_by_label("By", exact=True).select_option("model")
    page.get_by_role("button", name="Show").click()
    expect(names).to_have_text(["Total", "gpt-4o", "free-model"])
    page.wait_for_load_state("networkidle")
    assert chart.evaluate("canvas => canvas.toDataURL()") not in ("", first_drawing)
    row = page.locator(".bl-usage tbody tr").nth(1)
    row.get_by_role("link", name="1", exact=True).click()
    expect(page).to_have_url(re.compile(r"/admin/llm/usage/\?.*account=Big\+spender.*model=gpt-4o"))
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    assert complaints == []


def test_a_bar_of_the_explorer_leads_to_its_calls(sign_in: SignIn, complaints: list[str]) -> None:
    User.objects.create_superuser("admin", password=PASSWORD)
    make_call(make_account("Acme"), price=make_price(), prompt_tokens=500_000)
    page = sign_in("admin")
    page.goto("/admin/billing/dailyusage/?first=2026-10-15&last=2026-10-15")
    page.wait_for_load_state("networkidle")
    page.locator("#usage-chart").scroll_into_view_if_needed()
    box = page.locator("#usage-chart").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2 + 15, box["y"] + box["height"] / 2)

    expect(page).to_have_url(re.compile(r"/admin/llm/usage/\?account=Acme&first=2026-10-15&last=2026-10-15"))
    assert complaints == []


def test_no_page_violates_the_policy_or_is_wider_than_a_phone(sign_in: SignIn, complaints: list[str]) -> None:
    User.objects.create_superuser("admin", password=PASSWORD)
    page = sign_in("admin")
    page.set_viewport_size({"width": 390, "height": 844})
    draft, submitted, issued = make_draft("Draft"), make_submitted("Submitted"), make_issued("Issued")
    job = ExportJob.objects.create(period_start="2026-10-01", formats=["csv"])
    exports.run_export(job.pk)
    closing = MonthJob.objects.create(period_start="2026-10-01", kind=MonthJobKind.CLOSE)
    months.run_month_job(closing.pk)
    waiting = MonthJob.objects.create(period_start="2026-10-01", kind=MonthJobKind.VERIFY)
    paths = (
        "invoice/",
        "invoice/close/",
        "invoice/check/",
        f"invoice/{draft.pk}/change/",
        f"invoice/{issued.pk}/change/",
        f"invoice/{draft.pk}/step/submit/",
        f"invoice/{submitted.pk}/step/void/",
        f"invoice/{issued.pk}/step/pay/",
        f"invoice/{issued.pk}/step/credit/",
        f"invoice/{issued.pk}/document/",
        "billingprofile/",
        f"billingprofile/{draft.account.billing_profile.pk}/change/",
        "plan/",
        f"planversion/{draft.plan_version_id}/change/",
        "exchangerate/add/",
        "dailyusage/",
        "dailyusage/?by=account&then=model&first=2026-10-01&last=2026-10-31",
        "costimport/",
        "exportjob/",
        "exportjob/run/",
        f"exportjob/{job.pk}/change/",
        "monthjob/",
        f"monthjob/{closing.pk}/change/",
        f"monthjob/{waiting.pk}/change/",
    )

    for path in paths:
        response = page.goto(f"/admin/billing/{path}")
        assert response is not None
        assert response.status == 200, path
        assert (page.evaluate("document.documentElement.scrollWidth"), complaints) == (390, []), path
