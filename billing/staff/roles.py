"""Groups of staff by role. Missing ones are created; changes made to a group stay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from django.apps import apps
from django.contrib.auth import get_permission_codename
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Group, Permission
from django.db import transaction
from django.db.models import Q


@dataclass(frozen=True, slots=True)
class Rights:
    """permissions: by app and codename. views_all_of: apps whose models may all be viewed."""

    permissions: frozenset[tuple[str, str]]
    views_all_of: tuple[str, ...] = ()

    @property
    def condition(self) -> Q:
        condition = Q(pk__in=())
        for app, codename in self.permissions:
            condition |= Q(content_type__app_label=app, codename=codename)
        for app in self.views_all_of:
            condition |= Q(content_type__app_label=app, codename__startswith="view_")
        return condition


def _rights(app: str, actions: Iterable[str], models: Iterable[str]) -> frozenset[tuple[str, str]]:
    return frozenset((app, f"{action}_{model}") for action, model in product(actions, models))


_SEES_CALLS = _rights("llm", ["view"], ["account", "apikey", "usage"])

GROUPS: Mapping[str, Rights] = {
    "Key managers": Rights(
        _rights("llm", ["view", "add", "change"], ["account", "apikey", "limit", "modelroute", "routetarget"])
        | _SEES_CALLS
    ),
    "Billing preparers": Rights(
        _rights("billing", ["prepare", "view"], ["invoice"])
        | _rights("billing", ["view", "add", "change"], ["billingprofile", "plan", "planversion", "planrate"])
        | {("billing", "delete_planrate")}
        | _rights("billing", ["view", "add"], ["exchangerate"])
        | _rights("billing", ["view"], ["dailyusage", "costimport", "providercost"])
        | {("billing", "view_exportjob"), ("billing", "run_export")}
        | {("billing", "view_booksjob"), ("billing", "import_costs"), ("billing", "audit_books")}
        | _SEES_CALLS
    ),
    "Billing approvers": Rights(
        _rights("billing", ["approve", "issue", "credit"], ["invoice"]) | _SEES_CALLS, views_all_of=("billing",)
    ),
    "Price managers": Rights(
        _rights("llm", ["view", "add"], ["price"])
        | _rights("llm", ["view"], ["reratingrun"])
        | {("billing", codename) for codename in ("rerate_calls", "import_prices", "import_costs", "view_booksjob")}
        | _rights("billing", ["view"], ["costimport", "providercost"])
        | _SEES_CALLS
    ),
    "Auditors": Rights(frozenset(), views_all_of=("billing", "llm")),
}


_APPS = ("billing", "llm")


def name_permissions(using: str = "default", **_: Any) -> None:
    """After each migration: permissions are named as the models name them now. Django names them once, when they are
    made. Who has them stays.
    """
    names = {
        (app, model._meta.model_name, codename): name
        for app in _APPS
        for model in apps.get_app_config(app).get_models()
        for codename, name in _named_permissions(model._meta)
    }
    stored = Permission.objects.using(using).filter(content_type__app_label__in=_APPS).select_related("content_type")
    for permission in stored.order_by("pk"):
        kind = permission.content_type
        name = names.get((kind.app_label, kind.model, permission.codename), permission.name)
        if name != permission.name:
            Permission.objects.using(using).filter(pk=permission.pk).update(name=name)


def _named_permissions(options: Any) -> Iterator[tuple[str, str]]:
    """Codenames and names, as Django makes them."""
    for action in options.default_permissions:
        yield get_permission_codename(action, options), f"Can {action} {options.verbose_name_raw}"
    yield from options.permissions


def make_groups(using: str = "default", **_: Any) -> None:
    """After each migration, when the permissions of both apps exist, whichever app is migrated first."""
    missing = set(GROUPS) - set(Group.objects.using(using).filter(name__in=GROUPS).values_list("name", flat=True))
    if not missing:
        return
    for app in _APPS:
        create_permissions(apps.get_app_config(app), verbosity=0, using=using)
    with transaction.atomic(using=using):
        for name in sorted(missing):
            # Two migrations at once: the second one finds the group.
            group, is_new = Group.objects.using(using).get_or_create(name=name)
            if is_new:
                group.permissions.set(Permission.objects.using(using).filter(GROUPS[name].condition))
