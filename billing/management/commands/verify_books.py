"""`manage.py verify_books [--recent
--month 2026-10]`: the gateway's own audit of the books, or that of a month.
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from billing.periods import BillingPeriod
from billing.verification import verify_protected_month
from llm.management.commands import verify_books as books
from llm.money import plural


class Command(books.Command):
    help = (
        f"{books.Command.help} With --month instead: recalculates the month's invoices from the calls they "
        "bill, and names each difference."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--month", help="such as 2026-10")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["month"] is None:
            super().handle(*args, **options)
            return
        if options["recent"]:
            raise CommandError("--month checks the invoices of a whole month: omit --recent.")
        try:
            period = BillingPeriod.parse(options["month"])
        except ValueError as error:
            raise CommandError(f"{error}.") from error
        findings = verify_protected_month(period)
        them = "it" if findings.windows == 1 else "them"
        calls = plural(findings.rows, "call")
        self.tell(findings, f"{plural(findings.windows, 'invoice')} of {period} and the {calls} behind {them}")
