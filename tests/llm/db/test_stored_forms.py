"""What raw SQL has written is found by Django, and what Django has written by raw SQL, to the last column."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from django.apps import apps
from django.db import connection, models, transaction
from django.db.migrations import RunPython
from django.db.migrations.loader import MigrationLoader

from billing.invoices.bulk_insert import columns_of, rows_document
from billing.invoices.closing import close_month
from billing.periods import BillingPeriod
from billing.rollup import refresh
from llm.admin.limits.standing import load_standings, nearly_full
from llm.audit import verify
from llm.books import adjusting, clock, heartbeat
from llm.books.batches import session
from llm.books.batches.commit import commit_batch
from llm.books.operations import OpenCall
from llm.db.json_rows import rows_sql
from llm.db.stored_forms import store_as_django_does
from llm.enums import AdjustmentSource, LimitMetric, LimitPer
from llm.ids import boot_id
from llm.limits.admission import ReservationEstimate
from llm.limits.changes import set_limit
from llm.models import ApiKey, Limit, LimitWindow, Outbox, Usage
from llm.types import TokenCounts
from tests.billing.factories import make_profile
from tests.databases import only_on_sqlite
from tests.llm.books.making import a_close, a_key, an_open

OUR_APPS = ("llm", "billing")
WHOLE_SECOND = datetime(2026, 11, 30, 12, 30, 15, tzinfo=UTC)
WRITTEN_BY_SQL = {
    *("llm.Usage", "llm.LimitWindow", "llm.Outbox", "llm.Process"),
    *("billing.DailyUsage", "billing.RollupMark", "billing.AccountDay", "billing.KeyDay", "billing.KeyThird"),
    *("billing.InvoiceLine", "billing.BilledUsage"),
}
pytestmark = pytest.mark.django_db(transaction=True)

AnyModel = type[models.Model]
of_sqlite = only_on_sqlite("PostgreSQL has types for moments and JSON")


@pytest.fixture
def whole_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's clock is the host's: here it stands at a second's very beginning, where a fraction may be left out."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Clock:
            return cls(2026, 11, 30, 12, 30, 15, tzinfo=UTC)

    for module in (session, clock, heartbeat):
        monkeypatch.setattr(module, "datetime", Clock)


def ask() -> ReservationEstimate:
    return ReservationEstimate(requests=1, input_tokens=40, output_tokens=20)


def open_and_close(key: ApiKey, **counts: Any) -> OpenCall:
    operation = an_open(key, ask=ask)
    closed = a_close(operation.id, cost_pico=None, counts=TokenCounts(**counts))
    commit_batch([operation])
    commit_batch([closed])
    return operation


def make_history() -> ApiKey:
    """Calls, limits, messages, a process, rollups and an invoice, each by the code that writes them every day."""
    key = a_key()
    make_profile(key.account)
    for per in LimitPer:
        set_limit(key.account, None, LimitMetric.TOKENS, per, 10_000, 1)
    open_and_close(key, prompt_tokens=90, completion_tokens=40, extra_meters={"web_searches": 2, "märkte": 1})
    disputed = an_open(key, ask=ask)
    commit_batch([disputed, an_open(key, ask=ask)])
    usage = {"prompt_tokens": -5, "note": "naïve “text”"}
    commit_batch([a_close(disputed.id, cost_pico=None, is_disputed=True, is_billable=False, disputed_usage=usage)])
    with transaction.atomic():
        adjusting.adjust(
            adjusting.lock_call(disputed.id),
            AdjustmentSource.DECISION,
            counts=TokenCounts(prompt_tokens=7),
            cost_pico=None,
            is_billable=True,
            reason="tried",
        )
    heartbeat.beat()
    heartbeat.say_goodbye()
    refresh()
    close_month(BillingPeriod.of(Usage.objects.latest("id").local_day))
    return key


def our_models() -> Iterator[AnyModel]:
    for label in OUR_APPS:
        yield from apps.get_app_config(label).get_models(include_auto_created=True)


def comparable(model: AnyModel) -> list[models.Field[Any, Any]]:
    """Bytes travel in no document: only Django writes them."""
    return [field for field in model._meta.local_concrete_fields if not isinstance(field, models.BinaryField)]


def is_found_by_django(model: AnyModel, row: models.Model, field: models.Field[Any, Any]) -> bool:
    value = getattr(row, field.attname)
    if value is None:
        return model._default_manager.filter(pk=row.pk, **{f"{field.name}__isnull": True}).exists()
    asked: list[dict[str, Any]] = [{field.name: value}]
    if not isinstance(field, models.JSONField):
        asked += [{f"{field.name}__in": [value]}]
    if not isinstance(field, models.JSONField | models.ForeignKey):
        asked += [{f"{field.name}__range": (value, value)}]
    return all(model._default_manager.filter(pk=row.pk, **each).exists() for each in asked)


def is_found_by_sql(model: AnyModel, row: models.Model, field: models.Field[Any, Any]) -> bool:
    """Joined to a document of rows, as the books write and ask; never the JSON that triggers write."""
    if getattr(field, "encoder", None) is not None:
        return True
    fields: list[models.Field[Any, Any]] = [model._meta.pk, field] if not field.primary_key else [field]
    columns = columns_of(fields, connection)
    same = "IS" if connection.vendor == "sqlite" else "IS NOT DISTINCT FROM"
    where = " AND ".join(f"t.{name} {same} v.{name}" for name in columns)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT count(*) FROM {model._meta.db_table} t, {rows_sql(columns, connection.vendor)} WHERE {where}",  # noqa: S608
            [rows_document(fields, [row], connection)],
        )
        return bool(cursor.fetchone()[0])


@pytest.mark.slow
@pytest.mark.parametrize("is_found", [is_found_by_django, is_found_by_sql])
def test_every_value_of_every_row_is_found_whoever_asks(
    whole_seconds: None, is_found: Callable[[AnyModel, models.Model, models.Field[Any, Any]], bool]
) -> None:
    make_history()

    walked = set()
    lost = set()
    for model in our_models():
        for row in model._default_manager.all():
            walked.add(model._meta.label)
            lost |= {f"{model._meta.label}.{f.name}" for f in comparable(model) if not is_found(model, row, f)}

    assert lost == set()
    assert walked >= WRITTEN_BY_SQL


def test_what_django_has_written_again_is_stored_as_before(whole_seconds: None) -> None:
    """The other way round: a row that Django updates to the value it has keeps every byte."""
    make_history()
    others = [apps.get_model(name) for name in ("llm.Process", "billing.RollupMark")]
    models_of_sql: list[AnyModel] = [LimitWindow, Outbox, *others]
    for model in models_of_sql:
        before = stored(model)
        assert before
        for row in model._default_manager.all():
            row.save()
        assert stored(model) == before


def stored(model: AnyModel) -> list[tuple[Any, ...]]:
    as_text = "::text" if connection.vendor == "postgresql" else ""
    columns = ", ".join(f"{field.column}{as_text}" for field in comparable(model))
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {columns} FROM {model._meta.db_table} ORDER BY {model._meta.pk.column}")  # noqa: S608
        return list(cursor.fetchall())


def test_calls_fill_limits_where_staff_look() -> None:
    key = a_key()
    limit, _ = set_limit(key.account, None, LimitMetric.TOKENS, LimitPer.TOTAL, 100, None)
    open_and_close(key, prompt_tokens=60, completion_tokens=31)

    now = datetime.now(UTC)
    [standing] = load_standings([Limit.objects.select_related("account").get()], now)

    assert (standing.used, standing.held, standing.percent) == (91, 0, 91)
    assert list(nearly_full(now)) == [limit]


# --- A database in which the books wrote another form -----------------------------------------------------------------


OLD_FORM = [
    "UPDATE llm_limitwindow SET starts_at = starts_at || '.000000'",
    "UPDATE llm_outbox SET payload = json(payload), created_at = created_at || '.000000'",
    "UPDATE llm_usage SET holds = json(holds), extra_meters = json(extra_meters), closed_at = closed_at || '.000000'",
    "UPDATE llm_usage SET opened_at = opened_at || '.000000', recorded_at = recorded_at || '.000000'",
    "UPDATE llm_process SET seen_at = seen_at || '.000000'",
    "UPDATE billing_rollupmark SET cutoff_at = cutoff_at || '.000000'",
]


def run_migrations() -> None:
    with connection.schema_editor() as editor:
        for label in OUR_APPS:
            store_as_django_does(apps, editor, label)


def age() -> None:
    """Bring the database into the form of old."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
        triggers = cursor.fetchall()
        for name, _ in triggers:
            cursor.execute(f"DROP TRIGGER {name}")
        for statement in OLD_FORM:
            cursor.execute(statement)
        for _, sql in triggers:
            cursor.execute(sql)


