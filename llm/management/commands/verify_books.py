"""`manage.py verify_books [--recent]`: audit every row and every limit, and report what is wrong."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from llm.audit import Findings, verify, verify_recent
from llm.money import plural


class Command(BaseCommand):
    help = (
        "Audits the books: states, times, costs from tokens and frozen prices, reservations and usage of "
        "limits, attempts. Names each broken row and exits with status 1 if there is one. Safe to run "
        "while the gateway is busy."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--recent",
            action="store_true",
            help="like the nightly audit: only calls recorded since the last one, and a tenth of the older days",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        findings = verify_recent() if options["recent"] else verify()
        self.tell(findings, f"{plural(findings.rows, 'call')} and {plural(findings.windows, 'window')} of limits")

    def tell(self, findings: Findings, looked_at: str) -> None:
        """Each problem, then the verdict. Raises CommandError if there is a problem."""
        for sentence in findings.sentences:
            self.stdout.write(sentence)
        if findings.problems:
            more = findings.problems - len(findings.sentences)
            told = f", of which {more:,} {'is' if more == 1 else 'are'} not shown" if more else ""
            raise CommandError(f"{plural(findings.problems, 'problem')} in {looked_at}{told}.")
        self.stdout.write(f"{looked_at}: no problems found.")
