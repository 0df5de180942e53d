"""The gateway's books before and after a run, against the upstream's ledger and the price.

Django is set up by `prepare_books`; until then nothing of `llm` may be imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from io import StringIO

INPUT_USD_PER_MILLION = Decimal("2.5")
OUTPUT_USD_PER_MILLION = Decimal(10)
_PICO_PER_USD_PER_MILLION = 10**6


class BooksWrongError(Exception):
    """The books don't say what happened."""


@dataclass(frozen=True, slots=True)
class BookTotals:
    rows: int
    settled_rows: int
    prompt_tokens: int
    completion_tokens: int
    cost_pico: int
    mispriced_rows: int

    def since(self, before: BookTotals) -> BookTotals:
        names = self.__slots__
        return BookTotals(**{name: getattr(self, name) - getattr(before, name) for name in names})


@dataclass(frozen=True, slots=True)
class Keys:
    """Secrets. limited: of an account with a limit of each metric, none of which is ever reached."""

    free: str
    limited: str


_LIMITS = (("requests", "minute", "1000000"), ("tokens", "day", "100000000000"), ("cost", "month", "1000000"))


def prepare_books(
    environment: Mapping[str, str], *, models: Sequence[str], claude_models: Mapping[str, str] | None = None
) -> Keys:
    """Migrates, sets the models' prices and makes two keys.

    claude_models: names of models that Anthropic's provider serves, each with its own name for it.
    """
    os.environ.update(environment)
    os.environ["DJANGO_SETTINGS_MODULE"] = "llmproject.settings"
    import django
    from django.core.management import call_command

    django.setup()
    from llm.keys import create_key, get_or_create_account
    from llm.models import ModelRoute

    call_command("migrate", interactive=False, verbosity=0)
    rates = {"input": str(INPUT_USD_PER_MILLION), "output": str(OUTPUT_USD_PER_MILLION)}
    for model in models:
        call_command("set_price", "openai", model, **rates, stdout=StringIO())
    for name, upstream_model in (claude_models or {}).items():
        call_command("set_price", "anthropic", upstream_model, **rates, stdout=StringIO())
        ModelRoute.objects.create(name=name).targets.create(provider="anthropic", upstream_model=upstream_model)
    keys = [create_key(get_or_create_account(name), name="bench")[1] for name in ("bench", "bench-limited")]
    for limit in _LIMITS:
        call_command("set_limit", "bench-limited", *limit, stdout=StringIO())
    return Keys(*keys)


def read_totals() -> BookTotals:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), coalesce(sum(CASE WHEN status = 'settled' THEN 1 ELSE 0 END), 0),"
            " coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0), coalesce(sum(cost), 0),"
            " coalesce(sum(CASE WHEN cost = prompt_tokens * %s + completion_tokens * %s THEN 0 ELSE 1 END), 0)"
            " FROM llm_usage",
            _rates_pico(),
        )
        return BookTotals(*map(int, cursor.fetchone()))


def check_books(booked: BookTotals, ledger: Mapping[str, int], *, requests: int) -> None:
    """What was booked during a run, against what the upstream served in it. Raises BooksWrongError.

    Read right after the last reply: a call is settled before its caller has the last byte, so nothing is waited for.
    """
    input_pico, output_pico = _rates_pico()
    expected = BookTotals(
        rows=requests,
        settled_rows=requests,
        prompt_tokens=ledger["prompt_tokens"],
        completion_tokens=ledger["completion_tokens"],
        cost_pico=ledger["prompt_tokens"] * input_pico + ledger["completion_tokens"] * output_pico,
        mispriced_rows=0,
    )
    if ledger["calls"] != requests or ledger["open_calls"]:
        raise BooksWrongError(f"{requests} requests, but the upstream served {ledger['calls']}: {dict(ledger)}")
    if booked != expected:
        raise BooksWrongError(f"the books say   {booked},\nthe upstream's {expected}")


def _rates_pico() -> tuple[int, int]:
    """Pico-units a token."""
    prices = (INPUT_USD_PER_MILLION, OUTPUT_USD_PER_MILLION)
    input_pico, output_pico = (int(price * _PICO_PER_USD_PER_MILLION) for price in prices)
    return input_pico, output_pico
