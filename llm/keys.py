"""API keys: created, rotated and revoked by staff; recognised on every request.

A key is `llm_` + 32 base62 characters + a 6-character base62 checksum of them, so that a typo or a random string is
refused without a query, and a secret scanner can find a leaked key. Only an HMAC-SHA256 under LLM_KEY_PEPPER is stored.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import OuterRef, QuerySet, Subquery
from django.utils import timezone

from llm.enums import AccountStatus
from llm.errors import InvalidKey, PermissionDenied
from llm.models import Account, ApiKey, EndUserKey

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM = re.compile(r"llm_([0-9A-Za-z]{32})([0-9A-Za-z]{6})")
_PREFIX_LENGTH = 12
_OWN_ACCOUNT = "internal"

REFUSED_KEYS = {
    "unknown": "This API key is not known. Check it, or ask for a new one.",
    "revoked": "This API key was revoked. Ask for a new one.",
    "expired": "This API key has expired. Ask for a new one.",
}
REFUSED_ACCOUNT = "This account is not active. Contact your administrator."


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller that a key identifies. Used for early refusals; the books decide.

    allowed_models: public model names; empty allows all. end_user_key: what the account's end users are hashed with, as
    far as it has one; it stays out of what is printed or logged. allows_storage: whether a provider may be asked to
    store what the caller sends.
    """

    key_id: int
    account_id: int
    account_name: str
    key_name: str
    allowed_models: frozenset[str]
    shows_cost: bool
    is_authenticated: bool = True
    records_end_users: bool = True
    allows_storage: bool = True
    end_user_key: bytes = field(default=b"", repr=False)

    def require_model(self, model: str) -> None:
        if self.allowed_models and model not in self.allowed_models:
            raise PermissionDenied(f"This API key may not use the model “{model}”.", param="model")


def get_or_create_account(name: str) -> Account:
    """Raises ValidationError for an invalid account name."""
    account = Account.objects.filter(name=name).first()
    if account is None:
        Account(name=name).clean_fields()
        account, _ = Account.objects.get_or_create(name=name)
    return account


def create_key(
    account: Account,
    *,
    name: str,
    expires_at: datetime | None = None,
    allowed_models: Sequence[str] = (),
) -> tuple[ApiKey, str]:
    """A new key and its secret, which is stored nowhere. Raises ValidationError."""
    secret = _new_secret()
    key = ApiKey(
        account=account,
        name=name,
        digest=digest_of(secret),
        prefix=secret[:_PREFIX_LENGTH],
        last_four=secret[-4:],
        allowed_models=list(allowed_models),
        expires_at=expires_at,
    )
    if account.status == AccountStatus.CLOSED:
        raise ValidationError(f"The account “{account}” is closed: it can't get new keys.")
    if expires_at is not None and expires_at <= timezone.now():
        raise ValidationError({"expires_at": "The expiry must be in the future."})
    key.full_clean()
    key.save()
    return key, secret


@transaction.atomic
def rotate_key(key: ApiKey, *, grace: timedelta = timedelta()) -> tuple[ApiKey, str]:
    """A successor with the same rights; the old key works on for `grace`. Raises ValidationError if the key doesn't
    work.
    """
    locked = ApiKey.objects.select_for_update(of=("self",)).select_related("account").get(pk=key.pk)
    now = timezone.now()
    if (refusal := locked.refusal_at(now)) is not None:
        raise ValidationError(f"The key “{locked}” is {refusal}: create a new one instead.")
    successor, secret = create_key(
        locked.account, name=locked.name, expires_at=locked.expires_at, allowed_models=locked.allowed_models
    )
    successor.rotated_from, successor.owner, successor.note = locked, locked.owner, locked.note
    successor.save(update_fields=["rotated_from", "owner", "note"])
    ends_at = now + grace
    locked.revoked_at = min(locked.revoked_at, ends_at) if locked.revoked_at else ends_at
    locked.save(update_fields=["revoked_at"])
    return successor, secret


@transaction.atomic
def revoke_key(key: ApiKey) -> None:
    """From its commit on, no process accepts the key. A key that is already revoked stays unchanged."""
    locked = ApiKey.objects.select_for_update(of=("self",)).get(pk=key.pk)
    now = timezone.now()
    if locked.revoked_at is None or locked.revoked_at > now:
        locked.revoked_at = now
        locked.save(update_fields=["revoked_at"])


def digest_of(secret: str) -> bytes:
    return hmac.digest(settings.LLM_KEY_PEPPER.encode(), secret.encode(), "sha256")


