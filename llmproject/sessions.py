"""Sessions in the database whose keys have a checksum under SECRET_KEY, so that a made-up one costs no query.

A key is 28 random characters + 12 of their HMAC, which together fill the column.
"""

from __future__ import annotations

import string
import time
from typing import Any

from django.conf import settings
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare, get_random_string, salted_hmac

SIGNED_IN_AT = "signed_in_at"
SEEN_AT = "seen_at"
_FOR_ALL = ("/api/v1/schema/", "/docs/")
_ALPHABET = string.ascii_lowercase + string.digits
_RANDOM_CHARACTERS = 28
_CHECKSUM_CHARACTERS = 12


def is_plausible(session_key: str) -> bool:
    """Whether we made this key, by its checksum alone. The session may still have ended."""
    if len(session_key) != _RANDOM_CHARACTERS + _CHECKSUM_CHARACTERS or not session_key.isascii():
        return False
    body, checksum = session_key[:_RANDOM_CHARACTERS], session_key[_RANDOM_CHARACTERS:]
    secrets = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return any(constant_time_compare(_checksum(body, secret), checksum) for secret in secrets)


def names_session(request: HttpRequest) -> bool:
    """Whether the request comes with a session. The API's description is the same for all: it asks for none."""
    return settings.SESSION_COOKIE_NAME in request.COOKIES and not request.path.startswith(_FOR_ALL)


class SessionStore(DatabaseStore):
    """Django's, except for the form of its keys. Other keys are treated as absent."""

    @classmethod
    def get_model_class(cls) -> Any:
        return DatabaseStore.get_model_class()

    def _validate_session_key(self, key: str | None) -> bool:
        """Called for each key before it is used."""
        return bool(key) and is_plausible(str(key))

    def load(self) -> dict[str, Any]:
        """Django's would query the database for a session without a key."""
        return {} if self.session_key is None else super().load()

    async def aload(self) -> dict[str, Any]:
        return {} if self.session_key is None else await super().aload()

    def _get_new_session_key(self) -> str:
        while True:
            session_key = _new_key()
            if not self.exists(session_key):
                return session_key

    async def _aget_new_session_key(self) -> str:
        while True:
            session_key = _new_key()
            if not await self.aexists(session_key):
                return session_key


@receiver(user_logged_in)
def _note_sign_in(request: HttpRequest | None, **_signal: object) -> None:
    if request is not None:
        request.session[SIGNED_IN_AT] = request.session[SEEN_AT] = time.time()


def _new_key() -> str:
    body = get_random_string(_RANDOM_CHARACTERS, _ALPHABET)
    return body + _checksum(body, settings.SECRET_KEY)


def _checksum(body: str, secret: str | bytes) -> str:
    value = int.from_bytes(salted_hmac("llmproject.sessions", body, secret=secret, algorithm="sha256").digest())
    digits = []
    for _ in range(_CHECKSUM_CHARACTERS):
        value, digit = divmod(value, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(digits)
