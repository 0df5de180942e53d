"""The fake upstream on its bad days."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import httpx2
import openai
import orjson
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from tests.fakes import PRESETS, Counts, FakeUpstream, Script
from tests.fakes.recordings import load
from tests.fakes.scripts import UnknownScriptError, script_for_model

HELLO: Any = [{"role": "user", "content": "hello there"}]
ASKED: dict[str, Any] = {"model": "m", "messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
ROOT = Path(__file__).parents[2]


async def read_chat(session: aiohttp.ClientSession, upstream: FakeUpstream, **knobs: Any) -> bytes:
    async with session.post(f"{upstream.openai_base_url}/chat/completions", json=ASKED | knobs) as response:
        return await response.read()


def test_a_model_name_sets_the_preset_s_knob() -> None:
    assert script_for_model("fake-slow-2.5") == Script(header_delay_s=2.5)
    assert script_for_model("fake-cut-inside-7") == Script(cut_after_events=7, cuts_inside_event=True)
    assert script_for_model("fake-429") == Script(status=429, retry_after_s=1.0)
    assert script_for_model("gpt-x") is None


@pytest.mark.parametrize("model", ["fake-nonsense", "fake-slow-fast", "fake-crlf-3", "fake-"])
def test_a_script_that_does_not_exist_is_refused(model: str) -> None:
    with pytest.raises(UnknownScriptError):
        script_for_model(model)


def test_every_preset_has_the_knob_it_names() -> None:
    assert [name for name, preset in PRESETS.items() if preset.knob and not hasattr(preset.script, preset.knob)] == []


async def test_rate_limits_say_when_to_come_back(upstream: FakeUpstream, openai_client: AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        await openai_client.chat.completions.create(model="fake-429-7", messages=HELLO)

    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.response.headers["retry-after"] == "7"
    [entry] = upstream.ledger.entries()
    assert (entry.status, entry.counts, entry.finished) == (429, Counts(), True)


@pytest.mark.slow
async def test_errors_come_in_the_dialect_and_may_leak_the_key(
    upstream: FakeUpstream, anthropic_client: AsyncAnthropic
) -> None:
    upstream.enqueue(Script(status=529), Script(status=401, echoes_key=True))
    with pytest.raises(anthropic.APIStatusError) as overloaded:
        await anthropic_client.messages.create(model="claude-x", max_tokens=5, messages=HELLO)
    with pytest.raises(anthropic.AuthenticationError) as leaked:
        await anthropic_client.messages.create(model="claude-x", max_tokens=5, messages=HELLO)

    assert overloaded.value.status_code == 529
    assert orjson.loads(overloaded.value.response.content)["error"]["type"] == "overloaded_error"
    assert "sk-ant-test" in str(leaked.value)


async def test_the_key_may_leak_into_a_reply(openai_client: AsyncOpenAI) -> None:
    reply = await openai_client.chat.completions.create(model="fake-leak-text", messages=HELLO)

    assert reply.choices[0].message.content == "Your key is sk-test ."


async def test_absurd_usage_is_sent_and_not_billed(upstream: FakeUpstream, openai_client: AsyncOpenAI) -> None:
    reply = await openai_client.chat.completions.create(model="fake-negative-usage", messages=HELLO)

    assert reply.usage is not None
    assert reply.usage.prompt_tokens == -5
    [entry] = upstream.ledger.entries()
    assert entry.counts == Counts(prompt_tokens=9, completion_tokens=4)
    assert (entry.usage or {})["total_tokens"] == -12


@pytest.mark.parametrize("style", ["rst", "close"])
async def test_a_cut_stream_bills_the_events_that_were_sent(
    upstream: FakeUpstream, openai_client: AsyncOpenAI, style: Any
) -> None:
    upstream.enqueue(Script(chunks=50, cut_after_events=11, cut_style=style))
    stream = await openai_client.chat.completions.create(model="gpt-x", messages=HELLO, stream=True)
    chunks: list[object] = []
    # Which exception the SDK lets through is its own business and its transport's.
    with contextlib.suppress(openai.APIError, httpx2.TransportError):
        async for chunk in stream:
            chunks.append(chunk)  # noqa: PERF401  the ones before the error are the point

    assert len(chunks) == 11
    [entry] = upstream.ledger.entries()
    assert entry.counts == Counts(prompt_tokens=9, completion_tokens=10)
    assert (entry.finished, entry.has_peer_hung_up, entry.has_sent_usage) == (False, False, False)


@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_cut_inside_an_event_leaves_half_of_it(
    upstream: FakeUpstream, session: aiohttp.ClientSession, is_stream: bool
) -> None:
    upstream.enqueue(Script(cut_after_events=2, cuts_inside_event=True, cut_style="close"))
    body = ASKED if is_stream else {"model": "m", "messages": HELLO}
    async with session.post(f"{upstream.openai_base_url}/chat/completions", json=body) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()

    [entry] = upstream.ledger.entries()
    assert (entry.status, entry.finished, entry.has_sent_usage) == (200, False, False)


async def test_a_connection_closed_without_a_word_bills_a_whole_reply(
    upstream: FakeUpstream, openai_client: AsyncOpenAI
) -> None:
    with pytest.raises(openai.APIConnectionError):
        await openai_client.chat.completions.create(model="fake-hang-up", messages=HELLO)

    [entry] = upstream.ledger.entries()
    assert (entry.status, entry.bytes_sent, entry.finished) == (0, 0, False)
    assert entry.counts == Counts(prompt_tokens=9, completion_tokens=4)


@pytest.mark.parametrize("model", ["fake-hang-headers", "fake-hang-2", "fake-comments"])
async def test_a_hanging_stream_ends_when_the_peer_leaves(upstream: FakeUpstream, model: str) -> None:
    async with aiohttp.ClientSession(headers={"authorization": "Bearer k"}) as session:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read_chat(session, upstream, model=model), 0.1)

    [entry] = await asyncio.to_thread(upstream.ledger.wait_for, 1)
    assert (entry.finished, entry.has_peer_hung_up) == (False, True)
    assert upstream.ledger.totals().hung_up == 1


async def test_a_timeout_of_the_sdk_leaves_an_entry(upstream: FakeUpstream, anthropic_client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.APITimeoutError):
        await anthropic_client.with_options(timeout=0.1).messages.create(
            model="fake-hang-headers", max_tokens=5, messages=HELLO
        )

    [entry] = await asyncio.to_thread(upstream.ledger.wait_for, 1)
    assert entry.has_peer_hung_up
    assert entry.counts == Counts(prompt_tokens=9, completion_tokens=4)


async def test_gzipped_replies_are_unpacked_by_the_sdks(openai_client: AsyncOpenAI) -> None:
    whole = await openai_client.chat.completions.create(model="fake-gzip", messages=HELLO)
    stream = await openai_client.chat.completions.create(model="fake-gzip", messages=HELLO, stream=True)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]

    assert whole.choices[0].message.content == "".join(pieces) == "You said: hello there"


async def test_a_gzip_bomb_is_small_until_it_is_unpacked(
    upstream: FakeUpstream, session: aiohttp.ClientSession
) -> None:
    body = await read_chat(session, upstream, model="fake-gzip-bomb-5000000", stream=False, stream_options=None)

    assert len(orjson.loads(body)["id"]) == 5_000_000
    assert upstream.ledger.totals().bytes_sent < 10_000


@pytest.mark.parametrize(
    "script", [Script(writes_single_bytes=True), Script(is_joined=True), Script(body_delay_s=0.01, header_delay_s=0.01)]
)
async def test_the_pace_changes_no_byte(upstream: FakeUpstream, session: aiohttp.ClientSession, script: Script) -> None:
    upstream.enqueue(script)
    events = (await read_chat(session, upstream)).split(b"\n\n")

    assert (len(events), events[-2]) == (9, b"data: [DONE]")
    assert upstream.ledger.totals().counts == Counts(prompt_tokens=9, completion_tokens=4)
    assert upstream.ledger.totals().with_usage == 1


async def test_streams_can_be_malformed(upstream: FakeUpstream, session: aiohttp.ClientSession) -> None:
    crlf = await read_chat(session, upstream, model="fake-crlf")
    without_done = await read_chat(session, upstream, model="fake-no-done")
    failed = await read_chat(session, upstream, model="fake-error-event-2")
    huge = await read_chat(session, upstream, model="fake-huge-300000")

    assert crlf.count(b"\r\n\r\n") == crlf.count(b"\n") // 2 == 8
    assert without_done.endswith(b"}\n\n")
    assert [b'{"error"' in event for event in failed.split(b"\n\n")] == [False, False, True, False]
    assert max(map(len, huge.split(b"\n\n"))) > 300_000
    assert [entry.has_sent_usage for entry in upstream.ledger.entries()] == [True, True, False, True]


async def test_bodies_can_be_anything(upstream: FakeUpstream, session: aiohttp.ClientSession) -> None:
    upstream.enqueue(
        Script(body=b"{oops"), Script(truncates_json=True), Script(status=502, body=b"<html>", content_type="text/html")
    )
    seen = []
    for _ in range(3):
        body = {"model": "m", "messages": HELLO}
        async with session.post(f"{upstream.openai_base_url}/chat/completions", json=body) as response:
            seen.append((response.status, response.content_type, (await response.read())[:6]))

    assert seen == [
        (200, "application/json", b"{oops"),
        (200, "application/json", b'{\n  "i'),
        (502, "text/html", b"<html>"),
    ]
    assert upstream.ledger.totals().with_usage == 0


async def test_redirects_and_cookies(upstream: FakeUpstream, session: aiohttp.ClientSession) -> None:
    url = f"{upstream.openai_base_url}/chat/completions"
    async with session.post(url, json=ASKED | {"model": "fake-redirect"}, allow_redirects=False) as response:
        assert (response.status, response.headers["location"]) == (302, "/v1/elsewhere")
    async with session.post(url, json=ASKED | {"model": "fake-cookie"}) as response:
        assert response.cookies["session"].value == "fake-session"


async def test_recordings_are_served_to_the_byte(
    upstream: FakeUpstream, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    text = 'data: {"id":"a","choices":[]}\n\ndata: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
    response = {"status": 200, "headers": {"content-type": "text/event-stream"}, "body": f"{text}data: [DONE]\n\n"}
    asked = {"path": "/v1/chat/completions", "body": ASKED}
    case = {"id": "one", "dialect": "openai.chat", "stream": True, "request": asked, "response": response}
    (tmp_path / "openai.chat-one.json").write_text(json.dumps(case))
    [recording] = load(tmp_path, "openai.chat")

    upstream.serve_recording(recording)
    upstream.publish(recording)
    queued = await read_chat(session, upstream)
    named = await read_chat(session, upstream, model="recording-one")

    assert queued == named == recording.body == str(response["body"]).encode()
    assert [len(event) for event in recording.events()] == [31, 72, 14]
    assert recording.usage() == {"prompt_tokens": 3, "completion_tokens": 2}
    assert [entry.counts for entry in upstream.ledger.entries()] == [Counts(3, 2)] * 2


def test_recordings_need_no_directory(tmp_path: Path) -> None:
    assert load(tmp_path / "nowhere") == ()


async def test_a_stopped_upstream_refuses_and_comes_back_on_its_port() -> None:
    with FakeUpstream() as upstream:
        port, connector = upstream.port, aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(headers={"authorization": "Bearer k"}, connector=connector) as session:
            await read_chat(session, upstream)
            upstream.stop()
            with pytest.raises(aiohttp.ClientConnectorError):
                await read_chat(session, upstream)
            upstream.start()
            await read_chat(session, upstream)

    assert (upstream.port, upstream.ledger.totals().calls) == (port, 2)


def test_a_taken_port_is_an_error(upstream: FakeUpstream) -> None:
    with pytest.raises(OSError, match="in use"):
        FakeUpstream(port=upstream.port).start()


@pytest.mark.processes
async def test_standalone_process_is_steered_over_http(session: aiohttp.ClientSession) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fakes", "--port", "0", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    address = json.loads(await process.stdout.readline())
    base, chat = address["anthropic_base_url"], f"{address['openai_base_url']}/chat/completions"
    async with session.post(f"{base}/_enqueue", json=[{"text": "one two"}]) as response:
        assert await response.json() == {"queued": 1}
    async with session.post(f"{base}/_enqueue", json={"txt": "one"}) as response:
        assert response.status == 400
    async with session.post(chat, json={"model": "m", "messages": HELLO, "user": "mark-3"}) as response:
        assert (await response.json())["usage"]["completion_tokens"] == 2
    async with session.get(f"{base}/_ledger") as response:
        ledger = await response.json()
    os.kill(address["pid"], signal.SIGTERM)

    assert await process.wait() == 0
    [entry] = ledger["entries"]
    assert (entry["marker"], entry["completion_tokens"], ledger["totals"]["calls"]) == ("mark-3", 2, 1)
