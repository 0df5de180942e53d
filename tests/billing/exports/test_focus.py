"""What FOCUS is told of invoices that were really billed, under the rules of its version 1.2 (see `focus_rules`)."""

from __future__ import annotations

from collections import defaultdict
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from billing.enums import InvoiceKind, InvoiceState, LineKind
from billing.invoices.crediting import credit, credit_and_bill_again
from billing.jobs.exports import export_month
from billing.models import Invoice, Plan
from billing.periods import BillingPeriod
from billing.plans import add_version
from llm.models import Rate
from llm.money import exact_sum
from tests.billing.calls import adjust_call, make_call, make_price
from tests.billing.exports.focus_rules import COLUMN_RULES, RULES, broken_rules
from tests.billing.exports.months import (
    OCTOBER,
    SEPTEMBER,
    approver,
    exported,
    issued,
    make_customer,
    make_month,
    through_review,
    verify,
)
from tests.billing.exports.test_formats import rows_of
from tests.billing.factories import make_invoice, make_profile

pytestmark = pytest.mark.django_db

Row = dict[str, str]


def make_plan_at(markup_percent: Decimal) -> Plan:
    plan = Plan.objects.create(name="With a markup")
    add_version(plan, effective_from=date(2026, 1, 1), currency="USD", markup_percent=markup_percent)
    return plan


def focus_of(folder: Path, period: BillingPeriod = SEPTEMBER, **options: Any) -> list[Row]:
    export_month(period, folder, ["focus"], **options)
    return rows_of(folder / "focus-1.2.csv")


def sums(rows: list[Row]) -> dict[str, Decimal]:
    costs = defaultdict(list)
    for row in rows:
        costs[row["InvoiceId"]].append(Decimal(row["BilledCost"]))
    return {name: exact_sum(amounts) for name, amounts in costs.items()}


def totals() -> dict[str, Decimal]:
    return {invoice.label: invoice.total for invoice in Invoice.objects.final()}


def test_the_rules_say_what_was_wrong() -> None:
    """Rows as they were once: each breaks the rule that it broke."""
    wrong = {
        "ChargeCategory": "Usage",
        "ChargeClass": "",
        "ResourceId": "",
        "ResourceName": "gpt",
        "ResourceType": "Model",
        "ConsumedQuantity": "",
        "SkuPriceId": "1|usage|other",
    }
    names = {rule.split(":")[0] for rule in broken_rules([wrong], columns=wrong)}
    assert {"ResourceName", "ResourceType", "ConsumedQuantity"} <= names
    assert len(RULES) + len(COLUMN_RULES) >= 150


def test_a_month_keeps_the_rules_and_adds_up(tmp_path: Path) -> None:
    account = make_month()
    invoice = issued(account)
    rows = focus_of(tmp_path / "out")
    assert broken_rules(rows) == []
    assert sums(rows) == totals()
    first = rows[0]
    assert (first["ResourceId"], first["ResourceName"], first["ResourceType"]) == (
        "anthropic/claude",
        "claude",
        "Model",
    )
    assert invoice.total == Decimal("2.98")


def test_every_kind_of_line_keeps_the_rules(tmp_path: Path) -> None:
    usage = {"provider": "openai", "model": "gpt-4o", "meter": "input", "quantity": 1_000_000}
    lines: tuple[dict[str, Any], ...] = (
        {**usage, "amount": "2.50", "unit_price": Decimal("2.5"), "key": "usage|input|cost:1|openai|gpt-4o"},
        {**usage, "amount": "2.60", "key": "without a price"},
        {**usage, "amount": "0.03", "quantity": None, "meter": "other", "key": "usage|other|cost:1|openai|gpt-4o"},
        {**usage, "amount": "-0.50", "quantity": None, "meter": "other", "period_start": date(2026, 9, 1)},
        {**usage, "amount": "-1.00", "quantity": -400_000, "period_start": date(2026, 9, 1)},
        {"amount": "-0.25", "kind": LineKind.DISCOUNT},
        {"amount": "-0.25", "kind": LineKind.ALLOWANCE},
        {"amount": "-0.10", "kind": LineKind.GOODWILL},
        {"amount": "5.00", "kind": LineKind.FLAT_FEE},
        {"amount": "7.00", "kind": LineKind.COMMITMENT},
    )
    profile = make_profile()
    invoice = make_invoice(profile, lines=lines, tax_percent="19", state=InvoiceState.ISSUED)
    note: dict[str, Any] = {"kind": InvoiceKind.CREDIT_NOTE, "original": invoice, "credit_sequence": 1}
    taken_back = tuple({**line, "amount": f"{-Decimal(line['amount']):f}"} for line in lines)
    make_invoice(profile, lines=taken_back, tax_percent="19", state=InvoiceState.ISSUED, number=1, **note)
    make_invoice(
        profile, lines=lines, tax_percent="19", state=InvoiceState.ISSUED, number=18, kind=InvoiceKind.SUPPLEMENT
    )
    rows = focus_of(tmp_path / "out", OCTOBER)
    assert broken_rules(rows) == []
    assert sums(rows) == totals()
    assert {row["ChargeClass"] for row in rows if row["InvoiceId"] != invoice.label} == {"Correction"}


