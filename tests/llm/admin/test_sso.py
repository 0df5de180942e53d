"""Sign-in by OpenID Connect, against a real provider in a thread."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from oidc_provider_mock import run_server_in_thread

from billing.staff.tokens import create_token, load_token
from llm.models import AuditEntry
from llm.secretstore import seal, unseal
from tests.pages import text_of

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.xdist_group("oidc"),
    # The provider's own code, in a thread of this process.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
LOGIN = "/admin/sso/sso/login/"
INDEX = "/admin/"


@dataclass(frozen=True, slots=True)
class Provider:
    url: str

    def put(self, subject: str = "42", **claims: Any) -> None:
        claims = {"preferred_username": "ada", "email": "ada@example.com", "groups": ["finance"], **claims}
        httpx2.put(f"{self.url}/users/{subject}", json=claims).raise_for_status()

    def revoke(self, subject: str = "42") -> None:
        httpx2.post(f"{self.url}/users/{subject}/revoke-tokens").raise_for_status()

    def sign_in(self, subject: str = "42", *, client: Client | None = None) -> tuple[Client, Any]:
        """As a browser: to the provider, there as that person, and back."""
        client = client or Client()
        away = client.get(LOGIN)
        assert away.status_code == 302, text_of(away)
        back = httpx2.post(away["Location"], data={"sub": subject}, follow_redirects=False)
        assert back.status_code == 302, back.text
        return client, client.get(back.headers["location"].replace("http://testserver", ""))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with run_server_in_thread() as running:
        yield f"http://localhost:{running.server_port}"


@pytest.fixture
def provider(server: str, settings: Any) -> Provider:
    configure(settings, server)
    provider = Provider(server)
    provider.put()
    return provider


def configure(settings: Any, issuer: str) -> None:
    settings.LLM_OIDC_ISSUER = issuer
    settings.LLM_OIDC_CLIENT_ID = "gateway"
    settings.LLM_OIDC_CLIENT_SECRET = "secret"
    settings.LLM_OIDC_GROUPS = {"finance": "Billing preparers", "audit": "Auditors"}
    app = {"provider_id": "sso", "name": "Example", "client_id": "gateway", "secret": "secret"}
    app_settings = {"server_url": issuer, "oauth_pkce_enabled": True}
    settings.SOCIALACCOUNT_PROVIDERS = {"openid_connect": {"APPS": [{**app, "settings": app_settings}]}}


def groups_of(name: str) -> set[str]:
    return set(User.objects.get(username=name).groups.values_list("name", flat=True))


def is_in(client: Client) -> bool:
    return client.get(INDEX).status_code == 200


def test_staff_of_a_mapped_group_sign_in_and_get_its_rights(provider: Provider) -> None:
    client, answer = provider.sign_in()

    assert answer.status_code == 302
    assert answer["Location"] == INDEX
    assert is_in(client)
    user = User.objects.get(username="ada")
    assert (user.is_staff, user.is_superuser, user.has_usable_password()) == (True, False, False)
    assert groups_of("ada") == {"Billing preparers"}
    assert AuditEntry.objects.filter(action="signed_in", actor="ada").count() == 1


def test_the_sign_in_page_leads_there_only_where_it_is_configured(provider: Provider, settings: Any) -> None:
    assert LOGIN in text_of(Client().get("/admin/login/"))
    settings.LLM_OIDC_ISSUER = ""
    settings.SOCIALACCOUNT_PROVIDERS = {}
    assert LOGIN not in text_of(Client().get("/admin/login/"))
    assert Client().get(LOGIN).status_code == 404


def test_the_second_time_it_is_the_same_user_with_the_groups_of_now(provider: Provider) -> None:
    provider.sign_in()
    user = User.objects.get(username="ada")
    user.groups.add(Group.objects.get(name="Key managers"))
    provider.put(groups=["audit", "unknown"])
    provider.sign_in()

    assert User.objects.count() == 1
    assert groups_of("ada") == {"Auditors", "Key managers"}


@pytest.mark.parametrize("groups", [[], ["unknown"], None, 7, {"finance": 1}, [["finance"]], "unknown"])
def test_no_one_else_gets_in(provider: Provider, groups: Any) -> None:
    provider.put(groups=groups)
    client, answer = provider.sign_in()

    assert answer.status_code == 403
    assert "None of your groups" in text_of(answer)
    assert not is_in(client)
    assert not User.objects.exists()
    assert AuditEntry.objects.filter(action="sign_in_failed").count() == 1


def test_a_local_user_is_not_taken_over_by_a_name(provider: Provider) -> None:
    User.objects.create_superuser("ada", password="a password of tests")
    client, answer = provider.sign_in()

    assert answer.status_code == 403
    assert "There is a local user “ada” already" in text_of(answer)
    assert not is_in(client)


def test_a_deactivated_user_stays_out(provider: Provider) -> None:
    provider.sign_in()
    User.objects.update(is_active=False)
    client, answer = provider.sign_in()

    assert answer.status_code == 403
    assert not is_in(client)


# --- A group that is taken away ---------------------------------------------------------------------------------------


def test_a_session_ends_within_minutes_of_a_removed_group(provider: Provider) -> None:
    client, _ = provider.sign_in()
    _, text = create_token(User.objects.get(username="ada"), name="script")
    provider.put(groups=[])
    assert is_in(client)

    age(client, minutes=6)
    assert not is_in(client)

    user = User.objects.get(username="ada")
    assert (user.is_staff, groups_of("ada")) == (False, set())
    assert not load_token(text).user.is_staff
    assert Client(headers={"authorization": f"Bearer {text}"}).get("/api/v1/accounts/").status_code == 403


def age(client: Client, *, minutes: float) -> None:
    """As if the provider was last asked so long ago."""
    session = client.session
    session["sso"] = {**session["sso"], "checked_at": session["sso"]["checked_at"] - minutes * 60}
    session.save()


def test_a_member_stays_in_and_gets_other_groups(provider: Provider) -> None:
    client, _ = provider.sign_in()
    provider.put(groups=["audit"])
    age(client, minutes=6)

    assert is_in(client)
    assert groups_of("ada") == {"Auditors"}
    assert client.session["sso"]["checked_at"] > 0


def test_a_session_whose_tokens_are_revoked_ends(provider: Provider) -> None:
    client, _ = provider.sign_in()
    provider.revoke()
    age(client, minutes=6)

    assert not is_in(client)


def test_an_expired_token_is_refreshed(provider: Provider) -> None:
    client, _ = provider.sign_in()
    session = client.session
    tokens = json.loads(unseal(session["sso"]["tokens"]))
    session["sso"] = {**session["sso"], "tokens": seal(json.dumps({**tokens, "access": "expired"}))}
    session.save()
    age(client, minutes=6)

    assert is_in(client)
    assert json.loads(unseal(client.session["sso"]["tokens"]))["access"] not in {"expired", tokens["access"]}


# --- The provider is down ---------------------------------------------------------------------------------------------


def test_while_it_is_down_a_session_lasts_a_little_and_a_local_user_gets_in(provider: Provider, settings: Any) -> None:
    User.objects.create_superuser("root", password="a password of tests")
    client, _ = provider.sign_in()
    configure(settings, "http://127.0.0.1:9")
    age(client, minutes=6)
    assert is_in(client)
    age(client, minutes=10)
    assert not is_in(client)

    answer = Client().get(LOGIN)
    assert answer.status_code == 502
    assert "sign in with the password of a local user" in text_of(answer)
    local = Client()
    local.post("/admin/login/", {"username": "root", "password": "a password of tests"})
    assert is_in(local)


@pytest.mark.parametrize("query", ["", "?code=1", "?code=1&state=x", "?error=access_denied", "?state=%00&code=%00"])
def test_odd_answers_sign_no_one_in(provider: Provider, query: str) -> None:
    answer = Client().get(f"{LOGIN}callback/{query}")

    assert answer.status_code == 400
    assert not User.objects.exists()


@pytest.mark.parametrize(
    "path", ["/admin/sso/other/login/", "/admin/sso/signup/", "/admin/sso/", "/accounts/3rdparty/"]
)
def test_no_other_page_of_the_library_is_served(provider: Provider, admin_client: Client, path: str) -> None:
    assert admin_client.get(path).status_code == 404


def test_tokens_are_encrypted_in_the_session(provider: Provider) -> None:
    client, _ = provider.sign_in()

    assert client.session["sso"]["tokens"].startswith("fernet:")
