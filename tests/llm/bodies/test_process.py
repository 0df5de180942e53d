"""Costly JSON, read in a process of its own: what is costly, and that nothing is read otherwise there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from typing import Any

import orjson
import psutil
import pytest

from llm.api.body import load_body
from llm.bodies import process
from llm.bodies.budget import BodyBudget
from llm.bodies.reader import MAX_KEPT_VALUES, prune
from llm.dialects.json_text import replaced, with_usage_cost
from llm.dialects.openai_chat.client import read_reply
from llm.dialects.openai_chat.wire import OPENAI_CHAT
from llm.dialects.strict_json import load_object
from llm.errors import InvalidRequest, Overloaded, UpstreamFailed
from llm.types import TokenCounts

pytestmark = pytest.mark.processes

LONG = 'na\u00efve \U0001f600 "quoted": {text}, \\ \n' * 10_000
BODIES: dict[str, Any] = {
    "one long text": {"messages": [{"role": "user", "content": LONG}]},
    "long texts in every place": {"a": LONG, "b": [LONG, [LONG, {"c": LONG}], ""], "d": {"e": {"f": LONG}}},
    "short texts": {"a": ["x" * 60] * 40_000},
    "a long key": {LONG: 1},
    "numbers": {"a": [1.0, -0.0, 9007199254740993, 1e300, 18446744073709551615, True, None], "b": LONG},
    "many members": {f"k{number}": number for number in range(20_000)},
    "empty": {},
}


@pytest.mark.parametrize("name", list(BODIES))
async def test_what_is_read_apart_is_what_would_be_read_here(name: str) -> None:
    raw = orjson.dumps(BODIES[name])
    read = await process.read_request_apart(raw)
    assert read.body == load_object(raw)
    assert orjson.dumps(read.body) == raw


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"a":1',
        b'{"a":NaN}',
        b'{"a":1,"a":2}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"a":' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"a":[' + b"1," * 600_000 + b"1]}",
        b'{"a":' + b"[]," * 300_000 + b"1}",
    ],
)
async def test_what_is_refused_is_refused_in_the_same_words(raw: bytes) -> None:
    with pytest.raises(InvalidRequest) as here:
        load_object(raw)
    with pytest.raises(InvalidRequest) as apart:
        await process.read_request_apart(raw)
    assert apart.value.message == here.value.message


@pytest.fixture
def read_apart(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what would be read apart."""
    sizes: list[int] = []

    async def note(raw: bytes, *, max_values: int) -> process.ReadRequest:
        sizes.append(len(raw))
        return process.ReadRequest(1, {}, {})

    monkeypatch.setattr("llm.api.body.read_request_apart", note)
    return sizes


async def test_only_a_costly_body_gets_a_process_of_its_own(read_apart: list[int]) -> None:
    await load_body(b'{"a":"' + b"x" * 3_000_000 + b'"}', None)
    assert read_apart == []
    costly = b'{"a":[' + b"1," * 20_000 + b"1]}"
    await load_body(costly, None)
    assert read_apart == [len(costly)]


async def test_what_is_made_of_a_body_counts_too() -> None:
    bodies = BodyBudget(max_bytes=10_000, max_bytes_per_key=10_000)
    lease = bodies.lease(1, 1)
    with pytest.raises(Overloaded):
        await load_body(b'{"a":[' + b"1," * 100 + b"1]}", lease)
    lease.release()
    assert bodies.bytes_in_work == 0


# --- What goes up -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"upstream_model": "gpt-4o"},
        {"upstream_model": "another"},
        {"upstream_model": "another", "max_output_tokens": 5},
        {"upstream_model": "gpt-4o", "max_output_tokens": 500},
    ],
)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stream": True},
        {"stream": True, "stream_options": {"include_usage": False, "x": [{"model": 1}]}},
        {"max_tokens": 90, "max_completion_tokens": 3},
        {"metadata": {"model": "a", "max_tokens": 9}, "max_tokens": 400},
    ],
)
async def test_the_same_goes_up_whichever_way_a_body_was_read(fields: dict[str, Any], change: dict[str, Any]) -> None:
    body = {"messages": [{"role": "user", "content": LONG}], "model": "gpt-4o", **fields, "last": {"model": "b"}}
    raw = orjson.dumps(body, option=orjson.OPT_INDENT_2)
    read = await process.read_request_apart(raw)
    here = OPENAI_CHAT.parse(raw)
    apart = replace(OPENAI_CHAT.parse(raw, read.body), members=read.members)
    sent = OPENAI_CHAT.upstream_body(apart, **change)
    assert orjson.loads(sent) == orjson.loads(OPENAI_CHAT.upstream_body(here, **change))


async def test_what_is_not_changed_of_a_large_body_goes_up_as_its_bytes() -> None:
    raw = b'{ "x" : 1.50, "model" : "a", "messages" : [{"role":"user"}], "big": 99999999999999999999999 }'
    read = await process.read_request_apart(raw)
    request = replace(OPENAI_CHAT.parse(raw, read.body), members=read.members)
    assert OPENAI_CHAT.upstream_body(request, upstream_model="b") == raw.replace(b'"a"', b'"b"')


