"""`manage.py close_month 2026-10 [--account NAME]`: draft the month's invoices."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing.closing import close_month
from billing.errors import BillingError
from billing.periods import Period
from llm.models import Account


class Command(BaseCommand):
    help = (
        "Drafts the invoice of a month for each account, or computes the draft that is there anew; invoices that were "
        "submitted stay as they are. A background job does the same once the month has ended where the account is."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("month", help="such as 2026-10")
        parser.add_argument("--account", help="only this one, by its name")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            period = Period.parse(options["month"])
        except ValueError as error:
            raise CommandError(f"{error}.") from error
        try:
            report = close_month(period, account=_account(options["account"]))
        except BillingError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"{period}: {len(report.drafted):,} drafts, {len(report.kept):,} submitted before, "
            f"{len(report.empty):,} accounts with nothing to bill."
        )
        if report.credited:
            self.stdout.write(
                f"{len(report.credited):,} drafts of credit notes over months that cost less than billed."
            )
        if report.failed:
            for name, why in report.failed:
                self.stderr.write(f"{name}: {why}")
            raise CommandError(f"{len(report.failed):,} accounts could not be billed.")


def _account(name: str | None) -> Account | None:
    if name is None:
        return None
    account = Account.objects.filter(name=name).first()
    if account is None:
        raise CommandError(f"There is no account “{name}”.")
    return account
