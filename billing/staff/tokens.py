"""Staff tokens for the management API: created, recognised, revoked.

A token is `llmt_` + 32 letters and digits + 16 hexadecimal digits of their HMAC under LLM_KEY_PEPPER. So a made-up
token is refused without a query, and a secret scanner can recognise a leaked one.
"""

from __future__ import annotations

import hmac
import re
import secrets
import string
from collections.abc import Sequence
from datetime import timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from billing.enums import TokenScope
from billing.models import StaffToken

PREFIX = "llmt_"
DEFAULT_DAYS = 90
MAX_DAYS = 366

_ALPHABET = string.ascii_letters + string.digits
_FORM = re.compile(rf"{PREFIX}([0-9A-Za-z]{{32}})([0-9a-f]{{16}})")
_SHOWN = 12
_REFUSED = {
    "unknown": "This token is not known. Ask for a new one.",
    "revoked": "This token was revoked. Ask for a new one.",
    "expired": "This token has expired. Ask for a new one.",
}


class TokenRefused(Exception):
    """The message is for the caller who sent the token."""


def is_plausible(text: str) -> bool:
    """Whether we made this token, judged only by its checksum, without a query. It may still be revoked or expired."""
    match = _FORM.fullmatch(text)
    return match is not None and hmac.compare_digest(_checksum(match[1]), match[2])


def create_token(
    user: User, *, name: str, scopes: Sequence[TokenScope] = (TokenScope.READ,), days: int = DEFAULT_DAYS
) -> tuple[StaffToken, str]:
    """A new token and its text, which is stored nowhere. Raises ValidationError."""
    if not (user.is_active and user.is_staff):
        raise ValidationError(f"{user} is not an active staff user: the management API would refuse the token.")
    if not 1 <= days <= MAX_DAYS:
        raise ValidationError(f"A token is valid for 1 to {MAX_DAYS} days.")
    body = "".join(secrets.choice(_ALPHABET) for _ in range(32))
    text = f"{PREFIX}{body}{_checksum(body)}"
    token = StaffToken(
        user=user,
        name=name,
        digest=_digest(text),
        prefix=text[:_SHOWN],
        last_four=text[-4:],
        scopes=[TokenScope(scope).value for scope in dict.fromkeys(scopes)],
        expires_at=timezone.now() + timedelta(days=days),
    )
    token.full_clean()
    token.save()
    return token, text


def load_token(text: str) -> StaffToken:
    """The token and its user, from the database. Raises TokenRefused, without a query if the checksum is wrong."""
    token = None
    if is_plausible(text):
        token = StaffToken.objects.select_related("user").filter(digest=_digest(text)).first()
    if token is None or not token.user.is_active:
        raise TokenRefused(_REFUSED["unknown"])
    if (refusal := token.refusal_at(timezone.now())) is not None:
        raise TokenRefused(_REFUSED[refusal])
    return token


@transaction.atomic
def revoke_token(token: StaffToken) -> bool:
    """Refused from the commit on. False if it was already revoked."""
    unrevoked = StaffToken.objects.filter(pk=token.pk, revoked_at=None)
    return bool(unrevoked.update(revoked_at=timezone.now()))


class EndTokensWithPassword:
    """A validator of passwords that allows all: Django tells validators when a user's password has changed.

    A hash that is only renewed at a sign-in doesn't count.
    """

    def validate(self, password: str, user: object = None) -> None:
        pass

    def password_changed(self, password: str, user: object = None) -> None:
        if isinstance(user, User) and user.pk is not None:
            StaffToken.objects.filter(user=user, revoked_at=None).update(revoked_at=timezone.now())

    def get_help_text(self) -> str:
        return "Changing the password revokes the user's API tokens."


def _checksum(body: str) -> str:
    return hmac.digest(settings.LLM_KEY_PEPPER.encode(), f"staff-token-checksum {body}".encode(), "sha256").hex()[:16]


def _digest(text: str) -> bytes:
    return hmac.digest(settings.LLM_KEY_PEPPER.encode(), f"staff-token {text}".encode(), "sha256")
