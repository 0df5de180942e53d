"""Every page of the admin that can be opened: from its patterns of addresses, with records that exist."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.contrib import admin
from django.db.models import Model
from django.urls import NoReverseMatch, URLPattern, URLResolver, reverse

# Not pages: files, data for scripts, what ends the session, and the form of rows that are only summed up.
_LEFT_OUT = (
    "dailyusage_change",
    "jsi18n",
    "autocomplete",
    "logout",
    "view_on_site",
    "pdf",
    "document",
    "download",
    "history_file",
)
_OWN_VALUES = {"app_label": "llm", "position": 1}


def all_pages() -> list[str]:
    """Addresses, each once. Models without a row have their list and, where rows can be added, the form for that."""
    found = [reverse("search") + "?q=acme", *(_address(pattern) for pattern in _patterns(admin.site.urls[0]))]
    return list(dict.fromkeys(address for address in found if address))


def _patterns(patterns: Any) -> Iterator[URLPattern]:
    for each in patterns:
        if isinstance(each, URLResolver):
            yield from _patterns(each.url_patterns)
        elif each.name and not any(each.name.endswith(name) for name in _LEFT_OUT):
            yield each


def _address(pattern: URLPattern) -> str:
    """ "" where there is no record for it, or where it is a step that the record can't take."""
    names = pattern.pattern.regex.groupindex if hasattr(pattern.pattern, "regex") else {}
    values: dict[str, Any] = {}
    for name in names:
        value = _OWN_VALUES.get(name) or _record(str(pattern.name)) if name in (*_OWN_VALUES, "object_id") else None
        if value is None:
            return ""
        values[name] = value
    try:
        return reverse(f"admin:{pattern.name}", kwargs=values)
    except NoReverseMatch:
        return ""


def _record(name: str) -> Any:
    """The latest row of the model that the page is about; its name begins with app and model."""
    app_label, model_name, *_ = [*name.split("_"), "", ""]
    try:
        model: type[Model] = apps.get_model(app_label, model_name)
    except LookupError:
        return None
    return model._default_manager.order_by("-pk").values_list("pk", flat=True).first()
