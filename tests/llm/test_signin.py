"""How often a password may be tried, at each door."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
import time_machine
from django.contrib.auth import aauthenticate, authenticate
from django.contrib.auth.hashers import MD5PasswordHasher
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client import REGISTRY
from pytest_django import Settings
from structlog.testing import capture_logs

from llm import signin
from llm.models import SignInCount
from llm.signin import SignInRefused, prune_sign_in_counts, unlock
from llm.tasks import prune_sign_in_counts as prune_task

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

LOGIN = "/admin/login/"
PASSWORD = "a password of tests"
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture
def admin() -> User:
    return User.objects.create_superuser("admin", password=PASSWORD)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    monkeypatch.setattr(signin, "pause", taken.append)
    return taken


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passwords that were looked at, each of which costs a hash."""
    looked_at: list[str] = []
    encode = MD5PasswordHasher.encode

    def spy(self: MD5PasswordHasher, password: str, salt: str) -> str:
        looked_at.append(password)
        return encode(self, password, salt)

    monkeypatch.setattr(MD5PasswordHasher, "encode", spy)
    return looked_at


@pytest.fixture
def frozen() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


def attempt(name: str = "admin", password: str = "wrong", *, address: str = "192.0.2.1", **headers: str) -> Any:
    sent = {each.replace("_", "-"): value for each, value in headers.items()}
    return Client(REMOTE_ADDR=address).post(LOGIN, {"username": name, "password": password}, headers=sent)


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("llm_sign_ins_total", {"outcome": outcome}) or 0.0


def test_the_page_is_the_admins_own_and_offers_nothing_else() -> None:
    page = Client().get("/admin/", follow=True)

    assert page.redirect_chain == [("/admin/login/?next=/admin/", 302)]
    text = page.content.decode()
    assert 'name="username"' in text
    assert 'name="password"' in text
    for word in ("sign up", "signup", "reset", "forgot", "remember", "e-mail"):
        assert word not in text.lower(), word


def test_the_right_password_leads_to_the_page_that_was_asked_for(admin: User) -> None:
    answer = Client().post(f"{LOGIN}?next=/admin/llm/account/", {"username": "admin", "password": PASSWORD})
    assert (answer.status_code, answer["Location"]) == (302, "/admin/llm/account/")

    client = Client()
    assert client.post(LOGIN, {"username": "admin", "password": PASSWORD})["Location"] == "/admin/"
    assert client.get("/admin/").status_code == 200
    assert client.get(LOGIN)["Location"] == "/admin/"


@pytest.mark.parametrize(
    "next_url", ["//evil.example/", "https://evil.example/", "javascript:alert(1)", "/\\evil.example"]
)
def test_nobody_is_led_elsewhere(admin: User, next_url: str) -> None:
    answer = Client().post(LOGIN, {"username": "admin", "password": PASSWORD, "next": next_url})

    assert answer["Location"] == "/admin/"


def test_nobody_signs_in_who_isn_t_active_staff(admin: User) -> None:
    User.objects.create_user("outsider", password=PASSWORD)
    User.objects.create_user("former", password=PASSWORD, is_staff=True, is_active=False)

    for name in ("outsider", "former", "nobody", "admin"):
        answer = attempt(name, PASSWORD if name != "admin" else "wrong")
        assert answer.status_code == 200
        assert "Please enter the correct username and password for a staff account" in answer.content.decode()
        assert "sessionid" not in answer.cookies


def test_who_is_signed_in_but_isn_t_staff_is_not_sent_round_in_circles() -> None:
    client = Client()
    client.force_login(User.objects.create_user("outsider"))

    assert client.get("/admin/", follow=True).status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/accounts/",
        "/accounts/login/",
        "/accounts/signup/",
        "/accounts/password/reset/",
        "/admin/account/emailaddress/",
    ],
)
def test_no_other_page_of_the_library_is_served(admin_client: Client, path: str) -> None:
    assert admin_client.get(path).status_code == 404


