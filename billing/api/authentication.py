"""Who asks the management API: staff by token or session, or a customer by one of its API keys."""

from __future__ import annotations

import re
from typing import Any

from django.contrib.auth.models import User
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.authtoken.models import Token
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.request import Request

from llm import errors
from llm.api.auth import secret_of
from llm.keys import Caller, is_well_formed, load_caller

_KEY_PREFIX = "llm_"
_TOKEN = re.compile(r"[0-9a-f]{40}")
_REFUSED_KEY = "This is not one of our API keys: they begin with llm_ and have 42 characters. Check it for a typo."
_REFUSED_TOKEN = "This token is not known. Ask for a new one."  # noqa: S105  # a sentence, no token
_HEADERS = {"HTTP_AUTHORIZATION": b"authorization", "HTTP_X_API_KEY": b"x-api-key"}


class CredentialAuthentication(BaseAuthentication):
    """A staff token as `Authorization: Token ...` or `Bearer ...`; a key as `Bearer llm_...` or `x-api-key`.

    Every request reads the database, so that a revoked key or token is refused from then on.
    """

    def authenticate(self, request: Request) -> tuple[User | Caller, str] | None:
        headers = [(name, request.META[meta].encode()) for meta, name in _HEADERS.items() if request.META.get(meta)]
        if not headers:
            return None
        try:
            secret = secret_of(headers)
        except errors.InvalidKey as error:
            raise AuthenticationFailed(error.message) from error
        if secret.startswith(_KEY_PREFIX):
            return _caller_of(secret), "key"
        return _staff_of(secret), "token"

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="management"'


def _caller_of(secret: str) -> Caller:
    if not is_well_formed(secret):
        raise AuthenticationFailed(_REFUSED_KEY)
    try:
        return load_caller(secret)
    except errors.InvalidKey as error:
        raise AuthenticationFailed(error.message) from error
    except errors.PermissionDenied as error:
        raise PermissionDenied(error.message) from error


def _staff_of(secret: str) -> User:
    """A scheme of its own stands in front, if the token came as `Token ...`."""
    scheme, _, rest = secret.partition(" ")
    text = rest.strip() if scheme.lower() == "token" else secret
    # What can't be a token isn't looked for: the database takes no NUL.
    token = Token.objects.select_related("user").filter(key=text).first() if _TOKEN.fullmatch(text) else None
    if token is None or not token.user.is_active:
        raise AuthenticationFailed(_REFUSED_TOKEN)
    user: User = token.user
    return user


class CredentialScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # its registration
    """For the API's description."""

    target_class = CredentialAuthentication
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "A customer's API key, or a staff token."}
