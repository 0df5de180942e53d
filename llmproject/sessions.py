"""Sessions in the database whose keys carry a checksum under SECRET_KEY: one that somebody made up costs no query.

A key reads 28 random characters + 12 of their HMAC; together as many as the column has.
"""

from __future__ import annotations

import string
from typing import Any

from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.utils.crypto import constant_time_compare, get_random_string, salted_hmac

_ALPHABET = string.ascii_lowercase + string.digits
_RANDOM_CHARACTERS = 28
_CHECKSUM_CHARACTERS = 12


def is_plausible(session_key: str) -> bool:
    """Whether we made this key, by its checksum alone. The session may have ended all the same."""
    if len(session_key) != _RANDOM_CHARACTERS + _CHECKSUM_CHARACTERS or not session_key.isascii():
        return False
    body, checksum = session_key[:_RANDOM_CHARACTERS], session_key[_RANDOM_CHARACTERS:]
    secrets = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return any(constant_time_compare(_checksum(body, secret), checksum) for secret in secrets)


class SessionStore(DatabaseStore):
    """Django's, but for the form of its keys. What isn't one of ours is as no key at all."""

    @classmethod
    def get_model_class(cls) -> Any:
        return DatabaseStore.get_model_class()

    def _validate_session_key(self, key: str | None) -> bool:
        """Asked for each key before it is used."""
        return bool(key) and is_plausible(str(key))

    def load(self) -> dict[str, Any]:
        """Django's would ask the database for a session without a key."""
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