def test_after_five_wrong_passwords_an_address_is_refused_the_account(
    admin: User, hashed: list[str], frozen: time_machine.Traveller
) -> None:
    before = {outcome: counted(outcome) for outcome in ("ok", "failed", "refused")}
    assert [attempt().status_code for _ in range(5)] == [200] * 5
    frozen.shift(timedelta(seconds=60.5))
    hashed.clear()

    with CaptureQueriesContext(connection) as queries:
        refused = attempt()

    assert (refused.status_code, refused["Retry-After"]) == (429, "840")
    assert "Try again in 14 minutes, at 12:15 UTC." in refused.content.decode()
    assert attempt(password=PASSWORD).status_code == 429
    assert hashed == []
    assert not [query["sql"] for query in queries if not query["sql"].startswith("SELECT")]
    assert attempt(password=PASSWORD, address="192.0.2.2").status_code == 302
    assert {outcome: counted(outcome) - before[outcome] for outcome in before} == {"ok": 1, "failed": 5, "refused": 2}

    frozen.shift(timedelta(minutes=14))
    assert attempt(password=PASSWORD).status_code == 302


def test_25_guesses_in_a_row_get_five_looked_at(admin: User, hashed: list[str]) -> None:
    statuses = [attempt(password=f"guess {number}").status_code for number in range(25)]

    assert statuses == [200] * 5 + [429] * 20
    assert len(hashed) == 5


def test_an_address_that_tries_many_accounts_is_refused_them_all(admin: User, hashed: list[str]) -> None:
    assert [attempt(f"user{number}").status_code for number in range(20)] == [200] * 20
    hashed.clear()

    assert attempt("admin", PASSWORD).status_code == 429
    assert hashed == []
    assert attempt("admin", PASSWORD, address="192.0.2.2").status_code == 302


def test_a_stranger_only_slows_an_account_down(admin: User, pauses: list[float]) -> None:
    for number in range(100):
        assert attempt(address=f"198.51.100.{number // 2}").status_code == 200
    assert pauses == [1.0] * 20 + [2.0] * 70

    answer = attempt(password=PASSWORD)

    assert answer.status_code == 302
    assert pauses[-1] == 4.0


def test_delays_are_bounded_and_end_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(signin, "monotonic", lambda: now)
    assert all(signin._delays.begin(4) for _ in range(signin.MAX_SLOWED))
    assert not signin._delays.begin(4)
    now += 4
    assert signin._delays.begin(4)


def test_who_finds_too_many_delayed_is_told_to_come_back(admin: User, frozen: time_machine.Traveller) -> None:
    for number in range(10):
        attempt(address=f"198.51.100.{number}")
    assert all(signin._delays.begin(4) for _ in range(signin.MAX_SLOWED))

    answer = attempt(password=PASSWORD)
    signin.forget_sign_ins()

    assert (answer.status_code, answer["Retry-After"]) == (429, "5")
    assert attempt(password=PASSWORD).status_code == 302


def test_signing_in_clears_the_pair_and_no_other_count(admin: User) -> None:
    for _ in range(4):
        attempt()
    attempt("other")

    assert attempt(password=PASSWORD).status_code == 302

    counts = {
        (bool(each.account), bool(each.address)): each.attempts
        for each in SignInCount.objects.exclude(account=signin._digest("other"))
    }
    # The guesses of this address still count against it: an own account is no way round.
    assert counts == {(False, True): 5, (True, False): 4}
    assert [attempt().status_code for _ in range(6)] == [200] * 5 + [429]


def test_an_unknown_account_answers_and_costs_as_a_known_one(admin: User, hashed: list[str]) -> None:
    answers = {}
    for name in ("admin", "nobody"):
        hashed.clear()
        with CaptureQueriesContext(connection) as queries:
            statuses = [attempt(name, address=f"192.0.2.{len(name)}").status_code for _ in range(7)]
        answers[name] = (statuses, len(hashed), len(queries))

    assert answers["admin"] == answers["nobody"]
    assert answers["admin"][:2] == ([200] * 5 + [429] * 2, 5)


