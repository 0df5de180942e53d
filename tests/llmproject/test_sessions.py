"""Session keys that carry a checksum under SECRET_KEY."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import DjangoAssertNumQueries, Settings

from llmproject.sessions import SessionStore, is_plausible

pytestmark = pytest.mark.django_db


def stored_key() -> str:
    store = SessionStore()
    store["who"] = "ada"
    store.save()
    return str(store.session_key)


def test_a_key_of_ours_fills_the_column_and_finds_its_session() -> None:
    key = stored_key()
    assert (len(key), is_plausible(key)) == (40, True)
    assert SessionStore(key)["who"] == "ada"


async def test_keys_that_are_made_asynchronously_are_ours_too(transactional_db: None) -> None:
    store = SessionStore()
    await store.acreate()
    assert is_plausible(str(store.session_key))


@pytest.mark.parametrize("key", ["", "a" * 32, "a" * 40, "é" * 40, "\x00" * 40, "a" * 4000])
def test_an_invented_key_costs_no_query(
    client: Client, django_assert_num_queries: DjangoAssertNumQueries, key: str
) -> None:
    client.cookies["sessionid"] = key
    with django_assert_num_queries(0):
        assert client.get("/admin/login/").status_code == 200
        assert SessionStore(key).load() == {}


def test_a_changed_key_costs_no_query(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    key = stored_key()
    changed = ("b" if key[0] == "a" else "a") + key[1:]
    with django_assert_num_queries(0):
        assert SessionStore(changed).load() == {}


def test_a_former_secret_still_counts(settings: Settings) -> None:
    key = stored_key()
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "a new secret", [settings.SECRET_KEY]
    assert SessionStore(key)["who"] == "ada"
    settings.SECRET_KEY_FALLBACKS = []
    assert SessionStore(key).load() == {}


def test_a_new_session_at_sign_in_is_ours(client: Client) -> None:
    User.objects.create_superuser("ada", password="a long password of hers")
    client.post("/admin/login/", {"username": "ada", "password": "a long password of hers"})
    assert is_plausible(client.cookies["sessionid"].value)
    assert client.get("/admin/").status_code == 200
