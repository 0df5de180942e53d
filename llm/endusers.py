"""The end users behind an account's calls: the books store a keyed hash; the readable name is separate and deletable.

The key is the account's own random one (`EndUserKey`), mixed with LLM_KEY_PEPPER: a copy of the database alone can't be
searched for names, and without the account's key nothing can. So deleting a name removes it from every view, and
deleting the key turns all of the account's hashes into mere labels. Replies that are kept for repeats may contain a
name (a response repeats its `user`), so they are deleted with it.

An account has LLM_END_USER_NAMES names at most: who makes names up gets hashes on the books, and fills no table.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Collection
from datetime import timedelta
from typing import NamedTuple

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from llm.ids import first_id_at
from llm.models import Account, EndUser, EndUserKey, KeptReply, Usage
from llm.models.usage import UsageQuerySet
from llm.types import END_USER_LENGTH, read_end_user

_KEY_BYTES = 32
_MAX_EVICTED = 1000
"""Of an account, with one write: those of a bound that was lowered go with the next ones."""
_REPLIES_ARE_KEPT = timedelta(days=2)
"""Longer than any setting says."""
_HASH = re.compile(rf"[0-9a-f]{{{END_USER_LENGTH}}}")


class NamedEndUser(NamedTuple):
    """A name and the hash under which a call was recorded. key: the one that the hash was made with."""

    account_id: int
    end_user: str
    name: str
    key: bytes


class Forgotten(NamedTuple):
    """How many were deleted: readable names, and kept replies to calls of these end users."""

    names: int
    replies: int


def hash_end_user(name: str, key: bytes) -> str:
    """32 hex digits. key: the account's. Every character of the name counts."""
    mixed = hmac.digest(settings.LLM_KEY_PEPPER.encode(), b"end users\0" + key, "sha256")
    return hmac.digest(mixed, name.encode(), "sha256").hex()[:END_USER_LENGTH]


def account_key(account_id: int) -> bytes:
    """The account's key, created on first use. Concurrent callers get the same one."""
    new_key = secrets.token_bytes(_KEY_BYTES)
    row, _ = EndUserKey.objects.get_or_create(account_id=account_id, defaults={"key": new_key})
    return bytes(row.key)


def find_hashes(text: str, account_id: int | None) -> frozenset[str]:
    """The hashes under which calls are recorded for a search term: a name, or a hash itself.

    account_id: None finds by hash only, since a name has another hash in each account. Empty for impossible terms.
    """
    found = {text.lower()} & {*_HASH.findall(text.lower())}
    name = read_end_user(text)
    if account_id is not None and name:
        key = EndUserKey.objects.filter(account=account_id).values_list("key", flat=True).first()
        found |= set() if key is None else {hash_end_user(name, bytes(key))}
    return frozenset(found)


@transaction.atomic
def write_names(names: Collection[NamedEndUser]) -> None:
    """Store the readable names, each once. Names hashed with a key that has been deleted aren't stored."""
    account_ids = {each.account_id for each in names}
    # Locked, so that `forget_all` either waits for these names and deletes them, or has already deleted the key.
    keys = EndUserKey.objects.select_for_update().filter(account__in=account_ids).order_by("account")
    current = {row.account_id: bytes(row.key) for row in keys}
    kept = [
        EndUser(account_id=each.account_id, end_user=each.end_user, name=each.name)
        for each in sorted(names)
        if current.get(each.account_id) == each.key
    ]
    EndUser.objects.bulk_create(kept, ignore_conflicts=True)
    for account_id in sorted({each.account_id for each in kept}):
        _evict_names(account_id)


def _evict_names(account_id: int) -> None:
    """The oldest ones of too many. That of an end user who still calls comes back, as a forgotten one does."""
    names = EndUser.objects.filter(account=account_id).order_by()
    surplus = names.count() - settings.LLM_END_USER_NAMES
    if surplus > 0:
        oldest = names.order_by("pk").values_list("pk", flat=True)[: min(surplus, _MAX_EVICTED)]
        EndUser.objects.filter(pk__in=list(oldest)).delete()


def forget_name(account: Account, name: str) -> Forgotten:
    """Delete the readable name of one end user, given as callers gave it."""
    key = EndUserKey.objects.filter(account=account).first()
    recorded = read_end_user(name)
    if key is None or not recorded:
        return Forgotten(0, 0)
    return forget_hash(account, hash_end_user(recorded, bytes(key.key)))


@transaction.atomic
def forget_hash(account: Account, end_user: str) -> Forgotten:
    """The same by hash, as the account's calls show it."""
    names = EndUser.objects.filter(account=account, end_user=end_user).delete()[0]
    return Forgotten(names, _delete_replies(account, Usage.objects.by_end_users([end_user])))


@transaction.atomic
def forget_all(account: Account) -> Forgotten:
    """Delete all readable names, and the key: afterwards the hashes on the books can't be traced to anyone."""
    EndUserKey.objects.filter(account=account).delete()
    names = EndUser.objects.filter(account=account).delete()[0]
    return Forgotten(names, _delete_replies(account, Usage.objects.exclude(end_user="")))


def _delete_replies(account: Account, calls: UsageQuerySet) -> int:
    recent = calls.filter(account=account, id__gte=first_id_at(timezone.now() - _REPLIES_ARE_KEPT)).order_by()
    return KeptReply.objects.filter(pk__in=recent.values("request_id")).delete()[0]
