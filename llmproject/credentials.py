"""Whether a request for Django's pages proves who sends it: first by checksums alone, then by the database."""

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
from llm.api.asgi import Scope
from llm.api.auth import secret_of
from llm.errors import InvalidKey
from llm.keys import is_well_formed
from llmproject import sessions

_TOKEN = re.compile(r"[0-9a-f]{40}")


def is_plausible(scope: Scope) -> bool:
    """Whether the database is worth asking. An API key's checksum is public, so anybody can make up a plausible one."""
    return any(sessions.is_plausible(key) for key in _session_keys(scope)) or _has_plausible_secret(scope)


def is_proven(scope: Scope) -> bool:
    """Whether a session of staff, a staff token or an API key is in force. From the database."""
    request = ASGIRequest(scope, io.BytesIO())
    return _has_secret_in_force(request) or _has_staff_session(request)


def _session_keys(scope: Scope) -> Iterator[str]:
    for name, value in scope["headers"]:
        if name == b"cookie":
            key = parse_cookie(value.decode("latin-1")).get(settings.SESSION_COOKIE_NAME)
            if key is not None:
                yield key


def _has_plausible_secret(scope: Scope) -> bool:
    try:
        secret = secret_of(scope["headers"])
    except InvalidKey:
        return False
    scheme, _, rest = secret.partition(" ")
    return is_well_formed(secret) or _TOKEN.fullmatch(rest.strip() if scheme.lower() == "token" else secret) is not None


def _has_secret_in_force(request: ASGIRequest) -> bool:
    try:
        return CredentialAuthentication().authenticate(cast("Request", request)) is not None
    except APIException:
        return False


def _has_staff_session(request: ASGIRequest) -> bool:
    request.session = sessions.SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    user = get_user(request)
    return bool(user.is_active and user.is_staff)
