"""`manage.py export_month`, as people type it."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from billing.enums import InvoiceState
from tests.billing.factories import make_account, make_invoice, make_profile

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("export_month", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_it_says_what_was_written_and_how_to_prove_it(tmp_path: Path) -> None:
    make_invoice(state=InvoiceState.ISSUED, lines=({"amount": "1234.50"},))
    folder = tmp_path / "out"
    said, errors = run("2026-10", "--out", str(folder), "--format", "csv, focus")
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert said == (
        f"1 invoice, 1 line and 0 rows of usage of 2026-10 are in {folder}.\n"
        "USD: 1 invoice, 1,234.50 in total, including tax.\n"
        f"SHA-256 of manifest.json: {digest}\n"
    )
    assert errors == ""
    assert sorted(path.name for path in folder.iterdir()) == [
        "focus-1.2.csv",
        "invoices.csv",
        "lines.csv",
        "manifest.json",
        "usage.csv",
        "verify_export.py",
    ]


def test_progress_is_shown_when_asked_for(tmp_path: Path) -> None:
    make_invoice(state=InvoiceState.ISSUED)
    _, errors = run("2026-10", "--out", str(tmp_path / "out"), "--progress")
    assert errors == "\r0 of about 0 rows of usage (100 %)\n"


def test_one_account_can_be_exported_and_drafts_too(tmp_path: Path) -> None:
    make_invoice(state=InvoiceState.ISSUED)
    make_invoice(make_profile(make_account("Other")))
    said, _ = run("2026-10", "--out", str(tmp_path / "out"), "--account", "Other", "--include-drafts")
    assert said.startswith("1 invoice, 1 line ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("2026-13",), "“2026-13” is not a month such as 2026-10."),
        (
            ("2026-10", "--format", "csv,pdf"),
            "Unknown export format “pdf”. Choose from csv, xlsx, jsonl, focus, xero.",
        ),
        (("2026-10", "--format", ","), "Name at least one format: csv, xlsx, jsonl, focus, xero."),
        (("2026-10", "--account", "Nobody"), "There is no account “Nobody”."),
        (("2026-09",), "There are no invoices for 2026-09."),
    ],
)
def test_what_cannot_be_exported_is_said_and_nothing_is_written(
    tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    make_invoice(state=InvoiceState.ISSUED)
    with pytest.raises(CommandError) as refused:
        run(*arguments, "--out", str(tmp_path / "out"))
    assert str(refused.value) == sentence
    assert list(tmp_path.iterdir()) == []
