"""The task that owns a request: resolve -> open -> upstream -> settle, whatever the caller does meanwhile.

The runtime holds it, and nobody cancels it. A caller that hangs up is news to it, not its end: it reads on for figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import NoReturn

import structlog
from django.conf import settings

from llm import metrics
from llm.books.operations import CloseCall, OpenCall, Opened, Refused
from llm.call_log import report_call
from llm.catalog import Catalog, Resolution
from llm.dialects.base import ParsedRequest, WireFormat
from llm.enums import LimitMetric, Outcome, UsageStatus
from llm.errors import (
    GatewayError,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    ModelUnpriced,
    RequestError,
    ShuttingDown,
    UnboundedError,
    UpstreamError,
)
from llm.exchange import Exchange, Plan
from llm.forwarding import forward
from llm.ids import uuid7
from llm.keys import Caller
from llm.opening import Asked, Candidate, CatalogMovedError, OpenedCall, candidates_of, why_unopened
from llm.relay import Audience
from llm.retrying import failure_to_report, is_final, pause_before
from llm.runtime import Runtime
from llm.settlement import void_of
from llm.translation import translate

log = structlog.get_logger("llm.calls")

_SETTLE_PATIENCE_S = 15.0
"""Longer than the writer takes to find out that the database hangs, and to put a settlement into the spool instead."""
_RESOLVE_TRIES = 4
_STOPPING = "This gateway process is about to stop. Try again."


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
        self._asked = Asked(uuid7(), caller, wire, request)
        self.request_id = f"req_{self._asked.id.hex}"
        self._exchange: Exchange | None = None
        self._attempts = 0
        self._has_counted = False
        self._is_draining = False
        self._is_stopped = False
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
            if not self.audience.is_gone:
                # Nobody waits for ever, whatever has happened here.
                self._fail(ShuttingDown(_STOPPING))

    def stop_for_shutdown(self) -> None:
        """What is under way ends now, and nothing more begins."""
        self._is_stopped = True
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
            except CatalogMovedError as moved:
                self._runtime.forget_catalog(moved.version)
                moment = moved.now
            else:
                return
        raise InternalError("The list of models keeps changing. Try again.", retry_after_s=1)

    async def _resolve(self, model: str, moment: datetime) -> Resolution:
        """Raises ModelNotFound, ModelUnpriced, or InvalidRequest for what the route doesn't allow."""
        catalog = await self._runtime.catalog()
        try:
            return self._resolve_by(catalog, model, moment)
        except (ModelNotFound, ModelUnpriced, InvalidRequest):
            # Nothing is opened, so the books won't notice that this catalog is out of date.
            catalog = await self._runtime.fresh_catalog()
        return self._resolve_by(catalog, model, moment)

    def _resolve_by(self, catalog: Catalog, model: str, moment: datetime) -> Resolution:
        resolution = catalog.resolve(model, at=moment, default_provider=settings.LLM_PROVIDER)
        self._refuse_routing(resolution)
        return resolution

    async def _call(self, resolution: Resolution) -> None:
        """Call one target after the other, each as often as makes sense, until one has answered."""
        closing: CloseCall | None = None
        failures: list[UpstreamError] = []
        refusal: RequestError | None = None
        candidates = candidates_of(resolution, self._request, self._wire, provider_of=self._runtime.provider)
        for candidate in candidates:
            try:
                closing, is_answered = await self._try(candidate, resolution, closing, failures)
            except UnboundedError as error:
                # Nobody can say what this target may use under a limit that binds; of another one it may be known.
                closing, refusal = None, refusal or error
                continue
            except RequestError:
                if not failures:
                    raise
                break
            if is_answered:
                return
            if self._is_over(failures[-1], resolution):
                break
        if failures:
            await self._give_up(failure_to_report(failures), closing)
        if refusal is not None:
            raise refusal

    async def _try(
        self, candidate: Candidate, resolution: Resolution, closing: CloseCall | None, failures: list[UpstreamError]
    ) -> tuple[CloseCall | None, bool]:
        """One target, as often as makes sense: the row that is still to be written, and whether it has answered."""
        for repeat in range(1 + settings.LLM_MAX_RETRIES):
            opened = await self._open(candidate, resolution, closing)
            failure, closing = await self._exchange_with(opened)
            if failure is None:
                return None, True
            failures.append(failure)
            if failure.operator_fault:
                await self._runtime.tell_staff(candidate.target.provider, failure)
            self._has_counted |= closing is not None and closing.status is not UsageStatus.VOID
            pause = pause_before(repeat, failure)
            if self._is_over(failure, resolution) or pause is None or repeat == settings.LLM_MAX_RETRIES:
                break
            await asyncio.sleep(pause)
        return closing, False

    def _is_over(self, failure: UpstreamError, resolution: Resolution) -> bool:
        if self.audience.is_gone or self._runtime.is_draining:
            return True
        return is_final(failure, falls_back_on_server_error=resolution.falls_back_on_server_error)

    def _refuse_routing(self, resolution: Resolution) -> None:
        """Fields by which the provider would serve another model than the one that the key may call and pays for."""
        if self._request.routing_fields and not resolution.allows_provider_routing:
            field = self._request.routing_fields[0]
            raise InvalidRequest(
                f"'{field}' lets the provider choose another model or provider. This model does not allow that.",
                param=field,
            )

    async def _give_up(self, failure: UpstreamError, closing: CloseCall | None) -> NoReturn:
        if closing is not None:
            await self._settle(closing)
        raise failure

    async def _open(self, candidate: Candidate, resolution: Resolution, closing: CloseCall | None) -> OpenedCall:
        """Put the call on the books, and the one before it to rest in the same transaction."""
        operation = self._asked.open_call(
            candidate.target, resolution, attempt=self._attempts + 1, counts=not self._has_counted
        )
        operations = (operation,) if closing is None else (closing, operation)
        result = (await self._runtime.writer.submit(*operations))[-1]
        if isinstance(result, Opened):
            self._attempts += 1
            self.headers = self._reply_headers(operation, result)
            return OpenedCall(operation, candidate, result.max_output_tokens)
        if isinstance(result, Refused):
            self.headers |= self._wire.limit_headers(result.limits, now=datetime.now(UTC))
            if result.exceeded is None:
                self._runtime.callers.clear()
        raise why_unopened(result, operation, shows_cost=self._caller.shows_cost)

    # --- The call itself ----------------------------------------------------------------------------------------------

    async def _exchange_with(self, opened: OpenedCall) -> tuple[UpstreamError | None, CloseCall | None]:
        """None when the caller was answered; else why not, and the row that is still to be written."""
        operation, candidate = opened.operation, opened.candidate
        if self._is_stopped:
            await self._settle(void_of(operation, outcome=Outcome.SHUTDOWN))
            raise ShuttingDown(_STOPPING)
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
                price = candidate.price_served(exchange.closing.reported_model).price
                priced_as = "" if price is None else price.model
                report_call(self._caller, operation, exchange.closing, request_id=self.request_id, priced_as=priced_as)
        return None, None

    def _plan(self, opened: OpenedCall) -> Plan:
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
            price_served=opened.candidate.price_served,
            max_output_tokens=opened.max_output_tokens,
        )

    def _reply_headers(self, operation: OpenCall, opened: Opened) -> dict[str, str]:
        headers = {
            "x-llm-call-id": str(operation.id),
            "x-llm-provider": operation.provider,
            "x-llm-attempts": str(self._attempts),
        }
        if opened.max_output_tokens is not None and (self._caller.shows_cost or not _is_cost_limited(opened)):
            headers["x-llm-max-output-tokens"] = str(opened.max_output_tokens)
        if opened.limits:
            headers |= self._wire.limit_headers(opened.limits, now=datetime.now(UTC))
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
        if self.audience.is_answered:
            return
        if not isinstance(error, UpstreamError):
            metrics.count_refused(error.code)
        self.audience.reply.set_exception(error)
        self.audience.reply.exception()  # Read once, so that nobody's absence is reported as never retrieved.


def _is_cost_limited(opened: Opened) -> bool:
    """Then a lowered maximum is the limit divided by our price: docs/decisions/0023."""
    return any(state.metric is LimitMetric.COST for state in opened.limits)
