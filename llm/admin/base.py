"""What all our admin classes share: nothing is ever deleted, no change is overwritten unnoticed, and keys pasted into a
search are never shown again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import ValidationError
from django.db import models
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.text import capfirst

from llm.admin.autocomplete import ForgivingAutocomplete
from llm.admin.concurrent_edits import ConcurrentEdits
from llm.admin.lookups import OnlyKnownLookups
from llm.admin.secrets import reduce_secrets, without_secrets

_M = TypeVar("_M", bound=models.Model)

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin
    TabularInline = admin.TabularInline
    ModelForm = forms.ModelForm
    InlineFormSet = forms.BaseInlineFormSet
else:
    # Django's admin classes are generic only to type checkers.
    class _Generic:
        def __class_getitem__(cls, item: object) -> type:
            return cls

    class _ModelAdmin(_Generic, admin.ModelAdmin):
        pass

    class TabularInline(_Generic, admin.TabularInline):
        pass

    class ModelForm(_Generic, forms.ModelForm):
        pass

    class InlineFormSet(_Generic, forms.BaseInlineFormSet):
        pass


_Parent = TypeVar("_Parent", bound=models.Model)


class GatewayAdmin(OnlyKnownLookups[_M], ConcurrentEdits[_M], _ModelAdmin[_M]):
    """Our rows are archived or immutable, never deleted: the books refer to them."""

    show_full_result_count = False
    list_per_page = 50
    show_facets = admin.ShowFacets.NEVER

    def has_delete_permission(self, request: HttpRequest, obj: _M | None = None) -> bool:
        return False

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name in self.autocomplete_fields:
            kwargs["widget"] = ForgivingAutocomplete(db_field, self.admin_site)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context = {"title": capfirst(str(self.opts.verbose_name_plural)), **(extra_context or {})}
        return without_secrets(request) or super().changelist_view(request, context)

    def response_action(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse | None:
        """Django's own looks up any chosen value of a form, and fails on one that can't be an id."""
        try:
            for chosen in request.POST.getlist(ACTION_CHECKBOX_NAME):
                self.opts.pk.clean(chosen, None)
        except ValidationError:
            self.message_user(
                request, "The selection is no longer on this page. Please select again.", messages.WARNING
            )
            return HttpResponseRedirect(request.get_full_path())
        return super().response_action(request, *args, **kwargs)

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet[_M], search_term: str
    ) -> tuple[models.QuerySet[_M], bool]:
        """Autocompletion uses this too, which must not look for a whole key either."""
        return super().get_search_results(request, queryset, reduce_secrets(search_term))


class ReadOnlyAdmin(GatewayAdmin[_M]):
    """Rows that can only be viewed."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: _M | None = None) -> bool:
        return False


class KnownRows(forms.BaseInlineFormSet):  # type: ignore[type-arg]
    """For inlines: a form can't claim that more rows are stored than there are."""

    def initial_form_count(self) -> int:
        return min(super().initial_form_count(), len(self.get_queryset()))


class StoredRows(forms.BaseInlineFormSet):  # type: ignore[type-arg]
    """For read-only inlines: exactly the stored rows, whatever a form posts."""

    def __init__(self, data: Any = None, files: Any = None, **kwargs: Any) -> None:
        super().__init__(None, None, **kwargs)
        self.new_objects: list[Any] = []
        self.changed_objects: list[Any] = []
        self.deleted_objects: list[Any] = []

    def is_valid(self) -> bool:
        return True

    def save(self, commit: bool = True) -> list[Any]:
        return []

    def initial_form_count(self) -> int:
        return len(self.get_queryset())

    def total_form_count(self) -> int:
        return self.initial_form_count()


class ReadOnlyInline(TabularInline[_M, _Parent]):
    """A read-only table of rows that belong to the page's object."""

    formset = StoredRows
    extra = 0
    can_delete = False
    show_change_link = True

    def has_add_permission(self, request: HttpRequest, obj: _Parent | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: _Parent | None = None) -> bool:
        return False
