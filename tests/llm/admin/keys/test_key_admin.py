from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from llm.admin.one_time_forms import DOUBLE_CLICK, KEPT
from llm.keys import digest_of, revoke_key
from llm.models import Account, ApiKey, UsedForm
from tests.llm.admin.factories import make_account, make_key, messages_of, save, staff_with, token_of, usage_row
from tests.pages import confirm, seen_on, send, text_of

pytestmark = pytest.mark.django_db

ADD = "/admin/llm/apikey/add/"
SECRET = re.compile(rb"llm_[0-9A-Za-z]{38}")


def new_key_form(client: Client, account: Account, **values: str) -> dict[str, str]:
    token = token_of(client.get(ADD))
    return {"account": str(account.pk), "name": "production", "form_token": token, **values}


def everything_stored() -> str:
    history = " ".join(f"{entry.object_repr} {entry.change_message}" for entry in LogEntry.objects.all())
    sessions = " ".join(str(session.get_decoded()) for session in Session.objects.all())
    keys = " ".join(str(row) for row in ApiKey.objects.values())
    return f"{history} {sessions} {keys}"


def test_a_new_keys_secret_is_in_the_reply_and_nowhere_else(admin_client: Client) -> None:
    account = make_account()
    form = new_key_form(admin_client, account, allowed_models="small, large\nsmall", expires_at="2036-01-31T12:30")

    response = admin_client.post(ADD, form)

    (secret,) = set(SECRET.findall(response.content))
    key = ApiKey.objects.get()
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    assert key.digest == digest_of(secret.decode())
    assert (key.account, key.name, key.allowed_models) == (account, "production", ["small", "large"])
    assert key.expires_at == datetime(2036, 1, 31, 12, 30, tzinfo=UTC)
    assert secret.decode() not in everything_stored()
    assert secret not in admin_client.get(f"/admin/llm/apikey/{key.pk}/change/").content
    assert not any(secret.decode() in str(value) for value in admin_client.cookies.values())
    assert LogEntry.objects.get().change_message == f"Created {key.masked} for Acme."


def test_sending_the_form_again_makes_no_second_key(admin_client: Client) -> None:
    form = new_key_form(admin_client, make_account())
    admin_client.post(ADD, form)

    response = admin_client.post(ADD, form)

    key = ApiKey.objects.get()
    assert response.status_code == 302
    assert response["Location"] == f"/admin/llm/apikey/{key.pk}/change/"
    assert messages_of(response)[0].startswith("This form was already submitted")


def test_a_form_that_another_process_is_answering_makes_no_second_key(admin_client: Client, admin_user: User) -> None:
    """A double click: whichever process has the first, only what stands in the database is shared."""
    form = new_key_form(admin_client, make_account())
    claim = UsedForm.objects.create(token=form["form_token"], user=admin_user)
    assert admin_client.post(ADD, form).status_code == 200
    assert not ApiKey.objects.exists()
    # The first one met a failure; after a minute its form may be sent again.
    UsedForm.objects.filter(pk=claim.pk).update(used_at=timezone.now() - DOUBLE_CLICK - timedelta(seconds=1))
    assert SECRET.search(admin_client.post(ADD, form).content)
    claim.refresh_from_db()
    assert claim.made_id == ApiKey.objects.get().pk


def test_a_form_is_one_time_in_every_session_of_its_user(admin_client: Client, admin_user: User) -> None:
    form = new_key_form(admin_client, make_account())
    admin_client.post(ADD, form)
    elsewhere = Client()
    elsewhere.force_login(admin_user)
    assert elsewhere.post(ADD, form).status_code == 302
    assert ApiKey.objects.count() == 1


@pytest.mark.parametrize("token", ["\0", "x" * 41, "short", "é" * 20], ids=["NUL", "long", "short", "not ours"])
def test_a_token_that_is_none_of_ours_makes_no_key(admin_client: Client, token: str) -> None:
    form = {**new_key_form(admin_client, make_account()), "form_token": token}
    assert admin_client.post(ADD, form).status_code == 200
    assert (ApiKey.objects.count(), UsedForm.objects.count()) == (0, 0)


