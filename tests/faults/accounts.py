"""Who calls in a campaign."""

from __future__ import annotations

from llm.enums import LimitMetric, LimitPer
from llm.keys import create_key, get_or_create_account
from llm.models import Account, ApiKey, Limit

# More than a campaign can use: limits are there so that calls hold and give back, not to refuse any.
_AMPLE = 10**15


def make_key(account_name: str = "faults") -> str:
    """The secret of a key that has a limit of each kind, and whose account has one of each too."""
    account = get_or_create_account(account_name)
    key, secret = create_key(account, name="faults")
    _set_ample_limits(account, key)
    return secret


def _set_ample_limits(account: Account, key: ApiKey) -> None:
    Limit.objects.bulk_create(
        Limit(account=account, api_key=owner, metric=metric, per=per, amount=_AMPLE)
        for owner in (None, key)
        for metric in LimitMetric
        for per in LimitPer
    )
