"""One line a model, meter and unit price, and the very calls behind it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from django.test import Client

from billing import rating
from billing.invoices.closing import close_month
from billing.invoices.crediting import credit_and_bill_again
from billing.invoices.drafting import draft_invoice
from billing.invoices.line_calls import calls_of_line
from billing.invoices.review import send_back, submit, void
from billing.jobs.exports import export_month
from billing.models import BillingProfile, Invoice, InvoiceLine, Plan, PlanRate
from billing.periods import BillingPeriod
from billing.plans import add_version
from llm.enums import AdjustmentSource, Meter
from llm.models import Account, Price, Usage
from llm.prices.staff import set_price
from tests.billing.calls import adjust_call, make_call
from tests.billing.exports.months import verify
from tests.billing.factories import make_account, make_profile
from tests.billing.months import (
    IN_SEPTEMBER,
    NOVEMBER,
    OCTOBER,
    SEPTEMBER,
    approver,
    close_and_issue,
    drafts_of,
    findings,
    preparer,
    through_review,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def account() -> Account:
    account = make_account()
    make_profile(account)
    return account


def price_since(day: int, **rates: str) -> Price:
    """Of gpt-4o, from that day of September on; output at 10."""
    per_million = {Meter(name): Decimal(amount) for name, amount in {"output": "10", **rates}.items()}
    return set_price("openai", "gpt-4o", effective_from=datetime(2025, 9, day, tzinfo=UTC), rates=per_million)


def lines_of(invoice: Invoice) -> list[InvoiceLine]:
    return list(invoice.lines.select_related("invoice__account", "plan_version").order_by("position"))


def drafted(account: Account) -> Invoice:
    close_month(SEPTEMBER, account=account)
    [invoice] = drafts_of(account)
    return invoice


def test_an_import_that_repeats_its_rates_makes_no_second_line(account: Account) -> None:
    """As it was seen: 153 and 354 calls on two lines that led to the same 512, five of them void."""
    before, after = price_since(1, input="3"), price_since(12, input="3")
    for price, day, number in ((before, 5, 3), (after, 20, 4)):
        for _ in range(number):
            make_call(account, day=date(2025, 9, day), price=price, prompt_tokens=100_000, completion_tokens=10_000)
    make_call(account, day=IN_SEPTEMBER, price=after, prompt_tokens=77, is_billable=False)

    invoice = drafted(account)

    lines = lines_of(invoice)
    assert [(line.description, line.quantity, line.unit_price, line.calls) for line in lines] == [
        ("gpt-4o, input tokens", 700_000, Decimal(3), 7),
        ("gpt-4o, output tokens", 70_000, Decimal(10), 7),
    ]
    for line in lines:
        found = calls_of_line(line)
        assert (found.agrees, found.calls.count()) == (True, 7)
    through_review(invoice)
    assert findings(SEPTEMBER) == []


def test_where_rates_differ_each_line_says_when_and_shows_its_own_calls(account: Account) -> None:
    old, new = price_since(1, input="3"), price_since(12, input="4")
    first = make_call(account, day=date(2025, 9, 2), price=old, prompt_tokens=1_000, completion_tokens=5)
    last = make_call(account, day=date(2025, 9, 11), price=old, prompt_tokens=1_000)
    third = make_call(account, day=date(2025, 9, 12), price=new, prompt_tokens=1_000, completion_tokens=5)

    lines = lines_of(drafted(account))

    shown = {line.description: [call.pk for call in calls_of_line(line).calls] for line in lines}
    assert shown == {
        "gpt-4o, input tokens, 2 to 11 September": [last.pk, first.pk],
        "gpt-4o, input tokens, 12 September": [third.pk],
        "gpt-4o, output tokens": [third.pk, last.pk, first.pk],
    }
    assert all(calls_of_line(line).agrees for line in lines)


@pytest.mark.slow
def test_calls_are_those_of_the_cutoff_and_of_late_lines_those_since(account: Account) -> None:
    before, after = price_since(1, input="3"), price_since(12, input="3")
    make_call(account, day=IN_SEPTEMBER, price=before, prompt_tokens=1_000)
    undecided = make_call(
        account, day=IN_SEPTEMBER, price=before, prompt_tokens=50, is_billable=False, is_disputed=True
    )
    [september] = close_and_issue(account, SEPTEMBER)
    late = make_call(account, day=IN_SEPTEMBER, price=after, prompt_tokens=700)
    adjust_call(undecided, AdjustmentSource.DECISION, is_billable=True)

    [october] = close_and_issue(account, OCTOBER)

    [line] = lines_of(october)
    found = calls_of_line(line)
    assert (line.quantity, line.calls, line.unit_price) == (750, 2, Decimal(3))
    assert (found.agrees, {call.pk for call in found.calls}) == (True, {late.pk, undecided.pk})
    [former] = lines_of(september)
    found = calls_of_line(former)
    assert (found.agrees, found.calls.count(), found.counted.quantity) == (True, 1, 1_000)
    assert findings(SEPTEMBER, OCTOBER) == []


@pytest.mark.slow
def test_a_month_that_was_billed_by_rate_set_stays_so(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """As version 0.1.0 billed it: its late usage is the exact difference, and its lines lead to their calls."""
    before, after = price_since(1, input="3"), price_since(12, input="3")
    for price in (before, after):
        make_call(account, day=IN_SEPTEMBER, price=price, prompt_tokens=1_002_000)
    with monkeypatch.context() as former:
        former.setattr(rating, "is_by_rate_set", lambda billed: True)
        [september] = close_and_issue(account, SEPTEMBER)
    keys = [f"usage|input|cost:{price.rate_sets.get().pk}|openai|gpt-4o" for price in (before, after)]
    assert [line.key for line in lines_of(september)] == keys
    assert findings(SEPTEMBER) == []

    late = make_call(account, day=IN_SEPTEMBER, price=after, prompt_tokens=500)
    [october] = close_and_issue(account, OCTOBER)

    [line] = lines_of(october)
    assert (line.key, line.quantity, line.exact_amount) == (keys[1], 500, Decimal("0.0015"))
    found = calls_of_line(line)
    assert (found.agrees, [call.pk for call in found.calls]) == (True, [late.pk])
    assert all(calls_of_line(each).agrees for each in lines_of(september))
    assert findings(SEPTEMBER, OCTOBER) == []
    make_call(account, day=date(2025, 11, 3), price=after, prompt_tokens=500)
    november = draft_invoice(account, NOVEMBER)
    assert november is not None
    assert [line.key for line in lines_of(november)] == ["usage|input|cost@3|openai|gpt-4o"]


@pytest.mark.slow
def test_the_page_of_an_invoice_leads_to_the_calls_of_each_line(admin_client: Client, account: Account) -> None:
    price = price_since(1, input="3")
    for number in range(103):
        make_call(account, day=IN_SEPTEMBER, price=price, prompt_tokens=10, upstream_response_id=f"r{number}")
    invoice = drafted(account)
    url = f"/admin/billing/invoice/{invoice.pk}/lines/1/calls/"

    assert url in admin_client.get(f"/admin/billing/invoice/{invoice.pk}/change/").content.decode()
    page = admin_client.get(url)
    assert page.status_code == 200
    assert (page.context["found"].agrees, len(page.context["rows"])) == (True, 100)
    older = admin_client.get(url, {"before": str(page.context["older"])})
    assert len(older.context["rows"]) == 3
    assert (admin_client.get(url.replace("/1/", "/2/")).status_code, Usage.objects.count()) == (404, 103)


def shown(client: Client, line: InvoiceLine) -> tuple[list[int], tuple[int, int | None], tuple[int, int | None]]:
    """Input tokens of the calls that the line's page lists, in order of size; what they come to, and what it says."""
    page = client.get(f"/admin/billing/invoice/{line.invoice_id}/lines/{line.position}/calls/")
    assert page.status_code == 200
    found = page.context["found"]
    assert ("The two differ" in page.content.decode()) is (found.counted != found.said)
    tokens = sorted(known.figures.counts.prompt_tokens for known, _ in page.context["rows"])
    return tokens, (found.counted.calls, found.counted.quantity), (found.said.calls, found.said.quantity)


