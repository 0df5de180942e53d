"""A month is exported whole or not at all, says what was billed, and is the same bytes whenever it is asked for."""

from __future__ import annotations

import csv
import json
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from django.utils import timezone

from billing import rollup
from billing.enums import InvoiceState, TierMode
from billing.exports import walk
from billing.exports.registry import FORMATS
from billing.invoices import billed_calls
from billing.invoices.billed_calls import UsageMovedError
from billing.invoices.crediting import credit
from billing.invoices.review import mark_paid, submit
from billing.jobs.exports import ExportError, export_month
from billing.models import DailyUsage, Invoice, Plan, PlanRate, PlanVersion
from llm.enums import AdjustmentSource
from llm.models import Account, ApiKey, Usage
from tests.billing.calls import adjust_call, make_call, make_price
from tests.billing.exports.months import (
    OCTOBER,
    approver,
    digests,
    drafted,
    exported,
    issued,
    make_customer,
    make_month,
    preparer,
    through_review,
    verify,
)
from tests.billing.factories import make_exchange_rate, make_invoice

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def usage_of(folder: Path) -> list[tuple[str, ...]]:
    names = ("period", "day", "model", "prompt_tokens", "completion_tokens", "calls")
    return [tuple(row[name] for name in names) for row in rows_of(folder / "usage.csv")]


def test_the_files_say_what_was_billed(tmp_path: Path) -> None:
    invoice = issued(make_month())
    manifest = exported(tmp_path / "out")
    assert manifest.rows == {"invoices": 1, "lines": 5, "usage": 3}
    assert manifest.document["totals"] == {"USD": {"invoices": 1, "subtotal": "2.50", "tax": "0.48", "total": "2.98"}}
    assert manifest.document["invoices"][0]["content_digest"] == invoice.content_digest
    assert json.loads((tmp_path / "out" / "manifest.json").read_bytes()) == manifest.document
    [head] = rows_of(tmp_path / "out" / "invoices.csv")
    assert (head["number"], head["legal_name"], head["currency"], head["total"]) == (
        invoice.label,
        "Acme",
        "USD",
        "2.98",
    )
    assert head["residual"] == "0.001126500003"
    lines = [
        (row["model"], row["meter"], row["quantity"], row["unit_price_per_million"], row["exact_amount"], row["amount"])
        for row in rows_of(tmp_path / "out" / "lines.csv")
    ]
    assert lines == [
        ("claude", "input", "3", "3.000001", "0.000009000003", "0.00"),
        ("claude", "output", "11", "15", "0.000165", "0.00"),
        ("gpt-4o", "input", "1000203", "2.5", "2.5005075", "2.50"),
        ("gpt-4o", "cache_read", "300", "1.25", "0.000375", "0.00"),
        ("gpt-4o", "output", "7", "10", "0.00007", "0.00"),
    ]
    assert usage_of(tmp_path / "out") == [
        ("2026-09", "2026-09-01", "gpt-4o", "1000003", "7", "1"),
        ("2026-09", "2026-09-30", "claude", "3", "11", "1"),
        ("2026-09", "2026-09-30", "gpt-4o", "500", "0", "1"),
    ]


def test_jsonl_says_the_same_as_csv(tmp_path: Path) -> None:
    issued(make_month())
    exported(tmp_path / "out")
    for table in ("invoices", "lines", "usage"):
        with (tmp_path / "out" / f"{table}.jsonl").open(encoding="utf-8") as file:
            records = [json.loads(line) for line in file]
        as_text = [{name: "" if value is None else str(value) for name, value in row.items()} for row in records]
        assert as_text == rows_of(tmp_path / "out" / f"{table}.csv")
        assert not any(isinstance(value, float) for row in records for value in row.values())


