"""Every few minutes a session asks the provider again whether its user still belongs to a mapped group."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import quote_plus

import requests
import structlog
from allauth.socialaccount.adapter import get_adapter
from django.conf import settings
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.deprecation import MiddlewareMixin

from llm.admin.sso.membership import is_member
from llm.secretstore import SecretUnavailable, seal, unseal
from llmproject.sessions import names_session

_KEY = "sso"
UNREACHABLE_FACTOR = 3
"""How many intervals a session lasts while the provider can't be reached."""
_log = structlog.get_logger("llm.signin")


class _Refused(Exception):
    """The provider no longer accepts the session's tokens."""


def remember(request: HttpRequest, sociallogin: Any) -> None:
    """In the session, whose rows are in the database: tokens are encrypted there."""
    tokens = {"access": sociallogin.token.token, "refresh": sociallogin.token.token_secret}
    request.session[_KEY] = {
        "subject": sociallogin.account.uid,
        "tokens": seal(json.dumps(tokens)),
        "checked_at": time.time(),
    }


class SsoMiddleware(MiddlewareMixin):
    """Fails closed: a session whose user can't be checked for a while ends. Local users aren't affected."""

    def process_view(self, request: HttpRequest, *_view: object) -> HttpResponse | None:
        if not names_session(request):
            return None
        state = request.session.get(_KEY)
        if state is None or not request.user.is_authenticated:
            return None
        if time.time() - state["checked_at"] <= settings.LLM_OIDC_RECHECK_MINUTES * 60:
            return None
        if self._may_stay(request, state):
            return None
        logout(request)
        return HttpResponseRedirect(reverse("admin:login"))

    def _may_stay(self, request: HttpRequest, state: dict[str, Any]) -> bool:
        try:
            claims, tokens = _fetch(json.loads(unseal(state["tokens"])))
        except (_Refused, SecretUnavailable):
            return False
        except (requests.RequestException, ValueError, KeyError) as error:
            _log.warning("signin.provider_failed", error=type(error).__name__)
            since = time.time() - state["checked_at"]
            return bool(since <= UNREACHABLE_FACTOR * settings.LLM_OIDC_RECHECK_MINUTES * 60)
        request.session[_KEY] = {**state, "tokens": seal(json.dumps(tokens)), "checked_at": time.time()}
        return request.user.pk is not None and is_member(request.user.pk, claims, subject=state["subject"])


def _fetch(tokens: dict[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The claims of now, and the tokens, which may be new ones. Raises _Refused, RequestException, ValueError."""
    with get_adapter().get_requests_session() as session:
        config = _json(session.get(f"{settings.LLM_OIDC_ISSUER.rstrip('/')}/.well-known/openid-configuration"))
        response = _ask(session, config, tokens)
        if response.status_code in {400, 401, 403}:
            tokens = _refresh(session, config, tokens)
            response = _ask(session, config, tokens)
        if response.status_code in {400, 401, 403}:
            raise _Refused
        return _json(response), tokens


def _ask(session: requests.Session, config: dict[str, Any], tokens: dict[str, str]) -> requests.Response:
    return session.get(config["userinfo_endpoint"], headers={"Authorization": f"Bearer {tokens['access']}"})


def _refresh(session: requests.Session, config: dict[str, Any], tokens: dict[str, str]) -> dict[str, str]:
    if not tokens.get("refresh"):
        raise _Refused
    data = {"grant_type": "refresh_token", "refresh_token": tokens["refresh"]}
    client, secret = settings.LLM_OIDC_CLIENT_ID, settings.LLM_OIDC_CLIENT_SECRET
    if "client_secret_basic" in config.get("token_endpoint_auth_methods_supported", ["client_secret_basic"]):
        # RFC 6749, 2.3.1: encoded, since an ID may contain a colon.
        auth = (quote_plus(client), quote_plus(secret))
        response = session.post(config["token_endpoint"], data=data, auth=auth)
    else:
        data |= {"client_id": client, "client_secret": secret}
        response = session.post(config["token_endpoint"], data=data)
    if response.status_code in {400, 401, 403}:
        raise _Refused
    found = _json(response)
    return {"access": str(found["access_token"]), "refresh": str(found.get("refresh_token") or tokens["refresh"])}


def _json(response: requests.Response) -> dict[str, Any]:
    response.raise_for_status()
    found = response.json()
    if not isinstance(found, dict):
        raise ValueError("not an object")  # noqa: TRY004 - what the provider sent, not what we did
    return found
