"""Responses stored by a provider: whose they are, and what their account may ask about them later.

The provider knows one organisation, ours, and would show any of its responses to any of our callers. So an id is valid
only for the account on whose books the call is that created it, and at the provider that answered that call.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from functools import partial
from typing import NamedTuple, TypeGuard

from django.conf import settings

from llm.bodies.process import read_reply
from llm.bodies.replies import held_reply
from llm.calls.passthrough import reply_bytes
from llm.calls.runtime import Runtime
from llm.dialects.base import KeptResponse
from llm.dialects.openai_responses.stream import is_account_failure
from llm.dialects.openai_responses.wire import OPENAI_RESPONSES
from llm.dialects.reply_fields import loaded_reply
from llm.enums import Dialect
from llm.errors import InvalidRequest, NotFound, UpstreamFailed, UpstreamTimeout
from llm.keys import Caller
from llm.models import Usage
from llm.providers.base import FetchesKept, RawFetch
from llm.providers.registry import find_instance

_ID = re.compile(r"[A-Za-z0-9_:-][A-Za-z0-9_.:-]{0,199}", re.ASCII)
"""No leading dots: `..` would be another path at the provider."""


class Maker(NamedTuple):
    """Where a response is kept: the instance that made it, and the key that it was made with."""

    instance: str
    credential: str


async def find_makers(runtime: Runtime, caller: Caller, kept: tuple[KeptResponse, ...]) -> frozenset[Maker]:
    """The instances and keys that created all of these responses for the caller's account.

    Raises InvalidRequest, the same for a missing response and for another account's.
    """
    makers: frozenset[Maker] | None = None
    for response in kept:
        found = await runtime.run_db(partial(_makers_of, response.id, caller.account_id))
        makers = found if makers is None else makers & found
        if not makers:
            raise not_found(response)
    return makers or frozenset()


def not_found(response: KeptResponse) -> InvalidRequest:
    """In OpenAI's words."""
    return InvalidRequest(
        f"Previous response with id '{response.id[:200]}' not found.",
        param=response.param,
        code="previous_response_not_found",
    )


async def ask_about(runtime: Runtime, caller: Caller, response_id: str, *, method: str, rest: str = "") -> bytes:
    """The provider's answer about a response of the caller's account, without its prices.

    rest: of the path, after the id. Raises NotFound, or UpstreamError.
    """
    makers = await runtime.run_side_db(partial(_makers_of, response_id, caller.account_id))
    providers = [runtime.provider(*maker) for maker in sorted(makers)]
    fetching = [provider for provider in providers if _keeps(provider)]
    if not fetching:
        raise NotFound(f"Response with id '{response_id[:200]}' not found.")
    fetch = RawFetch(method, f"{OPENAI_RESPONSES.path}/{response_id}{rest}")
    try:
        async with asyncio.timeout(settings.LLM_FIRST_BYTE_TIMEOUT_SECONDS):
            return await _fetched(fetching[0], fetch)
    except TimeoutError as error:
        raise UpstreamTimeout("The provider did not answer in time.") from error


async def _fetched(provider: FetchesKept, fetch: RawFetch) -> bytes:
    async with aclosing(await provider.fetch(fetch)) as reply, held_reply() as held:
        body = await held.read(aiter(reply))
        read = await read_reply(body)
        document = loaded_reply(body, read.value)
        if not isinstance(document, dict) or not document:
            raise UpstreamFailed("The provider sent a reply that can't be understood.")
        if is_account_failure(document):
            # Its message would be about the gateway's own account.
            raise UpstreamFailed("The provider could not make this response; nothing is wrong with the request.")
        return await reply_bytes(OPENAI_RESPONSES, body, read)


def _keeps(provider: object) -> TypeGuard[FetchesKept]:
    """A server without its own responses has stored none: ours were translated."""
    return isinstance(provider, FetchesKept) and Dialect.OPENAI_RESPONSES in getattr(provider, "dialects", ())


def _makers_of(response_id: str, account_id: int) -> frozenset[Maker]:
    """None where it isn't the account's, or where the instance that made it is no longer configured."""
    if _ID.fullmatch(response_id) is None:
        return frozenset()
    made = Usage.objects.filter(upstream_response_id=response_id, dialect=Dialect.OPENAI_RESPONSES).exclude(
        upstream_response_id=""  # Repeats the index's condition, without which the index wouldn't be used.
    )
    makers = set(made.order_by().values_list("account_id", "provider", "provider_instance", "credential"))
    if any(maker != account_id for maker, *_ in makers):
        # If two accounts or providers have it, there is no telling whose the provider would return.
        return frozenset()
    named = (_maker(instance or provider, key, account_id) for _, provider, instance, key in makers)
    return frozenset(maker for maker in named if maker is not None)


def _maker(name: str, credential_id: str, account_id: int) -> Maker | None:
    """As it is configured now: a key may have been replaced since, an instance renamed to that of its provider."""
    instance = find_instance(name)
    if instance is None or instance.lacks:
        return None
    return Maker(instance.name, instance.credential(credential_id, account_id=account_id).id)
