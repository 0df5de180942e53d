"""The task that owns a request: resolve -> open -> upstream -> settle, whatever the caller does meanwhile.

The runtime holds it, and it is never cancelled. A caller that hangs up is an event, not its end: it reads on for usage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import structlog
from django.conf import settings

from llm import metrics
from llm.books.operations import Claim, OpenCall, Opened, Refused, Repeated
from llm.calls.choosing import is_same_but_for_key, order_targets, require_configured
from llm.calls.context import CallContext
from llm.calls.deadlines import StopReason
from llm.calls.kept_replies import are_kept, find_reply, keep_reply
from llm.calls.kept_responses import Maker, find_makers, not_found
from llm.calls.opening import CatalogMovedError, choose_targets, lower_maximum, open_call, why_unopened
from llm.calls.relay import Audience, Reply
from llm.calls.retries import failure_to_report, is_final, is_of_key, pause_before
from llm.calls.runtime import Runtime
from llm.calls.upstream_call import STOPPING, UpstreamCall, origin_of
from llm.dialects.base import ParsedRequest, WireFormat
from llm.dialects.kept_objects import refuse_storage
from llm.endusers import NamedEndUser, hash_end_user
from llm.enums import LimitMetric, UsageStatus
from llm.errors import (
    GatewayError,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    ModelUnpriced,
    PermissionDenied,
    RequestError,
    ShuttingDown,
    UnboundedError,
    UpstreamError,
    describe_exception,
    without_frames,
)
from llm.ids import uuid7
from llm.keys import Caller
from llm.prices.catalog import Catalog, Resolution, Target, resolve_model
from llm.providers.base import KnowsOutputMaximum, KnowsServer
from llm.providers.failures import refuses_stream_options
from llm.providers.registry import find_instance
from llm.types import ChatRequest

log = structlog.get_logger("llm.calls")

_RESOLVE_TRIES = 4


class ReplayedError(Exception):
    """An earlier request was this one, and its reply is kept."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


