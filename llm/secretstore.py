"""Secrets that we must be able to read, encrypted under LLM_SECRETS_KEY: a copy of the database doesn't reveal them.

Fernet (AES-128-CBC with HMAC-SHA256) of the `cryptography` package; the keys are derived from the settings' text.
"""

from __future__ import annotations

import base64
from contextlib import suppress
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

MARK = "fernet:"
NO_KEY = "LLM_SECRETS_KEY is not set, so stored secrets can be neither read nor created; set it in .env and restart"
LOST_KEY = (
    "this secret can't be decrypted with LLM_SECRETS_KEY or its fallbacks; "
    "set the former key as a fallback, or create a new secret and give it to the receiver"
)


class SecretUnavailable(Exception):
    """The message says what is missing, and what to do."""


def can_seal() -> bool:
    return bool(settings.LLM_SECRETS_KEY)


def seal(secret: str) -> str:
    """The encrypted form to store. Raises SecretUnavailable without a key."""
    if not can_seal():
        raise SecretUnavailable(NO_KEY)
    return MARK + _fernet(settings.LLM_SECRETS_KEY).encrypt(secret.encode()).decode()


def unseal(stored: str) -> str:
    """The secret itself. Raises SecretUnavailable if its key is missing or lost."""
    if not stored.startswith(MARK):
        # Written by a process from before the upgrade; `manage.py reencrypt_secrets` encrypts it.
        return stored
    keys = [key for key in (settings.LLM_SECRETS_KEY, *settings.LLM_SECRETS_KEY_FALLBACKS) if key]
    for key in keys:
        if (secret := _opened(stored, key)) is not None:
            return secret
    raise SecretUnavailable(LOST_KEY if keys else NO_KEY)


def seal_bytes(data: bytes) -> bytes:
    """The same for bytes that aren't kept for long: no command encrypts them anew. Raises SecretUnavailable."""
    if not can_seal():
        raise SecretUnavailable(NO_KEY)
    return base64.urlsafe_b64decode(_fernet(settings.LLM_SECRETS_KEY).encrypt(data))


def unseal_bytes(stored: bytes) -> bytes:
    """Raises SecretUnavailable where their key is missing or lost."""
    token = base64.urlsafe_b64encode(stored)
    for key in (settings.LLM_SECRETS_KEY, *settings.LLM_SECRETS_KEY_FALLBACKS):
        with suppress(InvalidToken):
            if key:
                return _fernet(key).decrypt(token)
    raise SecretUnavailable(LOST_KEY)


def reseal(stored: str) -> str:
    """The same secret under LLM_SECRETS_KEY; unchanged if it already is. Raises SecretUnavailable."""
    if stored.startswith(MARK) and can_seal() and _opened(stored, settings.LLM_SECRETS_KEY) is not None:
        return stored
    return seal(unseal(stored))


def _opened(stored: str, key: str) -> str | None:
    try:
        return _fernet(key).decrypt(stored.removeprefix(MARK).encode()).decode()
    except InvalidToken:
        return None


@lru_cache(maxsize=8)
def _fernet(key: str) -> Fernet:
    derived = HKDF(hashes.SHA256(), length=32, salt=None, info=b"llm-gateway stored secrets").derive(key.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
