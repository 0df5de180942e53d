"""allauth's sign-in by OpenID Connect, with our rules: only staff of mapped groups, and no page for signing up."""

from __future__ import annotations

from typing import Any, NoReturn

import structlog
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from llm.admin.sso.membership import NotAllowed, admit
from llm.admin.sso.recheck import remember
from llm.signin import address_of
from llm.trail.actor import Actor
from llm.trail.events import record_failed_sign_in

_log = structlog.get_logger("llm.signin")
UNREACHABLE = (
    "The identity provider can't be reached, or gave no answer that can be used. Try again in a moment; if it stays "
    "like this, sign in with the password of a local user."
)
_BROKEN_OFF = "The sign-in at the identity provider was cancelled or has expired. Start again."


class SsoAdapter(DefaultSocialAccountAdapter):
    def pre_social_login(self, request: HttpRequest, sociallogin: Any) -> None:
        """The one place that every sign-in by the provider passes. There is no sign-up after it."""
        try:
            user = admit(sociallogin)
        except NotAllowed as error:
            record_failed_sign_in("by the identity provider", actor=Actor(address=address_of(request)))
            _refuse(request, str(error), status=403)
        sociallogin.user = user
        if sociallogin.account.pk is None:
            sociallogin.account.user = user
            sociallogin.account.extra_data = {}
            sociallogin.account.save()
        remember(request, sociallogin)

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        return False

    def on_authentication_error(
        self, request: HttpRequest, provider: Any, error: Any = None, exception: Any = None, extra_context: Any = None
    ) -> NoReturn:
        if exception is None:
            _refuse(request, _BROKEN_OFF, status=400)
        _log.warning("signin.provider_failed", error=type(exception).__name__)
        _refuse(request, UNREACHABLE, status=502)

    def send_notification_mail(self, *args: Any, **kwargs: Any) -> None:
        """The audit log has it."""


def refusal(request: HttpRequest, why: str, *, status: int) -> HttpResponse:
    context = {**admin.site.each_context(request), "title": "Not signed in", "why": why}
    response = render(request, "admin/sso_refused.html", context, status=status)
    response["Cache-Control"] = "no-store"
    return response


def _refuse(request: HttpRequest, why: str, *, status: int) -> NoReturn:
    raise ImmediateHttpResponse(refusal(request, why, status=status))
