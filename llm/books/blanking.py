"""Blanks our own key where an upstream has put it into closed rows: docs/decisions/0007.

Only columns that no digest covers, so the proof of the books stays valid. Each changed row is recorded, and the trigger
that protects closed rows is lifted for this transaction only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from llm.db.triggers import lifted
from llm.providers.redaction import SecretForms

COLUMNS = ("error_code", "reported_model")
"""Of `llm_usage`: an upstream's texts that aren't part of a digest."""


def blank_upstream_keys(secrets: Iterable[str], *, using: str = "default") -> int:
    """Returns how many values were blanked. 16 consecutive characters of any form of a key count as the key.

    Plain SQL, so that a migration can call it whatever the models look like later.
    """
    forms = [SecretForms(secret) for secret in secrets if secret]
    connection = connections[using]
    with transaction.atomic(using=using):
        found = {column: _telling_values(connection, column, forms) for column in COLUMNS}
        blanked = sum(_blank_refused_writes(connection, forms))
        if any(found.values()):
            with lifted("llm_usage", connection):
                blanked += sum(_blank(connection, column, values) for column, values in found.items() if values)
    return blanked


def _telling_values(connection: BaseDatabaseWrapper, column: str, forms: Sequence[SecretForms]) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT DISTINCT {column} FROM llm_usage WHERE {column} <> ''")  # noqa: S608  # of COLUMNS
        return [value for (value,) in cursor.fetchall() if _tells(value, forms)]


def _blank(connection: BaseDatabaseWrapper, column: str, values: Sequence[str]) -> int:
    holes = ", ".join(["%s"] * len(values))
    where = f"WHERE {column} IN ({holes})"
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO llm_redaction (usage_id, field, redacted_at) SELECT id, %s, %s FROM llm_usage {where}",  # noqa: S608
            [column, _moment(connection), *values],
        )
        cursor.execute(f"UPDATE llm_usage SET {column} = '' {where}", values)  # noqa: S608  # of COLUMNS
        return int(cursor.rowcount)


def _blank_refused_writes(connection: BaseDatabaseWrapper, forms: Sequence[SecretForms]) -> Iterable[int]:
    """Settlements rejected by the books are stored whole, these texts included."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, document FROM llm_refusedwrite")
        for pk, raw in cursor.fetchall():
            document: dict[str, Any] = orjson.loads(raw) if isinstance(raw, str) else raw
            told = [name for name in COLUMNS if _tells(str(document.get(name, "")), forms)]
            if told:
                cleaned = json.dumps({**document, **dict.fromkeys(told, "")})  # as Django stores it
                cursor.execute("UPDATE llm_refusedwrite SET document = %s WHERE id = %s", [cleaned, pk])
                yield len(told)


def _tells(value: str, forms: Sequence[SecretForms]) -> bool:
    return any(each.are_partly_in(value) for each in forms)


def _moment(connection: BaseDatabaseWrapper) -> Any:
    return connection.ops.adapt_datetimefield_value(datetime.now(UTC))