class RequestTask:
    """One request of one caller. `audience.reply` becomes its result; `headers` go with every reply."""

    def __init__(
        self,
        runtime: Runtime,
        caller: Caller,
        wire: WireFormat,
        request: ParsedRequest,
        *,
        forwarded_headers: Mapping[str, str],
        claim: Claim | None = None,
    ) -> None:
        self.audience = Audience()
        self.headers: dict[str, str] = {}
        self._runtime = runtime
        self._caller = caller
        self._wire = wire
        self._request = request
        self._forwarded_headers = forwarded_headers
        self._claim = claim
        self._keeps_reply = claim is not None and not request.is_stream and are_kept()
        self._id = uuid7()
        self.request_id = f"req_{self._id.hex}"
        self._makers: frozenset[Maker] | None = None
        self._end_user: NamedEndUser | None = None
        self._current: UpstreamCall | None = None
        self._unsettled: UpstreamCall | None = None
        self._attempts = 0
        self._has_counted = False
        self._is_draining = False
        self._is_stopped = False
        self._silence: asyncio.TimerHandle | None = None
        self.audience.on_leave(self._on_leave)

    async def run(self) -> None:
        metrics.IN_FLIGHT.inc()
        if self._request.is_stream:
            self._watch_silence(self._runtime.bounds.silence_s)
        try:
            await self._run()
        except GatewayError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001  # the outermost edge
            # Without the exception's text, which may contain a prompt.
            log.error("request.failed", request_id=self.request_id, **describe_exception(error))  # noqa: TRY400
            self._fail(InternalError("Something went wrong on our side."))
        finally:
            metrics.IN_FLIGHT.dec()
            if self._silence is not None:
                self._silence.cancel()
            if self._is_draining:
                self._runtime.drains -= 1
            # Otherwise task and audience would keep each other, and a body of megabytes, alive until the next
            # collection.
            self.audience.on_leave(None)
            if not self.audience.is_gone:
                # No caller may wait for ever, whatever has happened here.
                self._fail(ShuttingDown(STOPPING))

    def stop_for_shutdown(self) -> None:
        """End what is running, and start nothing more."""
        self._is_stopped = True
        if self._current is not None:
            self._current.stop(StopReason.SHUTDOWN, within_s=0)

    async def _run(self) -> None:
        model = self._request.model or settings.LLM_DEFAULT_MODEL
        if not model:
            raise InvalidRequest("Set 'model': this gateway has no default model.", param="model")
        await self._require_model(model)
        if not self._caller.allows_storage:
            refuse_storage(self._request.body)
            self._request = replace(self._request, forbids_storage=True)
        if self._request.kept_responses:
            self._makers = await find_makers(self._runtime, self._caller, self._request.kept_responses)
        self._end_user = await self._find_end_user()
        moment = datetime.now(UTC)
        for _ in range(_RESOLVE_TRIES):
            resolution = await self._resolve(model, moment)
            try:
                await self._call(resolution)
            except CatalogMovedError as moved:
                self._runtime.forget_catalog(moved.version)
                moment = moved.now
            except ReplayedError as replayed:
                self.audience.answer(replayed.reply)
                return
            else:
                return
            finally:
                if self._unsettled is not None:
                    # No other call follows.
                    await self._unsettled.settle()
        raise InternalError("The list of models keeps changing. Try again.", retry_after_s=1)

    async def _find_end_user(self) -> NamedEndUser | None:
        """The end user that the request names, unless the account has switched recording off."""
        if not self._request.end_user or not self._caller.records_end_users:
            return None
        key = await self._runtime.end_user_key(self._caller)
        name = self._request.end_user
        return NamedEndUser(self._caller.account_id, hash_end_user(name, key), name, key)

    async def _require_model(self, model: str) -> None:
        """Raises PermissionDenied. Staff may have allowed the model since the caller was cached."""
        try:
            self._caller.require_model(model)
        except PermissionDenied:
            self._caller = await self._runtime.fresh_caller(self._caller)
            self._caller.require_model(model)

    async def _resolve(self, model: str, moment: datetime) -> Resolution:
        """Raises ModelNotFound, ModelUnpriced, or InvalidRequest for what the route doesn't allow."""
        catalog = await self._runtime.catalog()
        try:
            return self._resolve_by(catalog, model, moment)
        except (ModelNotFound, ModelUnpriced, InvalidRequest):
            # Nothing will be opened, so the books won't notice that this catalog is outdated.
            catalog = await self._runtime.fresh_catalog()
        return self._resolve_by(catalog, model, moment)

    def _resolve_by(self, catalog: Catalog, model: str, moment: datetime) -> Resolution:
        resolution = resolve_model(catalog, model, at=moment)
        require_configured(resolution)
        self._refuse_routing(resolution)
        return resolution

    async def _call(self, resolution: Resolution) -> None:
        """Call one target after another, each as often as makes sense, until one has answered."""
        failures: list[UpstreamError] = []
        refusal: RequestError | None = None
        failed: Target | None = None
        for target, chat in self._runtime.health.in_turn(self._targets(resolution)):
            if failed is not None and is_same_but_for_key(failed, target) and not is_of_key(failures[-1]):
                continue
            try:
                if await self._try(target, chat, resolution, failures):
                    return
            except UnboundedError as error:
                # What this target may use under the limit is unknown; for another one it may be known.
                refusal = refusal or error
                continue
            except RequestError:
                if not failures:
                    raise
                break
            if self._is_over(failures[-1], resolution):
                break
            failed = target
        if failures:
            raise failure_to_report(failures)
        if refusal is not None:
            raise refusal

    def _targets(self, resolution: Resolution) -> list[tuple[Target, ChatRequest | None]]:
        """In order, with what to send to each. Raises InvalidRequest if none can take the request."""
        targets = order_targets(resolution.targets, account_id=self._caller.account_id, makers=self._makers)
        if not targets:
            raise not_found(self._request.kept_responses[0])
        return choose_targets(targets, self._request, self._wire, provider_of=self._runtime.provider)

    async def _try(
        self, target: Target, chat: ChatRequest | None, resolution: Resolution, failures: list[UpstreamError]
    ) -> bool:
        """Calls one target, as often as makes sense; returns whether it has answered, or the caller has left."""
        repeat = 0
        while True:
            context = await self._open(target, chat, resolution)
            self._current = call = UpstreamCall(context, self.audience, self._runtime.writer)
            if self._is_stopped:
                call.stop(StopReason.SHUTDOWN, within_s=0)
            try:
                failure = await call.run()
            finally:
                self._current = None
            if failure is None:
                self._note_health(call)
                return True
            failures.append(failure)
            self._note_failure(call)
            if failure.operator_fault:
                await self._runtime.tell_staff(target.instance, failure)
            if _has_learned(context, failure):
                continue
            pause = pause_before(repeat, failure)
            if self._is_over(failure, resolution) or pause is None or repeat == settings.LLM_MAX_RETRIES:
                self._note_health(call)
                return False
            await asyncio.sleep(pause)
            repeat += 1

    def _note_health(self, call: UpstreamCall) -> None:
        """What the target has come to in this request."""
        if call.has_failed_upstream:
            self._runtime.health.note_failure(call.context.target)
        elif call.has_answered:
            self._runtime.health.note_success(call.context.target)

    def _note_failure(self, call: UpstreamCall) -> None:
        self.headers |= call.settled_limit_headers()
        self._has_counted |= call.closing is not None and call.closing.status is not UsageStatus.VOID
        if call.closing is None or not call.closing.releases_claim:
            # It may have worked: the claim stays with it, whatever a later attempt does.
            self._claim = None
        if not call.is_settled:
            self._unsettled = call

    def _is_over(self, failure: UpstreamError, resolution: Resolution) -> bool:
        if self.audience.is_gone or self._runtime.is_draining:
            return True
        return is_final(failure, falls_back_on_server_error=resolution.falls_back_on_server_error)

    def _refuse_routing(self, resolution: Resolution) -> None:
        """Refuses fields by which the provider would serve another model than the one that the key may call and pays
        for.
        """
        if self._request.routing_fields and not resolution.allows_provider_routing:
            field = self._request.routing_fields[0]
            raise InvalidRequest(
                f"'{field}' lets the provider choose a different model or provider. This model does not allow that.",
                param=field,
            )

    async def _open(self, target: Target, chat: ChatRequest | None, resolution: Resolution) -> CallContext:
        """Record the call, and void the previous one in the same transaction."""
        operation = open_call(
            self._request,
            self._caller,
            self._wire,
            resolution=resolution,
            target=target,
            request_id=self._id,
            attempt=self._attempts + 1,
            counts=not self._has_counted,
            claim=self._claim,
            end_user="" if self._end_user is None else self._end_user.end_user,
            default_maximum=None if chat is None else await self._find_default_maximum(target),
        )
        failed, self._unsettled = self._unsettled, None
        operations = (operation,) if failed is None else (failed.take_closing(), operation)
        result = (await self._runtime.writer.submit(*operations))[-1]
        if isinstance(result, Opened):
            self._attempts += 1
            if self._end_user is not None:
                self._runtime.end_user_names.note(self._end_user)
            self.headers = self._reply_headers(operation, result)
            return self._context(operation, result, target, chat, resolution)
        if isinstance(result, Repeated) and not self._attempts:
            self.headers["x-llm-call-id"] = str(result.call_id)
            await self._replay(result)
        if isinstance(result, Refused):
            self.headers |= self._wire.limit_headers(result.limits, now=datetime.now(UTC))
            if result.exceeded is None:
                self._runtime.callers.expire(self._caller.key_id)
        raise why_unopened(result, operation, shows_cost=self._caller.shows_cost)

    async def _find_default_maximum(self, target: Target) -> int | None:
        """What its provider sends with a translated request that has no maximum, where it can say that before."""
        if self._request.max_output_tokens is not None or self._request.is_count:
            return None
        provider = self._runtime.provider(target.instance, target.credential)
        if not isinstance(provider, KnowsOutputMaximum):
            return None
        return await provider.find_default_maximum(target.upstream_model)

    async def _replay(self, repeated: Repeated) -> None:
        """Raises ReplayedError if the reply to the first request is kept."""
        if not self._keeps_reply or not repeated.is_same or repeated.is_in_flight:
            return
        if (reply := await find_reply(self._runtime, repeated.call_id)) is not None:
            raise ReplayedError(reply)

    def _context(
        self, operation: OpenCall, opened: Opened, target: Target, chat: ChatRequest | None, resolution: Resolution
    ) -> CallContext:
        return CallContext(
            opened=operation,
            caller=self._caller,
            wire=self._wire,
            request=self._request,
            forwarded_headers=self._forwarded_headers,
            resolution=resolution,
            target=target,
            provider=self._runtime.provider(target.instance, target.credential),
            chat=lower_maximum(chat, opened.max_output_tokens),
            bounds=self._runtime.bounds,
            reply_headers=self.headers,
            max_output_tokens=opened.max_output_tokens,
            limits=opened.limits,
            keep_reply=partial(keep_reply, self._runtime, self._id) if self._keeps_reply else None,
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

    # --- The caller ---------------------------------------------------------------------------------------------------

    def _on_leave(self) -> None:
        """Read on for the usage, if the policy says so and not too many calls are doing that already."""
        if self._current is None:
            return
        instance = find_instance(self._current.context.target.instance)
        policies: Mapping[str, str] = settings.LLM_DISCONNECT_POLICY
        policy = policies[""] if instance is None else instance.policy(policies)
        may_drain = policy == "drain" and self._runtime.drains < settings.LLM_DISCONNECT_DRAIN_CALLS
        if may_drain and not self._is_draining:
            self._is_draining = True
            self._runtime.drains += 1
        self._current.stop(StopReason.HANG_UP, within_s=settings.LLM_DISCONNECT_DRAIN_SECONDS if may_drain else 0)

    def _watch_silence(self, within_s: float) -> None:
        self._silence = asyncio.get_running_loop().call_later(within_s, self._break_silence)

    def _break_silence(self) -> None:
        """Proxies and clients assume that a silent connection is dead, whatever we are waiting for."""
        bounds = self._runtime.bounds
        relay = self.audience.begin_stream(bounds, self.headers)
        left_s = bounds.silence_s - relay.silent_s
        if left_s <= 0:
            relay.break_silence(self._wire.keepalive)
            left_s = bounds.silence_s
        self._watch_silence(left_s)

    def _fail(self, error: GatewayError) -> None:
        relay = self.audience.relay
        if relay is not None and not relay.is_closed:
            # The headers are already sent, so the stream itself has to report it.
            relay.add(self._wire.render_stream_error(error, request_id=self.request_id, origin=origin_of(self.headers)))
            relay.close()
        if self.audience.is_answered:
            return
        if not isinstance(error, UpstreamError):
            metrics.count_refused(error.code)
            model = self._request.model or settings.LLM_DEFAULT_MODEL
            self._runtime.refusals.note(error, self._caller, model=model, request_id=self.request_id)
        # Its frames keep the reply so far, in a reference cycle: long-lived ones wait for a full collection.
        self.audience.reply.set_exception(without_frames(error))
        self.audience.reply.exception()  # Retrieved once, so that asyncio doesn't report it as never retrieved.


def _has_learned(context: CallContext, failure: UpstreamError) -> bool:
    """Whether to repeat the call at once, without a field that only we have added and its server doesn't know."""
    if not context.asks_for_usage or not refuses_stream_options(failure):
        return False
    provider = context.provider
    return isinstance(provider, KnowsServer) and provider.learn_no_stream_options(context.target.upstream_model)


def _is_cost_limited(opened: Opened) -> bool:
    """Then a lowered maximum would reveal our price, as the limit divided by it: docs/decisions/0023."""
    return any(state.metric is LimitMetric.COST for state in opened.limits)
