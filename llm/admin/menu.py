"""The menu by what people do: each entry is a list of the admin, or a page of its own, that its reader may open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.urls import reverse

GROUPS = ("Usage", "Accounts & keys", "Limits", "Models & prices", "Invoices", "Plans", "Audit", "System")
REST = "System"
"""Where lists go that no one has placed."""

Entry = dict[str, Any]
"""As in Django's own list of apps."""


@dataclass(frozen=True, slots=True)
class MenuPage:
    """A page that isn't a list of rows. view: a name of the admin's. permissions: all of them are needed."""

    name: str
    view: str
    permissions: tuple[str, ...]


_places: dict[str, list[str | MenuPage]] = {name: [] for name in GROUPS}


def place(group: str, *entries: str | MenuPage) -> None:
    """Adds entries to a group, in this order: models such as `llm.usage`, and pages."""
    _places[group].extend(entries)


def grouped_list(apps: Sequence[Mapping[str, Any]], request: HttpRequest) -> list[dict[str, Any]]:
    """The groups with something in them. apps: Django's own list, which has what the reader may see."""
    models = {f"{app['app_label']}.{model['object_name'].lower()}": model for app in apps for model in app["models"]}
    placed = {each for entries in _places.values() for each in entries if isinstance(each, str)}
    groups = []
    for name in GROUPS:
        rest = [key for key in models if key not in placed] if name == REST else []
        if entries := list(_entries([*_places[name], *rest], models, request)):
            groups.append({"name": name, "app_label": _slug(name), "app_url": "", "models": entries})
    return groups


def _entries(places: Sequence[str | MenuPage], models: Mapping[str, Entry], request: HttpRequest) -> Iterator[Entry]:
    for each in places:
        if isinstance(each, str):
            if each in models and models[each]["admin_url"]:
                yield models[each]
        elif request.user.has_perms(each.permissions):
            yield {"name": each.name, "object_name": each.view, "admin_url": reverse(f"admin:{each.view}")}


def _slug(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalpha())


def by_jobs(original: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """For the site's `get_app_list`: the page of a single app stays Django's."""

    def get_app_list(request: HttpRequest, app_label: str | None = None) -> list[Any]:
        apps = original(request, app_label)
        return apps if app_label else grouped_list(apps, request)

    return get_app_list


place("Usage", "llm.usage", "llm.refusedrequests")
place("Accounts & keys", "llm.account", "llm.apikey")
place("Limits", "llm.limit")
place(
    "Models & prices",
    "llm.modelroute",
    "llm.price",
    MenuPage("Models without a price", "llm_price_unpriced", ("llm.view_price", "llm.view_usage")),
    "llm.reratingrun",
)
place("Audit", "llm.auditentry", "llm.bookscheck", "llm.refusedwrite", "llm.redaction")
place("System", "llm.outbox", "llm.process", "llm.scheduledtask", "auth.user", "auth.group")
