"""Forms that create a secret: each creates one, however often it is sent.

A page with a secret is the response to a POST, so reloading it sends the form again. That must neither create a second
secret unnoticed nor show the first one again: a form carries a token, and a used token leads to the key or account that
it created a secret for. Only that object's id is stored, in the database that all processes share, and never the
secret.
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
"""A form claimed longer ago that has created nothing ran into a failure: it may be sent again."""
KEPT = timedelta(days=30)


class OneTimeForm(forms.Form):
    """Shows a new token each time it is rendered unbound."""

    form_token = forms.CharField(
        widget=forms.HiddenInput,
        initial=lambda: secrets.token_urlsafe(16),
        validators=[RegexValidator(_TOKEN, "Open the form again.")],
    )


def made_by_form(request: HttpRequest) -> int | None:
    """What this form created before, if it was sent before."""
    return _sent(request).values_list("made_id", flat=True).first()


def claim_form(request: HttpRequest) -> bool:
    """False if another request is handling the same form right now, in any process: a double click."""
    try:
        with transaction.atomic():
            UsedForm.objects.create(token=_token_of(request), user_id=_user_id(request))
    except IntegrityError:
        failed = _sent(request).filter(made_id=None, used_at__lt=timezone.now() - DOUBLE_CLICK)
        return bool(failed.update(used_at=timezone.now()))
    UsedForm.objects.filter(used_at__lt=timezone.now() - KEPT).delete()
    return True


def remember_made(request: HttpRequest, made: int) -> None:
    """Call it in the transaction that creates it."""
    _sent(request).update(made_id=made)


def _sent(request: HttpRequest) -> QuerySet[UsedForm]:
    return UsedForm.objects.filter(token=_token_of(request), user_id=_user_id(request))


def _token_of(request: HttpRequest) -> str:
    """The token, if the form's field would accept it; otherwise ""."""
    token = request.POST.get(TOKEN_NAME, "")
    return token if _TOKEN.match(token) else ""


def _user_id(request: HttpRequest) -> int:
    return cast("int", request.user.pk)
