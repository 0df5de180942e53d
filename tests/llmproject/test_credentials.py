"""What a request has proven before anybody asks the database: whose place it takes at the gate."""

from __future__ import annotations

import asyncio
import ipaddress

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings
from rest_framework.authtoken.models import Token

from billing.models import PlainTokenGrace
from billing.staff.plain_tokens import forget_plain_tokens
from billing.staff.tokens import create_token, revoke_token
from llm.calls.runtime import close_runtime, runtime
from llm.keys import create_key, get_or_create_account, revoke_key
from llm.models import ApiKey
from llmproject import proofs, sessions
from llmproject.credentials import identify_claimant, is_plausible
from llmproject.places import Claimant, Standing
from tests.faults.test_connections import made_up_key
from tests.llmproject.test_pagegate import scope_of
from tests.threads import to_thread

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("own_runtime")]

STRANGER = Claimant(Standing.STRANGER, "192.0.2.1")
CALLS = "/api/v1/calls/"


@pytest.fixture
def staff(transactional_db: None) -> User:
    return User.objects.create_user("ada", is_staff=True, is_superuser=True)


def ask(path: str, *, session: str = "", bearer: str = "") -> int:
    """As Django would serve it, once the gate has let it in."""
    client = Client(headers={"authorization": f"Bearer {bearer}"} if bearer else {})
    if session:
        client.cookies["sessionid"] = session
    return client.get(path).status_code


def signed_in(user: User) -> str:
    client = Client()
    client.force_login(user)
    return client.cookies["sessionid"].value


@pytest.mark.parametrize(
    "credentials",
    [
        {},
        {"session": "0" * 32},
        {"session": "a" * 40},
        {"bearer": "0" * 40},
        {"bearer": made_up_key(1)},
        {"bearer": "llmt_" + "a" * 48},
        {"session": "\xff", "bearer": "\xff"},
    ],
    ids=str,
)
async def test_what_anybody_can_make_up_is_a_strangers(credentials: dict[str, str]) -> None:
    assert identify_claimant(scope_of(**credentials)) == STRANGER


async def test_a_session_of_ours_counts_until_it_has_ended() -> None:
    key = sessions._new_key()
    assert identify_claimant(scope_of(session=key)) == Claimant(Standing.STAFF, key)
    assert identify_claimant(scope_of(session=key[:-1] + ("a" if key[-1] != "a" else "b"))) == STRANGER
    assert await to_thread(ask, "/admin/", session=key) == 302
    assert identify_claimant(scope_of(session=key)) == STRANGER


def claimant_in_loop(**credentials: str) -> Claimant:
    async def claim() -> Claimant:
        try:
            return identify_claimant(scope_of(**credentials))
        finally:
            await close_runtime()

    return asyncio.run(claim())


@pytest.mark.parametrize("end", ["signs out", "no staff", "not active"])
def test_who_is_no_longer_staff_is_a_stranger_from_the_next_request_on(staff: User, end: str) -> None:
    session = signed_in(staff)
    assert ask("/admin/", session=session) == 200
    assert claimant_in_loop(session=session).standing is Standing.STAFF
    if end == "signs out":
        client = Client()
        client.cookies["sessionid"] = session
        client.post("/admin/logout/")
    else:
        User.objects.update(**{"is_staff" if end == "no staff" else "is_active": False})
        ask(CALLS, session=session)
    assert claimant_in_loop(session=session) == STRANGER


def test_a_staff_token_counts_until_it_is_revoked(staff: User) -> None:
    token, text = create_token(staff, name="tests")
    expected = Claimant(Standing.STAFF, text)
    assert claimant_in_loop(bearer=text) == expected
    assert ask(CALLS, bearer=text) == 200
    assert claimant_in_loop(bearer=text) == expected
    revoke_token(token)
    assert ask(CALLS, bearer=text) == 401
    assert claimant_in_loop(bearer=text) == STRANGER


def test_a_plain_token_counts_once_it_was_seen(staff: User) -> None:
    text = Token.objects.create(user=staff).key
    PlainTokenGrace.objects.all().delete()
    PlainTokenGrace.objects.create(recorded_at=timezone.now())
    forget_plain_tokens()
    assert claimant_in_loop(bearer=text) == STRANGER
    assert ask(CALLS, bearer=text) == 200
    assert claimant_in_loop(bearer=text) == Claimant(Standing.STAFF, text)
    Token.objects.all().delete()
    assert ask(CALLS, bearer=text) == 401
    assert claimant_in_loop(bearer=text) == STRANGER


def test_a_key_never_counts_as_staff_and_counts_at_all_once_it_was_seen(api_key: str) -> None:
    assert claimant_in_loop(bearer=api_key) == STRANGER
    assert ask(CALLS, bearer=api_key) == 200
    assert claimant_in_loop(bearer=api_key) == Claimant(Standing.KEY, api_key)
    revoke_key(ApiKey.objects.get())
    assert ask(CALLS, bearer=api_key) == 401
    assert claimant_in_loop(bearer=api_key) == STRANGER


async def test_a_key_that_makes_calls_is_known() -> None:
    _, secret = await to_thread(lambda: create_key(get_or_create_account("acme"), name="calls"))
    await runtime().caller(secret, must_be_fresh=False)
    assert identify_claimant(scope_of(bearer=secret)) == Claimant(Standing.KEY, secret)


async def test_strangers_are_told_apart_by_address(settings: Settings) -> None:
    def name(address: str, forwarded: str = "") -> str:
        scope = scope_of(address=address)
        scope["headers"].append((b"x-forwarded-for", forwarded.encode()))
        return identify_claimant(scope).name

    assert name("192.0.2.1", "198.51.100.1") == "192.0.2.1"
    assert name("2001:db8:0:1::7") == name("2001:db8:0:1::9") == "2001:db8:0:1::/64"
    settings.TRUSTED_PROXIES = [ipaddress.ip_network("192.0.2.0/24")]
    assert name("192.0.2.1", "203.0.113.9, 198.51.100.1") == "198.51.100.1"


def test_a_staff_token_may_ask_the_database_for_a_larger_body(staff: User) -> None:
    assert is_plausible(scope_of(bearer=create_token(staff, name="tests")[1]))
    assert not is_plausible(scope_of(bearer="llmt_" + "a" * 48))


def test_proofs_are_bounded_and_what_is_noted_last_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "MAX_PROOFS", 3)
    for name in ("a", "b", "c", "a", "d"):
        proofs.note_proof(name, is_in_force=True)
    assert [proofs.proof_of(name) for name in "abcd"] == [True, None, True, True]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "/admin/login/"),
        ("post", "/admin/login/"),
        ("post", "/admin/logout/"),
        ("get", "/admin/password_change/"),
        ("get", "/admin/jsi18n/"),
        ("get", "/admin/r/1/1/"),
        ("get", "/docs/"),
        ("get", "/api/v1/schema/"),
        ("get", "/api/v1/calls/"),
        ("get", "/"),
    ],
)
def test_a_stranger_gets_no_session(method: str, path: str) -> None:
    """Or strangers could have as many as they like, and count as staff."""
    client = Client(raise_request_exception=False)
    reply = getattr(client, method)(path, {"username": "admin", "password": "wrong", "next": "/admin/"})
    assert "sessionid" not in reply.cookies
