"""`manage.py rebuild_rollups --from 2026-10-01 --to 2026-10-31 [--account NAME]`: rebuild daily usage."""

from __future__ import annotations

import time
from datetime import date
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing.rollup import rebuild
from llm.models import Account
from llm.money import plural

SECONDS_A_REPORT = 1.0


class Command(BaseCommand):
    help = (
        "Rebuilds daily usage from the books. The result is the same unless the rows were changed outside "
        "the gateway; run it when verify_books names such days. Safe to run while the gateway is busy, and "
        "to interrupt and run again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--from", required=True, dest="first", metavar="DAY", help="the first day, such as 2026-10-01"
        )
        parser.add_argument("--to", required=True, dest="last", metavar="DAY", help="the last day, such as 2026-10-31")
        parser.add_argument("--account", metavar="NAME", help="only this account")

    def handle(self, *args: Any, **options: Any) -> None:
        first, last = _day(options["first"]), _day(options["last"])
        if first > last:
            raise CommandError(f"{first} is after {last}: name the first day with --from.")
        account_ids = None if options["account"] is None else [_account(options["account"]).pk]
        days = rebuild(first=first, last=last, account_ids=account_ids, on_progress=self._progress())
        self.stdout.write(f"Account-days rebuilt: {days:,}.")

    def _progress(self) -> Any:
        told_at = time.monotonic()

        def tell(done: int, total: int) -> None:
            nonlocal told_at
            if time.monotonic() - told_at >= SECONDS_A_REPORT:
                told_at = time.monotonic()
                self.stderr.write(f"{done:,} of {plural(total, 'day')}")

        return tell


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise CommandError(f"“{text}” is not a valid date, e.g. 2026-10-31.") from error


def _account(name: str) -> Account:
    account = Account.objects.filter(name=name).first()
    if account is None:
        raise CommandError(f"There is no account “{name}”.")
    return account
