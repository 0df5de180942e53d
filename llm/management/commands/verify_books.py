"""`manage.py verify_books`: check every row and every limit, and name what is wrong."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from llm.verification import Findings, verify


class Command(BaseCommand):
    help = (
        "Checks the books against themselves: states, times, costs from tokens and frozen prices, holds and uses of "
        "limits, attempts. Names each broken row and ends with status 1 if there is one. Safe beside a busy gateway."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        findings = verify()
        self.tell(findings, f"{findings.rows:,} calls and {findings.windows:,} windows of limits")

    def tell(self, findings: Findings, looked_at: str) -> None:
        """Each problem, then the verdict. Raises CommandError where there is a problem."""
        for sentence in findings.sentences:
            self.stdout.write(sentence)
        if findings.problems:
            more = findings.problems - len(findings.sentences)
            told = f", of which {more:,} are not shown" if more else ""
            raise CommandError(f"{findings.problems:,} problems in {looked_at}{told}.")
        self.stdout.write(f"{looked_at}: all is in order.")
