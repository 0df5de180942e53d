"""Columns of exact money, and the one aggregate that sums them exactly on both databases.

A fixed-point column is a BIGINT of its smallest unit; in Python it is an exact `Decimal`. Django's own DecimalField
isn't
suitable: SQLite stores it as a float. Raw SQL writes the units (`usd_to_pico`, `per_million_to_pico`) directly.

Expressions that would lose the unit (`F("cost") + 1`, `Avg`) are refused by Django or by us; nothing silently becomes a
plain number.
"""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from sqlite3 import Connection as SQLiteConnection
from types import GenericAlias
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from django import forms
from django.core.exceptions import FieldError, ValidationError
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.models.expressions import Combinable
from django.db.models.sql.compiler import SQLCompiler

from llm.money import PICO_DECIMALS, PRICE_DECIMALS, format_usd, from_units, to_units


class CompactJSONEncoder(json.JSONEncoder):
    """As SQLite writes JSON: no spaces, and characters as they are."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "ensure_ascii": False, "separators": (",", ":")})


_MAX_BIGINT = 2**63 - 1
_SUM_DIGITS = 38

_Set_contra = TypeVar("_Set_contra", contravariant=True)
_Get_co = TypeVar("_Get_co", covariant=True)

if TYPE_CHECKING:
    _Field = models.Field
else:

    class _Field(models.Field):
        """Only so that it can be subscripted: Django's field is generic only in its stubs."""

        __class_getitem__ = classmethod(GenericAlias)


