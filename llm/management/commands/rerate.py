"""`manage.py rerate PROVIDER MODEL --from DAY --to DAY --reason TEXT`: price past calls by the price list of today."""

from __future__ import annotations

from datetime import date
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from llm.money import format_usd, pico_to_usd
from llm.rerating import ReratingReport, rerate


class Command(BaseCommand):
    help = (
        "Prices the calls of a model anew, after a price was set or corrected (set_price --from a moment before them). "
        "Each call that changes gets an adjustment; rows and issued invoices stay as they are, and what was billed "
        "already is charged or given back on the account's next invoice."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("provider")
        parser.add_argument("model", help="The provider's own name of the model.")
        parser.add_argument("--from", dest="first_day", required=True, metavar="DAY", help="e.g. 2026-10-01")
        parser.add_argument("--to", dest="last_day", required=True, metavar="DAY", help="the last one, included")
        parser.add_argument("--reason", required=True, help="Stands with each adjustment.")
        parser.add_argument("--dry-run", action="store_true", help="Only tell what would change.")

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
            self.stdout.write(f"{report.unpriced:,} calls still have no price.")
        if report.incomplete:
            self.stdout.write(
                f"{report.incomplete:,} calls were left as they are: they were settled late by an earlier release, "
                "which kept neither their searches nor their service tier."
            )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise CommandError(f"“{text}” is not a day such as 2026-10-31.") from error


def _sentence(report: ReratingReport, *, is_dry: bool) -> str:
    before, after = (format_usd(pico_to_usd(pico)) for pico in (report.before_pico, report.after_pico))
    verb = "would cost" if is_dry else "cost"
    return f"{report.changed:,} of {report.calls:,} calls {verb} {after} USD instead of {before} USD."
