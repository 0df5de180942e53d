"""Many rows of a model in one statement, which travel as one JSON document.

Django's own `bulk_create` makes a parameter of each value; for some hundred rows that takes longer than to insert them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any

import orjson
from django.db import DEFAULT_DB_ALIAS, connections, models

from llm.books.statements import moment_text, rows_sql
from llm.fields import ExactDecimalField


def insert_rows(model: type[models.Model], instances: Iterable[models.Model]) -> None:
    """Insert them all; they don't learn their ids. For whole numbers, text, days, moments and exact decimals.

    Raises as the columns do: TypeError and ValueError for what they can't hold exactly.
    """
    connection = connections[DEFAULT_DB_ALIAS]
    fields = [field for field in model._meta.concrete_fields if not field.primary_key]
    columns = {str(field.column): str(field.db_type(connection)) for field in fields}
    decimals = [(place, field) for place, field in enumerate(fields) if isinstance(field, ExactDecimalField)]
    values_of = attrgetter(*(field.attname for field in fields))
    documents = []
    for instance in instances:
        values = list(values_of(instance))
        for place, field in decimals:
            values[place] = field.get_db_prep_value(values[place], connection)
        documents.append(dict(zip(columns, values, strict=True)))
    if not documents:
        return

    def text_of(value: Any) -> str:
        if isinstance(value, Decimal):
            return f"{value:f}"
        if isinstance(value, datetime):
            return moment_text(value, connection.vendor)
        if isinstance(value, date):
            return value.isoformat()
        raise TypeError(f"{type(value).__name__} has no place in a document of rows")

    document = orjson.dumps(documents, default=text_of, option=orjson.OPT_PASSTHROUGH_DATETIME).decode()
    names = ", ".join(columns)
    picked = ", ".join(f"v.{name}" for name in columns)
    source = rows_sql(columns, connection.vendor)
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {model._meta.db_table} ({names}) SELECT {picked} FROM {source}", [document])  # noqa: S608
