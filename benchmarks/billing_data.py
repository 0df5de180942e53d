"""Ten million calls as SQL makes them: skewed over accounts, keys and models, two months long, every column filled.

Rows are written closed, and their digests are random words: what is measured reads them, and checks none. Triggers,
constraints and indexes are those of production; only foreign keys are not checked row by row while the rows come in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import connection, transaction

ACCOUNTS = 1000
KEYS_AN_ACCOUNT = 5
MODELS = 20
START = datetime(2026, 9, 1, tzinfo=UTC)
END = datetime(2026, 11, 1, tzinfo=UTC)
ROWS_AT_A_TIME = 250_000

_WORD = "(floor(random() * 4294967296) - 2147483648)::integer"
_WORDS = ", ".join(f"digest_{number}" for number in range(8))
_RANDOM_WORDS = ", ".join([_WORD] * 8)

# The busiest account has a tenth of all calls, its busiest key and model 45 and 22 % of those.
_DRAWN = """
SELECT nth, opened_at, 1 + floor(%(accounts)s * power(random(), 3))::int AS account,
       floor(%(keys)s * power(random(), 2))::int AS key, floor(%(models)s * power(random(), 2))::int AS model,
       200 + floor(4000 * power(random(), 2))::bigint AS prompt, 20 + floor(900 * random())::bigint AS completion,
       random() AS chance
FROM (SELECT nth, %(first)s::timestamptz + nth * %(step)s::interval AS opened_at
      FROM generate_series(0, %(rows)s - 1) AS nth) AS moments
"""
_UUID7 = """(lpad(to_hex((extract(epoch FROM opened_at) * 1000)::bigint), 12, '0') || '7' ||
    lpad(to_hex((nth %% 4096)::int), 3, '0') || '8' || substr(md5(random()::text), 1, 15))::uuid"""
_INSERT_CALLS = f"""
INSERT INTO llm_usage (id, request_id, attempt, account_id, api_key_id, process_id, dialect, provider, model,
    upstream_model, reported_model, upstream_response_id, service_tier, is_stream, request_bytes, holds, status,
    usage_source, outcome, error_code, opened_at, closed_at, recorded_at, local_day, prompt_tokens, completion_tokens,
    cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, reasoning_tokens, audio_input_tokens,
    audio_output_tokens, extra_meters, rate_set_id, cost, is_billable, is_disputed, {_WORDS})
SELECT {_UUID7}, gen_random_uuid(), 1, a.id, k.id, %(process)s, 'openai.chat', 'openai', 'model-' || model,
    'model-' || model, 'model-' || model || '-2026-08', 'chatcmpl-' || md5(random()::text), 'default', chance < 0.7,
    2000, NULL, CASE WHEN chance < 0.01 THEN 'estimated' ELSE 'settled' END,
    CASE WHEN chance < 0.01 THEN 'estimated' ELSE 'reported' END,
    CASE WHEN chance < 0.01 THEN 'client_gone' ELSE 'ok' END, '',
    opened_at, opened_at + '3 s', coalesce(%(recorded)s::timestamptz, opened_at + '3 s'),
    (opened_at AT TIME ZONE 'UTC')::date, prompt, completion, prompt / 3, 0, 0, completion / 4, 0, 0, '{{}}', r.id,
    (prompt - prompt / 3) * 2500000 + prompt / 3 * 1250000 + completion * 10000000, chance > 0.002, false,
    {_RANDOM_WORDS}
FROM ({_DRAWN}) AS drawn
JOIN bench_account a ON a.number = drawn.account
JOIN bench_key k ON k.account = drawn.account AND k.number = drawn.key
JOIN bench_rate_set r ON r.number = drawn.model
"""  # noqa: S608
_INSERT_ADJUSTMENTS = f"""
INSERT INTO llm_usageadjustment (usage_id, source, prompt_tokens, completion_tokens, cache_read_tokens,
    cache_write_5m_tokens, cache_write_1h_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens, cost,
    is_billable, reason, recorded_at, {_WORDS})
SELECT id, 'provider', 10, 1, 0, 0, 0, 0, 0, 0, 35000000, true, 'the provider counted otherwise',
    recorded_at + '1 day', {_RANDOM_WORDS}
