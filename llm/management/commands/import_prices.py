"""`manage.py import_prices`: update our price list from the installed genai-prices."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from llm.management.moments import parse_moment
from llm.money import plural
from llm.prices.builtin import ensure_builtin_prices
from llm.prices.genai import PROVIDER_IDS
from llm.prices.importing import PriceImportSummary, import_prices


class Command(BaseCommand):
    help = (
        "Imports model prices from the installed genai-prices package, and the price of the built-in echo "
        "provider. Existing prices stay; changed ones are added."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--provider",
            action="append",
            dest="providers",
            choices=sorted(PROVIDER_IDS),
            help="Only this provider; may be repeated. Default: all providers with a price list.",
        )
        parser.add_argument(
            "--effective-from",
            metavar="MOMENT",
            help=(
                "When changed prices take effect, e.g. 2026-11-01T00:00Z; default: now. New models get their full "
                "price history."
            ),
        )

    def handle(self, *args: Any, **options: Any) -> None:
        moment = options["effective_from"]
        summary = import_prices(
            tuple(dict.fromkeys(options["providers"] or PROVIDER_IDS)),
            effective_from=parse_moment(moment) if moment else None,
        )
        ensure_builtin_prices()
        self.stdout.write(_sentence(summary))
        if summary.without_price and options["verbosity"] > 1:
            self.stdout.write(f"No token price is listed for {', '.join(summary.without_price)}.")


def _sentence(summary: PriceImportSummary) -> str:
    return (
        f"Prices: {plural(summary.models, 'model')}, {plural(summary.new_prices, 'new price')}, "
        f"{plural(summary.unchanged, 'model')} unchanged, {summary.rounded} rounded, "
        f"{summary.partly_unpriced} partly unpriced, {len(summary.without_price)} without a token price."
    )
