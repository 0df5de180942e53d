"""NUL, which PostgreSQL takes in no text, in every place of an address or a form."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin(client: Client) -> Client:
    client.raise_request_exception = False
    client.force_login(User.objects.create_superuser("ada"))
    return client


@pytest.mark.parametrize(
    "address",
    [
        "/admin/autocomplete/?app_label=llm&model_name=apikey&field_name=account&term=%00",
        *("/admin/r/8/%00/", "/admin/%00/", "/admin/llm/account/%00/change/", "/admin/llm/account/?q=%00"),
        *("/admin/llm/account/?%00=1", "/admin/llm/apikey/?account__id__exact=%00", "/admin/login/?next=%00"),
        *("/admin/auth/user/?q=%00", "/admin/llm/account/?_changelist_filters=%00", "/docs/?x=%00"),
    ],
)
def test_an_address_with_nul_is_refused_with_a_page(admin: Client, address: str) -> None:
    reply = admin.get(address)
    assert reply.status_code == 400
    assert "without NUL characters" in reply.content.decode()
    assert reply.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    "address", ["/admin/llm/account/?q=%ff%fe", "/admin/%ed%a0%80/", "/admin/llm/account/%ff/change/"]
)
def test_bytes_that_are_no_text_are_no_failure(admin: Client, address: str) -> None:
    assert admin.get(address).status_code in (200, 302, 404)


@pytest.mark.parametrize(
    "form",
    [
        {"name": "a\0b"},
        {"name": "acme", "webhook_url": "\0"},
        {"_save": "\0", "name": "\0"},
    ],
)
def test_a_form_with_nul_saves_nothing(admin: Client, form: dict[str, str]) -> None:
    from llm.models import Account

    assert admin.post("/admin/llm/account/add/", form).status_code in (200, 400)
    assert not Account.objects.exists()


def test_a_sign_in_with_nul_is_no_failure(client: Client) -> None:
    client.raise_request_exception = False
    reply = client.post("/admin/login/", {"username": "a\0", "password": "\0", "next": "\0"})
    assert reply.status_code in (200, 400)


@pytest.mark.parametrize("path", ["/api/v1/nope/", "/static/nope.css", "/nope"])
def test_unknown_paths_are_json_without_the_front_too(client: Client, path: str) -> None:
    reply = client.get(path)
    assert (reply.status_code, reply.headers["content-type"]) == (404, "application/json")
