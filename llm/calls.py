"""The task that owns a request: resolve -> open -> upstream -> settle, whatever the caller does meanwhile.

The runtime holds it, and nobody cancels it. A caller that hangs up is news to it, not its end: it reads on for figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import NoReturn

import structlog
from django.conf import settings

from llm import metrics
from llm.asking import ask_of
from llm.books.operations import CloseCall, Exceeded, OpenCall, Opened, Refused, Stale, clean_text
from llm.call_log import report_call
from llm.catalog import Resolution, Target
from llm.dialects.base import ParsedRequest, WireFormat
from llm.enums import Outcome, UsageStatus
from llm.errors import (
    GatewayError,
    InternalError,
    InvalidKey,
    InvalidRequest,
    ModelNotFound,
    ModelUnpriced,
    PermissionDenied,
    UpstreamError,
)
from llm.exchange import Exchange, Plan
from llm.forwarding import forward
from llm.ids import boot_id, uuid7
from llm.keys import REFUSED_ACCOUNT, REFUSED_KEYS, Caller
from llm.limit_answers import refusal_of
from llm.relay import Audience
from llm.retrying import is_final, pause_before
from llm.runtime import Runtime
from llm.settlement import void_of
from llm.translation import translate
from llm.types import ChatRequest, LimitState

log = structlog.get_logger("llm.calls")

_SETTLE_PATIENCE_S = 5.0
_RESOLVE_TRIES = 4


class RequestTask:
    """One request of one caller. `audience.reply` is what becomes of it, `headers` what every reply to it carries."""

    def __init__(
        self,
        runtime: Runtime,
        caller: Caller,
        wire: WireFormat,
        request: ParsedRequest,
        *,
        forwarded_headers: Mapping[str, str],
    ) -> None:
        self.audience = Audience()
        self.headers: dict[str, str] = {}
        self._runtime = runtime
        self._caller = caller
        self._wire = wire
        self._request = request
        self._forwarded_headers = forwarded_headers
        self._uuid = uuid7()
        self.request_id = f"req_{self._uuid.hex}"
        self._exchange: Exchange | None = None
        self._attempts = 0
        self._has_counted = False
        self._is_draining = False
        self.audience.on_leave(self._on_leave)

    async def run(self) -> None:
        metrics.IN_FLIGHT.inc()
        try:
            await self._run()
        except GatewayError as error:
            self._fail(error)
        except Exception as error:
            log.exception("request failed", request_id=self.request_id, error=type(error).__name__)
            self._fail(InternalError("Something went wrong on our side."))
        finally:
            metrics.IN_FLIGHT.dec()
            if self._is_draining:
                self._runtime.drains -= 1

    def stop_for_shutdown(self) -> None:
        if self._exchange is not None:
            self._exchange.stop(Outcome.SHUTDOWN, within_s=0)

    async def _run(self) -> None:
        model = self._request.model or settings.LLM_DEFAULT_MODEL
        if not model:
            raise InvalidRequest("Name a model: this gateway has no default one.", param="model")
        self._caller.require_model(model)
        moment = datetime.now(UTC)
        for _ in range(_RESOLVE_TRIES):
            resolution = await self._resolve(model, moment)
            try:
                await self._call(resolution)
            except _CatalogMovedError as moved:
                self._runtime.forget_catalog(moved.version)
                moment = moved.now
            else:
                return
        raise InternalError("The list of models keeps changing. Try again.", retry_after_s=1)

    async def _resolve(self, model: str, moment: datetime) -> Resolution:
        """Raises ModelNotFound or ModelUnpriced."""
        catalog = await self._runtime.catalog()
        try:
            return catalog.resolve(model, at=moment, default_provider=settings.LLM_PROVIDER)
        except (ModelNotFound, ModelUnpriced):
            # Nothing is opened, so the books won't notice that this catalog is out of date.
            catalog = await self._runtime.fresh_catalog()
        return catalog.resolve(model, at=moment, default_provider=settings.LLM_PROVIDER)

    async def _call(self, resolution: Resolution) -> None:
        """Call one target after the other, each as often as makes sense, until one has answered."""
        closing: CloseCall | None = None
        failure: UpstreamError | None = None
        for candidate in self._candidates(resolution):
            for repeat in range(1 + settings.LLM_MAX_RETRIES):
                opened = await self._open(candidate, resolution, closing)
                failure, closing = await self._exchange_with(opened)
                if failure is None:
                    return
                self._has_counted |= closing is not None and closing.status is not UsageStatus.VOID
                if is_final(failure) or self.audience.is_gone or self._runtime.is_draining:
                    await self._give_up(failure, closing)
                pause = pause_before(repeat, failure)
                if pause is None or repeat == settings.LLM_MAX_RETRIES:
                    break
                await asyncio.sleep(pause)
        if failure is not None:
            await self._give_up(failure, closing)

    async def _give_up(self, failure: UpstreamError, closing: CloseCall | None) -> NoReturn:
        if closing is not None:
            await self._settle(closing)
        raise failure

    # --- Before anything is sent --------------------------------------------------------------------------------------

    def _candidates(self, resolution: Resolution) -> list[_Candidate]:
        """The targets that can take the request, in order. Raises InvalidRequest if none can."""
        candidates = []
        refusal: InvalidRequest | None = None
        for target in resolution.targets:
            try:
                candidates.append(_Candidate(target, self._translated(target)))
            except InvalidRequest as error:
                refusal = refusal or error
        if not candidates and refusal is not None:
            raise refusal
        return candidates

    def _translated(self, target: Target) -> ChatRequest | None:
        if self._request.dialect in getattr(self._runtime.provider(target.provider), "dialects", ()):
            return None
        return self._wire.to_chat(self._request, upstream_model=target.upstream_model)

    async def _open(self, candidate: _Candidate, resolution: Resolution, closing: CloseCall | None) -> _OpenedCall:
        """Put the call on the books, and the one before it to rest in the same transaction."""
        operation = self._open_operation(candidate.target, resolution)
        operations = (operation,) if closing is None else (closing, operation)
        results = await self._runtime.writer.submit(*operations)
        match results[-1]:
            case Opened(max_output_tokens=maximum, limits=limits):
                self._attempts += 1
                self.headers = self._reply_headers(operation, maximum, limits)
                return _OpenedCall(operation, candidate, maximum)
            case Stale(now=now, version=version):
                raise _CatalogMovedError(now, version)
            case Refused(exceeded=Exceeded() as exceeded, limits=limits):
                self.headers |= self._wire.limit_headers(limits, now=datetime.now(UTC))
                raise refusal_of(exceeded)
            case Refused(code=code):
                self._runtime.callers.clear()
                raise _refusal(code, operation.model)
        raise InternalError("This call could not be put on the books, so it was not made.")

    def _open_operation(self, target: Target, resolution: Resolution) -> OpenCall:
        price = target.price
        is_first = self._attempts == 0
        return OpenCall(
            id=self._uuid if is_first else uuid7(),
            request_id=self._uuid,
            attempt=self._attempts + 1,
            account_id=self._caller.account_id,
            key_id=self._caller.key_id,
            process_id=boot_id(),
            dialect=self._request.dialect,
            provider=target.provider,
            model=clean_text(resolution.model, most=200),
            upstream_model=clean_text(target.upstream_model, most=200),
            is_stream=self._request.is_stream,
            catalog_version=resolution.version,
            price_id=None if price is None else price.id,
            price_from=None if price is None else price.effective_from,
            price_until=None if price is None else price.effective_until,
            request_bytes=len(self._request.raw),
            ask=partial(ask_of, self._wire, self._request, price, requests=int(not self._has_counted)),
        )

    # --- The call itself ----------------------------------------------------------------------------------------------

    async def _exchange_with(self, opened: _OpenedCall) -> tuple[UpstreamError | None, CloseCall | None]:
        """None when the caller was answered; else why not, and the row that is still to be written."""
        operation, candidate = opened.operation, opened.candidate
        if self.audience.is_gone:
            await self._settle(void_of(operation, outcome=Outcome.CLIENT_GONE))
            return None, None
        exchange = Exchange(self._plan(opened), self.audience, self._settle)
        self._exchange = exchange
        chat = opened.chat
        talk = forward if chat is None else partial(translate, chat=chat)
        try:
            await exchange.run(talk)
        except UpstreamError as failure:
            return failure, exchange.closing
        finally:
            self._exchange = None
            if exchange.closing is not None:
                price = candidate.target.price
                priced_as = "" if price is None else price.model
                report_call(self._caller, operation, exchange.closing, request_id=self.request_id, priced_as=priced_as)
        return None, None

    def _plan(self, opened: _OpenedCall) -> Plan:
        target = opened.candidate.target
        return Plan(
            opened=opened.operation,
            target=target,
            provider=self._runtime.provider(target.provider),
            wire=self._wire,
            request=self._request,
            shows_cost=self._caller.shows_cost,
            forwarded_headers=self._forwarded_headers,
            reply_headers=self.headers,
            request_id=self.request_id,
            bounds=self._runtime.bounds,
            max_output_tokens=opened.max_output_tokens,
        )

    def _reply_headers(
        self, opened: OpenCall, max_output_tokens: int | None, limits: Sequence[LimitState]
    ) -> dict[str, str]:
        headers = {
            "x-llm-call-id": str(opened.id),
            "x-llm-provider": opened.provider,
            "x-llm-attempts": str(self._attempts),
        }
        if max_output_tokens is not None:
            headers["x-llm-max-output-tokens"] = str(max_output_tokens)
        if limits:
            headers |= self._wire.limit_headers(limits, now=datetime.now(UTC))
        return headers

    async def _settle(self, closing: CloseCall) -> None:
        """Durable when it returns, unless the books are away: the writer keeps it then, and the caller goes on."""
        written = self._runtime.writer.submit(closing)
        await asyncio.wait((written,), timeout=_SETTLE_PATIENCE_S)
        if not written.done():
            log.error("settlement waits for the books", request_id=self.request_id, call_id=str(closing.id))

    # --- The caller ---------------------------------------------------------------------------------------------------

    def _on_leave(self) -> None:
        """Read on for the figures, if the policy says so and not too many calls do already."""
        if self._exchange is None:
            return
        policies: Mapping[str, str] = settings.LLM_DISCONNECT_POLICY
        policy = policies.get(self._exchange.plan.target.provider, policies[""])
        may_drain = policy == "drain" and self._runtime.drains < settings.LLM_DISCONNECT_DRAIN_CALLS
        if may_drain and not self._is_draining:
            self._is_draining = True
            self._runtime.drains += 1
        self._exchange.stop(Outcome.CLIENT_GONE, within_s=settings.LLM_DISCONNECT_DRAIN_SECONDS if may_drain else 0)

    def _fail(self, error: GatewayError) -> None:
        if not isinstance(error, UpstreamError):
            metrics.count_refused(error.code)
        if not self.audience.reply.done():
            self.audience.reply.set_exception(error)
            self.audience.reply.exception()  # Read once, so that nobody's absence is reported as never retrieved.


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A target, and what goes to it: the caller's bytes where `chat` is None, else the translated request."""

    target: Target
    chat: ChatRequest | None


@dataclass(frozen=True, slots=True)
class _OpenedCall:
    """A call on the books. max_output_tokens: what a limit has lowered the output maximum to, or None."""

    operation: OpenCall
    candidate: _Candidate
    max_output_tokens: int | None

    @property
    def chat(self) -> ChatRequest | None:
        chat = self.candidate.chat
        if chat is None or self.max_output_tokens is None:
            return chat
        return replace(chat, max_tokens=self.max_output_tokens)


class _CatalogMovedError(Exception):
    """The books know of newer routes or prices than the request was resolved under."""

    def __init__(self, now: datetime, version: int) -> None:
        super().__init__(version)
        self.now = now
        self.version = version


def _refusal(code: str, model: str) -> GatewayError:
    if code in REFUSED_KEYS:
        return InvalidKey(REFUSED_KEYS[code])
    if code == "model":
        return PermissionDenied(f"This API key may not use the model “{model}”.", param="model")
    return PermissionDenied(REFUSED_ACCOUNT)
