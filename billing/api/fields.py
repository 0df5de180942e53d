"""How values are written in responses: money as exact text, and fields that only some callers may see."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar, TypeVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing.api.viewer import Viewer
from billing.currencies import DECIMALS
from llm.money import format_usd

_T = TypeVar("_T")
_AMOUNT = {"type": "string", "format": "decimal", "example": "12.50"}


class ViewedSerializer(serializers.Serializer[_T]):
    """staff_only: fields hidden from customers. costs: fields hidden from callers who may not see costs.

    Without a viewer in its context, the caller counts as a customer.
    """

    staff_only: ClassVar[frozenset[str]] = frozenset()
    costs: ClassVar[frozenset[str]] = frozenset()

    def to_representation(self, instance: _T) -> dict[str, Any]:
        shown: dict[str, Any] = super().to_representation(instance)
        viewer: Viewer | None = self.context.get("viewer")
        hidden: set[str] = set()
        if viewer is None or not viewer.is_staff:
            hidden |= self.staff_only
        if viewer is None or not viewer.sees_cost:
            hidden |= self.costs
        return {name: value for name, value in shown.items() if name not in hidden}


class RequestSerializer(serializers.Serializer[Any]):
    """Rejects unknown members: a misspelled filter that is ignored would select everything."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping) and (unknown := sorted({str(name) for name in data} - set(self.fields))):
            sentence = f"Unknown member. Allowed: {', '.join(sorted(self.fields))}."
            raise serializers.ValidationError({unknown[0][:50]: sentence})
        return super().to_internal_value(data)


@extend_schema_field(_AMOUNT)
class ExactField(serializers.Field[Decimal, Any, str, Any]):
    """An exact amount in USD, or an unrounded one in any currency: fixed point, without needless zeros."""

    def to_representation(self, value: Decimal) -> str:
        return format_usd(value)


@extend_schema_field(_AMOUNT)
class CurrencyField(serializers.Field[Any, Any, str, Any]):
    """An amount with all decimals of the row's (or its invoice's) currency."""

    def get_attribute(self, instance: Any) -> str | None:
        amount = super().get_attribute(instance)
        if amount is None:
            return None
        currency = instance.currency if hasattr(instance, "currency") else instance.invoice.currency
        return f"{amount:.{DECIMALS[currency]}f}"

    def to_representation(self, value: str) -> str:
        return value


@extend_schema_field({"type": "string", "pattern": r"^\d{4}-\d{2}$", "example": "2026-10"})
class MonthSerializerField(serializers.Field[Any, Any, str, Any]):
    """A date as the month that it is in."""

    def to_representation(self, value: Any) -> str:
        return f"{value:%Y-%m}"
