"""Forms that make a secret: each makes one, however often it is sent.

A page with a secret is the answer to a POST, so reloading it sends the form again. That must neither make a second one
unnoticed nor show the first one again: a form carries a token, and a token that was used leads to the key or account
that it made one for. Only that one's number is remembered, in the session; the secret is nowhere.
"""

from __future__ import annotations

import secrets

from django import forms
from django.core.cache import cache
from django.http import HttpRequest

TOKEN_NAME = "form_token"  # noqa: S105 - a field's name
_SESSION_NAME = "llm_used_forms"
_REMEMBERED = 50
_DOUBLE_CLICK_SECONDS = 60


class OneTimeForm(forms.Form):
    """Shows a token of its own each time it is rendered unbound."""

    form_token = forms.CharField(widget=forms.HiddenInput, initial=lambda: secrets.token_urlsafe(16), max_length=40)


def made_by_form(request: HttpRequest) -> int | None:
    """What this very form has made before, if it was sent before."""
    made: int | None = request.session.get(_SESSION_NAME, {}).get(request.POST.get(TOKEN_NAME, ""))
    return made


def claim_form(request: HttpRequest) -> bool:
    """False where the same form is being answered at this moment: a double click."""
    return cache.add(f"llm:form:{request.POST.get(TOKEN_NAME, '')}", value=True, timeout=_DOUBLE_CLICK_SECONDS)


def remember_made(request: HttpRequest, made: int) -> None:
    used: dict[str, int] = request.session.get(_SESSION_NAME, {})
    latest = dict(list(used.items())[-_REMEMBERED + 1 :])
    request.session[_SESSION_NAME] = {**latest, request.POST[TOKEN_NAME]: made}
