"""Who is behind an account's calls: the books keep a keyed hash, the readable name stands beside them and can go.

The key is the account's own random one (`EndUserKey`), mixed with LLM_KEY_PEPPER: a copy of the database alone can't be
searched for names, and without the account's key nobody can, whatever else they have. So deleting a name takes it out
of every view, and deleting the key makes all of the account's hashes mere labels.
"""

from __future__ import annotations

import hmac

from django.conf import settings
from django.db import transaction

from llm.models import Account, EndUser, EndUserKey
from llm.types import END_USER_LENGTH


def hash_end_user(name: str, key: bytes) -> str:
    """32 hex digits. key: of the account. The name counts as it was given, in every character."""
    mixed = hmac.digest(settings.LLM_KEY_PEPPER.encode(), b"end users\0" + key, "sha256")
    return hmac.digest(mixed, name.encode(), "sha256").hex()[:END_USER_LENGTH]


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
