"""`manage.py import_provider_costs openai
anthropic FILE.json`: import what a provider says it charges us.
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.reconcile import CostImportSummary, ReportError, import_report, reporting_providers
from llm.money import format_usd, plural


class Command(BaseCommand):
    help = (
        "Imports a cost or usage report as returned by the provider's API: one page, a list of pages, or "
        "pages one after the other. It replaces days imported earlier from reports of the same kind."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("provider", choices=list(reporting_providers()))
        parser.add_argument("file", type=Path, metavar="FILE.json")
        parser.add_argument("--dry-run", action="store_true", help="read and check the file, write nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        file: Path = options["file"]
        try:
            content = file.read_bytes()
        except OSError as error:
            raise CommandError(f"{file} can't be read: {error.strerror}.") from error
        try:
            summary = import_report(options["provider"], content, file_name=file.name, dry_run=options["dry_run"])
        except ReportError as error:
            raise CommandError(f"{file.name} was not imported. {error}") from error
        self.stdout.write(_sentence(summary, is_dry_run=options["dry_run"]))
        if summary.is_cut:
            self.stderr.write("The last page says that more follow: the report is incomplete.")


def _sentence(summary: CostImportSummary, *, is_dry_run: bool) -> str:
    if not summary.is_new:
        return "This file was already imported: nothing was done."
    days = f"{summary.first}" if summary.first == summary.last else f"{summary.first} to {summary.last}"
    cost = "no costs" if summary.cost is None else f"{format_usd(summary.cost)} USD"
    verb = "Would import" if is_dry_run else "Imported"
    rows, replaced = plural(summary.rows, "row"), plural(summary.replaced, "row")
    return f"{verb} {rows} of {days}, {cost}; {replaced} of earlier reports replaced."
