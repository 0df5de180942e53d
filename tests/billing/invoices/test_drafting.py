"""From calls to a draft, reckoned by hand."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from billing.enums import InvoiceState, LineKind
from billing.errors import InvoiceError, NotBillableError
from billing.invoices.closing import close_month
from billing.invoices.drafting import draft_invoice, recompute
from billing.invoices.review import submit, void
from billing.models import BilledUsage, Invoice, InvoiceEvent, InvoiceLine, Plan, PlanRate, PlanVersion
from billing.periods import BillingPeriod
from billing.plans import default_plan
from llm.enums import AdjustmentSource
from llm.models import Account
from tests.billing.calls import adjust_call, make_call, make_price
from tests.billing.factories import make_account, make_exchange_rate, make_profile
from tests.billing.people import make_approver, make_preparer

pytestmark = pytest.mark.django_db

OCTOBER = BillingPeriod.parse("2026-10")
NOVEMBER = OCTOBER.following


def amounts(invoice: Invoice) -> list[tuple[str, str]]:
    return [(line.description, f"{line.amount:.2f}") for line in invoice.lines.order_by("position")]


def drafted(account: Account, period: BillingPeriod = OCTOBER) -> Invoice:
    invoice = draft_invoice(account, period)
    assert invoice is not None
    return invoice


def plan(**terms: str | int) -> Plan:
    made = Plan.objects.create(name="Test")
    values = {name: Decimal(value) if isinstance(value, str) else value for name, value in terms.items()}
    PlanVersion.objects.create(plan=made, effective_from=date(2020, 1, 1), **values)
    return made


def test_a_months_calls_become_lines_by_model_and_token_class() -> None:
    account = make_account()
    make_profile(account, tax_percent=Decimal(19))
    price = make_price("gpt-4o", input="2.50", output="10", cache_read="1.25")
    make_call(account, price=price, prompt_tokens=1_000_000, cache_read_tokens=400_000, completion_tokens=20_000)
    make_call(account, price=price, prompt_tokens=1_000, completion_tokens=100)
    make_call(account, price=price, day=date(2026, 11, 1), prompt_tokens=5_000_000)
    invoice = drafted(account)
    lines = list(invoice.lines.order_by("position"))
    assert [(line.meter, line.quantity, f"{line.exact_amount.normalize():f}", line.calls) for line in lines] == [
        ("input", 601_000, "1.5025", 2),
        ("cache_read", 400_000, "0.5", 2),
        ("output", 20_100, "0.201", 2),
    ]
    assert [f"{line.amount:.2f}" for line in lines] == ["1.50", "0.50", "0.20"]
    assert (invoice.subtotal, invoice.tax, invoice.total) == (Decimal("2.20"), Decimal("0.42"), Decimal("2.62"))
    assert invoice.cost_usd == Decimal("2.2035")
    assert lines[0].residual == Decimal("0.0025")
    assert {line.digest for line in lines} != {""}
    [billed] = BilledUsage.objects.filter(invoice=invoice)
    assert (billed.calls, billed.prompt_tokens, billed.cost) == (2, 1_001_000, Decimal("2.2035"))


def test_an_account_without_usage_and_fees_has_no_invoice() -> None:
    account = make_account()
    assert draft_invoice(account, OCTOBER) is None
    assert not Invoice.objects.exists()


def test_fees_are_charged_without_usage() -> None:
    account = make_account()
    make_profile(account, plan=plan(flat_fee="20", minimum_commitment="100"))
    invoice = drafted(account)
    assert [line.kind for line in invoice.lines.order_by("position")] == [LineKind.FLAT_FEE, LineKind.COMMITMENT]
    assert invoice.total == Decimal(120)


def test_a_draft_follows_the_books_and_says_so_once() -> None:
    account = make_account()
    price = make_price()
    make_call(account, price=price, prompt_tokens=1_000_000)
    first = drafted(account)
    assert drafted(account).pk == first.pk
    assert InvoiceEvent.objects.count() == 1
    make_call(account, price=price, prompt_tokens=1_000_000)
    second = recompute(first.pk)
    assert (second.pk, second.total) == (first.pk, Decimal(4))
    assert [event.action for event in second.events.all()] == ["draft", "recompute"]
    assert InvoiceLine.objects.count() == 1


def test_late_usage_stands_on_the_next_invoice_with_its_month() -> None:
    account, preparer = make_account(), make_preparer()
    price = make_price()
    make_call(account, price=price, prompt_tokens=1_000_000)
    october = submit(drafted(account).pk, user=preparer)
    make_call(account, price=price, prompt_tokens=500_000)
    make_call(account, price=price, day=date(2026, 11, 3), prompt_tokens=1_000_000)
    november = drafted(account, NOVEMBER)
    assert amounts(november) == [("gpt-4o, input tokens", "2.00"), ("2026-10: gpt-4o, input tokens", "1.00")]
    assert "late" in november.flags
    late = november.lines.get(period_start=OCTOBER.start)
    assert (late.quantity, late.calls) == (500_000, 1)
    october.refresh_from_db()
    assert october.total == Decimal(2)


def test_a_correction_of_a_billed_call_stands_on_no_invoice() -> None:
    account = make_account()
    price = make_price()
    call = make_call(account, price=price, prompt_tokens=1_000_000)
    submit(drafted(account).pk, user=make_preparer())
    adjust_call(call, AdjustmentSource.PROVIDER, prompt_tokens=-250_000, cost=Decimal("-0.5"))
    assert draft_invoice(account, NOVEMBER) is None
    make_call(account, price=price, day=date(2026, 11, 3), prompt_tokens=1_000_000)
    assert amounts(drafted(account, NOVEMBER)) == [("gpt-4o, input tokens", "2.00")]


def test_what_a_voided_invoice_would_have_billed_is_billed_by_the_next() -> None:
    account = make_account()
    price = make_price()
    make_call(account, price=price, prompt_tokens=1_000_000)
    first = submit(drafted(account).pk, user=make_preparer())
    void(first.pk, user=make_approver(), reason="wrong address")
    second = drafted(account)
    assert second.pk != first.pk
    assert second.total == Decimal(2)


def test_late_usage_counts_into_the_tiers_of_its_own_month() -> None:
    tiered = plan()
    version = tiered.versions.get()
    for meter, steps in {"input": ((0, "10"), (1_000_000, "5")), "output": ((0, "20"),)}.items():
        for start, amount in steps:
            PlanRate.objects.create(
                version=version,
                model_pattern="gpt-*",
                meter=meter,
                from_tokens=start,
                price_per_million=Decimal(amount),
            )
    account = make_account()
    make_profile(account, plan=tiered)
    price = make_price()
    make_call(account, price=price, prompt_tokens=900_000)
    assert submit(drafted(account).pk, user=make_preparer()).total == Decimal(9)
    make_call(account, price=price, prompt_tokens=300_000)
    november = drafted(account, NOVEMBER)
    # 100,000 tokens are left of the first tier, 200,000 are in the second.
    assert november.total == Decimal(2)


def test_another_currency_is_charged_at_the_stored_rate() -> None:
    account = make_account()
    euros = plan(markup_percent="10")
    PlanVersion.objects.update(currency="EUR")
    make_profile(account, plan=euros, currency="EUR")
    rate = make_exchange_rate("EUR", "0.92")
    make_call(account, price=make_price(), prompt_tokens=1_000_000)
    invoice = drafted(account)
    assert (invoice.total, invoice.per_usd, invoice.exchange_rate) == (Decimal("2.02"), Decimal("0.92"), rate)
    assert invoice.lines.get().exact_amount == Decimal("2.024")


def test_an_amount_that_no_line_holds_stops_no_other_account() -> None:
    typo, other = make_account("Typo"), make_account("Other")
    euros = plan()
    PlanVersion.objects.update(currency="EUR")
    make_profile(typo, plan=euros, currency="EUR")
    make_exchange_rate("EUR", "1" + "0" * 20)
    price = make_price()
    for account in (typo, other):
        make_call(account, price=price, prompt_tokens=1_000_000)
    report = close_month(OCTOBER)
    [(name, why)] = report.failed
    assert (name, report.drafted) == (typo.name, [other.name])
    assert "doesn't match the usage: 200000000000000000000" in why
    assert why.endswith(" is more than a line can hold.")


def test_without_a_rate_of_exchange_nothing_is_written() -> None:
    account = make_account()
    euros = plan()
    PlanVersion.objects.update(currency="EUR")
    make_profile(account, plan=euros, currency="EUR")
    make_call(account, price=make_price(), prompt_tokens=1_000_000)
    with pytest.raises(NotBillableError, match="no exchange rate for EUR"):
        draft_invoice(account, OCTOBER)
    assert not Invoice.objects.exists()


def test_a_plan_in_another_currency_than_the_profiles_is_refused() -> None:
    account = make_account()
    make_profile(account, currency="JPY", plan=default_plan())
    make_call(account, price=make_price(), prompt_tokens=1_000_000)
    with pytest.raises(NotBillableError, match="prices in USD, the profile bills in JPY"):
        draft_invoice(account, OCTOBER)
    assert not Invoice.objects.exists()


def test_only_a_draft_is_computed_anew() -> None:
    account = make_account()
    make_call(account, price=make_price(), prompt_tokens=1_000_000)
    invoice = submit(drafted(account).pk, user=make_preparer())
    with pytest.raises(InvoiceError, match="Only drafts"):
        recompute(invoice.pk)
    invoice.refresh_from_db()
    assert invoice.state == InvoiceState.IN_REVIEW
