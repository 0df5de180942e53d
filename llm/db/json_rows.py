"""Many rows as one JSON document: as a table in SQL, with values as Django stores them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

Row = tuple[Any, ...]
Statement = tuple[str, Sequence[Any]]


def moment_text(moment: datetime, vendor: str) -> str:
    """A timestamp as Django stores it: with its zone on PostgreSQL, naive UTC on SQLite.

    SQLite compares text, so a zero fraction, which Django omits, must be omitted here too.
    """
    if vendor == "sqlite":
        return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ")
    return moment.isoformat()


def json_value(value: Any, vendor: str) -> Any:
    """A JSON column's value in a document of rows: on SQLite the text that Django stores, on PostgreSQL the value
    itself.
    """
    return json.dumps(value) if vendor == "sqlite" and value is not None else value


def rows_sql(columns: Mapping[str, str], vendor: str) -> str:
    """A JSON document, the one parameter, as the table `v`."""
    if vendor == "sqlite":
        picked = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in columns)
        return f"(SELECT {picked} FROM json_each(%s)) AS v"  # noqa: S608
    shape = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    return f"json_to_recordset(%s::json) AS v({shape})"


def id_list(ids: Iterable[Any], vendor: str) -> str:
    """Numbers or hex digits as one parameter: the text of an array or, on SQLite, which has no arrays, of a JSON list.

    As text, since a driver inspects each item of a list to find the array's type.
    """
    return orjson.dumps(list(ids)).decode() if vendor == "sqlite" else f"{{{','.join(map(str, ids))}}}"
