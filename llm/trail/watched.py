"""Tables whose changes are in the audit log, and what of their rows may not be there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Watched:
    """secret: columns of which only a change is recorded. ignored: columns that change by themselves."""

    table: str
    secret: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()


def _watch(table: str, *, secret: Iterable[str] = (), ignored: Iterable[str] = ()) -> Watched:
    return Watched(table, frozenset(secret), frozenset(ignored))


_watched: dict[str, Watched] = {
    each.table: each
    for each in (
        _watch("llm_account", secret=("webhook_secret",)),
        _watch("llm_apikey", secret=("digest",)),
        _watch("llm_limit"),
        _watch("llm_modelroute"),
        _watch("llm_routetarget"),
        _watch("llm_price"),
        _watch("llm_rateset"),
        _watch("llm_rate"),
        _watch("billing_billingprofile"),
        _watch("billing_plan"),
        _watch("billing_planversion"),
        _watch("billing_planrate"),
        _watch("billing_exchangerate"),
        _watch("billing_stafftoken", secret=("digest",)),
        # Set by each sign-in, which has an entry of its own.
        _watch("auth_user", secret=("password",), ignored=("last_login",)),
        _watch("auth_user_groups"),
        _watch("auth_user_user_permissions"),
        _watch("auth_group"),
        _watch("auth_group_permissions"),
    )
}


def watched_tables() -> Mapping[str, Watched]:
    return _watched
