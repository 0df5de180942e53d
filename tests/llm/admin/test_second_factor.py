"""The second factor: setting it up, signing in with it, who must have one, and what happens to a lost one."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
import time_machine
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from llm.models import AuditEntry, SecondFactorGroup
from llm.secretstore import MARK
from llm.signin import MAX_CODES_OF_ACCOUNT, unlock
from tests.pages import form_on, text_of

pytestmark = pytest.mark.django_db
PASSWORD = "a password of tests"
PAGES = "/admin/second-factor/"
INDEX = "/admin/"


@pytest.fixture
def ada() -> User:
    return User.objects.create_superuser("ada", password=PASSWORD)


def sign_in(name: str = "ada", *, client: Client | None = None, address: str = "192.0.2.1") -> Client:
    client = client or Client(REMOTE_ADDR=address)
    client.post("/admin/login/", {"username": name, "password": PASSWORD})
    return client


def code_for(secret: str) -> str:
    return str(format_hotp_value(hotp_value(secret, next(iter(yield_hotp_counters_from_time())))))


def add_app(client: Client) -> str:
    """The secret of the new app."""
    page = client.get(f"{PAGES}app/add/").content.decode()
    found = re.search(r'class="gw-key">(\w+)<', page)
    assert found is not None
    answer = client.post(f"{PAGES}app/add/", {"code": code_for(found[1])})
    assert answer.status_code == 302
    return found[1]


def is_in(client: Client) -> bool:
    return client.get(INDEX).status_code == 200


def send_code(client: Client, code: str) -> Any:
    return client.post(f"{PAGES}authenticate/", {"code": code})


def test_after_the_password_the_app_is_asked_for(ada: User) -> None:
    with time_machine.travel("2026-11-30T12:00:00Z", tick=False) as moment:
        secret = add_app(sign_in())
        moment.shift(60)
        client = sign_in()
        assert not is_in(client)
        assert "wrong or has expired" in text_of(send_code(client, "000000"))
        assert not is_in(client)

        assert send_code(client, code_for(secret)).status_code == 302
        assert is_in(client)


def test_a_code_works_once_in_all_processes(ada: User) -> None:
    with time_machine.travel("2026-11-30T12:00:00Z", tick=False) as moment:
        secret = add_app(sign_in())
        moment.shift(60)
        code = code_for(secret)
        assert send_code(sign_in(), code).status_code == 302

        other = sign_in()
        send_code(other, code)
        assert not is_in(other)


def test_a_recovery_code_works_once(ada: User) -> None:
    first = sign_in()
    add_app(first)
    shown = re.findall(r"\b\d{8}\b", first.get(f"{PAGES}recovery-codes/").content.decode())
    assert len(shown) == 10
    assert not re.findall(r"\b\d{8}\b", first.get(f"{PAGES}recovery-codes/").content.decode())

    assert send_code(sign_in(), shown[0]).status_code == 302
    again = sign_in()
    send_code(again, shown[0])
    assert not is_in(again)


def test_codes_are_counted_like_passwords_and_then_for_the_account(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm.signin.pause", lambda seconds: None)
    add_app(sign_in())
    client = sign_in()
    statuses = [send_code(client, "000000").status_code for _ in range(6)]
    assert statuses == [200] * 5 + [429]

    refused = 0
    for number in range(MAX_CODES_OF_ACCOUNT):
        other = sign_in(address=f"198.51.100.{number}")
        refused += send_code(other, "000000").status_code == 429
    assert refused == 5

    unlock(user="ada")
    assert send_code(sign_in(address="198.51.100.200"), "000000").status_code == 200


def test_the_password_alone_opens_no_page(ada: User) -> None:
    add_app(sign_in())
    client = sign_in()

    for url in (INDEX, "/admin/llm/account/", "/api/v1/accounts/", f"{PAGES}app/remove/", f"{PAGES}recovery-codes/"):
        assert client.get(url).status_code in {302, 401, 403}


def test_secrets_are_encrypted_and_in_no_log(ada: User) -> None:
    secret = add_app(sign_in())

    stored = {each.type: each.data for each in Authenticator.objects.all()}
    assert stored["totp"]["secret"].startswith(MARK)
    assert stored["recovery_codes"]["seed"].startswith(MARK)
    assert secret not in json.dumps([[each.before, each.after] for each in AuditEntry.objects.all()])
    assert AuditEntry.objects.filter(table_name="mfa_authenticator", action="created", actor="ada").count() == 2


def test_a_later_change_asks_for_the_password_again(ada: User) -> None:
    with time_machine.travel("2026-11-30T12:00:00Z", tick=False) as moment:
        client = sign_in()
        moment.shift(1200)
        assert client.get(f"{PAGES}app/add/").status_code == 302
        confirm = client.get(f"{PAGES}app/add/")["Location"]
        assert confirm.startswith(f"{PAGES}confirm/")
        assert client.post(confirm, {"password": "wrong"}).status_code == 200
        assert client.get(f"{PAGES}app/add/").status_code == 302
        client.post(confirm, {"password": PASSWORD})
        assert client.get(f"{PAGES}app/add/").status_code == 200


@pytest.mark.parametrize("credential", ["", "1", "[]", "{}", '{"id": 1}', '{"response": {}}', "not json", '"\\u0000"'])
def test_what_no_passkey_has_sent_is_refused(ada: User, credential: str) -> None:
    client = sign_in()
    assert client.get(f"{PAGES}passkeys/add/").status_code == 200
    assert client.post(f"{PAGES}passkeys/add/", {"name": "x", "credential": credential}).status_code == 200
    add_app(client)

    other = sign_in()
    assert other.get(f"{PAGES}authenticate/").status_code == 200
    assert other.post(f"{PAGES}authenticate/", {"credential": credential}).status_code == 200
    assert not is_in(other)
    assert not Authenticator.objects.filter(type="webauthn").exists()


@pytest.mark.parametrize(
    "path", ["trust/", "reauthenticate/", "passkeys/login/", "recovery-codes/download/", "signup/"]
)
def test_no_other_page_of_the_library_is_served(admin_client: Client, path: str) -> None:
    assert admin_client.get(PAGES + path).status_code == 404


# --- Who must have one ------------------------------------------------------------------------------------------------


@pytest.fixture
def kim() -> User:
    """Staff, in a group that asks for a second factor from now on."""
    user = User.objects.create_user("kim", password=PASSWORD, is_staff=True)
    User.objects.filter(pk=user.pk).update(date_joined=timezone.now() - timedelta(days=1))
    group = Group.objects.get(name="Auditors")
    user.groups.add(group)
    SecondFactorGroup.objects.create(group=group)
    return user


def test_a_new_user_of_such_a_group_sets_one_up_first(kim: User) -> None:
    User.objects.filter(pk=kim.pk).update(date_joined=timezone.now() + timedelta(seconds=1))
    client = sign_in("kim")

    assert client.get(INDEX)["Location"] == PAGES
    assert client.get("/api/v1/accounts/").status_code == 403
    add_app(client)
    assert is_in(client)


def test_one_who_was_there_before_has_grace(kim: User) -> None:
    with time_machine.travel(timezone.now(), tick=False) as moment:
        client = sign_in("kim")
        assert "Your group needs a second factor from" in text_of(client.get(INDEX))
        moment.shift(timedelta(days=14, seconds=1))
        later = sign_in("kim")
        assert later.get(INDEX)["Location"] == PAGES


def test_other_groups_ask_for_none(kim: User, ada: User) -> None:
    assert is_in(sign_in("ada"))


def test_a_superuser_sets_it_on_the_group(admin_client: Client) -> None:
    group = Group.objects.get(name="Auditors")
    url = f"/admin/auth/group/{group.pk}/change/"
    form = form_on(admin_client, url)
    admin_client.post(url, {**form, "second_factor": "on"})
    assert SecondFactorGroup.objects.filter(group=group).exists()

    form = form_on(admin_client, url)
    assert form["second_factor"] == "on"
    del form["second_factor"]
    admin_client.post(url, form)
    assert not SecondFactorGroup.objects.filter(group=group).exists()
    actions = AuditEntry.objects.filter(table_name="llm_secondfactorgroup").order_by("id")
    assert [each.action for each in actions] == ["created", "deleted"]


# --- Lost -------------------------------------------------------------------------------------------------------------


def test_another_superuser_resets_it(ada: User, admin_client: Client) -> None:
    add_app(sign_in())
    url = f"/admin/auth/user/{ada.pk}/second-factor/"
    assert admin_client.get(url).status_code == 200
    assert Authenticator.objects.filter(user=ada).exists()

    assert admin_client.post(url).status_code == 302
    assert not Authenticator.objects.filter(user=ada).exists()
    assert is_in(sign_in())


def test_nobody_else_does(ada: User) -> None:
    own = sign_in()
    add_app(own)
    url = f"/admin/auth/user/{ada.pk}/second-factor/"
    kim = Client()
    kim.force_login(User.objects.create_user("kim", is_staff=True))

    assert [client.post(url).status_code for client in (own, kim)] == [403, 403]
    assert Authenticator.objects.filter(user=ada).exists()


def test_the_command_resets_it(ada: User) -> None:
    add_app(sign_in())
    output = StringIO()
    call_command("reset_second_factor", "ada", stdout=output)

    assert "can set up a new second factor" in output.getvalue()
    assert is_in(sign_in())
    with pytest.raises(CommandError, match="has no second factor"):
        call_command("reset_second_factor", "ada")
    with pytest.raises(CommandError, match="no user"):
        call_command("reset_second_factor", "abel")


# --- Sessions ---------------------------------------------------------------------------------------------------------


def test_a_session_ends_without_requests_and_after_its_time(ada: User) -> None:
    with time_machine.travel("2026-11-30T00:00:00Z", tick=False) as moment:
        client, busy = sign_in(), sign_in()
        for _ in range(7):
            moment.shift(timedelta(minutes=100))
            assert is_in(busy)
        assert not is_in(client)
        moment.shift(timedelta(minutes=30))
        assert not is_in(busy)


def test_a_session_from_before_there_were_limits_ends(ada: User) -> None:
    client = sign_in()
    session = client.session
    del session["signed_in_at"]
    session.save()

    assert not is_in(client)


def test_a_new_password_ends_sessions_and_tokens(ada: User, admin_client: Client) -> None:
    from billing.staff.tokens import TokenRefused, create_token, load_token

    _, text = create_token(ada, name="script")
    client = sign_in()
    assert is_in(client)
    ada.set_password("another password of tests")
    ada.save()

    assert not is_in(client)
    with pytest.raises(TokenRefused, match="revoked"):
        load_token(text)


def test_signing_in_ends_no_token(ada: User) -> None:
    from billing.staff.tokens import create_token, load_token

    _, text = create_token(ada, name="script")
    sign_in()

    assert load_token(text).user == ada
