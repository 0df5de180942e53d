"""No float touches money, prices or quantities: neither in our models nor in the columns that they made."""

import pytest
from django.apps import apps
from django.db import connection, models

OUR_APPS = ("llm", "billing")
# Timings and the like may be floats one day; money may not, so an exception must be listed here and argued for.
FLOATS_ALLOWED: frozenset[str] = frozenset()
# SQLite keeps what it calls decimal as a float too; only text and integers are exact there.
FLOATING_TYPES = {
    "sqlite": ("real", "double", "float", "decimal", "numeric"),
    "postgresql": ("real", "double", "float"),
}


def our_models() -> list[type[models.Model]]:
    return [model for label in OUR_APPS for model in apps.get_app_config(label).get_models(include_auto_created=True)]


def test_no_model_has_a_float_field() -> None:
    found = {
        f"{model._meta.label}.{field.name}"
        for model in our_models()
        for field in model._meta.get_fields()
        if isinstance(field, models.FloatField)
    }
    assert found == FLOATS_ALLOWED


@pytest.mark.django_db
def test_no_table_has_a_float_column() -> None:
    found = {
        f"{model._meta.db_table}.{field.column}"
        for model in our_models()
        for field in model._meta.local_concrete_fields
        if any(name in (field.db_type(connection) or "").lower() for name in FLOATING_TYPES[connection.vendor])
    }
    assert found == set()


def test_the_walk_sees_our_money() -> None:
    assert {"llm_usage", "llm_rate"} <= {model._meta.db_table for model in our_models()}