def test_names_that_people_can_t_tell_apart_are_one(admin: User) -> None:
    names = ("admin", "Admin", " admin", "ADMIN", "\uff41dmin")
    assert [attempt(name).status_code for name in names] == [200] * 5

    assert attempt("admin").status_code == 429


def test_a_site_with_many_ipv6_addresses_is_one(admin: User) -> None:
    assert [attempt(address=f"2001:db8:0:1::{number}").status_code for number in range(5)] == [200] * 5

    assert attempt(address="2001:db8:0:1:ffff::1").status_code == 429
    assert attempt(address="2001:db8:0:2::1").status_code == 200


def test_a_forwarded_address_counts_behind_a_trusted_proxy_alone(admin: User, settings: Settings) -> None:
    statuses = [attempt(x_forwarded_for=f"198.51.100.{number}").status_code for number in range(6)]
    assert statuses == [200] * 5 + [429]

    settings.TRUSTED_PROXIES = [ipaddress.ip_network("192.0.2.0/24")]
    statuses = [attempt(x_forwarded_for=f"9.9.9.{number}, 198.51.100.9").status_code for number in range(6)]
    assert statuses == [200] * 5 + [429]
    assert attempt(x_forwarded_for="198.51.100.10").status_code == 200


def test_no_password_or_name_is_kept(admin: User) -> None:
    attempt("hunter2 typed as a name", "hunter2")

    kept = str(list(SignInCount.objects.values()))

    assert "hunter2" not in kept
    assert SignInCount.objects.count() == 3


def test_counts_are_counters_of_a_bounded_number(admin: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signin, "MAX_COUNTS", 200)
    for _ in range(5):
        attempt()
    assert SignInCount.objects.count() == 3

    later = timezone.now() + timedelta(minutes=5)
    SignInCount.objects.bulk_create(
        SignInCount(account="", address=f"10.0.{number // 250}.{number % 250}", attempts=1, window_ends_at=later)
        for number in range(300)
    )
    attempt("another", address="192.0.2.77")

    assert SignInCount.objects.count() <= 203


def test_counts_of_windows_that_are_over_are_pruned(admin: User, frozen: time_machine.Traveller) -> None:
    attempt()
    assert prune_sign_in_counts() == 0

    frozen.shift(signin.WINDOW)
    attempt("another", address="192.0.2.2")
    prune_task()

    assert SignInCount.objects.count() == 3


@pytest.mark.parametrize(
    ("options", "open_again"),
    [
        (["--address", "192.0.2.1"], ["192.0.2.1"]),
        (["--user", "ADMIN"], ["192.0.2.1", "192.0.2.2"]),
        ([], ["192.0.2.1", "192.0.2.2"]),
        (["--address", "192.0.2.9", "--user", "nobody"], []),
    ],
)
def test_unlock(admin: User, options: list[str], open_again: list[str]) -> None:
    addresses = ["192.0.2.1", "192.0.2.2"]
    for address in addresses:
        assert [attempt(address=address).status_code for _ in range(6)][-1] == 429

    out = StringIO()
    call_command("unlock", *options, stdout=out)

    assert out.getvalue().startswith("Cleared counters of failed attempts: ")
    assert [
        address for address in addresses if attempt(password=PASSWORD, address=address).status_code == 302
    ] == open_again


def test_unlock_refuses_what_is_no_address(admin: User) -> None:
    attempt()

    with pytest.raises(CommandError, match="“admin” is not an IP address"):
        call_command("unlock", "--address", "admin")
    assert SignInCount.objects.count() == 3


def test_unlock_takes_an_ipv6_address_for_its_site(admin: User) -> None:
    for _ in range(5):
        attempt(address="2001:db8:0:1::7")

    assert unlock(address="2001:db8:0:1::9") == 2
    assert attempt(password=PASSWORD, address="2001:db8:0:1::7").status_code == 302


