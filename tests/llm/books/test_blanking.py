"""Closed rows that hold a key of ours: blanked, recorded, and still proven."""

from __future__ import annotations

import base64
import io
import json
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction

from llm.audit import verify
from llm.books.batches.commit import commit_batch
from llm.books.blanking import blank_upstream_keys
from llm.db.triggers import missing_triggers
from llm.keys import create_key, get_or_create_account
from llm.models import Redaction, RefusedWrite, Usage
from tests.llm.books.making import a_close, an_open

pytestmark = pytest.mark.django_db(transaction=True)

KEY = "sk-Our9Own0Upstream8Key7That6Nobody5Must4See"
OLD_KEY = "sk-An8Earlier7Key6That5Was4Replaced3Long2Ago"


def a_row(**values: str) -> Usage:
    key, _ = create_key(get_or_create_account("acme"), name="tests")
    operation = an_open(key)
    commit_batch([operation, a_close(operation.id, cost_pico=None, **values)])
    return Usage.objects.get(pk=operation.id)


def redactions() -> list[tuple[Any, str]]:
    return list(Redaction.objects.order_by("id").values_list("usage_id", "field"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "told",
    [
        KEY,
        KEY.removeprefix("sk-"),
        f"bad_{KEY}"[:50],
        KEY[3:30],
        *(base64.b64encode(b"x" * n + KEY.encode()).decode()[:50] for n in range(3)),
    ],
)
def test_a_row_that_holds_a_key_is_blanked_recorded_and_still_proven(told: str) -> None:
    row = a_row(error_code=told[:50], reported_model=f"m-{told}")
    other = a_row(error_code="model_not_found", reported_model="gpt-4o-2024-08-06")
    assert blank_upstream_keys([KEY]) == 2
    blanked = Usage.objects.get(pk=row.pk)
    assert (blanked.error_code, blanked.reported_model) == ("", "")
    assert blanked.is_as_written
    assert redactions() == [(row.pk, "error_code"), (row.pk, "reported_model")]
    assert Usage.objects.get(pk=other.pk).error_code == "model_not_found"
    assert verify().problems == 0


def test_the_row_is_kept_as_it_is_afterwards() -> None:
    row = a_row(error_code=KEY)
    blank_upstream_keys([KEY])
    assert missing_triggers() == []
    for sql in (
        "UPDATE llm_usage SET error_code = 'x'",
        "DELETE FROM llm_usage",
        "UPDATE llm_redaction SET field = 'x'",
        "DELETE FROM llm_redaction",
    ):
        with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(sql)
    assert Usage.objects.get(pk=row.pk).error_code == ""


def test_where_nothing_is_found_nothing_is_touched() -> None:
    a_row(error_code="model_not_found")
    assert (blank_upstream_keys([KEY, "", "ollama"]), redactions()) == (0, [])


def test_a_refused_write_is_blanked_too() -> None:
    row = a_row()
    document = {"error_code": KEY, "reported_model": "m", "version": 1}
    RefusedWrite.objects.create(digest="0" * 64, usage_id=row.pk, reason="x", document=document)
    assert blank_upstream_keys([KEY]) == 1
    cleaned = {"error_code": "", "reported_model": "m", "version": 1}
    assert RefusedWrite.objects.get().document == cleaned
    with connection.cursor() as cursor:
        cursor.execute("SELECT CAST(document AS text) FROM llm_refusedwrite")
        [(stored,)] = cursor.fetchall()
    # SQLite compares JSON as text, so there is one form, that of the ORM.
    assert connection.vendor != "sqlite" or stored == json.dumps(cleaned)


def test_the_upgrade_does_it_for_the_keys_that_are_configured(settings: Any) -> None:
    settings.OPENAI_API_KEY = KEY
    row, old = a_row(error_code=KEY), a_row(error_code=OLD_KEY)
    migration = import_module("llm.migrations.0009_blank_upstream_keys")
    migration.blank(apps, SimpleNamespace(connection=connection))
    assert redactions() == [(row.pk, "error_code")]
    assert Usage.objects.get(pk=old.pk).error_code == OLD_KEY


def test_the_command_does_it_for_earlier_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    old = a_row(error_code=OLD_KEY)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{OLD_KEY}\n\n"))
    out = io.StringIO()
    call_command("blank_upstream_keys", old_keys=True, stdout=out)
    assert out.getvalue() == "Blanked 1 value.\n"
    assert redactions() == [(old.pk, "error_code")]
