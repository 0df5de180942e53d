"""What a check of the books has seen, so that a later one misses what is gone, or is not what it was.

Of each table from which no row is ever deleted a check keeps the number of rows, and a digest where rows never change
either. They stand on checks of the books, which are only ever added to. A mark moves on only while it holds: what was
named once is named by each later check.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from django.apps import apps
from django.db.models import Model

from llm.models import BooksCheck
from llm.models.digested import Digested
from llm.triggers import tables_only_added_to, tables_that_lose_no_row

Mark = Mapping[str, Any]
"""rows; of rows that never change also last (the highest id), columns, and sha256 of those columns up to there."""


def problems_of_history() -> Iterator[str]:
    """A sentence on each table that lost or changed rows since the checks before."""
    for table, mark in _latest_marks().items():
        if (model := _models().get(table)) is not None and (problem := _problem(model, mark)):
            yield f"{model._meta.verbose_name_plural}: {problem}."


def marks_to_keep() -> dict[str, Mark]:
    """For the check that is being written: today's marks, or former ones that no longer hold."""
    former = _latest_marks()
    kept = {}
    for table in sorted(tables_that_lose_no_row()):
        model = _models()[table]
        mark = former.get(table)
        kept[table] = mark if mark is not None and _problem(model, mark) else _mark_of(model)
    return kept


def _latest_marks() -> Mapping[str, Mark]:
    latest = BooksCheck.objects.exclude(marks={}).order_by("-id").values_list("marks", flat=True).first()
    return latest or {}


def _models() -> Mapping[str, type[Model]]:
    return {model._meta.db_table: model for model in apps.get_models()}


def _problem(model: type[Model], mark: Mark) -> str:
    rows = model._default_manager.count()
    if rows < mark["rows"]:
        return f"there are {rows:,}, and there were {mark['rows']:,} at an earlier check"
    columns = {field.attname for field in model._meta.concrete_fields}
    is_comparable = "sha256" in mark and columns.issuperset(mark["columns"])
    if is_comparable and _digest(model, mark["columns"], mark["last"]) != mark["sha256"]:
        return "rows are not what they were at an earlier check"
    return ""


def _mark_of(model: type[Model]) -> Mark:
    mark: dict[str, Any] = {"rows": model._default_manager.count()}
    # Rows with a digest of their own are checked by it, and may be millions.
    if model._meta.db_table not in tables_only_added_to() or issubclass(model, Digested | BooksCheck):
        return mark
    columns = [field.attname for field in model._meta.concrete_fields]
    last = model._default_manager.order_by("-pk").values_list("pk", flat=True).first()
    return {**mark, "last": last, "columns": columns, "sha256": _digest(model, columns, last)}


def _digest(model: type[Model], columns: list[str], last: Any) -> str:
    """Of the rows up to that id, as texts; "" of none."""
    digest = hashlib.sha256()
    if last is not None:
        rows = model._default_manager.filter(pk__lte=last).order_by("pk").values_list(*columns)
        for row in rows.iterator(chunk_size=2000):
            digest.update("\x1f".join(map(str, row)).encode() + b"\x1e")
    return digest.hexdigest()
