"""Who sends a request for Django's pages, as far as proven: first by checksums alone, then by the database."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import cast

from django.conf import settings
from django.contrib.auth import get_user
from django.core.handlers.asgi import ASGIRequest
from django.http import parse_cookie
from rest_framework.exceptions import APIException
from rest_framework.request import Request

from billing.api.authentication import CredentialAuthentication
from billing.staff.tokens import is_plausible as is_plausible_token
from llm.api.asgi import Scope
from llm.api.auth import read_secret
from llm.calls.runtime import runtime
from llm.errors import InvalidKey
from llm.keys import Caller, is_well_formed
from llmproject import sessions
from llmproject.clientaddress import client_address
from llmproject.places import Claimant, Standing
from llmproject.proofs import proof_of

_PLAIN_TOKEN = re.compile(r"[0-9a-f]{40}")


def identify_claimant(scope: Scope) -> Claimant:
    """The sender of this request, for the gate in front of pages. No database.

    Sessions and staff tokens have a checksum under a secret, so they count until found expired. API keys and plain
    tokens, which anyone can make up, count once the database has confirmed them.
    """
    for key in _session_keys(scope):
        if sessions.is_plausible(key) and proof_of(key) is not False:
            return Claimant(Standing.STAFF, key)
    secret = _secret(scope)
    if is_plausible_token(secret) and proof_of(secret) is not False:
        return Claimant(Standing.STAFF, secret)
    if _PLAIN_TOKEN.fullmatch(secret) and proof_of(secret):
        return Claimant(Standing.STAFF, secret)
    if is_well_formed(secret) and (proof_of(secret) or runtime().callers.knows(secret)):
        return Claimant(Standing.KEY, secret)
    return stranger_of(scope)


def stranger_of(scope: Scope) -> Claimant:
    """The sender of this request if it proves nothing."""
    return Claimant(Standing.STRANGER, _address(scope))


def is_plausible(scope: Scope) -> bool:
    """Whether to ask the database. An API key's checksum is public, so anyone can make up a plausible one."""
    return any(sessions.is_plausible(key) for key in _session_keys(scope)) or _has_plausible_secret(scope)


def proven_standing(scope: Scope) -> Standing:
    """By staff's session, a staff token or an API key in force. From the database."""
    request = ASGIRequest(scope, io.BytesIO())
    if _has_staff_session(request):
        return Standing.STAFF
    return _standing_by_secret(request)


def _session_keys(scope: Scope) -> Iterator[str]:
    for name, value in scope["headers"]:
        if name == b"cookie":
            key = parse_cookie(value.decode("latin-1")).get(settings.SESSION_COOKIE_NAME)
            if key is not None:
                yield key


def _has_plausible_secret(scope: Scope) -> bool:
    secret = _secret(scope)
    return is_well_formed(secret) or is_plausible_token(secret) or _PLAIN_TOKEN.fullmatch(secret) is not None


def _secret(scope: Scope) -> str:
    """A key or token, without the scheme that may precede a token; "" if there is none."""
    try:
        secret = read_secret(scope["headers"])
    except InvalidKey:
        return ""
    scheme, _, rest = secret.partition(" ")
    return rest.strip() if scheme.lower() == "token" else secret


def _address(scope: Scope) -> str:
    peer, *_ = scope.get("client") or ("",)
    forwarded = ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for")
    return client_address(peer, forwarded, settings.TRUSTED_PROXIES)


def _standing_by_secret(request: ASGIRequest) -> Standing:
    try:
        proven = CredentialAuthentication().authenticate(cast("Request", request))
    except APIException:
        proven = None
    if proven is None:
        return Standing.STRANGER
    user, _ = proven
    return Standing.KEY if isinstance(user, Caller) else Standing.STAFF


def _has_staff_session(request: ASGIRequest) -> bool:
    request.session = sessions.SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    user = get_user(request)
    return bool(user.is_active and user.is_staff)
