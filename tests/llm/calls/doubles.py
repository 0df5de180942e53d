"""What a call meets on both sides, as small as it can be: providers that say their lines step by step, and books that
note what they are given."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast
from unittest.mock import Mock
from uuid import UUID

import orjson

from llm.books.operations import CloseCall, Closed, OpenCall, Opened, Operation, Result
from llm.books.writer.thread import BooksWriter
from llm.calls.context import Bounds
from llm.calls.runtime import Runtime
from llm.calls.target_health import TargetHealth
from llm.dialects.base import ParsedRequest
from llm.dialects.openai_chat.wire import OPENAI_CHAT
from llm.enums import Dialect
from llm.keys import Caller, CallerCache
from llm.prices.catalog import Catalog, Route, TargetName
from llm.providers.base import BaseLLMProvider, RawCall
from llm.providers.counting import count_message_tokens
from llm.types import ChatMessage, ChatRequest, ChatResponse, StreamEnd, StreamItem, TokenCounts

COUNTS = TokenCounts(prompt_tokens=9, completion_tokens=3)
CALLER = Caller(1, 1, "acme", "tests", frozenset(), shows_cost=False)
WIDE = Bounds(
    first_byte_s=60, idle_s=60, total_s=60, relay_bytes=1000, relay_stall_s=60, drain_events=1000, silence_s=60
)
WORDS = ("You ", "said: ", "hello")
_USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


def a_request(*, is_stream: bool) -> ParsedRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": is_stream}
    return OPENAI_CHAT.parse(orjson.dumps(body))


class Script:
    """When a provider goes on, stays silent or breaks. `open`: what of it nobody has closed yet."""

    def __init__(self, *, stays_at: int = 0, errors: Mapping[int, Exception] | None = None) -> None:
        self.open = 0
        self.stays = asyncio.Event()
        self._goes_on = asyncio.Event()
        self._steps = 0
        self._stays_at = stays_at
        self._errors = errors or {}

    async def step(self) -> None:
        self._steps += 1
        if self._steps in self._errors:
            raise self._errors[self._steps]
        if self._steps == self._stays_at:
            self.stays.set()
            await self._goes_on.wait()
        await asyncio.sleep(0)

    def go_on(self) -> None:
        self._goes_on.set()

    @contextmanager
    def opened(self) -> Iterator[None]:
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


class ForwardingProvider:
    """Speaks the caller's own dialect."""

    dialects = frozenset((Dialect.OPENAI_CHAT,))
    maximum_field = "max_tokens"

    def __init__(self, script: Script) -> None:
        self.script = script

    async def forward(self, call: RawCall) -> _RawReply:
        await self.script.step()
        return _RawReply(_stream_pieces() if call.is_stream else _whole_pieces(), self.script)

    def count_tokens(self, messages: Sequence[ChatMessage], model: str) -> int:
        return count_message_tokens(messages)


class _RawReply:
    def __init__(self, pieces: Sequence[bytes], script: Script) -> None:
        self._pieces = pieces
        self._script = script
        self._is_closed = False
        script.open += 1

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        with self._script.opened():
            for piece in self._pieces:
                await self._script.step()
                yield piece

    async def aclose(self) -> None:
        self._script.open -= not self._is_closed
        self._is_closed = True


class TalkingProvider:
    """Speaks a dialect of its own."""

    def __init__(self, script: Script) -> None:
        self.script = script

    async def chat(self, request: ChatRequest) -> ChatResponse:
        with self.script.opened():
            await self.script.step()
            return ChatResponse("".join(WORDS), "m", COUNTS)

    async def stream_chat(self, request: ChatRequest) -> AsyncIterator[StreamItem]:
        with self.script.opened():
            for word in WORDS:
                await self.script.step()
                yield word
            await self.script.step()
            yield StreamEnd("m", COUNTS)

    def count_tokens(self, messages: Sequence[ChatMessage], model: str) -> int:
        return count_message_tokens(messages)


def a_provider(script: Script, *, is_forwarding: bool) -> BaseLLMProvider:
    return cast("BaseLLMProvider", ForwardingProvider(script) if is_forwarding else TalkingProvider(script))


def _whole_pieces() -> list[bytes]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "".join(WORDS)}, "finish_reason": "stop"}
    body = orjson.dumps({"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": _USAGE})
    return [body[:20], body[20:40], body[40:]]


def _stream_pieces() -> list[bytes]:
    common = {"id": "c", "object": "chat.completion.chunk", "model": "m"}
    chunks: list[dict[str, Any]] = [
        {**common, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]} for word in WORDS
    ]
    chunks.append({**common, "choices": [], "usage": _USAGE})
    events = [b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks]
    # What follows the last event is read too.
    return [*events, b"data: [DONE]\n\n", b": bye\n\n"]


class Books:
    """Takes what `BooksWriter` takes, and answers two passes of the loop later.

    answers: what becomes of the first opens; all others are taken. seen: what `watch` said at each close.
    """

    def __init__(self, answers: Sequence[Result | Exception] = ()) -> None:
        self.opens: list[OpenCall] = []
        self.closes: list[CloseCall] = []
        self.watch: Callable[[], object] = lambda: None
        self.seen: list[object] = []
        self._answers = list(answers)

    @property
    def writer(self) -> BooksWriter:
        return cast("BooksWriter", self)

    def submit(self, *operations: Operation) -> asyncio.Future[list[Result]]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Result]] = loop.create_future()
        results = [self._take(operation) for operation in operations]
        loop.call_soon(loop.call_soon, _answer, future, results)
        return future

    def _take(self, operation: Operation) -> Result | Exception:
        if isinstance(operation, CloseCall):
            self.closes.append(operation)
            self.seen.append(self.watch())
            return Closed()
        result = self._answers.pop(0) if self._answers else Opened(datetime.now(UTC))
        if isinstance(result, Opened):
            self.opens.append(operation)
        return result

    @property
    def is_even(self) -> bool:
        """Whether each call that was opened was closed once, and nothing else was."""
        return sorted(_ids(self.opens)) == sorted(_ids(self.closes))


def _ids(operations: Sequence[Operation]) -> list[UUID]:
    return [operation.id for operation in operations]


def _answer(future: asyncio.Future[list[Result]], results: Sequence[Result | Exception]) -> None:
    errors = [result for result in results if isinstance(result, Exception)]
    if future.cancelled():
        return
    if errors:
        future.set_exception(errors[0])
    else:
        future.set_result(cast("list[Result]", list(results)))


class Host:
    """Of a `Runtime` what a request's task uses. Two targets stand behind the one model, both by the same provider."""

    def __init__(self, provider: BaseLLMProvider, books: Books, *, bounds: Bounds = WIDE) -> None:
        self.writer = books.writer
        self.bounds = bounds
        self.callers = CallerCache()
        self.is_draining = False
        self.health = TargetHealth()
        self.refusals = Mock()
        self.drains = 0
        self._provider = provider

    @property
    def runtime(self) -> Runtime:
        return cast("Runtime", self)

    async def catalog(self) -> Catalog:
        await asyncio.sleep(0)
        targets = (TargetName("echo", "m"), TargetName("echo", "other"))
        route = Route("m", is_active=True, created_at=datetime.now(UTC), targets=targets)
        return Catalog(1, time.monotonic(), {"m": route}, {})

    def provider(self, *_: str) -> BaseLLMProvider:
        return self._provider

    async def tell_staff(self, *_: object) -> None:
        await asyncio.sleep(0)
