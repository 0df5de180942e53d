"""`manage.py close_month 2026-10 [--account NAME]`: draft the month's invoices."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing.errors import BillingError
from billing.invoices.closing import close_month
from billing.periods import BillingPeriod
from llm.models import Account
from llm.money import plural


class Command(BaseCommand):
    help = (
        "Drafts each account's invoice for a month, or recalculates the existing draft; submitted invoices "
        "are not changed. A background job does the same once the month has ended in the account's time "
        "zone."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("month", help="such as 2026-10")
        parser.add_argument("--account", help="only this account, by name")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            period = BillingPeriod.parse(options["month"])
        except ValueError as error:
            raise CommandError(f"{error}.") from error
        try:
            report = close_month(period, account=_account(options["account"]))
        except BillingError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"{period}: {plural(len(report.drafted), 'draft')}, {len(report.kept):,} already submitted, "
            f"{plural(len(report.empty), 'account')} with nothing to bill."
        )
        if report.credited:
            notes = plural(len(report.credited), "draft credit note")
            self.stdout.write(f"{notes} for months that cost less than was billed.")
        if report.failed:
            for name, why in report.failed:
                self.stderr.write(f"{name}: {why}")
            raise CommandError(f"{plural(len({name for name, _ in report.failed}), 'account')} could not be billed.")


def _account(name: str | None) -> Account | None:
    if name is None:
        return None
    account = Account.objects.filter(name=name).first()
    if account is None:
        raise CommandError(f"There is no account “{name}”.")
    return account