def test_an_issued_month_is_the_same_bytes_whatever_happened_since(tmp_path: Path) -> None:
    account = make_month()
    invoice = issued(account)
    exported(tmp_path / "before", tuple(FORMATS))
    # A late call, a correction of a billed one, a payment, and new names.
    price = make_price("gpt-5")
    make_call(account, day=date(2026, 9, 30), price=price, model="gpt-5", prompt_tokens=77)
    adjust_call(Usage.objects.get(model="claude"), AdjustmentSource.PROVIDER, prompt_tokens=5, cost=Decimal("0.01"))
    mark_paid(invoice.pk, user=approver(), paid_on=timezone.now().date())
    rollup.refresh()
    assert DailyUsage.objects.filter(model="gpt-5").exists()
    Account.objects.filter(pk=account.pk).update(name="Renamed")
    ApiKey.objects.update(name="renamed")
    issued(Account.objects.get(pk=account.pk), OCTOBER)
    exported(tmp_path / "after", tuple(FORMATS))
    assert digests(tmp_path / "before") == digests(tmp_path / "after")
    assert verify(tmp_path / "after")[0] == 0


def test_what_came_late_is_in_the_export_of_the_invoice_that_bills_it(tmp_path: Path) -> None:
    account = make_month()
    issued(account)
    gpt = make_call(account, day=date(2026, 9, 30), price=make_price("gpt-4o-late"), model="gpt-4o", prompt_tokens=40)
    adjust_call(
        Usage.objects.get(model="claude"), AdjustmentSource.PROVIDER, prompt_tokens=-1, cost=-Decimal("0.000003000001")
    )
    make_call(account, day=date(2026, 10, 1), price=gpt.price, model="gpt-4o", prompt_tokens=9)
    issued(account, OCTOBER)
    export_month(OCTOBER, tmp_path / "out", ["csv", "jsonl"])
    assert usage_of(tmp_path / "out") == [
        ("2026-09", "2026-09-30", "claude", "-1", "0", "0"),
        ("2026-09", "2026-09-30", "gpt-4o", "40", "0", "1"),
        ("2026-10", "2026-10-01", "gpt-4o", "9", "0", "1"),
    ]
    assert verify(tmp_path / "out") == (0, "No differences: invoices 1, lines 3, usage 3.\n")


def test_a_month_that_is_billed_after_the_next_one_has_all_of_its_usage(tmp_path: Path) -> None:
    account = make_month()
    make_call(account, day=date(2026, 10, 1), price=make_price("gpt-5"), prompt_tokens=9)
    issued(account, OCTOBER)
    issued(account)
    assert exported(tmp_path / "out").rows["usage"] == 3
    assert verify(tmp_path / "out")[0] == 0
    make_call(account, day=date(2026, 9, 5), prompt_tokens=1, price=make_price("gpt-6"))
    rollup.refresh()
    exported(tmp_path / "again")
    assert digests(tmp_path / "out") == digests(tmp_path / "again")


def test_credit_notes_are_exported_with_what_they_credit(tmp_path: Path) -> None:
    invoice = issued(make_month())
    through_review(credit(invoice.pk, user=approver(), reason="duplicate"))
    manifest = exported(tmp_path / "out", tuple(FORMATS))
    assert manifest.document["totals"]["USD"] == {
        "invoices": 2,
        "subtotal": "0.00",
        "tax": "0.00",
        "total": "0.00",
    }
    note = rows_of(tmp_path / "out" / "invoices.csv")[0]
    assert (note["kind"], note["original_number"], note["total"]) == ("credit_note", invoice.label, "-2.98")
    assert verify(tmp_path / "out")[0] == 0


@pytest.mark.parametrize(("currency", "total"), [("JPY", "447"), ("KWD", "0.914")])
def test_amounts_have_the_decimals_of_their_currency(tmp_path: Path, currency: str, total: str) -> None:
    make_exchange_rate(currency, {"JPY": "150.25", "KWD": "0.307"}[currency], on=date(2026, 9, 30))
    account = make_customer(currency=currency, tax_percent=Decimal(19), plan=plan_in(currency))
    issued(make_month(account))
    exported(tmp_path / "out", tuple(FORMATS))
    assert rows_of(tmp_path / "out" / "invoices.csv")[0]["total"] == total
    assert verify(tmp_path / "out")[0] == 0


