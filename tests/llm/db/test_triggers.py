"""What the database itself refuses, with raw SQL as anybody could send it."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from llm.books.batches.commit import commit_batch
from llm.db.triggers import drop_triggers, install_triggers, missing_triggers
from llm.enums import AdjustmentSource, Meter
from llm.models import OpenCall, Price, Rate, RateSet, Usage, UsageAdjustment
from llm.prices.staff import set_price
from tests.llm.books.making import a_close, a_key, an_open

pytestmark = pytest.mark.django_db


def execute(sql: str, *parameters: str | int) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql, parameters)


@pytest.fixture
def opened() -> OpenCall:
    operation = an_open(a_key())
    commit_batch([operation])
    return OpenCall.objects.get(pk=operation.id)


@pytest.fixture
def closed(opened: OpenCall) -> Usage:
    commit_batch([a_close(opened.pk)])
    return Usage.objects.get(pk=opened.pk)


@pytest.mark.parametrize(
    "change",
    [
        "prompt_tokens = 1",
        "cost = 0",
        "is_billable = NOT is_billable",
        "status = 'open', closed_at = NULL, outcome = 'pending', cost = NULL, prompt_tokens = 0, completion_tokens = 0",
        "status = 'void', prompt_tokens = 0, completion_tokens = 0, cost = 0",
        "model = model",
        "digest_0 = digest_0 + 1",
        "error_code = 'x'",
    ],
)
def test_a_closed_call_stays_as_it_is(closed: Usage, change: str) -> None:
    before = Usage.objects.values().get()
    with pytest.raises(IntegrityError, match="a closed call is never changed"):
        execute(f"UPDATE llm_usage SET {change}")  # noqa: S608
    assert Usage.objects.values().get() == before


@pytest.mark.parametrize("change", ["attempt = 2", "model = 'x'", "holds = '[]'", "request_bytes = request_bytes"])
def test_what_a_call_was_opened_with_stays(opened: OpenCall, change: str) -> None:
    before = OpenCall.objects.values().get()
    with pytest.raises(IntegrityError, match="what a call was opened with stays"):
        execute(f"UPDATE llm_opencall SET {change}")  # noqa: S608
    assert OpenCall.objects.values().get() == before


def test_a_call_in_flight_is_never_just_deleted(opened: OpenCall) -> None:
    with pytest.raises(IntegrityError, match="a call in flight is never deleted"):
        execute("DELETE FROM llm_opencall")
    assert OpenCall.objects.count() == 1


def test_a_closed_call_is_not_opened_again(closed: Usage) -> None:
    row = OpenCall(**{field.attname: getattr(closed, field.attname) for field in OpenCall._meta.concrete_fields})
    with pytest.raises(IntegrityError, match="a closed call is never opened again"), transaction.atomic():
        row.save(force_insert=True)
    assert not OpenCall.objects.exists()


def test_no_call_is_open_among_the_closed_ones(opened: OpenCall) -> None:
    with pytest.raises(IntegrityError, match="a call in flight has no place among closed ones"), transaction.atomic():
        opened.as_usage().save(force_insert=True)
    assert not Usage.objects.exists()


def test_no_call_is_deleted(closed: Usage) -> None:
    with pytest.raises(IntegrityError, match="a closed call is never changed"):
        execute("DELETE FROM llm_usage")
    assert Usage.objects.count() == 1


@pytest.mark.parametrize("sql", ["UPDATE llm_usageadjustment SET reason = 'x'", "DELETE FROM llm_usageadjustment"])
def test_an_adjustment_stays(closed: Usage, sql: str) -> None:
    UsageAdjustment(
        usage=closed,
        source=AdjustmentSource.DECISION,
        is_billable=True,
        reason="because",
        recorded_at=closed.recorded_at,
    ).stamp_digest().save()
    with pytest.raises(IntegrityError, match="an adjustment is never changed"):
        execute(sql)


@pytest.mark.parametrize("model", [Price, RateSet, Rate])
@pytest.mark.parametrize("sql", ["UPDATE {table} SET id = id", "DELETE FROM {table}"])
def test_a_price_stays(model: type[Price | RateSet | Rate], sql: str) -> None:
    set_price("openai", "m", rates={Meter.INPUT: Decimal(1)}, effective_from=timezone.now())
    with pytest.raises(IntegrityError, match="set a new"):
        execute(sql.format(table=model._meta.db_table))
    assert model.objects.exists()


def test_triggers_are_installed_once_and_again_where_they_are_gone() -> None:
    assert missing_triggers() == []
    drop_triggers(connection)
    missing = [name for name in missing_triggers() if not (name.startswith("llm_keeps_billing_") or "_audit_" in name)]
    # Ten tables, none of which an update may change.
    derived = "_replace_insert_" if connection.vendor == "sqlite" else "_truncate_"
    assert len([name for name in missing if derived in name]) == 10
    assert len(missing) == 22 + 10
    install_triggers()
    install_triggers()
    assert missing_triggers() == []


def test_a_trigger_of_another_version_is_replaced() -> None:
    [name, *_] = [name for name in _names() if name.startswith("llm_keeps_usage_delete_")]
    table = "" if connection.vendor == "sqlite" else " ON llm_usage"
    execute(f"DROP TRIGGER {name}{table}")
    old = "llm_keeps_usage_delete_00000000"
    body = (
        "BEGIN SELECT 1; END"
        if connection.vendor == "sqlite"
        else "FOR EACH ROW EXECUTE FUNCTION llm_refuse_change('')"
    )
    execute(f"CREATE TRIGGER {old} BEFORE DELETE ON llm_usage {body}")
    install_triggers()
    assert old not in _names()
    assert name in _names()


def _names() -> list[str]:
    sql = (
        "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        if connection.vendor == "sqlite"
        else "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return [name for (name,) in cursor.fetchall()]
