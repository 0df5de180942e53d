"""Lists answer what their own filters ask and nothing else: no secret can be felt out by whoever may only look."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db import models
from django.test import Client, RequestFactory
from django.urls import get_resolver, reverse

from llm.admin.lookups import OnlyKnownLookups
from llm.secretstore import seal
from tests.llm.admin.factories import make_account, make_key

pytestmark = pytest.mark.django_db

SECRET = re.compile(r"secret|digest|password|hash|session|signature|(^|__)key$")
LOOKUPS = ("", "exact", "startswith", "regex", "gt", "lte", "in", "isnull", "contains", "range")
ODD_VALUES = ("\0", "x", "9" * 30, "-1", "NaN", "2026-13-45")
MODELS = [pytest.param(model, id=model._meta.label) for model in admin.site._registry]
SECRET_TABLES = {"authtoken_token", "django_session", "account_emailconfirmation"}


def admin_of(model: type[models.Model]) -> Any:
    return admin.site._registry[model]


def url_of(model: type[models.Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def fields_of(model: type[models.Model]) -> list[Any]:
    return [field for field in model._meta.get_fields(include_hidden=True) if not field.name.endswith("+")]


def paths_of(model: type[models.Model]) -> Iterator[str]:
    """Every field, and every field of what it points to or is pointed at from."""
    for field in fields_of(model):
        yield field.name
        if field.is_relation and field.related_model is not None:
            yield from (f"{field.name}__{inner.name}" for inner in fields_of(field.related_model))


def names_of_columns(model: type[models.Model]) -> set[str]:
    return {field.name for field in model._meta.fields}


def looker(*permissions: str) -> Client:
    """Somebody who may only look, at all models or at some."""
    user = User.objects.create_user("looker", is_staff=True)
    found = Permission.objects.filter(codename__startswith="view_")
    user.user_permissions.set(found.filter(codename__in=permissions) if permissions else found)
    client = Client()
    client.force_login(user)
    return client


def a_request() -> Any:
    request = RequestFactory().get("/")
    request.user = User(is_staff=True, is_superuser=True, is_active=True)
    return request


@pytest.mark.parametrize("model", MODELS)
def test_every_list_answers_known_lookups_alone(model: type[models.Model]) -> None:
    model_admin, request = admin_of(model), a_request()
    assert isinstance(model_admin, OnlyKnownLookups)
    known = model_admin.known_lookups(request)

    for path in paths_of(model):
        for lookup in LOOKUPS:
            name = f"{path}__{lookup}" if lookup else path
            assert model_admin.lookup_allowed(name, "x", request) is (name in known), name

    assert not [name for name in known if SECRET.search(name)]
    assert not model_admin.lookup_allowed("no_such_field__exact", "x", request)


@pytest.mark.parametrize("model", MODELS)
def test_no_list_searches_shows_or_orders_by_a_secret(model: type[models.Model]) -> None:
    model_admin, request = admin_of(model), a_request()

    orderings = [
        str(getattr(getattr(model_admin, str(name), None), "admin_order_field", ""))
        for name in model_admin.get_list_display(request)
    ]
    columns = [name for name in map(str, model_admin.get_list_display(request)) if name in names_of_columns(model)]

    assert not [name for name in (*model_admin.get_search_fields(request), *columns, *orderings) if SECRET.search(name)]


@pytest.mark.parametrize("model", MODELS)
def test_no_secret_column_stands_in_for_an_id(model: type[models.Model]) -> None:
    request = a_request()

    allowed = [field.name for field in model._meta.fields if admin_of(model).to_field_allowed(request, field.name)]

    assert not [name for name in allowed if SECRET.search(name)]


def test_nothing_that_holds_secrets_alone_has_a_page() -> None:
    assert not {model._meta.db_table for model in admin.site._registry} & SECRET_TABLES


def test_a_secret_is_not_found_out_over_the_wire() -> None:
    account = make_account(webhook_secret=seal("whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo="))
    make_key(account)
    client = looker()

    for path in (
        "llm/account/?webhook_secret__startswith=whsec_QUJD",
        "llm/account/?webhook_secret__startswith=whsec_ZZZZ",
        "llm/account/?webhook_secret__regex=^whsec",
        "llm/account/?webhook_url__startswith=https",
        "llm/account/?keys__digest__startswith=a",
        "llm/apikey/?digest__gt=a",
        "llm/apikey/?account__webhook_secret__startswith=whsec_QUJD",
        "llm/limit/?account__webhook_secret__startswith=whsec_QUJD",
        "llm/outbox/?account__webhook_secret__startswith=whsec_QUJD",
        "auth/user/?password__startswith=md5",
        "auth/group/?user__password__startswith=md5",
        "billing/exportjob/?requested_by__password__startswith=md5",
    ):
        assert client.get(f"/admin/{path}").status_code == 400, path


def test_calls_take_no_lookups_at_all() -> None:
    """Their list has a form of its own; whatever else stands in the address is not asked of the database."""
    from llm.models import Usage
    from tests.llm.admin.factories import save, usage_row

    save(usage_row(make_key(make_account(webhook_secret="whsec_QUJD"))))
    client = looker()

    found = [
        len(client.get(f"/admin/llm/usage/?account__webhook_secret__startswith={guess}").context["cl"].result_list)
        for guess in ("whsec_QUJD", "whsec_ZZZZ")
    ]

    assert found == [1, 1]
    assert Usage.objects.count() == 1


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_odd_values_of_known_lookups_are_no_failure(model: type[models.Model], admin_client: Client) -> None:
    names = sorted(admin_of(model).known_lookups(a_request()))

    for name in (*names, "q", "o", "p", "_to_field", "e"):
        for value in ODD_VALUES:
            answer = admin_client.get(url_of(model), {name: value})
            assert answer.status_code in (200, 302, 400), (name, value)


def test_autocompletion_takes_any_text(admin_client: Client) -> None:
    make_key(make_account())
    url = reverse("admin:autocomplete")

    for term in (*ODD_VALUES, "", "%00", "llm_", "é" * 300):
        asked = {"app_label": "llm", "model_name": "limit", "field_name": "api_key", "term": term}
        # An address with a NUL is refused before any page.
        assert admin_client.get(url, asked).status_code == (400 if "\x00" in term else 200), term


def test_the_management_api_filters_by_no_secret() -> None:
    names: set[str] = set()
    for pattern in get_resolver("billing.api.urls").url_patterns:
        filterset = getattr(getattr(pattern.callback, "cls", None), "filterset_class", None)
        if filterset is not None:
            names |= {str(each.field_name) for each in filterset.base_filters.values()} | set(filterset.base_filters)

    assert {"account", "api_key", "state"} <= names
    # `key` is a key's id.
    assert not [name for name in names - {"key"} if SECRET.search(name)]
