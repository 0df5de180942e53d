"""LLMService as the gateway's own code uses it: real books, the echo provider, and providers that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from llm.calls.context import CallContext
from llm.calls.runtime import runtime
from llm.calls.task import RequestTask
from llm.dialects.native import NATIVE, NativeWriter
from llm.enums import CallOutcome, Dialect, UsageSource, UsageStatus
from llm.errors import InvalidKey, InvalidRequest, PermissionDenied, ShuttingDown, UpstreamFailed, UpstreamRejected
from llm.keys import Caller, create_key, get_or_create_account, load_caller, revoke_key
from llm.models import Account, ApiKey, RefusedWrite, Usage
from llm.providers.base import ProviderSettings
from llm.providers.echo import EchoProvider
from llm.service import LLMService
from llm.types import ChatMessage, ChatRequest, ChatResponse, StreamEnd, StreamItem, TokenCounts, ToolCall
from tests.books import closed_usage

pytestmark = pytest.mark.usefixtures("own_runtime")

HELLO = [ChatMessage("user", "Hello there")]
# 4 for the message and two words; Echo : Hello there.
COUNTS = TokenCounts(prompt_tokens=6, completion_tokens=4)


async def rows(count: int) -> list[Usage]:
    return await sync_to_async(closed_usage)(count)


async def whole(service: LLMService, **options: Any) -> ChatResponse:
    response = await service.chat(HELLO, **options)
    assert isinstance(response, ChatResponse)
    return response


async def stream(service: LLMService, **options: Any) -> AsyncGenerator[str, None]:
    deltas = await service.chat(HELLO, stream=True, **options)
    assert not isinstance(deltas, ChatResponse)
    return deltas


async def collect(deltas: AsyncGenerator[str, None], received: list[str]) -> None:
    """Reads to the end; what came before a failure is in `received`."""
    async for delta in deltas:
        received.append(delta)  # noqa: PERF401


@pytest.fixture
def caller(transactional_db: None) -> Caller:
    return load_caller(create_key(get_or_create_account("acme"), name="tests", allowed_models=["echo", "m"])[1])


class Provider(EchoProvider):
    """An echo whose answers a test can replace."""

    def __init__(
        self,
        answer: Callable[[ChatRequest], ChatResponse] | None = None,
        items: Callable[[], AsyncIterator[StreamItem]] | None = None,
    ) -> None:
        super().__init__(ProviderSettings("echo"))
        self._answer = answer
        self._items = items

    async def chat(self, request: ChatRequest) -> ChatResponse:
        return await super().chat(request) if self._answer is None else self._answer(request)

    async def stream_chat(self, request: ChatRequest) -> AsyncIterator[StreamItem]:
        assert self._items is not None
        async for item in self._items():
            yield item


def behind_echo(provider: Provider) -> None:
    runtime()._providers["echo"] = provider


# --- On the books -----------------------------------------------------------------------------------------------------


async def test_a_whole_reply_is_on_the_books(caller: Caller) -> None:
    response = await whole(LLMService(caller))
    assert response == ChatResponse(reply="Echo: Hello there", model="echo", usage=COUNTS)
    [row] = await rows(1)
    assert (row.account_id, row.api_key_id) == (caller.account_id, caller.key_id)
    assert (row.dialect, row.provider, row.model, row.upstream_model) == (Dialect.NATIVE, "echo", "echo", "echo")
    assert (row.status, row.usage_source, row.outcome) == (UsageStatus.SETTLED, UsageSource.REPORTED, CallOutcome.OK)
    assert (row.prompt_tokens, row.completion_tokens, row.is_stream) == (6, 4, False)
    assert (row.is_unpriced, row.attempt, row.request_id) == (True, 1, row.id)


async def test_a_stream_is_its_text_and_on_the_books_before_it_ends(caller: Caller) -> None:
    deltas = await stream(LLMService(caller))
    assert "".join([delta async for delta in deltas]) == "Echo: Hello there"
    row = await Usage.objects.aget()
    assert (row.status, row.usage_source, row.outcome) == (UsageStatus.SETTLED, UsageSource.REPORTED, CallOutcome.OK)
    assert (row.prompt_tokens, row.completion_tokens, row.is_stream) == (6, 4, True)


async def test_a_model_can_be_named(caller: Caller) -> None:
    assert (await whole(LLMService(caller), model="m")).model == "m"
    assert [row.model for row in await rows(1)] == ["m"]


async def test_without_a_caller_calls_go_on_the_gateways_own_account() -> None:
    service = LLMService()
    await whole(service)
    await whole(service)
    account = await Account.objects.aget()
    assert account.name == "internal"
    assert {row.account_id for row in await rows(2)} == {account.pk}
    assert await ApiKey.objects.acount() == 1


async def test_tool_calls_come_back(caller: Caller) -> None:
    call = ToolCall("call_1", "look_up", '{"city": "Lisbon"}')
    behind_echo(Provider(lambda request: ChatResponse("", request.model, TokenCounts(5, 3), "tool_calls", (call,))))
    assert (await whole(LLMService(caller))).tool_calls == (call,)


async def test_what_the_provider_did_not_report_is_estimated(caller: Caller) -> None:
    behind_echo(Provider(lambda request: ChatResponse("one two three", request.model)))
    response = await whole(LLMService(caller))
    [row] = await rows(1)
    assert (row.status, row.usage_source, row.completion_tokens) == (UsageStatus.ESTIMATED, UsageSource.ESTIMATED, 3)
    assert response.usage == TokenCounts(row.prompt_tokens, 3)


@pytest.mark.parametrize("count", [-1, 10**13, 1.5, "9"])
async def test_absurd_figures_of_a_custom_provider_are_disputed_not_lost(caller: Caller, count: Any) -> None:
    behind_echo(Provider(lambda request: ChatResponse("one two", request.model, TokenCounts(count, 1))))
    await whole(LLMService(caller))
    [row] = await rows(1)
    assert (row.status, row.is_disputed, row.is_billable) == (UsageStatus.ESTIMATED, True, False)
    assert row.disputed_usage is not None
    assert row.disputed_usage["prompt_tokens"] == repr(count)


# --- Refused and failed -----------------------------------------------------------------------------------------------


async def test_a_model_that_the_key_may_not_use_is_refused(caller: Caller) -> None:
    with pytest.raises(PermissionDenied):
        await whole(LLMService(caller), model="another")
    assert await Usage.objects.acount() == 0


async def test_a_revoked_key_is_refused_by_the_books(caller: Caller) -> None:
    await runtime().run_db(lambda: revoke_key(ApiKey.objects.get()))
    with pytest.raises(InvalidKey, match="revoked"):
        await whole(LLMService(caller))
    assert await Usage.objects.acount() == 0


async def test_without_a_default_model_one_must_be_named(caller: Caller, settings: Any) -> None:
    settings.LLM_DEFAULT_MODEL = ""
    for track_tokens in (True, False):
        with pytest.raises(InvalidRequest) as refusal:
            await whole(LLMService(caller), track_tokens=track_tokens)
        assert refusal.value.param == "model"
    assert await Usage.objects.acount() == 0


async def test_no_messages_are_no_request(caller: Caller) -> None:
    with pytest.raises(InvalidRequest):
        await LLMService(caller).chat([])
    assert await Usage.objects.acount() == 0


async def test_a_call_over_http_needs_a_caller() -> None:
    request = NATIVE.parse(b'{"messages":[{"role":"user","content":"Hi"}]}')
    with pytest.raises(InvalidKey):
        LLMService().start(NATIVE, request, forwarded_headers={})


async def test_a_refusal_of_the_upstream_is_raised_and_costs_nothing(caller: Caller) -> None:
    def refuse(_: ChatRequest) -> ChatResponse:
        error = UpstreamRejected("Too long.", code="context_length_exceeded")
        error.upstream_status = 400
        raise error

    behind_echo(Provider(refuse))
    with pytest.raises(UpstreamRejected, match="Too long"):
        await whole(LLMService(caller))
    [row] = await rows(1)
    assert (row.status, row.outcome) == (UsageStatus.SETTLED, CallOutcome.UPSTREAM_REFUSED)
    assert row.cost == Decimal(0)
    assert (row.error_code, row.upstream_status, row.total_tokens) == ("context_length_exceeded", 400, 0)


async def test_a_provider_that_crashes_is_a_failure_that_may_have_worked(caller: Caller) -> None:
    def crash(_: ChatRequest) -> ChatResponse:
        raise KeyError("the prompt was: Hello there")

    behind_echo(Provider(crash))
    with pytest.raises(UpstreamFailed) as failed:
        await whole(LLMService(caller))
    assert failed.value.may_have_worked
    assert "Hello" not in failed.value.message
    [row] = await rows(1)
    assert (row.status, row.outcome) == (UsageStatus.ESTIMATED, CallOutcome.UPSTREAM_FAILED)
    assert (row.completion_tokens, row.prompt_tokens > 0) == (0, True)


async def test_a_failure_after_the_settlement_reaches_the_caller_and_leaves_the_row_as_it_is(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(NATIVE), "render_whole", lambda *_, **__: 1 // 0)
    with pytest.raises(UpstreamFailed) as caught:
        await asyncio.wait_for(LLMService(caller).chat(HELLO), 5)
    assert caught.value.may_have_worked
    [row] = await rows(1)
    assert (row.status, row.outcome, row.prompt_tokens) == (UsageStatus.SETTLED, CallOutcome.OK, 6)
    assert await RefusedWrite.objects.acount() == 0


async def test_a_stream_that_fails_after_the_settlement_says_so(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NativeWriter, "finish", lambda *_, **__: 1 // 0)
    received: list[str] = []
    with pytest.raises(UpstreamFailed):
        await asyncio.wait_for(collect(await stream(LLMService(caller)), received), 5)
    assert "".join(received) == "Echo: Hello there"
    assert [row.status for row in await rows(1)] == [UsageStatus.SETTLED]


async def test_a_call_that_is_stopped_before_it_is_sent_is_void(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its open row and the upstream, or between two tries, there is nothing to cut."""
    opened = RequestTask._open

    async def open_and_stop(self: RequestTask, *arguments: Any) -> CallContext:
        call = await opened(self, *arguments)
        runtime()._stop_requests()
        return call

    monkeypatch.setattr(RequestTask, "_open", open_and_stop)
    with pytest.raises(ShuttingDown):
        await asyncio.wait_for(LLMService(caller).chat(HELLO), 5)
    assert [(row.status, row.outcome) for row in await rows(1)] == [(UsageStatus.VOID, CallOutcome.SHUTDOWN)]