def late_in_october(account: Account, price: Price) -> tuple[Invoice, Invoice]:
    """September with a call of 1M tokens, under review, and October, which bills 500k of it that came late."""
    make_call(account, day=IN_SEPTEMBER, price=price, prompt_tokens=1_000_000)
    september = drafted(account)
    submit(september.pk, user=preparer())
    make_call(account, day=IN_SEPTEMBER, price=price, prompt_tokens=500_000)
    close_month(OCTOBER, account=account)
    [october] = drafts_of(account)
    return september, through_review(october)


def of_september(invoice: Invoice) -> InvoiceLine:
    [line] = [each for each in lines_of(invoice) if each.period_start == SEPTEMBER.start and each.calls > 0]
    return line


def assert_export_is_in_order(period: BillingPeriod, folder: Path) -> None:
    export_month(period, folder, ("csv",))
    assert verify(folder)[0] == 0, verify(folder)


@pytest.mark.processes
def test_a_month_that_was_voided_and_drafted_again_leads_to_its_calls(
    admin_client: Client, account: Account, tmp_path: Path
) -> None:
    september, october = late_in_october(account, price_since(1, input="3"))
    void(september.pk, user=approver(), reason="not agreed")
    again = drafted(account)

    for _ in range(2):
        assert shown(admin_client, of_september(again)) == ([1_000_000], (1, 1_000_000), (1, 1_000_000))
        assert shown(admin_client, of_september(october)) == ([500_000], (1, 500_000), (1, 500_000))
        assert shown(admin_client, of_september(september)) == ([1_000_000], (1, 1_000_000), (1, 1_000_000))
        if again.state == "draft":
            again = through_review(again)
    assert findings(SEPTEMBER, OCTOBER) == []
    for period in (SEPTEMBER, OCTOBER):
        assert_export_is_in_order(period, tmp_path / str(period))


