"""`manage.py export_month 2026-10 --out DIR`: a month's invoices, lines and usage as files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing.errors import BillingError
from billing.exports.manifest import NAME, Manifest
from billing.exports.registry import FORMATS
from billing.jobs.exports import export_month
from billing.periods import BillingPeriod
from llm.models import Account
from llm.money import plural


class Command(BaseCommand):
    help = (
        "Exports the issued invoices of a month, with their lines and the usage they bill, and a manifest "
        "with the SHA-256 of each file. The same month always gives the same bytes. The folder is written "
        "completely or not at all; the verify_export.py in it checks it anywhere, without this software."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("month", help="Such as 2026-10.")
        parser.add_argument("--out", required=True, type=Path, help="A folder that is empty or doesn't exist yet.")
        parser.add_argument("--format", default="csv,xlsx,jsonl", help=f"One or more of {','.join(FORMATS)}.")
        parser.add_argument("--account", help="Only this account, for the customer: our costs are left out.")
        parser.add_argument(
            "--include-drafts", action="store_true", help="Include invoices that are not issued yet, marked as such."
        )
        parser.add_argument("--progress", action="store_true", help="Show progress even if this is not a terminal.")

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
        self.stderr.write(f"\r{rows:,} of about {plural(of, 'row')} of usage ({percent} %)", str, ending="")

    def _summarize(self, manifest: Manifest, folder: Path) -> None:
        rows = manifest.rows
        self.stdout.write(
            f"{plural(rows['invoices'], 'invoice')}, {plural(rows['lines'], 'line')} and "
            f"{plural(rows['usage'], 'row')} of usage of {manifest.scope.period} are in {folder}."
        )
        for currency, sums in sorted(manifest.totals.items()):
            self.stdout.write(
                f"{currency}: {plural(int(sums['invoices']), 'invoice')}, {sums['total']:,} in total, including tax."
            )
        self.stdout.write(f"SHA-256 of {NAME}: {manifest.sha256}")


def _period(month: str) -> BillingPeriod:
    try:
        return BillingPeriod.parse(month)
    except ValueError as error:
        raise CommandError(f"{error}.") from error


def _account(name: str | None) -> Account | None:
    if name is None:
        return None
    try:
        return Account.objects.get(name=name)
    except Account.DoesNotExist as error:
        raise CommandError(f"There is no account “{name}”.") from error