def test_a_stolen_session_is_no_way_to_guess_the_password(admin: User, hashed: list[str]) -> None:
    client = Client(REMOTE_ADDR="192.0.2.1")
    client.force_login(admin)
    new = {"new_password1": "another password of tests", "new_password2": "another password of tests"}

    def change(old: str) -> Any:
        return client.post("/admin/password_change/", {"old_password": old, **new})

    assert [change("wrong").status_code for _ in range(5)] == [200] * 5
    hashed.clear()
    assert change(PASSWORD).status_code == 429
    assert hashed == []
    assert attempt(password=PASSWORD).status_code == 429

    unlock(user="admin")
    assert change(PASSWORD)["Location"] == "/admin/password_change/done/"
    assert User.objects.get().check_password("another password of tests")


def test_every_way_to_authenticate_is_counted(admin: User) -> None:
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.1")

    for _ in range(5):
        assert authenticate(request, username="admin", password="wrong") is None

    with pytest.raises(SignInRefused):
        authenticate(request, username="admin", password=PASSWORD)
    # A command has nobody to count.
    assert authenticate(None, username="admin", password=PASSWORD) == admin


@pytest.mark.django_db(transaction=True)
async def test_the_asynchronous_way_is_counted_too() -> None:
    await User.objects.acreate(username="admin", is_staff=True)
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.1")

    for _ in range(5):
        assert await aauthenticate(request, username="admin", password="wrong") is None

    with pytest.raises(SignInRefused):
        await aauthenticate(request, username="admin", password="wrong")


@pytest.mark.parametrize("path", ["/api/v1/accounts/", "/admin/llm/account/"])
def test_basic_credentials_are_no_door(admin: User, hashed: list[str], path: str) -> None:
    import base64

    basic = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()

    answer = Client().get(path, headers={"authorization": f"Basic {basic}"})

    assert answer.status_code in (302, 401)
    assert hashed == []


def test_no_page_of_an_api_signs_anybody_in(admin: User, hashed: list[str]) -> None:
    for path in (
        "/api-auth/login/",
        "/api/v1/login/",
        "/api/v1/auth/login/",
        "/docs/login/",
        "/api/v1/api-token-auth/",
    ):
        answer = Client().post(path, {"username": "admin", "password": PASSWORD})
        assert answer.status_code in (404, 405), path
    assert hashed == []


def test_addresses_without_end_fill_no_log(admin: User) -> None:
    with capture_logs() as lines:
        for number in range(10):
            for _ in range(5):
                attempt(f"user{number}", address=f"2001:db8:0:{number:x}::1")
    assert [(line["event"], line["log_level"], line["left_out"]) for line in lines] == [
        ("signin.blocked", "warning", 0)
    ]


def test_no_guess_is_an_error_in_the_log(admin: User, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(30):
        attempt(f"user{number % 3}")

    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("odd", ["", "\0", "x" * 151, "a" * 100_000, "😀", "' OR 1=1 --"])
def test_odd_names_are_refused_and_nothing_more(admin: User, odd: str) -> None:
    assert attempt(odd).status_code == 200
    assert attempt("admin", odd or "\0").status_code == 200


def test_settings_that_are_no_addresses_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmproject.env import EnvReader

    monkeypatch.setenv("TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8, fd00::/8")
    read = EnvReader()
    assert [str(network) for network in read.networks("TRUSTED_PROXIES")] == ["127.0.0.1/32", "10.0.0.0/8", "fd00::/8"]

    monkeypatch.setenv("TRUSTED_PROXIES", "proxy.example.com")
    assert read.networks("TRUSTED_PROXIES") == []
    (problem,) = read.problems
    assert problem.startswith("TRUSTED_PROXIES must be a list of addresses and networks, such as 127.0.0.1,10.0.0.0/8")
