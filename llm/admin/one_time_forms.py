"""Forms that make a secret: each makes one, however often it is sent.

A page with a secret is the answer to a POST, so reloading it sends the form again. That must neither make a second one
unnoticed nor show the first one again: a form carries a token, and a token that was used leads to the key or account
that it made one for. Only that one's number is kept, in the database that all processes share; the secret is nowhere.
"""

from __future__ import annotations

import re
import secrets
from datetime import timedelta
from typing import cast

from django import forms
from django.core.validators import RegexValidator
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from llm.models import UsedForm

TOKEN_NAME = "form_token"  # noqa: S105 - a field's name
_TOKEN = re.compile(r"\A[0-9A-Za-z_-]{16,40}\Z")
DOUBLE_CLICK = timedelta(seconds=60)
"""A form that was claimed so long ago and has made nothing met a failure: it may be sent again."""
KEPT = timedelta(days=30)


class OneTimeForm(forms.Form):
    """Shows a token of its own each time it is rendered unbound."""

    form_token = forms.CharField(
        widget=forms.HiddenInput,
        initial=lambda: secrets.token_urlsafe(16),
        validators=[RegexValidator(_TOKEN, "Open the form again.")],
    )


def made_by_form(request: HttpRequest) -> int | None:
    """What this very form has made before, if it was sent before."""
    return _sent(request).values_list("made_id", flat=True).first()


def claim_form(request: HttpRequest) -> bool:
    """False where the same form is being answered at this moment, in whichever process: a double click."""
    try:
        with transaction.atomic():
            UsedForm.objects.create(token=_token_of(request), user_id=_user_id(request))
    except IntegrityError:
        failed = _sent(request).filter(made_id=None, used_at__lt=timezone.now() - DOUBLE_CLICK)
        return bool(failed.update(used_at=timezone.now()))
    UsedForm.objects.filter(used_at__lt=timezone.now() - KEPT).delete()
    return True


def remember_made(request: HttpRequest, made: int) -> None:
    """In the transaction that makes it."""
    _sent(request).update(made_id=made)


def _sent(request: HttpRequest) -> QuerySet[UsedForm]:
    return UsedForm.objects.filter(token=_token_of(request), user_id=_user_id(request))


def _token_of(request: HttpRequest) -> str:
    """As the form's field would accept it: "" stands for what no form of ours has."""
    token = request.POST.get(TOKEN_NAME, "")
    return token if _TOKEN.match(token) else ""


def _user_id(request: HttpRequest) -> int:
    return cast("int", request.user.pk)
