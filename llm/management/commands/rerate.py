"""`manage.py rerate PROVIDER MODEL --from DAY --to DAY --reason TEXT`: price past calls by the current price list."""

from __future__ import annotations

from datetime import date
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from llm.books.rerating import ReratingReport, rerate
from llm.money import format_usd, pico_to_usd, plural


class Command(BaseCommand):
    help = (
        "Re-rates a model's calls after a price was set or corrected (set_price with --from before those "
        "calls). Each call whose cost changes gets an adjustment; rows and issued invoices never change. "
        "If the usage was already billed, the difference is charged on the account's next invoice, or "
        "refunded by a credit note on the month's own invoice."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("provider")
        parser.add_argument("model", help="The provider's name for the model, or a pattern: ft:gpt-4.1-*")
        parser.add_argument("--from", dest="first_day", required=True, metavar="DAY", help="e.g. 2026-10-01")
        parser.add_argument("--to", dest="last_day", required=True, metavar="DAY", help="the last day, inclusive")
        parser.add_argument("--reason", required=True, help="The reason to record with each adjustment.")
        parser.add_argument("--dry-run", action="store_true", help="Only report what would change.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            report = rerate(
                options["provider"],
                options["model"],
                first_day=_day(options["first_day"]),
                last_day=_day(options["last_day"]),
                reason=options["reason"],
                is_dry=options["dry_run"],
            )
        except ValueError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(_sentence(report, is_dry=options["dry_run"]))
        if report.unpriced:
            self.stdout.write(f"{plural(report.unpriced, 'call')} still without a price.")
        if report.incomplete:
            self.stdout.write(
                f"Left {plural(report.incomplete, 'call')} unchanged: an earlier release recorded neither searches nor "
                "the service tier of late settlements."
            )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise CommandError(f"“{text}” is not a valid date, e.g. 2026-10-31.") from error


def _sentence(report: ReratingReport, *, is_dry: bool) -> str:
    before, after = (format_usd(pico_to_usd(pico)) for pico in (report.before_pico, report.after_pico))
    verb = "would cost" if is_dry else "cost"
    return f"{report.changed:,} of {plural(report.calls, 'call')} {verb} {after} USD instead of {before} USD."