def test_used_forms_are_forgotten_after_a_month(admin_client: Client, admin_user: User) -> None:
    long_ago = timezone.now() - KEPT - timedelta(days=1)
    UsedForm.objects.create(token="of a month ago", user=admin_user, used_at=long_ago)
    form = new_key_form(admin_client, make_account())
    admin_client.post(ADD, form)
    assert [used.token for used in UsedForm.objects.all()] == [form["form_token"]]


def test_a_form_without_its_token_makes_no_key(admin_client: Client) -> None:
    account = make_account()

    response = admin_client.post(ADD, {"account": account.pk, "name": "production"})

    assert response.status_code == 200
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"name": ""}, "This field is required."),
        ({"expires_at": "2020-01-01T00:00"}, "This is in the past."),
        ({"allowed_models": "x" * 201}, "is longer than a model"),
        ({"account": "x"}, "Select a valid choice."),
        ({"account": "99999999999999999999"}, "Select a valid choice."),
    ],
)
def test_a_wrong_form_makes_no_key(admin_client: Client, values: dict[str, str], complaint: str) -> None:
    response = admin_client.post(ADD, {**new_key_form(admin_client, make_account()), **values})

    assert complaint in response.content.decode()
    assert not ApiKey.objects.exists()


def test_a_closed_account_gets_no_key(admin_client: Client) -> None:
    form = new_key_form(admin_client, make_account(status="closed"))

    response = admin_client.post(ADD, form)

    assert "is closed: it can&#x27;t get new keys" in response.content.decode()
    assert not ApiKey.objects.exists()


def test_rotation_shows_the_new_secret_and_leaves_the_old_key_its_grace(admin_client: Client) -> None:
    key = make_key(make_account(), allowed_models=["small"])
    url = reverse("admin:llm_apikey_rotate", args=(key.pk,))
    form = {"grace": "3600", **seen_on(admin_client, url)}

    response = admin_client.post(url, form)

    (secret,) = set(SECRET.findall(response.content))
    successor = ApiKey.objects.get(rotated_from=key)
    key.refresh_from_db()
    assert successor.digest == digest_of(secret.decode())
    assert successor.allowed_models == ["small"]
    assert key.revoked_at is not None
    assert timedelta(minutes=59) < key.revoked_at - datetime.now(UTC) <= timedelta(hours=1)
    assert "no-store" in response["Cache-Control"]
    assert secret.decode() not in everything_stored()
    assert LogEntry.objects.count() == 2


def test_sending_a_rotation_again_rotates_once(admin_client: Client) -> None:
    key = make_key(make_account())
    url = reverse("admin:llm_apikey_rotate", args=(key.pk,))
    form = {"grace": "604800", **seen_on(admin_client, url)}
    admin_client.post(url, form)

    response = admin_client.post(url, form)

    assert response.status_code == 302
    assert ApiKey.objects.count() == 2


def test_a_dead_key_is_not_rotated(admin_client: Client) -> None:
    key = make_key(make_account())
    revoke_key(key)
    url = reverse("admin:llm_apikey_rotate", args=(key.pk,))

    response = send(admin_client, url, {"grace": "0"})

    assert response.status_code == 302
    assert "is revoked: create a new one instead." in messages_of(response)[0]
    assert ApiKey.objects.count() == 1


def test_revoking_asks_first_and_only_a_post_does_it(admin_client: Client) -> None:
    key = make_key(make_account())
    url = f"/admin/llm/apikey/{key.pk}/action/revoke/"

    question = admin_client.get(url)
    key.refresh_from_db()
    assert (question.status_code, key.revoked_at) == (200, None)

    send(admin_client, url)
    key.refresh_from_db()
    assert key.revoked_at is not None
    assert LogEntry.objects.get().change_message == "Revoked."


def test_keys_are_revoked_together_after_one_question(admin_client: Client) -> None:
    account = make_account()
    keys = [make_key(account, name) for name in ("a", "b", "c")]
    revoke_key(keys[2])
    form: dict[str, Any] = {"action": "revoke", "_selected_action": [key.pk for key in keys]}

    question = admin_client.post("/admin/llm/apikey/", form)
    assert question.status_code == 200
    assert ApiKey.objects.filter(revoked_at=None).count() == 2

    response = confirm(admin_client, "/admin/llm/apikey/", form)
    assert messages_of(response) == ["2 API keys revoked."]
    assert ApiKey.objects.filter(revoked_at=None).count() == 0
    assert LogEntry.objects.count() == 2


