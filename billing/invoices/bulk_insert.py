"""Many rows of a model in one statement, passed as one JSON document.

Django's own `bulk_create` makes a parameter of each value; for some hundred rows that takes longer than the insert.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import orjson
from django.db import DEFAULT_DB_ALIAS, connections, models
from django.db.backends.base.base import BaseDatabaseWrapper

from llm.db.json_rows import json_value, moment_text, rows_sql
from llm.fields import ExactDecimalField, FixedPointField

_EXACT_FIELDS = (ExactDecimalField, FixedPointField, models.UUIDField)


def insert_rows(model: type[models.Model], instances: Iterable[models.Model]) -> None:
    """Insert all of them, each value as Django stores it. The instances don't get their ids.

    Raises TypeError or ValueError, from the columns, for values that they can't hold exactly.
    """
    fields = [field for field in model._meta.concrete_fields if not field.primary_key]
    rows = list(instances)
    if not rows:
        return
    connection = connections[DEFAULT_DB_ALIAS]
    columns = columns_of(fields, connection)
    names = ", ".join(columns)
    picked = ", ".join(f"v.{name}" for name in columns)
    source = rows_sql(columns, connection.vendor)
    document = rows_document(fields, rows, connection)
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {model._meta.db_table} ({names}) SELECT {picked} FROM {source}", [document])  # noqa: S608


def columns_of(fields: Sequence[models.Field[Any, Any]], connection: BaseDatabaseWrapper) -> Mapping[str, str]:
    """Names and types, in the form that `rows_sql` takes."""
    return {str(field.column): str(field.db_type(connection)) for field in fields}


def rows_document(
    fields: Sequence[models.Field[Any, Any]], instances: Iterable[models.Model], connection: BaseDatabaseWrapper
) -> str:
    """The values of these columns, in the form that `rows_sql` reads."""
    exact = [(place, field) for place, field in enumerate(fields) if isinstance(_target_of(field), _EXACT_FIELDS)]
    json_places = [place for place, field in enumerate(fields) if isinstance(field, models.JSONField)]
    names = [str(field.column) for field in fields]
    rows = []
    for instance in instances:
        values = [getattr(instance, field.attname) for field in fields]
        for place, field in exact:
            values[place] = field.get_db_prep_value(values[place], connection)
        for place in json_places:
            values[place] = json_value(values[place], connection.vendor)
        rows.append(dict(zip(names, values, strict=True)))

    def text_of(value: Any) -> str:
        if isinstance(value, Decimal):
            return f"{value:f}"
        if isinstance(value, datetime):
            return moment_text(value, connection.vendor)
        if isinstance(value, date):
            return value.isoformat()
        raise TypeError(f"{type(value).__name__} can't be written as JSON")

    return orjson.dumps(rows, default=text_of, option=orjson.OPT_PASSTHROUGH_DATETIME).decode()


def _target_of(field: models.Field[Any, Any]) -> models.Field[Any, Any]:
    """A foreign key's column holds a value of the field that it points to."""
    return field.target_field if isinstance(field, models.ForeignKey) else field