@pytest.mark.processes
def test_a_month_that_was_sent_back_leads_to_its_calls(admin_client: Client, account: Account, tmp_path: Path) -> None:
    """What came between its first submit and its second one is on it, but for what October bills."""
    price = price_since(1, input="3")
    september, october = late_in_october(account, price)
    send_back(september.pk, user=approver(), reason="look again")
    make_call(account, day=IN_SEPTEMBER, price=price, prompt_tokens=70_000)
    through_review(september)

    expected = ([70_000, 1_000_000], (2, 1_070_000), (2, 1_070_000))
    assert shown(admin_client, of_september(september)) == expected
    assert shown(admin_client, of_september(october)) == ([500_000], (1, 500_000), (1, 500_000))
    assert findings(SEPTEMBER, OCTOBER) == []
    for period in (SEPTEMBER, OCTOBER):
        assert_export_is_in_order(period, tmp_path / str(period))


@pytest.mark.processes
def test_a_corrected_month_of_which_another_invoice_bills_late_usage_leads_to_its_calls(
    admin_client: Client, account: Account, tmp_path: Path
) -> None:
    price = price_since(1, input="3")
    make_call(account, day=IN_SEPTEMBER, price=price, prompt_tokens=1_000_000)
    [september] = close_and_issue(account, SEPTEMBER)
    make_call(account, day=IN_SEPTEMBER, price=price, prompt_tokens=500_000)
    [october] = close_and_issue(account, OCTOBER)
    through_review(credit_and_bill_again(september.pk, user=approver(), reason="another address"))
    make_call(account, day=IN_SEPTEMBER, price=price, prompt_tokens=20_000)

    [november] = close_and_issue(account, NOVEMBER)

    assert shown(admin_client, of_september(november)) == ([20_000, 1_000_000], (2, 1_020_000), (2, 1_020_000))
    assert shown(admin_client, of_september(october)) == ([500_000], (1, 500_000), (1, 500_000))
    assert shown(admin_client, of_september(september)) == ([1_000_000], (1, 1_000_000), (1, 1_000_000))
    assert findings(SEPTEMBER, OCTOBER, NOVEMBER) == []
    for period in (SEPTEMBER, OCTOBER, NOVEMBER):
        assert_export_is_in_order(period, tmp_path / str(period))


def test_a_month_that_is_billed_again_under_another_plan_leads_to_all_its_calls(
    admin_client: Client, account: Account
) -> None:
    """At another price it takes back October's late usage, and stands for all calls of the month."""
    price = price_since(1, input="3")
    make_call(account, day=IN_SEPTEMBER, price=price, prompt_tokens=1_000_000)
    [september] = close_and_issue(account, SEPTEMBER)
    make_call(account, day=IN_SEPTEMBER, price=price, prompt_tokens=500_000)
    close_and_issue(account, OCTOBER)
    plan = Plan.objects.create(name="Twice the cost")
    add_version(plan, effective_from=SEPTEMBER.start, markup_percent=Decimal(100))
    BillingProfile.objects.filter(account=account).update(plan=plan)
    through_review(credit_and_bill_again(september.pk, user=approver(), reason="wrong plan"))

    [november] = close_and_issue(account, NOVEMBER)

    line = of_september(november)
    assert line.unit_price == Decimal(6)
    assert shown(admin_client, line) == ([500_000, 1_000_000], (2, 1_500_000), (2, 1_500_000))


def test_a_call_that_another_invoice_billed_and_was_taken_back_is_shown(admin_client: Client, account: Account) -> None:
    """Two came late, and one that September billed is billable no more."""
    price = price_since(1, input="3")
    gone = make_call(account, day=IN_SEPTEMBER, price=price, prompt_tokens=400)
    make_call(account, day=IN_SEPTEMBER, price=price, prompt_tokens=1_000)
    close_and_issue(account, SEPTEMBER)
    adjust_call(gone, AdjustmentSource.DECISION, is_billable=False)
    for tokens in (2_000, 3_000):
        make_call(account, day=IN_SEPTEMBER, price=price, prompt_tokens=tokens)

    [october] = close_and_issue(account, OCTOBER)

    assert shown(admin_client, of_september(october)) == ([400, 2_000, 3_000], (1, 4_600), (1, 4_600))


def test_late_usage_at_a_fixed_price_says_what_its_line_says(admin_client: Client) -> None:
    plan = Plan.objects.create(name="Fixed")
    rates = [
        PlanRate(model_pattern="gpt-4o", meter=meter, price_per_million=Decimal(5)) for meter in ("input", "output")
    ]
    add_version(plan, effective_from=date(2025, 1, 1), rates=rates)
    account = make_account()
    make_profile(account, plan=plan)
    price = price_since(1, input="3")
    make_call(account, day=IN_SEPTEMBER, price=price, prompt_tokens=1_000_000)
    close_and_issue(account, SEPTEMBER)
    make_call(account, day=IN_SEPTEMBER, price=price, prompt_tokens=500_000)

    [october] = close_and_issue(account, OCTOBER)

    assert shown(admin_client, of_september(october)) == ([500_000], (1, 500_000), (1, 500_000))
