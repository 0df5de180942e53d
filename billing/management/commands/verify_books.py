"""`manage.py verify_books [--month 2026-10]`: the gateway's own check of the books, and that of a month's invoices."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from billing.periods import Period
from billing.verify import verify_protected_month
from llm.management.commands import verify_books as books


class Command(books.Command):
    help = (
        f"{books.Command.help} With --month, instead: reckons the month's invoices again from the calls that they "
        "bill, and names each difference."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--month", help="such as 2026-10")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["month"] is None:
            super().handle(*args, **options)
            return
        try:
            period = Period.parse(options["month"])
        except ValueError as error:
            raise CommandError(f"{error}.") from error
        findings = verify_protected_month(period)
        self.tell(findings, f"{findings.windows:,} invoices of {period} and the {findings.rows:,} calls behind them")
