"""From calls through a real gateway to an issued invoice and its export, against the provider's own ledger.

What an invoice should say is reckoned here a second time, from what the fake provider says it served and the prices and
plans as they are written below, in plain decimals: none of the gateway's own arithmetic has a say.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import openai
import pytest
import time_machine
from django.core.management import call_command
from django.utils import timezone
from openai.types.chat import ChatCompletionMessageParam

from billing.documents import render_pdf
from billing.invoices.review import approve, issue, submit
from billing.models import Invoice, Plan, PlanRate, PlanVersion
from billing.periods import BillingPeriod
from billing.verification import verify_month
from llm.keys import create_key
from llm.models import Account, OpenCall, Usage
from tests.billing.calls import make_price
from tests.billing.factories import make_account, make_profile
from tests.billing.people import make_approver, make_preparer
from tests.fakes import FakeUpstream, Script
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CALLS = 120
# USD per million tokens: input, cached input, output.
PRICES = {"m-small": ("0.15", "0.075", "0.6"), "m-large": ("2.5", "1.25", "10"), "m-house": ("1", "1", "1")}
MARKUP = Decimal("1.175")
# Of the second account, whose plan has prices of its own.
FIXED = {"input": Decimal("3.3"), "output": Decimal("12.9")}
FEE = Decimal("49.5")
TAX = Decimal("0.19")
ACME, GLOBEX = ("m-small", "m-large"), ("m-house",)


def plan(name: str, **terms: Decimal) -> PlanVersion:
    start = (timezone.now() - timedelta(days=400)).date().replace(day=1)
    return PlanVersion.objects.create(plan=Plan.objects.create(name=name), effective_from=start, **terms)


@pytest.fixture
def accounts(transactional_db: None) -> tuple[Account, Account]:
    for model, (fresh, cached, output) in PRICES.items():
        make_price(model, input=fresh, cache_read=cached, output=output)
    acme, globex = make_account("Acme"), make_account("Globex")
    make_profile(acme, plan=plan("Markup", markup_percent=Decimal("17.5")).plan)
    fixed = plan("Fixed", flat_fee=FEE)
    for meter, amount in FIXED.items():
        PlanRate.objects.create(version=fixed, model_pattern="m-*", meter=meter, price_per_million=amount)
    make_profile(globex, plan=fixed.plan, tax_percent=Decimal(19))
    return acme, globex


def ask(base_url: str, secret: str, model: str, number: int) -> None:
    """As an application does, with the official SDK: whole and streamed, one caller in six doesn't wait for the end."""
    with openai.OpenAI(base_url=base_url, api_key=secret, max_retries=0) as client:
        content = f"question {number} " * (1 + number % 7)
        messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": content}]
        if number % 3:
            client.chat.completions.create(model=model, messages=messages)
            return
        with client.chat.completions.create(model=model, messages=messages, stream=True) as stream:
            for _ in stream:
                if number % 6 == 0:
                    break


def cents(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal("0.01"), ROUND_HALF_UP)


def expected_lines(upstream: FakeUpstream) -> dict[str, dict[str, Decimal]]:
    """Amounts as they should be printed, by account and by "model meter"."""
    tokens: dict[tuple[str, str], int] = defaultdict(int)
    for entry in upstream.ledger.entries():
        counts = entry.counts
        tokens[entry.model, "input"] += counts.prompt_tokens - counts.cache_read_tokens
        tokens[entry.model, "cache_read"] += counts.cache_read_tokens
        tokens[entry.model, "output"] += counts.completion_tokens
    lines: dict[str, dict[str, Decimal]] = {"Acme": {}, "Globex": {}}
    for model in ACME:
        for meter, price in zip(("input", "cache_read", "output"), PRICES[model], strict=True):
            lines["Acme"][f"{model} {meter}"] = cents(tokens[model, meter] * Decimal(price) / 10**6 * MARKUP)
    [house] = GLOBEX
    fresh = tokens[house, "input"] + tokens[house, "cache_read"]
    lines["Globex"] = {
        f"{house} input": cents(fresh * FIXED["input"] / 10**6),
        f"{house} output": cents(tokens[house, "output"] * FIXED["output"] / 10**6),
        " ": cents(FEE),
    }
    return lines


def billed_lines(invoice: Invoice) -> dict[str, Decimal]:
    return {f"{line.model} {line.meter}": line.amount for line in invoice.lines.all()}


def test_every_figure_is_the_providers_ledger_times_price_and_plan(
    accounts: tuple[Account, Account], start_gateway: Callable[..., Gateway], upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.set_default(Script(chunks=6, cache_read_tokens=1_234_567, reasoning_tokens=98_765))
    gateway = start_gateway(LLM_UNPRICED_MODELS="refuse")
    keys = [(create_key(account, name=f"key {n}")[1], account) for account in accounts for n in range(2)]
    with ThreadPoolExecutor(8) as pool:
        for number in range(CALLS):
            secret, account = keys[number % len(keys)]
            models = ACME if account is accounts[0] else GLOBEX
            pool.submit(ask, f"{gateway.url}/v1", secret, models[number % len(models)], number)
    wait_until_closed()
    period = BillingPeriod.of(timezone.now().date())

    call_command("close_month", str(period))
    preparer, approver = make_preparer(), make_approver()
    with time_machine.travel(timezone.now() + timedelta(days=32), tick=True):
        for invoice in Invoice.objects.all():
            submit(invoice.pk, user=preparer)
            approve(invoice.pk, user=approver)
            issue(invoice.pk, user=approver)

    wanted = expected_lines(upstream)
    invoices = {invoice.account.name: invoice for invoice in Invoice.objects.select_related("account")}
    assert {name: billed_lines(invoice) for name, invoice in invoices.items()} == wanted
    for name, invoice in invoices.items():
        subtotal = sum(wanted[name].values())
        tax = cents(subtotal * TAX) if name == "Globex" else Decimal(0)
        assert (invoice.subtotal, invoice.tax, invoice.total) == (subtotal, tax, subtotal + tax)
        assert render_pdf(invoice).startswith(b"%PDF-")
    assert sorted(invoice.number or 0 for invoice in invoices.values()) == [1, 2]
    assert verify_month(period).sentences == []
    assert_export_is_the_invoices(period, invoices, tmp_path / "export")


def wait_until_closed() -> None:
    """Callers that hung up are read on for."""
    deadline = time.monotonic() + 30
    while Usage.objects.count() < CALLS or OpenCall.objects.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def assert_export_is_the_invoices(period: BillingPeriod, invoices: dict[str, Invoice], folder: Path) -> None:
    call_command("export_month", str(period), "--out", str(folder), "--format", "csv,xlsx,jsonl,focus,xero")
    with (folder / "invoices.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["legal_name"]: Decimal(row["total"]) for row in rows} == {
        name: invoice.total for name, invoice in invoices.items()
    }
    checked = subprocess.run(
        [sys.executable, str(folder / "verify_export.py")], cwd=folder, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
