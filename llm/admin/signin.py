"""Signing in to the admin: allauth behind Django's own address; after too many wrong passwords, users must wait."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.forms import LoginForm
from allauth.account.internal.flows.login import get_authentication_records
from allauth.account.views import LoginView
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.forms import AdminPasswordChangeForm
from django.contrib.auth.views import PasswordChangeView
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.deprecation import MiddlewareMixin

from llm.money import plural
from llm.signin import SignInRefused, address_of, is_own_password

_WRONG = "Please enter the correct username and password for a staff account. Both may be case-sensitive."


class SignInAdapter(DefaultAccountAdapter):
    """Only what signing in needs; users can't sign up."""

    error_messages = {**DefaultAccountAdapter.error_messages, "username_password_mismatch": _WRONG}

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def is_ajax(self, request: HttpRequest) -> bool:
        return False

    def get_client_ip(self, request: HttpRequest) -> str:
        return address_of(request)

    def is_reauthentication_required(self, *, app: str, **kwargs: Any) -> bool:
        """Not soon after signing in: a new user sets up a second factor next."""
        records = get_authentication_records(self.request, self.request.user)
        signed_in_at = max((record["at"] for record in records), default=0)
        return bool(time.time() - signed_in_at > settings.ACCOUNT_REAUTHENTICATION_TIMEOUT)

    def add_message(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        """The index doesn't need “Successfully signed in as …”."""


class SignInForm(LoginForm):
    """The name field is called as on Django's own page, for password managers and scripts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        name = self.fields["login"].widget
        name.attrs = {"autocomplete": "username", "autocapitalize": "none", "autofocus": True, "maxlength": 150}
        self.fields["password"].widget.attrs.pop("placeholder", None)
        self.fields["password"].help_text = ""

    def add_prefix(self, field_name: str) -> str:
        prefixed: str = super().add_prefix("username" if field_name == "login" else field_name)
        return prefixed


class SignInView(LoginView):
    form_class = SignInForm
    template_name = "admin/sign_in.html"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.user.is_authenticated and not admin.site.has_permission(request):
            # The admin would redirect them back here in a loop.
            raise PermissionDenied
        response: HttpResponseBase = super().dispatch(request, *args, **kwargs)
        return response

    def get_form_class(self) -> type[SignInForm]:
        return self.form_class

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return {
            **admin.site.each_context(self.request),
            "title": "Log in",
            "sso_name": settings.LLM_OIDC_ISSUER and settings.LLM_OIDC_NAME,
            **super().get_context_data(**kwargs),
        }


class OwnPasswordForm(AdminPasswordChangeForm):
    """Checks the old password with the same limits as signing in."""

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._request = request

    def clean_old_password(self) -> str:
        old: str = self.cleaned_data["old_password"]
        if not is_own_password(self._request, self.user, old):
            raise ValidationError(self.error_messages["password_incorrect"], code="password_incorrect")
        return old

    def save(self, commit: bool = True) -> Any:
        """Saves only the password: a user deactivated meanwhile stays deactivated."""
        user = super().save(commit=False)
        if commit:
            user.save(update_fields=["password"])
        return user


def change_own_password(request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponseBase:
    """Django's own page with our form."""
    request.current_app = admin.site.name
    view = PasswordChangeView.as_view(
        form_class=partial(OwnPasswordForm, request),
        success_url=reverse("admin:password_change_done"),
        extra_context={**admin.site.each_context(request), **(extra_context or {})},
    )
    return view(request)


class SignInRefusedMiddleware(MiddlewareMixin):
    """Answers 429 in plain words, on any page that asks for a password."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, SignInRefused):
            return None
        seconds = max(1, math.ceil((exception.retry_at - timezone.now()).total_seconds()))
        context = {
            **admin.site.each_context(request),
            "title": "Too many attempts",
            "wait": _in_words(seconds),
            "retry_at": exception.retry_at,
        }
        response = render(request, "admin/sign_in_refused.html", context, status=429)
        response["Retry-After"] = str(seconds)
        response["Cache-Control"] = "no-store"
        return response


def _in_words(seconds: int) -> str:
    if seconds < 60:
        return plural(seconds, "second")
    return plural(math.ceil(seconds / 60), "minute")
