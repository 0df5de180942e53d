"""In which order the targets of a request are called, and with which keys of their instances."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from llm.calls.kept_responses import Maker
from llm.errors import ModelNotFound
from llm.prices.catalog import Resolution, Target
from llm.providers.registry import find_instance, is_configured


def require_configured(resolution: Resolution) -> None:
    """Raises ModelNotFound where none of its instances is there any more, with the key or address that it needs."""
    if not any(is_configured(target.instance) for target in resolution.targets):
        raise ModelNotFound(
            f"The model “{resolution.model}” can't be called: its provider isn't configured at this gateway.",
            param="model",
        )


def order_targets(
    targets: Sequence[Target], *, account_id: int, makers: Collection[Maker] | None = None
) -> list[Target]:
    """Each with each key of its instance, the account's own key first.

    Of those with weights one is drawn to be the first, and of the rest the next; then those without, as they stand.
    Those at an instance that is gone, or that lacks its key or address, are left out: nobody could call them.
    makers: what the request goes on from is kept there, so it can be called there and nowhere else; None for nothing.
    """
    found = [keyed for target in _drawn(targets) for keyed in _with_keys(target, account_id)]
    if makers is None:
        return found
    return [target for target in found if Maker(target.instance, target.credential) in makers]


def is_same_but_for_key(one: Target, other: Target) -> bool:
    return (one.instance, one.upstream_model) == (other.instance, other.upstream_model)


def _drawn(targets: Sequence[Target]) -> Sequence[Target]:
    weighted = [target for target in targets if target.weight]
    if not weighted:
        return targets
    # The least of exponential variates is each one's with a probability in proportion to its weight.
    weighted.sort(key=lambda target: random.expovariate(target.weight))  # it spreads load
    return [*weighted, *(target for target in targets if not target.weight)]


def _with_keys(target: Target, account_id: int) -> Iterator[Target]:
    instance = find_instance(target.instance)
    if instance is None or instance.lacks:
        return
    for credential in instance.credentials_for(account_id):
        yield replace(target, credential=credential.id) if credential.id else target