def test_only_name_expiry_and_models_can_be_edited(admin_client: Client) -> None:
    account, other = make_account(), make_account("Other")
    key = make_key(account)
    form = {"name": "renamed", "expires_at": "", "allowed_models": "small", "account": other.pk, "prefix": "x"}

    send(admin_client, f"/admin/llm/apikey/{key.pk}/change/", form)

    changed = ApiKey.objects.get()
    assert (changed.name, changed.allowed_models) == ("renamed", ["small"])
    assert (changed.account, changed.prefix, changed.digest) == (account, key.prefix, key.digest)


def test_a_revoked_key_keeps_its_expiry(admin_client: Client) -> None:
    key = make_key(make_account())
    revoke_key(key)

    send(admin_client, f"/admin/llm/apikey/{key.pk}/change/", {"name": "x", "expires_at": "2036-01-01T00:00"})

    changed = ApiKey.objects.get()
    assert (changed.name, changed.expires_at) == ("x", None)


def test_editing_does_not_undo_a_revocation_meanwhile(admin_client: Client) -> None:
    key = make_key(make_account())
    page = f"/admin/llm/apikey/{key.pk}/change/"
    seen = seen_on(admin_client, page)
    revoke_key(key)
    form = {**seen, "name": "renamed", "expires_at": "", "allowed_models": ""}

    answer = text_of(admin_client.post(page, form))

    assert "“Expires” changed after you opened this page." in answer
    assert 'value="renamed"' in answer
    changed = ApiKey.objects.get()
    assert changed.name == "production"
    assert changed.revoked_at is not None


def test_keys_are_never_deleted(admin_client: Client) -> None:
    key = make_key(make_account())

    response = admin_client.post(f"/admin/llm/apikey/{key.pk}/delete/", {"post": "yes"})

    assert response.status_code == 403
    assert ApiKey.objects.exists()


def test_a_searched_secret_is_reduced_before_anything_shows_it(admin_client: Client) -> None:
    key = make_key(make_account())
    secret = f"llm_{'a' * 38}"

    response = admin_client.get("/admin/llm/apikey/", {"q": secret})

    assert response.status_code == 302
    assert secret not in response["Location"]
    found = admin_client.get("/admin/llm/apikey/", {"q": key.masked})
    assert [row.pk for row in found.context["cl"].result_list] == [key.pk]


@pytest.mark.parametrize(
    ("permissions", "seen", "added", "revoked"),
    [((), 403, 403, 403), (("view_apikey",), 200, 403, 403), (("change_apikey",), 200, 403, 200)],
)
def test_permissions_hold_in_every_view(permissions: tuple[str, ...], seen: int, added: int, revoked: int) -> None:
    key = make_key(make_account())
    client = staff_with(*permissions)

    statuses = [
        client.get(url).status_code for url in ("/admin/llm/apikey/", ADD, f"/admin/llm/apikey/{key.pk}/action/revoke/")
    ]

    assert statuses == [seen, added, revoked]
    # A rotation makes a key, so it takes the right to add one too.
    assert client.get(reverse("admin:llm_apikey_rotate", args=(key.pk,))).status_code == 403


def test_the_list_takes_as_many_queries_for_50_keys_as_for_one(
    admin_client: Client, django_assert_max_num_queries: Any
) -> None:
    account = make_account()
    keys = [make_key(account, f"key {number}") for number in range(50)]
    save(*(usage_row(key) for key in keys))

    with django_assert_max_num_queries(6):
        response = admin_client.get("/admin/llm/apikey/")

    assert response.status_code == 200


def test_states_can_be_filtered(admin_client: Client) -> None:
    account, now = make_account(), datetime.now(UTC)
    make_key(account, "plain")
    make_key(account, "soon", expires_at=now + timedelta(days=3))
    revoke_key(make_key(account, "revoked"))
    ApiKey.objects.filter(pk=make_key(account, "expired").pk).update(expires_at=now - timedelta(days=1))

    found = {
        state: [key.name for key in admin_client.get("/admin/llm/apikey/", {"state": state}).context["cl"].result_list]
        for state in ("usable", "ending", "expired", "revoked")
    }

    assert found == {
        "usable": ["soon", "plain"],
        "ending": ["soon"],
        "expired": ["expired"],
        "revoked": ["revoked"],
    }