def plan_in(currency: str) -> Plan:
    plan = Plan.objects.create(name=f"At cost in {currency}")
    PlanVersion.objects.create(plan=plan, effective_from=date(2026, 1, 1), currency=currency)
    return plan


def test_a_plan_with_everything_proves_itself_and_so_does_what_comes_late(tmp_path: Path) -> None:
    account = make_month(make_customer(tax_percent=Decimal("7.7"), plan=plan_with_everything()))
    other_rates = make_price("gpt-4o-mini", input="0.15", output="0.6", reasoning="0.7")
    for day in (2, 30):
        make_call(account, day=date(2026, 9, day), price=other_rates, prompt_tokens=900_000, completion_tokens=9)
    invoice = issued(account)
    exported(tmp_path / "september", tuple(FORMATS))
    kinds = {row["kind"] for row in rows_of(tmp_path / "september" / "lines.csv")}
    assert kinds == {"usage", "allowance", "discount", "flat_fee", "commitment"}
    assert verify(tmp_path / "september")[0] == 0
    # A line of a kind of token that was not billed before, and one that grows into another tier.
    make_call(account, day=date(2026, 9, 3), price=other_rates, completion_tokens=40, reasoning_tokens=30)
    make_call(account, day=date(2026, 9, 3), price=other_rates, prompt_tokens=3_000_000)
    credit(invoice.pk, user=approver(), reason="not yet issued")
    issued(account, OCTOBER)
    export_month(OCTOBER, tmp_path / "october", list(FORMATS))
    assert ("2026-09", "2026-09-03", "gpt-4o", "3000000", "40", "2") in usage_of(tmp_path / "october")
    assert verify(tmp_path / "october")[0] == 0


def plan_with_everything() -> Plan:
    plan = Plan.objects.create(name="Everything")
    version = PlanVersion.objects.create(
        plan=plan,
        effective_from=date(2026, 1, 1),
        markup_percent=Decimal("12.5"),
        flat_fee=Decimal(5),
        minimum_commitment=Decimal(40),
        allowance_amount=Decimal("0.5"),
        discount_percent=Decimal("3.3333"),
    )
    for meter, first, later in (("input", "3", "2.000001"), ("output", "12", "9")):
        for from_tokens, price in ((0, first), (2_000_000, later)):
            PlanRate.objects.create(
                version=version,
                model_pattern="gpt-*",
                meter=meter,
                tier_mode=TierMode.GRADUATED,
                from_tokens=from_tokens,
                price_per_million=Decimal(price),
            )
    return plan


def test_credits_by_parts_prove_themselves(tmp_path: Path) -> None:
    invoice = issued(make_month())
    line = invoice.lines.get(amount=Decimal("2.50"))
    for amount in ("0.33", "0.33", "1.84"):
        through_review(credit(invoice.pk, user=approver(), reason="part", amounts={line.pk: Decimal(amount)}))
    manifest = exported(tmp_path / "out", tuple(FORMATS))
    assert manifest.document["totals"]["USD"]["total"] == "0.00"
    assert verify(tmp_path / "out")[0] == 0


def test_an_accounts_own_export_is_without_others_and_without_our_costs(tmp_path: Path) -> None:
    acme = make_month()
    issued(acme)
    other = make_month(make_customer("Other"))
    issued(other)
    manifest = exported(tmp_path / "out", account=acme)
    assert (manifest.rows["invoices"], manifest.document["account_id"]) == (1, acme.pk)
    for path in (tmp_path / "out").glob("*.csv"):
        assert not [name for name in rows_of(path)[0] if "cost" in name]
    assert verify(tmp_path / "out")[0] == 0
    assert exported(tmp_path / "all").rows["invoices"] == 2


