"""`manage.py set_price PROVIDER MODEL`: set what a model costs us, or that it is free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from llm.enums import Meter
from llm.management.moments import format_moment, parse_moment
from llm.models import Price
from llm.money import format_usd, parse_usd_per_million
from llm.prices.catalog import load_catalog
from llm.prices.staff import PriceRefusedError, set_price
from llm.types import Service

OPTIONS = {
    "input": Meter.INPUT,
    "output": Meter.OUTPUT,
    "cache_read": Meter.CACHE_READ,
    "cache_write": Meter.CACHE_WRITE_5M,
    "cache_write_1h": Meter.CACHE_WRITE_1H,
    "audio_input": Meter.AUDIO_INPUT,
    "audio_output": Meter.AUDIO_OUTPUT,
    "reasoning": Meter.REASONING,
}


class Command(BaseCommand):
    help = (
        "Sets the price of a model in USD per million tokens. It takes precedence over imported prices "
        "until you set another."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("provider")
        parser.add_argument(
            "model", help="The provider's name for the model; one * stands for any characters: ft:gpt-4.1-*"
        )
        for option, meter in OPTIONS.items():
            parser.add_argument(f"--{option.replace('_', '-')}", metavar="USD", help=f"USD per million {meter.label}.")
        parser.add_argument(
            "--per-thousand",
            action="append",
            default=[],
            metavar="UNITS=USD",
            help="USD per thousand non-token units, e.g. web_searches=10; may be repeated.",
        )
        parser.add_argument("--free", action="store_true", help="The model's tokens cost nothing.")
        parser.add_argument("--service-tier", default="", metavar="TIER", help="E.g. priority; default: standard.")
        parser.add_argument("--speed", default="", metavar="SPEED", help="E.g. fast; default: standard.")
        parser.add_argument("--inference-geo", default="", metavar="PLACE", help="E.g. us; default: anywhere.")
        parser.add_argument("--from", dest="moment", metavar="MOMENT", help="E.g. 2026-11-01T00:00Z; default: now.")
        parser.add_argument("--note", default="")

    def handle(self, *args: Any, **options: Any) -> None:
        now = timezone.now()
        try:
            price = set_price(
                options["provider"],
                options["model"],
                rates=_rates(options),
                per_thousand=_per_thousand(options["per_thousand"]),
                is_free=options["free"],
                effective_from=parse_moment(options["moment"]) if options["moment"] else now,
                service=Service(options["service_tier"], options["speed"], options["inference_geo"]),
                note=options["note"],
            )
        except PriceRefusedError as error:
            raise CommandError(str(error)) from error
        self.stdout.write("\n".join(_report(price)))
        if price.effective_from < now:
            self.stdout.write("That time has passed: calls already recorded keep their price.")


def _rates(options: dict[str, Any]) -> dict[Meter, Decimal]:
    rates = {}
    for option, meter in OPTIONS.items():
        if (text := options[option]) is not None:
            try:
                rates[meter] = parse_usd_per_million(text)
            except ValueError as error:
                raise CommandError(f"--{option.replace('_', '-')}: {error}.") from error
    return rates


def _per_thousand(given: Iterable[str]) -> dict[str, Decimal]:
    rates = {}
    for text in given:
        meter, _, amount = text.partition("=")
        try:
            rates[meter.strip()] = parse_usd_per_million(amount)
        except ValueError as error:
            raise CommandError(f"--per-thousand {meter}: {error}.") from error
    return rates


def _report(price: Price) -> Iterator[str]:
    """The period for which the price is in force."""
    snapshot = load_catalog().price_for(price.provider, price.model, at=price.effective_from)
    until = snapshot.effective_until if snapshot else None
    end = f"until {format_moment(until)}" if until else "until you set another price"
    yield f"{price.provider} {price.model}, from {format_moment(price.effective_from)} {end}:"
    if price.is_free:
        yield "  free"
        return
    for rate_set in price.rate_sets.prefetch_related("rates"):
        rates = (
            f"{rate.meter} {format_usd(rate.amount)}{'' if rate.meter in Meter.values else f' per {rate.per_units}'}"
            for rate in rate_set.rates.all()
        )
        yield f"  {rate_set}: {', '.join(rates)}"