def test_web_searches_are_a_meter_of_their_own_and_the_rest_an_adjustment(tmp_path: Path) -> None:
    """12 searches at 0.01, 20 % on top; and 0.50 that a correction charged."""
    account = make_customer(plan=make_plan_at(Decimal(20)))
    price = make_price("gpt-4o", input="2.5", output="10")
    Rate.objects.create(rate_set=price.rate_sets.get(), meter="web_searches", amount=Decimal(10), per_units=1000)
    calls = [
        make_call(
            account, price=price, day=date(2026, 9, 5), prompt_tokens=1_000_000, extra_meters={"web_searches": searches}
        )
        for searches in (5, 0)
    ]
    not_billed = make_call(account, price=price, day=date(2026, 9, 6), extra_meters={"web_searches": 90})
    adjust_call(not_billed, is_billable=False)
    adjust_call(calls[0], cost=Decimal("0.05"))
    adjust_call(calls[1], cost=Decimal("0.57"), extra_meters={"web_searches": 7})
    invoice = issued(account)
    rows = [row for row in focus_of(tmp_path / "out") if row["x_LinePosition"] == "2"]
    names = ("ChargeCategory", "SkuMeter", "ConsumedQuantity", "ConsumedUnit", "ContractedUnitPrice", "BilledCost")
    assert [[row[name] for name in names] for row in rows] == [
        ["Usage", "web_searches", "12", "Web Searches", "0.012", "0.144"],
        ["Adjustment", "", "", "", "", "0.6"],
    ]
    assert rows[0]["ChargeDescription"] == "gpt-4o, other usage and corrections: web searches"
    assert rows[0]["SkuPriceId"].split("|")[1:3] == ["usage", "web_searches"]
    every = rows_of(tmp_path / "out" / "focus-1.2.csv")
    assert broken_rules(every) == []
    assert sums(every) == {invoice.label: invoice.total}


def test_what_a_correction_takes_back_is_a_correction_with_its_tax_and_rounding(tmp_path: Path) -> None:
    invoice = issued(make_month())
    through_review(credit_and_bill_again(invoice.pk, user=approver(), reason="wrong plan"))
    rows = focus_of(tmp_path / "out")
    assert broken_rules(rows) == []
    assert sums(rows) == totals()
    told = {(row["InvoiceId"][:2], row["ChargeCategory"], row["ChargeClass"]) for row in rows}
    kinds = ("Adjustment", "Tax", "Usage")
    assert told == {("IN", kind, "") for kind in kinds} | {("CN", kind, "Correction") for kind in kinds}


def test_goodwill_is_a_correction_with_its_tax(tmp_path: Path) -> None:
    invoice = issued(make_month())
    line = invoice.lines.get(position=3)
    through_review(credit(invoice.pk, user=approver(), reason="sorry", amounts={line.pk: Decimal("1.00")}))
    rows = focus_of(tmp_path / "out")
    assert broken_rules(rows) == []
    assert sums(rows) == totals() != {}
    note = [row for row in rows if row["InvoiceId"].startswith("CN")]
    assert [(row["ChargeCategory"], row["ChargeClass"], row["BilledCost"]) for row in note] == [
        ("Usage", "Correction", "-1"),
        ("Tax", "Correction", "-0.19"),
    ]


@pytest.mark.slow
def test_tax_and_rounding_of_late_usage_are_corrections_of_its_month(tmp_path: Path) -> None:
    """September's usage on October's invoice; both months at 19 %."""
    account = make_month()
    issued(account)
    price = make_price("late", input="2.500001")
    make_call(account, price=price, model="late", day=date(2026, 9, 7), prompt_tokens=1_000_001)
    make_call(account, price=price, model="late", day=date(2026, 10, 7), prompt_tokens=3_000_003)
    invoice = issued(account, OCTOBER)
    rows = focus_of(tmp_path / "out", OCTOBER)
    assert broken_rules(rows) == []
    assert sums(rows) == {invoice.label: invoice.total}
    beside = [row for row in rows if not row["x_LinePosition"]]
    assert [(row["ChargeCategory"], row["ChargeClass"], row["ChargePeriodStart"][:7]) for row in beside] == [
        ("Adjustment", "", "2026-10"),
        ("Adjustment", "Correction", "2026-09"),
        ("Tax", "", "2026-10"),
        ("Tax", "Correction", "2026-09"),
    ]
    assert exact_sum(Decimal(row["BilledCost"]) for row in beside if row["ChargeCategory"] == "Tax") == invoice.tax
    exported(tmp_path / "checked", ("csv", "focus"))
    assert verify(tmp_path / "checked")[0] == 0
