"""Who asks in the tests of the management API, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import Permission, User
from django.test import Client

from billing.enums import TokenScope
from billing.staff.tokens import create_token
from llm.keys import create_key
from llm.models import Account, ApiKey

API = "/api/v1/"


@dataclass(frozen=True, slots=True)
class Asker:
    """secret: what stands behind `Bearer`."""

    secret: str

    def get(self, path: str, query: dict[str, Any] | None = None) -> Any:
        return Client().get(f"{API}{path}", query or {}, headers={"authorization": f"Bearer {self.secret}"})

    def post(self, path: str, content: Any) -> Any:
        headers = {"authorization": f"Bearer {self.secret}"}
        return Client().post(f"{API}{path}", content, content_type="application/json", headers=headers)

    def results(self, path: str, query: dict[str, Any] | None = None) -> list[Any]:
        response = self.get(path, query)
        assert response.status_code == 200, response.content
        found: list[Any] = response.json()["results"]
        return found

    def refusal(self, path: str, query: dict[str, Any] | None = None, *, status: int = 400) -> str:
        """What an error says; it is one string."""
        response = self.get(path, query)
        assert response.status_code == status, response.content
        assert list(response.json()) == ["detail"]
        detail: str = response.json()["detail"]
        return detail


def make_staff(*permissions: str, name: str = "finance") -> User:
    user = User.objects.create_user(name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user


def staff_asker(*permissions: str, name: str = "finance") -> Asker:
    """With a token that may do all that the API offers."""
    return Asker(token_of(make_staff(*permissions, name=name)))


def token_of(user: User, *scopes: TokenScope) -> str:
    return create_token(user, name="tests", scopes=scopes or tuple(TokenScope))[1]


def customer(account: Account, name: str = "production") -> tuple[ApiKey, Asker]:
    key, secret = create_key(account, name=name)
    return key, Asker(secret)
