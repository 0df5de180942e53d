"""`manage.py export_month 2026-10 --out DIR`: a month's invoices, lines and usage as files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing.errors import BillingError
from billing.exporting import export_month
from billing.exports import FORMATS
from billing.exports.manifest import NAME, Manifest
from billing.periods import Period
from llm.models import Account


class Command(BaseCommand):
    help = (
        "Writes the invoices that are issued for a month, with their lines and the usage that they bill, and a "
        "manifest with the SHA-256 of each file. The same month always gives the same bytes. The folder is there whole "
        "or not at all; verify_export.py in it checks it anywhere, without this software."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("month", help="Such as 2026-10.")
        parser.add_argument("--out", required=True, type=Path, help="A folder that is empty or not there yet.")
        parser.add_argument("--format", default="csv,xlsx,jsonl", help=f"Some of {','.join(FORMATS)}.")
        parser.add_argument("--account", help="Only this account, for the customer: without what providers charge us.")
        parser.add_argument("--include-drafts", action="store_true", help="Also what is not issued yet; marked so.")
        parser.add_argument("--progress", action="store_true", help="Show progress even where this is no terminal.")

    def handle(self, *args: Any, **options: Any) -> None:
        progress = self._show if options["progress"] or sys.stderr.isatty() else None
        try:
            manifest = export_month(
                _period(options["month"]),
                options["out"],
                [name.strip() for name in options["format"].split(",") if name.strip()],
                account=_account(options["account"]),
                includes_drafts=options["include_drafts"],
                on_progress=progress,
            )
        except BillingError as error:
            raise CommandError(str(error)) from error
        if progress:
            self.stderr.write("")
        self._summarize(manifest, options["out"])

    def _show(self, rows: int, of: int) -> None:
        percent = 100 * rows // of if of else 100
        self.stderr.write(f"\r{rows:,} of about {of:,} rows of usage ({percent} %)", str, ending="")

    def _summarize(self, manifest: Manifest, folder: Path) -> None:
        rows = manifest.rows
        self.stdout.write(
            f"{rows['invoices']:,} invoices, {rows['lines']:,} lines and {rows['usage']:,} rows of usage of "
            f"{manifest.scope.period} are in {folder}."
        )
        for currency, sums in sorted(manifest.totals.items()):
            self.stdout.write(f"{currency}: {sums['invoices']:,} invoices, {sums['total']:,} in all, tax included.")
        self.stdout.write(f"SHA-256 of {NAME}: {manifest.sha256}")


def _period(month: str) -> Period:
    try:
        return Period.parse(month)
    except ValueError as error:
        raise CommandError(f"{error}.") from error


def _account(name: str | None) -> Account | None:
    if name is None:
        return None
    try:
        return Account.objects.get(name=name)
    except Account.DoesNotExist as error:
        raise CommandError(f"There is no account “{name}”.") from error
