"""Before anything is sent: which targets can take a request, what its open row says, and why it is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from uuid import UUID

from llm.asking import ask_of
from llm.books.operations import Exceeded, OpenCall, Refused, Result, Stale, clean_text
from llm.catalog import Resolution, ServedPrice, Target
from llm.dialects.base import ParsedRequest, WireFormat
from llm.errors import GatewayError, InternalError, InvalidKey, InvalidRequest, PermissionDenied
from llm.ids import boot_id, uuid7
from llm.keys import REFUSED_ACCOUNT, REFUSED_KEYS, Caller
from llm.limit_answers import refusal_of
from llm.providers.base import BaseLLMProvider
from llm.types import ChatRequest


@dataclass(frozen=True, slots=True)
class Candidate:
    """A target, and what goes to it: the caller's bytes where `chat` is None, else the translated request.

    price_served: what a call costs by the name that the provider reports.
    """

    target: Target
    chat: ChatRequest | None
    price_served: Callable[[str], ServedPrice]


@dataclass(frozen=True, slots=True)
class OpenedCall:
    """A call on the books. max_output_tokens: what a limit has lowered the output maximum to, or None."""

    operation: OpenCall
    candidate: Candidate
    max_output_tokens: int | None

    @property
    def chat(self) -> ChatRequest | None:
        chat = self.candidate.chat
        if chat is None or self.max_output_tokens is None:
            return chat
        return replace(chat, max_tokens=self.max_output_tokens)


class CatalogMovedError(Exception):
    """The books know of newer routes or prices than the request was resolved under."""

    def __init__(self, now: datetime, version: int) -> None:
        super().__init__(version)
        self.now = now
        self.version = version


def candidates_of(
    resolution: Resolution, request: ParsedRequest, wire: WireFormat, *, provider_of: Callable[[str], BaseLLMProvider]
) -> list[Candidate]:
    """The targets that can take the request, in order. Raises InvalidRequest if none can."""
    candidates = []
    refusal: InvalidRequest | None = None
    for target in resolution.targets:
        try:
            chat = _translated(target, request, wire, provider_of(target.provider))
            candidates.append(Candidate(target, chat, partial(resolution.price_served, target)))
        except InvalidRequest as error:
            refusal = refusal or error
    if not candidates and refusal is not None:
        raise refusal
    return candidates


def _translated(
    target: Target, request: ParsedRequest, wire: WireFormat, provider: BaseLLMProvider
) -> ChatRequest | None:
    if request.dialect in getattr(provider, "dialects", ()):
        return None
    return wire.to_chat(request, upstream_model=target.upstream_model)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, who asked it, and in which dialect."""

    id: UUID
    caller: Caller
    wire: WireFormat
    request: ParsedRequest

    def open_call(self, target: Target, resolution: Resolution, *, attempt: int, counts: bool) -> OpenCall:
        """The row of one more call. counts: whether it holds of limits of requests; only one of a request does."""
        price = target.price
        return OpenCall(
            id=self.id if attempt == 1 else uuid7(),
            request_id=self.id,
            attempt=attempt,
            account_id=self.caller.account_id,
            key_id=self.caller.key_id,
            process_id=boot_id(),
            dialect=self.request.dialect,
            provider=target.provider,
            model=clean_text(resolution.model, most=200),
            upstream_model=clean_text(target.upstream_model, most=200),
            is_stream=self.request.is_stream,
            catalog_version=resolution.version,
            price_id=None if price is None else price.id,
            price_from=None if price is None else price.effective_from,
            price_until=None if price is None else price.effective_until,
            request_bytes=len(self.request.raw),
            ask=partial(ask_of, self.wire, self.request, target, requests=int(counts)),
        )


def why_unopened(result: Result, operation: OpenCall, *, shows_cost: bool) -> CatalogMovedError | GatewayError:
    """Why the books did not take it, as what is to be raised. shows_cost: whether the account may see costs."""
    match result:
        case Stale(now=now, version=version):
            return CatalogMovedError(now, version)
        case Refused(exceeded=Exceeded() as exceeded):
            return refusal_of(exceeded, shows_cost=shows_cost)
        case Refused(code=code):
            return _refusal(code, operation.model)
    return InternalError("This call could not be put on the books, so it was not made.")


def _refusal(code: str, model: str) -> GatewayError:
    if code in REFUSED_KEYS:
        return InvalidKey(REFUSED_KEYS[code])
    if code == "model":
        return PermissionDenied(f"This API key may not use the model “{model}”.", param="model")
    return PermissionDenied(REFUSED_ACCOUNT)
