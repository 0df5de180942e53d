"""`manage.py set_exchange_rate CURRENCY PER_USD --on DAY --source TEXT`: add a currency's exchange rate."""

from __future__ import annotations

from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing.invoices.exchange_rates import add_rate


class Command(BaseCommand):
    help = "Records an exchange rate. It applies from its day until a later one; rates are added, never changed."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("currency", help="Such as EUR.")
        parser.add_argument("per_usd", help="Units of the currency for one USD, such as 0.92.")
        parser.add_argument("--on", required=True, metavar="DAY", help="Such as 2026-10-31.")
        parser.add_argument("--source", required=True, metavar="TEXT", help="Such as “ECB reference rate”.")

    def handle(self, *args: Any, **options: Any) -> None:
        per_usd, on = _number(options["per_usd"]), _day(options["on"])
        try:
            rate = add_rate(options["currency"], per_usd, on=on, source=options["source"])
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        self.stdout.write(f"{rate}.")


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise CommandError(f"“{text}” is not a number such as 0.92.") from error


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise CommandError(f"“{text}” is not a valid date, e.g. 2026-10-31.") from error
