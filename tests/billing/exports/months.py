"""Months that were really billed, for the tests of exports: calls, drafts, review, issue."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User

from billing.exports.manifest import Manifest
from billing.invoices.drafting import draft_invoice
from billing.invoices.review import approve, issue, submit
from billing.jobs.exports import export_month
from billing.models import Invoice
from billing.periods import BillingPeriod
from llm.models import Account, ApiKey, Price
from tests.billing.calls import make_call, make_key, make_price
from tests.billing.factories import make_account, make_profile
from tests.billing.people import make_approver, make_preparer

SEPTEMBER = BillingPeriod.parse("2026-09")
OCTOBER = BillingPeriod.parse("2026-10")


def preparer() -> User:
    return User.objects.filter(username="pat").first() or make_preparer("pat")


def approver() -> User:
    return User.objects.filter(username="alex").first() or make_approver("alex")


def drafted(account: Account, period: BillingPeriod = SEPTEMBER) -> Invoice:
    draft = draft_invoice(account, period)
    assert draft is not None
    return draft


def through_review(draft: Invoice) -> Invoice:
    submit(draft.pk, user=preparer())
    approve(draft.pk, user=approver())
    return issue(draft.pk, user=approver())


def issued(account: Account, period: BillingPeriod = SEPTEMBER) -> Invoice:
    return through_review(drafted(account, period))


def make_customer(name: str = "Acme", **profile: Any) -> Account:
    account = make_account(name)
    make_profile(account, **{"address": "1 Street\nLisbon", "email": "pay@acme.example", **profile})
    return account


def make_month(account: Account | None = None) -> Account:
    """Three calls of two models by two keys on two days; 2.501126500003 USD unrounded, without tax."""
    account = account or make_customer(tax_percent=Decimal(19))
    key, other = make_key(account), make_key(account, "staging")
    gpt = _price("gpt-4o", "openai", input="2.5", output="10", cache_read="1.25")
    claude = _price("claude", "anthropic", input="3.000001", output="15")
    _call(account, key, gpt, "openai", "gpt-4o", day=date(2026, 9, 1), prompt_tokens=1_000_003, completion_tokens=7)
    _call(account, other, gpt, "openai", "gpt-4o", day=date(2026, 9, 30), prompt_tokens=500, cache_read_tokens=300)
    _call(account, key, claude, "anthropic", "claude", day=date(2026, 9, 30), prompt_tokens=3, completion_tokens=11)
    return account


def _price(model: str, provider: str, **rates: str) -> Price:
    return Price.objects.filter(model=model).first() or make_price(model, provider=provider, **rates)


def _call(account: Account, key: ApiKey, price: Price, provider: str, model: str, **values: Any) -> None:
    make_call(account, key=key, price=price, provider=provider, model=model, **values)


def exported(folder: Path, formats: Sequence[str] = ("csv", "jsonl"), **options: Any) -> Manifest:
    return export_month(SEPTEMBER, folder, formats, **options)


def verify(folder: Path) -> tuple[int, str]:
    """The export's own script as a customer runs it, without any package. Its status and what it says."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(folder / "verify_export.py")], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