def is_well_formed(secret: str) -> bool:
    """Whether the string can be one of our keys: its form and its checksum. No database."""
    match = _FORM.fullmatch(secret)
    return match is not None and hmac.compare_digest(_checksum(match[1]), match[2])


def load_caller(secret: str) -> Caller:
    """The caller of this key, from the database. Raises InvalidKey or PermissionDenied."""
    return _build_caller(_keys_of_callers().filter(digest=digest_of(secret)).first())


def reload_caller(caller: Caller) -> Caller:
    """The current state of the same caller. Raises InvalidKey or PermissionDenied."""
    return _build_caller(_keys_of_callers().filter(pk=caller.key_id).first())


def _keys_of_callers() -> QuerySet[Any]:
    end_user_key = EndUserKey.objects.filter(account=OuterRef("account")).values("key")
    return ApiKey.objects.select_related("account").annotate(end_user_key=Subquery(end_user_key))


def _build_caller(key: Any) -> Caller:
    """key: from `_keys_of_callers`, or None."""
    if key is None:
        raise InvalidKey(REFUSED_KEYS["unknown"])
    if (refusal := key.refusal_at(timezone.now())) is not None:
        raise InvalidKey(REFUSED_KEYS[refusal]).about_key(key.account_id, key.pk)
    if key.account.status != AccountStatus.ACTIVE:
        raise PermissionDenied(REFUSED_ACCOUNT).about_key(key.account_id, key.pk)
    return Caller(
        key_id=key.pk,
        account_id=key.account_id,
        account_name=key.account.name,
        key_name=key.name,
        allowed_models=frozenset(key.allowed_models),
        shows_cost=key.account.shows_cost,
        records_end_users=key.account.records_end_users,
        allows_storage=key.account.allows_storage,
        end_user_key=bytes(key.end_user_key or b""),
    )


@transaction.atomic
def own_caller() -> Caller:
    """The gateway's own account, for calls made by its own code. Its key's secret is unknown."""
    account = get_or_create_account(_OWN_ACCOUNT)
    key = ApiKey.objects.filter(account=account).usable_at(timezone.now()).first()
    if key is None:
        key, _ = create_key(account, name="in-process calls")
    return Caller(key.pk, account.pk, account.name, key.name, frozenset(), shows_cost=False)


class CallerCache:
    """Callers that this process has seen recently, by digest. A hit saves a query; it grants nothing by itself."""

    def __init__(self, *, limit: int = 10_000) -> None:
        # Until when each may be used without asking the database; the most recently added is last.
        self._entries: dict[bytes, tuple[float, Caller]] = {}
        self._digests: dict[int, bytes] = {}
        self._limit = limit

    def get(self, secret: str) -> Caller | None:
        entry = self._entries.get(digest_of(secret))
        if entry is None or entry[0] < time.monotonic():
            return None
        return entry[1]

    def knows(self, secret: str) -> bool:
        """Whether it was one of our keys when the database was last asked, however long ago."""
        return digest_of(secret) in self._entries

    def put(self, secret: str, caller: Caller) -> None:
        self._put(digest_of(secret), caller)

    def refresh(self, caller: Caller) -> None:
        """Update a known key from the database; unknown ones are ignored."""
        if (digest := self._digests.get(caller.key_id)) is not None:
            self._put(digest, caller)

    def expire(self, key_id: int) -> None:
        """Read the key again with its next request. It stays known until the database refuses it."""
        if (digest := self._digests.get(key_id)) is not None:
            self._entries[digest] = (0.0, self._entries[digest][1])

    def forget(self, secret: str) -> None:
        """The database has refused it."""
        self._drop(digest_of(secret))

    def forget_key(self, key_id: int) -> None:
        if (digest := self._digests.get(key_id)) is not None:
            self._drop(digest)

    def _put(self, digest: bytes, caller: Caller) -> None:
        self._drop(digest)
        self._entries[digest] = (time.monotonic() + settings.LLM_KEY_CACHE_SECONDS, caller)
        self._digests[caller.key_id] = digest
        if len(self._entries) > self._limit:
            self._drop(next(iter(self._entries)))

    def _drop(self, digest: bytes) -> None:
        entry = self._entries.pop(digest, None)
        if entry is not None and self._digests.get(entry[1].key_id) == digest:
            del self._digests[entry[1].key_id]


def _new_secret() -> str:
    body = "".join(secrets.choice(_ALPHABET) for _ in range(32))
    return f"llm_{body}{_checksum(body)}"


def _checksum(body: str) -> str:
    """CRC-32 of the body in base62, six digits."""
    value = zlib.crc32(body.encode())
    digits = []
    for _ in range(6):
        value, digit = divmod(value, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
