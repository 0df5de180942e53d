"""Without the second factor that a group asks for, a session leads only to the pages for setting one up."""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.core.exceptions import PermissionDenied
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.deprecation import MiddlewareMixin
from django.utils.html import format_html

from llm.signin import has_second_factor, must_enrol, second_factor_due_at
from llmproject.sessions import names_session

_MISSING = "second_factor_missing"
PAGES = "/admin/second-factor/"
_ALLOWED = (PAGES, "/admin/logout/", "/admin/login/", "/admin/jsi18n/", "/admin/password_change/")


class SecondFactorMiddleware(MiddlewareMixin):
    """Only sessions that began without one are looked at: for all others, a page costs no query more."""

    def process_view(self, request: HttpRequest, *_view: object) -> HttpResponse | None:
        if not names_session(request) or (due := request.session.get(_MISSING)) is None:
            return None
        if not request.user.is_authenticated or timezone.now() < datetime.fromisoformat(due):
            return None
        if not must_enrol(request.user):
            del request.session[_MISSING]
            return None
        if request.path.startswith((*_ALLOWED, f"/{settings.STATIC_URL.lstrip('/')}")):
            return None
        if not request.path.startswith("/admin/"):
            raise PermissionDenied("Set up a second factor in the admin first.")
        return HttpResponseRedirect(reverse("mfa_index"))


@receiver(user_logged_in)
def _note_missing(request: HttpRequest | None, user: User, **_signal: object) -> None:
    """At each sign-in: from when on this session needs a second factor to be set up."""
    due = second_factor_due_at(user)
    if request is None or due is None or has_second_factor(user):
        return
    request.session[_MISSING] = due.isoformat()
    if due > timezone.now() and hasattr(request, "_messages"):
        text = format_html(
            'Your group needs a second factor from {}. <a href="{}">Set it up now</a>.',
            f"{due:%Y-%m-%d %H:%M} UTC",
            reverse("mfa_index"),
        )
        messages.warning(request, text)
