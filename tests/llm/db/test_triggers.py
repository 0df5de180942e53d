"""What the database itself refuses, with raw SQL as anybody could send it."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from llm.books.batches.commit import commit_batch
from llm.db.triggers import drop_triggers, install_triggers, missing_triggers
from llm.digests import DIGEST_FIELDS
from llm.enums import AdjustmentSource, Meter
from llm.models import Price, Rate, RateSet, Usage, UsageAdjustment
from llm.prices.staff import set_price
from tests.llm.books.making import a_close, a_key, an_open

pytestmark = pytest.mark.django_db


def execute(sql: str, *parameters: str | int) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql, parameters)


@pytest.fixture
def opened() -> Usage:
    operation = an_open(a_key())
    commit_batch([operation])
    return Usage.objects.get(pk=operation.id)


@pytest.fixture
def closed(opened: Usage) -> Usage:
    commit_batch([a_close(opened.pk)])
    opened.refresh_from_db()
    return opened


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
    ],
)
def test_a_closed_call_stays_as_it_is(closed: Usage, change: str) -> None:
    with pytest.raises(IntegrityError, match="a call is closed once"):
        execute(f"UPDATE llm_usage SET {change}")  # noqa: S608
    before = closed.__dict__.copy()
    closed.refresh_from_db()
    assert {name: value for name, value in closed.__dict__.items() if name != "_state"} == {
        name: value for name, value in before.items() if name != "_state"
    }


@pytest.mark.parametrize(
    "change", ["attempt = 2", "model = 'x'", "holds = '[]'", "request_bytes = 7", "opened_at = closed_at"]
)
def test_what_a_call_was_opened_with_stays(opened: Usage, change: str) -> None:
    with pytest.raises(IntegrityError):
        execute(f"UPDATE llm_usage SET {change}, status = 'void', outcome = 'not_sent', closed_at = recorded_at")  # noqa: S608
    assert Usage.objects.get().status == "open"


def test_an_open_call_is_only_ever_closed(opened: Usage) -> None:
    with pytest.raises(IntegrityError, match="a call is closed once"):
        execute("UPDATE llm_usage SET error_code = 'x'")
    digest = ", ".join(f"{name} = 7" for name in DIGEST_FIELDS)
    execute(f"UPDATE llm_usage SET status = 'void', outcome = 'not_sent', closed_at = recorded_at, {digest}")  # noqa: S608
    row = Usage.objects.get()
    assert (row.status, row.digest) == ("void", (7,) * 8)


def test_no_call_is_deleted(opened: Usage) -> None:
    with pytest.raises(IntegrityError, match="a call is never deleted"):
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
    # Nine tables; on SQLite a call may be updated, so there is one more against what an update replaces.
    derived = ("_replace_insert_", "_replace_update_") if connection.vendor == "sqlite" else ("_truncate_",)
    assert len([name for name in missing if any(kind in name for kind in derived)]) == len(derived) + 8
    assert len(missing) == 18 + len(derived) + 8
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