async def test_nobody_waits_for_a_task_that_was_cancelled(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    async def cancelled(_self: RequestTask) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(RequestTask, "_run", cancelled)
    with pytest.raises(ShuttingDown):
        await asyncio.wait_for(LLMService(caller).chat(HELLO), 5)


async def test_a_stream_that_breaks_off_raises_after_what_came(caller: Caller) -> None:
    async def items() -> AsyncIterator[StreamItem]:
        yield "one"
        yield " two"

    behind_echo(Provider(items=items))
    deltas = await stream(LLMService(caller))
    received: list[str] = []
    with pytest.raises(UpstreamFailed) as failed:
        await collect(deltas, received)
    assert "".join(received) == "one two"
    assert failed.value.may_have_worked
    [row] = await rows(1)
    assert (row.status, row.outcome, row.completion_tokens) == (UsageStatus.ESTIMATED, CallOutcome.UPSTREAM_FAILED, 2)


async def test_a_listener_who_stops_early_is_on_the_books_with_the_providers_figures(caller: Caller) -> None:
    more = asyncio.Event()

    async def items() -> AsyncIterator[StreamItem]:
        yield "one"
        await more.wait()
        yield " two"
        yield StreamEnd("echo", TokenCounts(7, 2))

    behind_echo(Provider(items=items))
    async with aclosing(await stream(LLMService(caller))) as deltas:
        assert await anext(deltas) == "one"
    await asyncio.sleep(0.01)
    more.set()
    [row] = await rows(1)
    assert (row.status, row.usage_source, row.outcome) == (
        UsageStatus.SETTLED,
        UsageSource.DRAINED,
        CallOutcome.CLIENT_GONE,
    )
    assert (row.prompt_tokens, row.completion_tokens) == (7, 2)


# --- Off the books ----------------------------------------------------------------------------------------------------


async def test_an_untracked_reply_leaves_no_trace() -> None:
    response = await whole(LLMService(), track_tokens=False)
    assert response == ChatResponse(reply="Echo: Hello there", model="echo", usage=COUNTS)
    assert await Usage.objects.acount() == 0
    assert await Account.objects.acount() == 0


async def test_an_untracked_stream_leaves_no_trace() -> None:
    deltas = await stream(LLMService(), track_tokens=False)
    assert [delta async for delta in deltas] == ["Echo:", " Hello", " there"]
    assert await Usage.objects.acount() == 0
    assert await Account.objects.acount() == 0
