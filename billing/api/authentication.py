"""Who calls the management API: staff by token or session, or a customer by one of its API keys."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from django.contrib.auth.models import User
from django.utils.http import http_date
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.request import Request

from billing.models import StaffToken
from billing.staff.plain_tokens import PlainToken, plain_token
from billing.staff.tokens import TokenRefused, is_plausible, load_token
from llm import errors
from llm.api.auth import read_secret
from llm.keys import Caller, is_well_formed, load_caller
from llmproject.proofs import forget_proof, note_proof

_KEY_PREFIX = "llm_"
_REFUSED_KEY = "This is not one of our API keys: they begin with llm_ and have 42 characters. Check it for a typo."
_HEADERS = {"HTTP_AUTHORIZATION": b"authorization", "HTTP_X_API_KEY": b"x-api-key"}


class CredentialAuthentication(BaseAuthentication):
    """A staff token as `Authorization: Token ...` or `Bearer ...`; a key as `Bearer llm_...` or `x-api-key`.

    Every request reads the database, so that a revoked key or token is refused at once.
    """

    def authenticate(self, request: Request) -> tuple[User | Caller, StaffToken | PlainToken | None] | None:
        headers = [(name, request.META[meta].encode()) for meta, name in _HEADERS.items() if request.META.get(meta)]
        if not headers:
            return None
        try:
            secret = read_secret(headers)
        except errors.InvalidKey as error:
            raise AuthenticationFailed(error.message) from error
        if secret.startswith(_KEY_PREFIX):
            return _find_caller(secret), None
        return _find_staff(secret)

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="management"'


def _find_caller(secret: str) -> Caller:
    if not is_well_formed(secret):
        raise AuthenticationFailed(_REFUSED_KEY)
    try:
        caller = load_caller(secret)
    except errors.InvalidKey as error:
        forget_proof(secret)
        raise AuthenticationFailed(error.message) from error
    except errors.PermissionDenied as error:
        raise PermissionDenied(error.message) from error
    note_proof(secret, is_in_force=True)
    return caller


def _find_staff(secret: str) -> tuple[User, StaffToken | PlainToken]:
    """secret: the token, after the word `Token` if the header began with that."""
    scheme, _, rest = secret.partition(" ")
    text = rest.strip() if scheme.lower() == "token" else secret
    if (plain := plain_token(text)) is not None:
        note_proof(text, is_in_force=True)
        return plain
    try:
        token = load_token(text)
    except TokenRefused as error:
        if is_plausible(text):
            note_proof(text, is_in_force=False)
        else:
            forget_proof(text)
        raise AuthenticationFailed(str(error)) from error
    note_proof(text, is_in_force=True)
    return token.user, token


def deprecation_headers(token: PlainToken) -> dict[str, str]:
    """RFC 9745 and RFC 8594 headers for programs, and a sentence for people."""
    ends = token.ends_at.astimezone(UTC)
    sentence = f"This token expires on {ends:%Y-%m-%d}. Create a new one with manage.py create_api_token."
    return {
        "Deprecation": f"@{int(token.deprecated_at.timestamp())}",
        "Sunset": http_date(ends.timestamp()),
        "Warning": f'299 - "{sentence}"',
    }


class CredentialScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # registers the extension
    """How the API description shows the credentials."""

    target_class = CredentialAuthentication
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "A customer's API key, or a staff token."}
