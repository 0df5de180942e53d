"""Who calls in a campaign."""

from __future__ import annotations

from llm import models
from llm.keys import create_key, get_or_create_account

# More than a campaign can use: limits are there so that calls hold and give back, not to refuse any.
_AMPLE = 10**15


def make_key() -> str:
    """The secret of a key whose account has a limit of each kind."""
    account = get_or_create_account("faults")
    key, secret = create_key(account, name="faults")
    limit_model = getattr(models, "Limit", None)
    if limit_model is not None:
        set_limits(limit_model, account=account, key=key)
    return secret


def set_limits(limit_model: type[models.Limit], *, account: models.Account, key: models.ApiKey) -> None:
    from llm.enums import LimitMetric, LimitPer

    limit_model.objects.bulk_create(
        limit_model(account=account, api_key=owner, metric=metric, per=per, amount=_AMPLE)
        for owner in (None, key)
        for metric in LimitMetric
        for per in LimitPer
    )