def triggers() -> set[tuple[str, str]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
        return set(cursor.fetchall())


@pytest.mark.slow
@of_sqlite
def test_an_old_database_is_brought_into_the_one_form(whole_seconds: None) -> None:
    make_history()
    tables = [model for model in our_models() if model._meta.label in WRITTEN_BY_SQL]
    before, kept = {model: stored(model) for model in tables}, triggers()
    age()
    assert {model: stored(model) for model in tables} != before

    run_migrations()

    assert {model: stored(model) for model in tables} == before
    assert triggers() == kept
    assert verify().sentences == []


@of_sqlite
def test_half_used_windows_stay_the_only_ones_of_their_period(whole_seconds: None) -> None:
    key = a_key()
    set_limit(key.account, None, LimitMetric.TOKENS, LimitPer.MONTH, 200, None)
    open_and_close(key, prompt_tokens=70, completion_tokens=10)
    waiting = an_open(key, ask=ask)
    commit_batch([waiting])
    age()

    run_migrations()

    window = LimitWindow.objects.get()
    assert (window.used, window.held, window.starts_at) == (80, 60, datetime(2026, 11, 1, tzinfo=UTC))
    # Another call takes the last of it, and the next one finds nothing.
    results = [commit_batch([an_open(key, ask=ask)])[0] for _ in range(2)]
    assert [type(result).__name__ for result in results] == ["Opened", "Refused"]
    commit_batch([a_close(waiting.id, cost_pico=None, counts=TokenCounts(prompt_tokens=5))])
    window = LimitWindow.objects.get()
    assert (window.used, window.held) == (85, 60)
    assert verify().sentences == []


@of_sqlite
def test_two_windows_of_one_period_become_one_with_the_calls_of_both(whole_seconds: None) -> None:
    """Where a newer gateway ran before the migration."""
    key = a_key()
    set_limit(key.account, None, LimitMetric.TOKENS, LimitPer.MONTH, 200, None)
    open_and_close(key, prompt_tokens=70, completion_tokens=10)
    first, second = an_open(key, ask=ask), an_open(key, ask=ask)
    closes = [a_close(each.id, cost_pico=None, counts=TokenCounts(prompt_tokens=1)) for each in (first, second)]
    commit_batch([first, closes[0]])
    age()
    commit_batch([second, closes[1]])
    assert LimitWindow.objects.count() == 2

    run_migrations()

    window = LimitWindow.objects.get()
    assert (window.used, window.held) == (82, 0)
    assert {json.dumps(holds) for holds in Usage.objects.values_list("holds", flat=True)} == {f"[[{window.pk}, 60]]"}
    assert verify().sentences == []


@of_sqlite
@pytest.mark.parametrize("label", OUR_APPS)
def test_both_apps_have_a_migration_that_does_it(label: str) -> None:
    graph = MigrationLoader(connection).disk_migrations
    codes = [
        operation.code
        for (app, _), migration in graph.items()
        for operation in migration.operations
        if app == label and isinstance(operation, RunPython)
    ]
    found = [
        code.keywords["app_label"] for code in codes if isinstance(code, partial) and code.func is store_as_django_does
    ]
    assert found == [label]


def test_the_process_is_found_by_its_id(whole_seconds: None) -> None:
    heartbeat.beat()
    assert apps.get_model("llm.Process").objects.filter(pk=boot_id()).count() == 1
