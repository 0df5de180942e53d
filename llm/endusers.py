"""Who is behind an account's calls: the books keep a keyed hash, the readable name stands beside them and can go.

The key is the account's own random one (`EndUserKey`), mixed with LLM_KEY_PEPPER: a copy of the database alone can't be
searched for names, and without the account's key nobody can, whatever else they have. So deleting a name takes it out
of every view, and deleting the key makes all of the account's hashes mere labels.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Collection
from typing import NamedTuple

from django.conf import settings
from django.db import transaction

from llm.models import Account, EndUser, EndUserKey
from llm.types import END_USER_LENGTH, MAX_END_USER_CHARACTERS, clean_text

_KEY_BYTES = 32
_HASH = re.compile(rf"[0-9a-f]{{{END_USER_LENGTH}}}")


class NamedEndUser(NamedTuple):
    """A name and the hash that a call has been recorded under. key: what it was made with."""

    account_id: int
    end_user: str
    name: str
    key: bytes


def hash_end_user(name: str, key: bytes) -> str:
    """32 hex digits. key: of the account. The name counts as it was given, in every character."""
    mixed = hmac.digest(settings.LLM_KEY_PEPPER.encode(), b"end users\0" + key, "sha256")
    return hmac.digest(mixed, name.encode(), "sha256").hex()[:END_USER_LENGTH]


def account_key(account_id: int) -> bytes:
    """The account's key, made if it has none yet. Whoever else makes it at the same moment gets the same one."""
    new_key = secrets.token_bytes(_KEY_BYTES)
    row, _ = EndUserKey.objects.get_or_create(account_id=account_id, defaults={"key": new_key})
    return bytes(row.key)


def find_hashes(text: str, account_id: int | None) -> frozenset[str]:
    """What calls have recorded for a name, or for a hash, as either may be searched for.

    account_id: None finds by hash alone, since a name has another hash in each account. Empty for what nobody can be.
    """
    found = {text.lower()} & {*_HASH.findall(text.lower())}
    name = clean_text(text, limit=MAX_END_USER_CHARACTERS + 1)
    if account_id is not None and 0 < len(name) <= MAX_END_USER_CHARACTERS:
        key = EndUserKey.objects.filter(account=account_id).values_list("key", flat=True).first()
        found |= set() if key is None else {hash_end_user(name, bytes(key))}
    return frozenset(found)


@transaction.atomic
def write_names(names: Collection[NamedEndUser]) -> None:
    """Keep the readable names, each once. What was hashed with a key that is gone by now stays without a name."""
    account_ids = {each.account_id for each in names}
    # Locked, so that `forget_all` either waits for these names and deletes them, or has deleted the key.
    keys = EndUserKey.objects.select_for_update().filter(account__in=account_ids).order_by("account")
    current = {row.account_id: bytes(row.key) for row in keys}
    kept = [
        EndUser(account_id=each.account_id, end_user=each.end_user, name=each.name)
        for each in sorted(names)
        if current.get(each.account_id) == each.key
    ]
    EndUser.objects.bulk_create(kept, ignore_conflicts=True)


def forget_name(account: Account, name: str) -> int:
    """Delete the readable name of one end user; how many rows that were."""
    key = EndUserKey.objects.filter(account=account).first()
    return 0 if key is None else forget_hash(account, hash_end_user(name, bytes(key.key)))


def forget_hash(account: Account, end_user: str) -> int:
    """The same, for who knows the hash, as the account's calls show it."""
    return EndUser.objects.filter(account=account, end_user=end_user).delete()[0]


@transaction.atomic
def forget_all(account: Account) -> int:
    """Delete all readable names, and the key: nobody can find out any more whom the hashes on the books stand for."""
    EndUserKey.objects.filter(account=account).delete()
    return EndUser.objects.filter(account=account).delete()[0]