class FixedPointField(_Field[_Set_contra, _Get_co]):
    """Decimal USD in Python, BIGINT of 10**-decimals in the database.

    Accepts Decimal and, of ints, only 0: an int could just as well mean pico-units, an error by a factor of 10**12.
    Strings are only for forms and fixtures (`to_python`); floats are always refused.
    It deliberately isn't an IntegerField: Django would treat `F(...) + F(...)` over it as an integer without a unit.
    """

    decimals: ClassVar[int]
    _pyi_private_set_type: Decimal | Combinable
    _pyi_private_get_type: Decimal
    _pyi_lookup_exact_type: Decimal
    empty_strings_allowed = False

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        # Not through get_internal_type: for any “...IntegerField” Django truncates fractions, such as those of
        # averages.
        return str(connection.data_types["BigIntegerField"])

    def from_db_value(self, value: object, expression: object, connection: BaseDatabaseWrapper) -> Decimal | None:
        return None if value is None else from_units(_whole(value), self.decimals)

    def to_python(self, value: object) -> Decimal | None:
        """Raises ValidationError, for forms and fixtures."""
        if value is None:
            return None
        try:
            amount = Decimal(value) if isinstance(value, str) else value
            return from_units(self._units(amount), self.decimals)
        except (TypeError, ValueError, InvalidOperation) as error:
            message = f"“{value}” is not an amount in USD with at most {self.decimals} decimals."
            raise ValidationError(message, code="invalid") from error

    def get_prep_value(self, value: Any) -> Any:
        """Raises TypeError for floats and nonzero ints, ValueError for values that the column can't hold exactly."""
        value = super().get_prep_value(value)
        if value is None or hasattr(value, "resolve_expression"):
            return value
        return self._units(value)

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:
        value = super().get_db_prep_value(value, connection, prepared)
        if value is None or hasattr(value, "resolve_expression"):
            return value
        return connection.ops.adapt_integerfield_value(value, "BigIntegerField")

    def value_to_string(self, obj: models.Model) -> str:
        value: Any = self.value_from_object(obj)
        return "" if value is None else format_usd(value)

    def formfield(self, **kwargs: Any) -> Any:
        digits = len(str(_MAX_BIGINT))
        return super().formfield(
            **{"form_class": forms.DecimalField, "max_digits": digits, "decimal_places": self.decimals, **kwargs}
        )

    def _units(self, value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and value == 0:
            return 0
        if not isinstance(value, Decimal):
            raise TypeError(f"{type(self).__name__} takes Decimal USD, not {type(value).__name__} {value!r}")
        units = to_units(value, self.decimals)
        if abs(units) > _MAX_BIGINT:
            raise ValueError(f"{value:f} USD is more than the column can hold")
        return units


class AmountField(FixedPointField[_Set_contra, _Get_co]):
    """An amount of money: BIGINT of pico-units (at most 9,223,372 USD)."""

    decimals = PICO_DECIMALS


class PriceField(FixedPointField[_Set_contra, _Get_co]):
    """A price in USD with 6 decimals, per million tokens; its unit is one pico-unit per token."""

    decimals = PRICE_DECIMALS


class ExactDecimalField(_Field[_Set_contra, _Get_co]):
    """A number of up to 38 digits, `decimals` of them after the point: sums, rates and amounts beyond 64 bits.

    Decimal in Python, NUMERIC(38, decimals) on PostgreSQL. SQLite would make it a float, so there it is text of fixed
    width that sorts and compares like the number. Accepts Decimal and, of ints, only 0; floats are always refused.
    """

    _pyi_private_set_type: Decimal | Combinable
    _pyi_private_get_type: Decimal
    _pyi_lookup_exact_type: Decimal
    empty_strings_allowed = False

    def __init__(self, *args: Any, decimals: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.decimals = decimals
        self._unit = Decimal(1).scaleb(-decimals)
        self._bound = Decimal(1).scaleb(_SUM_DIGITS - decimals)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        return name, path, args, {**kwargs, "decimals": self.decimals}

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        return "text" if connection.vendor == "sqlite" else f"numeric({_SUM_DIGITS}, {self.decimals})"

    def from_db_value(self, value: Any, expression: object, connection: BaseDatabaseWrapper) -> Decimal | None:
        if value is None:
            return None
        return from_units(_decode(value), self.decimals) if isinstance(value, str) else self._exact(value)

    def to_python(self, value: object) -> Decimal | None:
        """Raises ValidationError, for forms and fixtures."""
        if value is None:
            return None
        try:
            return self._exact(Decimal(value) if isinstance(value, str) else value)
        except (TypeError, ValueError, InvalidOperation) as error:
            message = f"“{value}” is not a number with at most {self.decimals} decimals."
            raise ValidationError(message, code="invalid") from error

    def get_prep_value(self, value: Any) -> Any:
        """Raises TypeError for floats and nonzero ints, ValueError for values that the column can't hold exactly."""
        value = super().get_prep_value(value)
        if value is None or hasattr(value, "resolve_expression"):
            return value
        return self._exact(value)

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:
        value = super().get_db_prep_value(value, connection, prepared)
        if isinstance(value, Decimal) and connection.vendor == "sqlite":
            return _encode(self._units(value))
        return value

    def value_to_string(self, obj: models.Model) -> str:
        value: Any = self.value_from_object(obj)
        return "" if value is None else f"{value:f}"

    def formfield(self, **kwargs: Any) -> Any:
        return super().formfield(
            **{"form_class": forms.DecimalField, "max_digits": _SUM_DIGITS, "decimal_places": self.decimals, **kwargs}
        )

    def _exact(self, value: object) -> Decimal:
        """With all of its decimals; values that have them already, as most do, are returned as they are."""
        if type(value) is Decimal and value and value.same_quantum(self._unit) and -self._bound < value < self._bound:
            return value
        return from_units(self._units(value), self.decimals)

    def _units(self, value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and value == 0:
            return 0
        if not isinstance(value, Decimal):
            raise TypeError(f"{type(self).__name__} takes Decimal, not {type(value).__name__} {value!r}")
        units = to_units(value, self.decimals)
        if abs(units) >= 10**_SUM_DIGITS:
            raise ValueError(f"{value:f} has more than {_SUM_DIGITS} digits")
        return units


class ExactSumField(_Field[Any, Any]):
    """The type of an `ExactSum`: int if `decimals` is None, else Decimal. Never used as a column.

    SQLite has no numbers beyond 64 bits: there a sum is text of fixed width that sorts and compares like the number.
    """

    def __init__(self, decimals: int | None = None) -> None:
        super().__init__()
        self.decimals = decimals

    def from_db_value(self, value: Any, expression: object, connection: BaseDatabaseWrapper) -> Decimal | int | None:
        if value is None:
            return None
        units = _decode(value) if isinstance(value, str) else _whole(value)
        return units if self.decimals is None else from_units(units, self.decimals)

    def get_prep_value(self, value: Any) -> Any:
        if value is None or hasattr(value, "resolve_expression"):
            return value
        if self.decimals is not None and isinstance(value, Decimal):
            return to_units(value, self.decimals)
        if isinstance(value, int) and (self.decimals is None or value == 0):
            return int(value)
        raise TypeError(f"{value!r} can't be compared with this sum exactly")

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:
        value = value if prepared else self.get_prep_value(value)
        return _encode(value) if isinstance(value, int) and connection.vendor == "sqlite" else value


class ExactSum(models.Aggregate):
    """The exact sum of a fixed-point column (as Decimal) or an integer one (as int), of any size; None for no rows.

    PostgreSQL adds BIGINTs as NUMERIC; on SQLite it is an aggregate in Python, since SQLite's own fails or becomes a
    float beyond 64 bits. Filtering and ordering by the sum work on both.
    """

    function = "SUM"
    name = "ExactSum"

    def __init__(self, expression: Combinable | str, **options: Any) -> None:
        if "default" in options:
            raise TypeError("ExactSum has no default; None means there was nothing to sum")
        super().__init__(expression, **options)

    def _resolve_output_field(self) -> ExactSumField | ExactDecimalField[Any, Any]:
        summed = self.get_source_fields()[0]
        if isinstance(summed, ExactDecimalField):
            return ExactDecimalField(decimals=summed.decimals)
        if isinstance(summed, FixedPointField | ExactSumField):
            return ExactSumField(summed.decimals)
        if isinstance(summed, models.IntegerField):
            return ExactSumField()
        raise FieldError(f"ExactSum can't sum a {type(summed).__name__} exactly")

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **context: Any) -> Any:
        return self.as_sql(compiler, connection, function="LLM_EXACT_SUM", **context)


def _encode(total: int) -> str:
    """Text that sorts like the number: negative ones are complements after a minus sign, which sorts before digits."""
    if abs(total) >= 10**_SUM_DIGITS:
        raise OverflowError(f"a sum of more than {_SUM_DIGITS} digits")
    return f"{total:0{_SUM_DIGITS}d}" if total >= 0 else f"-{10**_SUM_DIGITS + total:0{_SUM_DIGITS}d}"


def _decode(text: str) -> int:
    return int(text[1:]) - 10**_SUM_DIGITS if text.startswith("-") else int(text)


def _whole(value: object) -> int:
    """An integer as drivers return it (int, or Decimal for NUMERIC); anything else has already lost its precision."""
    if isinstance(value, int):
        return value
    if isinstance(value, Decimal) and value == int(value):
        return int(value)
    raise TypeError(f"{value!r} came from the database where a whole number of units was due")


class _SQLiteExactSum:
    def __init__(self) -> None:
        self.total: int | None = None

    def step(self, value: object) -> None:
        if value is not None:
            units = _decode(value) if isinstance(value, str) else _whole(value)
            self.total = units if self.total is None else self.total + units

    def finalize(self) -> str | None:
        return None if self.total is None else _encode(self.total)


def _register_exact_sum(connection: BaseDatabaseWrapper, **kwargs: object) -> None:
    if isinstance(connection.connection, SQLiteConnection):
        connection.connection.create_aggregate("LLM_EXACT_SUM", 1, _SQLiteExactSum)  # type: ignore[arg-type]  # its stub knows no text results


connection_created.connect(_register_exact_sum, dispatch_uid="llm.exact_sum")
