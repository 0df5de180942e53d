"""Money, prices and quantities of billing never pass through a float: neither ours nor the database's."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db import models

from llm.fields import ExactDecimalField


def columns() -> list[models.Field[Any, Any]]:
    found = apps.get_app_config("billing").get_models(include_auto_created=True)
    return [field for model in found for field in model._meta.local_concrete_fields]


def test_no_column_is_a_float_or_a_decimal_that_sqlite_keeps_as_one() -> None:
    inexact = [str(field) for field in columns() if isinstance(field, models.FloatField | models.DecimalField)]
    assert inexact == []


def test_the_walk_sees_the_money() -> None:
    exact = {field.name for field in columns() if isinstance(field, ExactDecimalField)}
    assert {"exact_amount", "amount", "residual", "unit_price", "per_usd", "price_per_million", "cost"} <= exact