def test_drafts_are_exported_only_when_asked_for_and_say_so(tmp_path: Path) -> None:
    issued(make_month())
    submitted = submit(drafted(make_month(make_customer("Other"))).pk, user=preparer())
    draft = drafted(make_month(make_customer("Third")))
    voided = make_invoice(make_customer("Fourth").billing_profile, state=InvoiceState.VOID)
    assert exported(tmp_path / "final").rows["invoices"] == 1
    exported(tmp_path / "all", tuple(FORMATS), includes_drafts=True)
    heads = rows_of(tmp_path / "all" / "invoices.csv")
    assert [(row["invoice_id"], row["number"] != "", row["state"]) for row in heads] == [
        (heads[0]["invoice_id"], True, "issued"),
        (str(submitted.pk), False, "in_review"),
        (str(draft.pk), False, "draft"),
    ]
    assert voided.state == InvoiceState.VOID
    assert {row["*ContactName"] for row in rows_of(tmp_path / "all" / "xero-invoices.csv")} == {"Acme"}
    assert verify(tmp_path / "all")[0] == 0


def test_nothing_is_written_where_there_is_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"^There are no invoices for 2026-09\.$"):
        exported(tmp_path / "out")
    drafted(make_month())
    with pytest.raises(ExportError, match=r"^The only invoice for 2026-09 is not issued yet\. --include"):
        exported(tmp_path / "out")
    with pytest.raises(ExportError, match=r"^There are no invoices of Other for 2026-09\.$"):
        exported(tmp_path / "out", account=make_customer("Other"))
    assert list(tmp_path.iterdir()) == []


def test_unknown_formats_are_named(tmp_path: Path) -> None:
    issued(make_month())
    with pytest.raises(
        ExportError, match=r"^Unknown export format “pdf”. Choose from csv, xlsx, jsonl, focus, xero\.$"
    ):
        exported(tmp_path / "out", ["csv", "pdf"])
    with pytest.raises(ExportError, match=r"^Name at least one format: csv, xlsx, jsonl, focus, xero\.$"):
        exported(tmp_path / "out", [])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    issued(make_month())
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"is not empty: give a folder that is empty or doesn't exist yet\.$"):
        exported(tmp_path)
    with pytest.raises(ExportError, match=r"is a file: give a folder"):
        exported(tmp_path / "mine.txt")
    with pytest.raises(ExportError, match=r"mine\.txt is a file: give a folder"):
        exported(tmp_path / "mine.txt" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_becomes_the_export(tmp_path: Path) -> None:
    issued(make_month())
    exported(tmp_path / "a" / "b")
    (tmp_path / "empty").mkdir()
    exported(tmp_path / "empty")
    assert digests(tmp_path / "a" / "b") == digests(tmp_path / "empty")


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    issued(make_month())

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(walk, "read_usage", fail)
    with pytest.raises(ExportError, match=r"^The export could not be written: No space left on device\.$"):
        exported(tmp_path / "out", [name])
    assert list(tmp_path.iterdir()) == []


def test_rollups_that_move_under_the_export_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    invoice = issued(make_month())
    tries = []

    def moving(each: Invoice) -> object:
        tries.append(each)
        if len(tries) < 3:
            raise UsageMovedError("moved")
        return billed_calls.read_usage(each)

    monkeypatch.setattr(walk, "read_usage", moving)
    assert exported(tmp_path / "out").rows["usage"] == 3
    assert tries == [invoice] * 3
    tries.clear()
    monkeypatch.setattr("billing.jobs.exports.TRIES", 1)
    with pytest.raises(UsageMovedError):
        exported(tmp_path / "again")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_progress_tells_of_rows_after_each_invoice(tmp_path: Path) -> None:
    issued(make_month())
    issued(make_month(make_customer("Other")))
    told: list[tuple[int, int]] = []
    exported(tmp_path / "out", on_progress=lambda rows, of: told.append((rows, of)))
    assert told == [(3, 6), (6, 6)]