async def test_a_key_that_is_written_with_escapes_is_changed_too() -> None:
    raw = b'{"mod\\u0065l":"a","messages":[{"role":"user","content":{"model":"a"}}]}'
    read = await process.read_request_apart(raw)
    request = replace(OPENAI_CHAT.parse(raw, read.body), members=read.members)
    sent = orjson.loads(OPENAI_CHAT.upstream_body(request, upstream_model="b"))
    assert (sent["model"], sent["messages"][0]["content"]["model"]) == ("b", "a")


# --- Replies ----------------------------------------------------------------------------------------------------------

USAGE = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}


def reply(**fields: Any) -> bytes:
    message = {"role": "assistant", "content": LONG}
    choice = {"index": 0, "finish_reason": "stop", "message": message, **fields}
    return orjson.dumps({"id": "chatcmpl-1", "model": "gpt-4o", "choices": [choice], "usage": USAGE})


LARGE_REPLIES = {
    "text": reply(x="y" * 5_000_000),
    "numbers": reply(logprobs={"content": [{"logprob": -0.5, "bytes": [1, 2]}] * 40_000}),
    "brackets": reply(x=[[]] * 200_000),
    "nested": reply(x=[[[[]]]] * 50_000),
}


@pytest.mark.parametrize("name", list(LARGE_REPLIES))
async def test_a_large_reply_is_read_apart_to_the_same_figures_and_text(name: str) -> None:
    raw = LARGE_REPLIES[name]
    read = await process.read_reply(raw)
    assert read.is_apart
    assert OPENAI_CHAT.read_whole(raw, read.value) == OPENAI_CHAT.read_whole(raw)
    assert OPENAI_CHAT.read_whole(raw, read.value).counts == TokenCounts(prompt_tokens=8, completion_tokens=2)
    assert OPENAI_CHAT.whole_text(raw, read.value) == LONG
    assert read_reply(raw, read.value) == read_reply(raw, orjson.loads(raw))
    assert read.cost_place is not None
    assert replaced(raw, {read.cost_place: b"0.5"}) == with_usage_cost(raw, "0.5")


async def test_a_small_reply_is_read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm.bodies.process.sys.executable", "/bin/false")
    read = await process.read_reply(reply())
    assert (read.is_apart, read.value["usage"]) == (False, USAGE)


@pytest.mark.parametrize("raw", [b"garbage", b"[1", b"g" * 5_000_000, b'{"a":[' + b"1," * 9_000_000 + b"1]}"])
async def test_what_cannot_be_read_is_no_reply(raw: bytes) -> None:
    read = await process.read_reply(raw)
    with pytest.raises(UpstreamFailed):
        OPENAI_CHAT.read_whole(raw, read.value)


async def test_a_reply_may_be_deeper_than_can_be_written_again() -> None:
    raw = reply(x=1).replace(b'"x":1', b'"x":' + b"[" * 900 + b"]" * 900 + b',"y":[' + b"1," * 30_000 + b"1]")
    read = await process.read_reply(raw)
    assert read.is_apart
    assert OPENAI_CHAT.read_whole(raw, read.value).counts is not None


def test_of_a_reply_what_stands_outermost_is_kept() -> None:
    value = {"choices": [{"message": {"content": "a"}, "logprobs": [[1] * MAX_KEPT_VALUES]}], "usage": {"a": 1}}
    prune(value)
    assert value == {"choices": [{"message": {"content": "a"}, "logprobs": [[]]}], "usage": {"a": 1}}


# --- The process ------------------------------------------------------------------------------------------------------


async def test_a_reader_that_dies_is_our_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm.bodies.process.sys.executable", "/bin/false")
    with pytest.raises(Overloaded) as refused:
        await process.read_request_apart(b"{}" * 1_000_000)
    assert refused.value.http_status == 503
    with pytest.raises(UpstreamFailed) as failed:
        await process.read_reply(LARGE_REPLIES["text"])
    assert failed.value.may_have_worked


async def test_a_caller_who_leaves_ends_the_reader() -> None:
    raw = orjson.dumps({"a": LONG * 20})
    task = asyncio.ensure_future(process.read_request_apart(raw))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # The next one gets its turn, and none is left.
    assert (await process.read_request_apart(b'{"a":1}')).body == {"a": 1}
    assert [child for child in psutil.Process().children() if "llm.bodies.reader" in " ".join(child.cmdline())] == []


def test_a_reader_whose_asker_was_killed_ends_without_a_word() -> None:
    raw = orjson.dumps({"a": "x" * 1_000_000})
    command = [sys.executable, "-m", "llm.bodies.reader", "reply", str(len(raw)), "10"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stderr is not None
        reader.stdout.close()
        assert reader.stdin is not None
        reader.stdin.write(raw)
        reader.stdin.close()
        said = reader.stderr.read()
        assert (reader.wait(60), said) == (0, b"")
