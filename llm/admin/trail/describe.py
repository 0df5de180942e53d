"""Entries of the audit log in words: the row by name, and each column with its old and new value."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import models
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.text import capfirst

from llm.admin.format import NOTHING, moment
from llm.models import AuditEntry

MAX_VALUE = 200
_UNNAMED = frozenset({"id"})


@dataclass(frozen=True, slots=True)
class Change:
    """before, after: None if there is none, because the row is new or gone."""

    label: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.label}: {self.after}"
        return f"{self.label}: {self.before}" if self.after is None else f"{self.label}: {self.before} → {self.after}"


class Names:
    """Names of rows that entries mention, read once for all entries of a page."""

    def __init__(self, entries: Iterable[AuditEntry]) -> None:
        wanted: defaultdict[type[models.Model], set[str]] = defaultdict(set)
        for entry in entries:
            model = model_of(entry.table_name)
            if model is None:
                continue
            wanted[model].add(entry.row_id)
            for side in (entry.before or {}, entry.after or {}):
                for column, value in side.items():
                    if value and (target := _target_of(_field_of(model, column))) is not None:
                        wanted[target].add(value)
        self._names = {model: _read_names(model, ids) for model, ids in wanted.items()}

    def find(self, model: type[models.Model], row: str) -> str | None:
        return self._names.get(model, {}).get(row)


def describe_row(entry: AuditEntry, names: Names) -> str:
    """Such as “Account Acme”; empty for entries about no row."""
    model = model_of(entry.table_name)
    if model is None:
        return entry.table_name
    kind = capfirst(str(model._meta.verbose_name))
    if model._meta.auto_created:
        return kind
    name = names.find(model, entry.row_id) or (entry.before or {}).get("name") or entry.row_id
    return f"{kind} {name}"


def describe_changes(entry: AuditEntry, names: Names) -> list[Change]:
    """In the order of the model's fields. Of a row that is new or gone, only what isn't empty."""
    model = model_of(entry.table_name)
    before, after = entry.before, entry.after
    columns = [name for name in {**(before or {}), **(after or {})} if name not in _UNNAMED]
    if before is None or after is None:
        columns = [name for name in columns if ((before if after is None else after) or {}).get(name)]
    order = _order_of(model)
    columns.sort(key=lambda name: order.get(name, len(order)))
    return [
        Change(
            _label_of(model, name),
            None if before is None else _shown(model, name, before.get(name), names),
            None if after is None else _shown(model, name, after.get(name), names),
        )
        for name in columns
    ]


@cache
def _models_by_table() -> Mapping[str, type[models.Model]]:
    return {model._meta.db_table: model for model in apps.get_models(include_auto_created=True)}


def model_of(table: str) -> type[models.Model] | None:
    return _models_by_table().get(table)


def _order_of(model: type[models.Model] | None) -> Mapping[str, int]:
    fields: Sequence[Any] = () if model is None else model._meta.concrete_fields
    return {field.column: number for number, field in enumerate(fields)}


def _field_of(model: type[models.Model] | None, column: str) -> models.Field[Any, Any] | None:
    if model is None:
        return None
    try:
        return model._meta.get_field(column.removesuffix("_id"))  # type: ignore[return-value]  # columns are fields
    except FieldDoesNotExist:
        return None


def _target_of(field: models.Field[Any, Any] | None) -> type[models.Model] | None:
    target = field.related_model if isinstance(field, models.ForeignKey) else None
    return target if isinstance(target, type) else None


def _label_of(model: type[models.Model] | None, column: str) -> str:
    field = _field_of(model, column)
    return str(capfirst(str(getattr(field, "verbose_name", column.replace("_", " ")))))


def _shown(model: type[models.Model] | None, column: str, value: str | None, names: Names) -> str:
    field = _field_of(model, column)
    if value is None or value == "":
        return NOTHING
    if (target := _target_of(field)) is not None:
        return names.find(target, value) or f"#{value}"
    if isinstance(field, models.BooleanField):
        return "yes" if value in {"1", "true"} else "no"
    if isinstance(field, models.DateTimeField) and (parsed := _moment(value)) is not None:
        return moment(parsed)
    choices = dict(getattr(field, "flatchoices", None) or ())
    text = str(choices.get(value, value))
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}…"


def _moment(value: str) -> datetime | None:
    try:
        parsed = parse_datetime(value)
    except ValueError:
        return None
    return timezone.make_aware(parsed) if parsed is not None and timezone.is_naive(parsed) else parsed


def _read_names(model: type[models.Model], ids: Iterable[str]) -> dict[str, str]:
    if model._meta.auto_created:
        return {}
    keys = []
    for each in ids:
        try:
            keys.append(model._meta.pk.to_python(each))
        except ValidationError:
            continue
    related = [field.name for field in model._meta.concrete_fields if _target_of(field) is not None]
    rows = model._base_manager.select_related(*related).filter(pk__in=keys)
    return {str(row.pk): str(row) for row in rows}
