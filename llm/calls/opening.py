"""Before anything is sent: which targets can take a request, its open row, and why it is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import cast
from uuid import UUID

from llm.books.operations import Claim, OpenCall, Refused, Repeated, Result, Stale, clean_service
from llm.dialects.base import ParsedRequest, PassThrough, Translatable, WireFormat
from llm.dialects.field_names import rename_field
from llm.errors import (
    GatewayError,
    IdempotencyKeyReused,
    IdempotencyKeyUsed,
    InternalError,
    InvalidKey,
    InvalidRequest,
    PermissionDenied,
    RequestUnwritten,
    UpstreamRejected,
)
from llm.ids import boot_id, uuid7
from llm.keys import REFUSED_ACCOUNT, REFUSED_KEYS, Caller
from llm.limits.admission import Exceeded
from llm.limits.refusals import build_refusal
from llm.limits.reservation import estimate_reservation
from llm.prices.catalog import Resolution, Target
from llm.providers.base import BaseLLMProvider, ChecksRequests
from llm.types import ChatRequest, clean_text


class CatalogMovedError(Exception):
    """The books have newer routes or prices than those the request was resolved with."""

    def __init__(self, now: datetime, version: int) -> None:
        super().__init__(version)
        self.now = now
        self.version = version


def choose_targets(
    targets: Iterable[Target],
    request: ParsedRequest,
    wire: WireFormat,
    *,
    provider_of: Callable[[str, str], BaseLLMProvider],
) -> list[tuple[Target, ChatRequest | None]]:
    """The targets that can take the request, in order, and what to send to each: None for the caller's own bytes.

    Raises InvalidRequest if none can.
    """
    chosen: list[tuple[Target, ChatRequest | None]] = []
    translated: ChatRequest | InvalidRequest | None = None
    refusals: list[InvalidRequest] = []
    for target in targets:
        provider = provider_of(target.instance, target.credential)
        if request.dialect in getattr(provider, "dialects", ()):
            chosen.append((target, None))
            continue
        # Translated once for all of them: a request with many messages takes a while.
        translated = translated or _translated(request, wire, provider=target.provider)
        if isinstance(translated, InvalidRequest):
            refusals.append(translated)
            continue
        chat = replace(translated, model=target.upstream_model)
        if (refusal := _refusal_before_sending(provider, chat, request, wire)) is None:
            chosen.append((target, chat))
        else:
            refusals.append(refusal)
    if not chosen and refusals:
        raise refusals[0]
    return chosen


def _refusal_before_sending(
    provider: BaseLLMProvider, chat: ChatRequest, request: ParsedRequest, wire: WireFormat
) -> InvalidRequest | None:
    """What this provider has no equivalent for, if it can say so without being asked."""
    if not isinstance(provider, ChecksRequests):
        return None
    try:
        provider.check_request(chat)
    except RequestUnwritten:
        # A fault of ours, which is recorded when the call fails by it.
        return None
    except UpstreamRejected as refusal:
        rename_field(refusal, partial(cast("Translatable", wire).own_name, request=request))
        return InvalidRequest(refusal.message, param=refusal.param)
    return None


def _translated(request: ParsedRequest, wire: WireFormat, *, provider: str) -> ChatRequest | InvalidRequest:
    if not isinstance(wire, Translatable):
        name = cast("PassThrough", wire).name
        return InvalidRequest(
            f"The provider “{provider}” of this model does not serve {name}. Choose another model.", param="model"
        )
    try:
        return wire.to_chat(request, upstream_model="")
    except InvalidRequest as refusal:
        return refusal


def lower_maximum(chat: ChatRequest | None, max_output_tokens: int | None) -> ChatRequest | None:
    """With the output maximum that a limit leaves."""
    if chat is None or max_output_tokens is None:
        return chat
    # The maximum may include room for thinking, for which a translated request has no field.
    return replace(chat, max_tokens=min(max_output_tokens, chat.max_tokens or max_output_tokens))


def open_call(
    request: ParsedRequest,
    caller: Caller,
    wire: WireFormat,
    *,
    resolution: Resolution,
    target: Target,
    request_id: UUID,
    attempt: int,
    counts: bool,
    claim: Claim | None,
    end_user: str = "",
    default_maximum: int | None = None,
) -> OpenCall:
    """The open row of one more call.

    counts: whether it holds of limits of requests; only one of a request does. end_user: the hash, "" for nobody.
    default_maximum: see `estimate_reservation`.
    """
    price = target.price
    ask = partial(estimate_reservation, wire, request, target, requests=int(counts), default_maximum=default_maximum)
    return OpenCall(
        id=request_id if attempt == 1 else uuid7(),
        request_id=request_id,
        attempt=attempt,
        account_id=caller.account_id,
        key_id=caller.key_id,
        process_id=boot_id(),
        dialect=request.dialect,
        provider=target.provider,
        provider_instance=target.instance,
        credential=target.credential,
        model=clean_text(resolution.model, limit=200),
        upstream_model=clean_text(target.upstream_model, limit=200),
        is_stream=request.is_stream,
        catalog_version=resolution.version,
        price_id=None if price is None else price.id,
        price_from=None if price is None else price.effective_from,
        price_until=None if price is None else price.effective_until,
        request_bytes=len(request.raw),
        service=clean_service(request.asked_service),
        end_user=end_user,
        tags=request.tags,
        ask=ask,
        claim=claim,
    )


def why_unopened(result: Result, operation: OpenCall, *, shows_cost: bool) -> CatalogMovedError | GatewayError:
    """The error to raise if the books refuse it. shows_cost: whether the account may see costs."""
    match result:
        case Stale(now=now, version=version):
            return CatalogMovedError(now, version)
        case Repeated():
            return _refusal_of_repeat(result)
        case Refused(exceeded=Exceeded() as exceeded):
            return build_refusal(exceeded, shows_cost=shows_cost).about_limit(exceeded.limit_id)
        case Refused(code=code):
            return _refusal(code, operation.model)
    return InternalError("This request could not be recorded, so it was not sent.")


def _refusal_of_repeat(repeated: Repeated) -> GatewayError:
    if not repeated.is_same:
        return IdempotencyKeyReused(
            "This idempotency key was used for another request. Use a new key for each request."
        )
    if repeated.is_in_flight:
        return IdempotencyKeyUsed("The first request with this idempotency key is still in progress.")
    return IdempotencyKeyUsed(
        "A request with this idempotency key was sent before and may have worked, but its reply isn't kept. "
        "To send it again, use a new key."
    )


def _refusal(code: str, model: str) -> GatewayError:
    if code in REFUSED_KEYS:
        return InvalidKey(REFUSED_KEYS[code])
    if code == "model":
        return PermissionDenied(f"This API key may not use the model “{model}”.", param="model")
    return PermissionDenied(REFUSED_ACCOUNT)
