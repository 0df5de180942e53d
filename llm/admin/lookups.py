"""What the address of a list may ask: its own filters and our links, nothing else.

Django lets a query ask about any column of a list's model, whatever its page shows: with `?digest__startswith=`, a user
who may only view finds out a secret character by character. Here any lookup that isn't listed is refused, for every
model, including lookups of fields added later.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import get_fields_from_path
from django.contrib.admin.views.main import ChangeList
from django.db import models
from django.http import HttpRequest

_M = TypeVar("_M", bound=models.Model)

if TYPE_CHECKING:
    _Base = admin.ModelAdmin
else:

    class _Base:
        """Only so that it can be subscripted."""

        def __class_getitem__(cls, item: object) -> type:
            return cls


_OF_A_DATE = ("year", "month", "day", "gte", "lt")


class OnlyKnownLookups(_Base[_M]):
    """allowed_lookups: used by links elsewhere, in addition to the list's own filters."""

    allowed_lookups: ClassVar[tuple[str, ...]] = ()

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        return lookup in self.known_lookups(request)

    def known_lookups(self, request: HttpRequest) -> frozenset[str]:
        found = set(self.allowed_lookups)
        for each in self.get_list_filter(request):
            found.update(_lookups_of(each, self.model))
        if self.date_hierarchy:
            found.update(f"{self.date_hierarchy}__{part}" for part in _OF_A_DATE)
        return frozenset(found)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ForgivingChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet[_M], search_term: str
    ) -> tuple[models.QuerySet[_M], bool]:
        """PostgreSQL text can't contain NUL: a search for it would fail instead of finding nothing."""
        if "\x00" in search_term:
            return queryset.none(), False
        return super().get_search_results(request, queryset, search_term)


class ForgivingChangeList(ChangeList):
    """A value of the wrong type leads back to the whole list, as Django does in most cases."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> models.QuerySet[Any]:
        if any("\x00" in value for values in self.filter_params.values() for value in values):
            raise IncorrectLookupParameters
        try:
            return super().get_queryset(request, exclude_parameters)
        except (OverflowError, TypeError, ValueError) as error:
            raise IncorrectLookupParameters from error


def _lookups_of(item: Any, model: type[models.Model]) -> Iterator[str]:
    """item: an entry of `list_filter`. Returns the lookups that its choices put into the address."""
    if isinstance(item, type) and issubclass(item, admin.SimpleListFilter):
        yield str(item.parameter_name)
        return
    path: str = item[0] if isinstance(item, (tuple, list)) else item
    field = get_fields_from_path(model, path)[-1]
    yield f"{path}__isnull"
    if field.is_relation:
        yield f"{path}__{_target_name(field)}__exact"
    elif isinstance(field, models.DateField):
        yield from (f"{path}__gte", f"{path}__lt")
    else:
        yield from (path, f"{path}__exact")


def _target_name(field: Any) -> str:
    """The column that a relation points to, as in Django's filter."""
    target = getattr(field, "target_field", None)
    return str(target.name if target is not None else field.related_model._meta.pk.name)
