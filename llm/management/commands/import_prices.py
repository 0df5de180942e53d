"""`manage.py import_prices`: bring our price list up to the installed genai-prices."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from llm.management.moments import parse_moment
from llm.prices import ImportSummary, import_prices
from llm.prices.genai import PROVIDER_IDS


class Command(BaseCommand):
    help = "Loads model prices from the installed genai-prices. Prices that are there stay; changed ones are added."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--provider",
            action="append",
            dest="providers",
            choices=sorted(PROVIDER_IDS),
            help="Only this provider; may be repeated. Default: all that have a price list.",
        )
        parser.add_argument(
            "--effective-from",
            metavar="MOMENT",
            help="From when changed prices hold, e.g. 2026-11-01T00:00Z; default: now. New models get all they have.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        moment = options["effective_from"]
        summary = import_prices(
            tuple(dict.fromkeys(options["providers"] or PROVIDER_IDS)),
            effective_from=parse_moment(moment) if moment else None,
        )
        self.stdout.write(_sentence(summary))
        if summary.without_price and options["verbosity"] > 1:
            self.stdout.write(f"No price of tokens is listed for {', '.join(summary.without_price)}.")


def _sentence(summary: ImportSummary) -> str:
    return (
        f"Prices: {summary.models} models, {summary.new_prices} new prices, {summary.unchanged} models unchanged,"
        f" {summary.rounded} rounded, {summary.partly_unpriced} partly unpriced,"
        f" {len(summary.without_price)} without a price of tokens."
    )
