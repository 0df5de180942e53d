"""A fixture with calls in it is refused: its rows would no longer prove what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command

from billing.models import Invoice
from llm.models import Account, Usage
from tests.billing.october import make_october
from tests.llm.admin.factories import make_account, make_key, save, usage_row

pytestmark = pytest.mark.django_db


def dumped(tmp_path: Path, *labels: str) -> Path:
    target = tmp_path / "dump.json"
    call_command("dumpdata", *labels, output=str(target), verbosity=0)
    return target


def test_calls_are_not_loaded_and_nothing_else_of_the_file_is(tmp_path: Path) -> None:
    account = make_account("Before")
    save(usage_row(make_key(account)))
    file = dumped(tmp_path, "llm.account", "llm.usage")
    Account.objects.update(name="After")

    with pytest.raises(CommandError, match=r"llm\.Usage is a table of the books.*nothing was loaded"):
        call_command("loaddata", str(file), verbosity=0)

    assert Account.objects.get().name == "After"
    assert Usage.objects.count() == 1


@pytest.mark.parametrize("label", ["Invoice", "InvoiceLine", "BilledUsage", "InvoiceEvent"])
def test_invoices_are_not_loaded(tmp_path: Path, label: str) -> None:
    """The digest that was signed covers the microseconds of their cutoff."""
    make_october()
    before = list(Invoice.objects.order_by("id").values())
    file = dumped(tmp_path, "llm.account", f"billing.{label}")
    with pytest.raises(CommandError, match=rf"billing\.{label} is a table of the books.*nothing was loaded"):
        call_command("loaddata", str(file), verbosity=0)
    assert list(Invoice.objects.order_by("id").values()) == before


_NOT_OF_ROWS = {"ApiKey", "StaffToken", "CostImport", "RefusedWrite", "DailyUsage", "AccountDay"}
"""Digests of a secret, a file or a text; and of days that are made anew from the books."""


def test_each_model_with_a_digest_is_proven_or_has_a_reason() -> None:
    models = [model for model in apps.get_models() if model._meta.app_label in ("llm", "billing")]
    with_digest = {model for model in models if any("digest" in field.name for field in model._meta.fields)}
    proven = {model for model in models if getattr(model, "is_proven", False)}
    assert {model.__name__ for model in with_digest - proven} == _NOT_OF_ROWS
    assert {model.__name__ for model in proven - with_digest} == {"BooksCheck", "Redaction"}


def test_other_tables_are_loaded_as_ever(tmp_path: Path) -> None:
    make_account("Before")
    file = dumped(tmp_path, "llm.account")
    Account.objects.update(name="After")
    call_command("loaddata", str(file), verbosity=0)
    assert Account.objects.get().name == "Before"