FROM llm_usage TABLESAMPLE BERNOULLI (0.05)
"""  # noqa: S608


def make_catalog() -> None:
    """Accounts, keys and models with their prices; and tables that number them, for the draws."""
    from llm.models import Account, ApiKey, Price, Rate, RateSet

    accounts = Account.objects.bulk_create(Account(name=f"Account {number:04}") for number in range(1, ACCOUNTS + 1))
    keys = ApiKey.objects.bulk_create(
        ApiKey(
            account=account,
            name=f"key {number}",
            digest=f"{account.pk:016}{number:016}".encode(),
            prefix="llm-bench",
            last_four="0000",
        )
        for account in accounts
        for number in range(KEYS_AN_ACCOUNT)
    )
    prices = Price.objects.bulk_create(
        Price(provider="openai", model=f"model-{number}", source="staff", effective_from=START)
        for number in range(MODELS)
    )
    rate_sets = RateSet.objects.bulk_create(RateSet(price=price) for price in prices)
    rates = {"input": Decimal("2.5"), "cache_read": Decimal("1.25"), "output": Decimal(10)}
    Rate.objects.bulk_create(
        Rate(rate_set=rate_set, meter=meter, amount=amount) for rate_set in rate_sets for meter, amount in rates.items()
    )
    _number("bench_account", [(number, account.pk) for number, account in enumerate(accounts, start=1)])
    _number("bench_rate_set", [(number, rate_set.pk) for number, rate_set in enumerate(rate_sets)])
    per_account = [(1 + index // KEYS_AN_ACCOUNT, index % KEYS_AN_ACCOUNT, key.pk) for index, key in enumerate(keys)]
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE bench_key (account int, number int, id bigint, PRIMARY KEY (account, number))")
        cursor.executemany("INSERT INTO bench_key VALUES (%s, %s, %s)", per_account)


def _number(table: str, ids: list[tuple[int, int]]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {table} (number int PRIMARY KEY, id bigint)")
        cursor.executemany(f"INSERT INTO {table} VALUES (%s, %s)", ids)  # noqa: S608


def write_calls(rows: int, *, on_progress: Callable[[int], None]) -> None:
    """Spread evenly over the two months."""
    step = (END - START) / rows
    with _without_indexes():
        for start in range(0, rows, ROWS_AT_A_TIME):
            number = min(ROWS_AT_A_TIME, rows - start)
            _insert_calls(number, first=START + start * step, step=step)
            on_progress(start + number)


@contextmanager
def _without_indexes() -> Iterator[None]:
    """They are built once all rows are there, which takes a fraction of the time."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'llm_usage' AND indexname NOT LIKE '%pkey'"
        )
        indexes = cursor.fetchall()
        for name, _ in indexes:
            cursor.execute(f"DROP INDEX {name}")
    yield
    with connection.cursor() as cursor:
        cursor.execute("SET maintenance_work_mem = '256MB'")
        for _, definition in indexes:
            cursor.execute(definition)


def write_late_calls(rows: int) -> None:
    """Calls of the last day that have just been recorded."""
    from llm.books.clock import database_now

    _insert_calls(rows, first=END - timedelta(days=1), step=timedelta(days=1) / rows, recorded=database_now())


def write_adjustments() -> int:
    with connection.cursor() as cursor:
        cursor.execute(_INSERT_ADJUSTMENTS)
        return int(cursor.rowcount)


def settle_statistics() -> None:
    """As the server's own autovacuum would have left it."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE) llm_usage")
        cursor.execute("VACUUM (ANALYZE) llm_usageadjustment")


def _insert_calls(rows: int, *, first: datetime, step: timedelta, recorded: datetime | None = None) -> None:
    parameters: dict[str, Any] = {
        "rows": rows,
        "first": first,
        "step": step,
        "recorded": recorded,
        "process": "00000000-0000-7000-8000-000000000001",
        "accounts": ACCOUNTS,
        "keys": KEYS_AN_ACCOUNT,
        "models": MODELS,
    }
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(_INSERT_CALLS, parameters)
