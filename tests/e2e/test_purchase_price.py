"""What an upstream says of its own prices reaches nobody; what a limit of cost says reaches who may see costs."""

from __future__ import annotations

import io
from dataclasses import replace
from decimal import Decimal
from typing import Any

import orjson
import pytest
from django.core.management import call_command

from llm.models import Account
from tests.books import closed_usage
from tests.e2e.callers import Application, error_of, estimated, events_of
from tests.e2e.test_unpriced import make_route, set_price
from tests.fakes import FakeUpstream, Recording, Script

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

TOKENS = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
MONEY = {
    "cost": 0.0123,
    "cost_details": {"upstream_inference_cost": 0.01, "discounts": [1, {"a": "}"}]},
    "is_byok": False,
    "market_cost": "0.02",
}
ANSWER = {"role": "assistant", "content": 'It has a "cost": 7 and a "price" of {"cost": 7}.'}
"""What the model wrote stays, whatever it looks like."""
WHOLE = {
    "id": "gen-1",
    "model": "gpt-4o",
    "cost": 1,
    "choices": [
        {
            "index": 0,
            "message": {
                **ANSWER,
                "tool_calls": [{"function": {"name": "buy", "arguments": {"cost": 7}}}],
                "provider_metadata": {"gateway": {"marketCost": "0.02", "routing": {"attempts": 1}}},
            },
            "finish_reason": "stop",
        }
    ],
    "usage": {**MONEY, **TOKENS, "estimated_cost": 1, "cost_in_usd_ticks": 5},
    "_hidden_params": {"response_cost": 0.3, "model_id": "m"},
}
KEPT = {
    "id": "gen-1",
    "model": "gpt-4o",
    "choices": [
        {
            "index": 0,
            "message": {
                **ANSWER,
                "tool_calls": [{"function": {"name": "buy", "arguments": {"cost": 7}}}],
                "provider_metadata": {"gateway": {"routing": {"attempts": 1}}},
            },
            "finish_reason": "stop",
        }
    ],
    "usage": TOKENS,
    "_hidden_params": {"model_id": "m"},
}


def a_stream(*chunks: dict[str, Any]) -> Script:
    events = [b"data: " + orjson.dumps({"id": "gen-1", "model": "gpt-4o", **chunk}) + b"\n\n" for chunk in chunks]
    return Script(
        recording=Recording(
            id="priced",
            dialect="openai.chat",
            is_stream=True,
            path="/v1/chat/completions",
            request={},
            status=200,
            headers={"content-type": "text/event-stream"},
            body=b"".join(events) + b"data: [DONE]\n\n",
        )
    )


def delta(content: str, finish: str | None = None) -> list[dict[str, Any]]:
    return [{"index": 0, "delta": {"content": content}, "finish_reason": finish}]


@pytest.mark.parametrize("indent", [0, orjson.OPT_INDENT_2])
def test_a_whole_reply_comes_without_the_upstreams_prices(
    application: Application, upstream: FakeUpstream, indent: int
) -> None:
    upstream.enqueue(Script(body=orjson.dumps(WHOLE, option=indent)))
    reply = application.chat()
    assert reply.json() == KEPT
    if not indent:
        assert reply.content == orjson.dumps(KEPT)
    [row] = closed_usage()
    assert (row.upstream_cost, row.total_tokens) == (Decimal("0.0123"), 13)


@pytest.mark.parametrize("wants_usage", [False, True])
def test_a_stream_comes_without_the_upstreams_prices_in_any_chunk(
    application: Application, upstream: FakeUpstream, wants_usage: bool
) -> None:
    upstream.enqueue(
        a_stream(
            {"choices": delta('"cost": 1')},
            {"choices": delta("b"), "usage": {**MONEY, **TOKENS}},
            {"choices": delta("", "stop"), "usage": {**TOKENS, **MONEY}, "x_provider": {"price": 1}},
            {"choices": [], "usage": {**TOKENS, **MONEY, "cost": 0.5}},
        )
    )
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if wants_usage else {}
    reply = application.chat(stream=True, **options)
    for word in ("0.0123", "cost_details", "is_byok", "market_cost", '"price"'):
        assert word not in reply.text
    first, second, third, *rest = events_of(reply)
    assert first["choices"] == delta('"cost": 1')
    assert (second["usage"], third["usage"], third["x_provider"]) == (TOKENS, TOKENS, {})
    assert [event["usage"] for event in rest[:-1]] == ([TOKENS] if wants_usage else [])
    [row] = closed_usage()
    assert (row.upstream_cost, row.total_tokens) == (Decimal("0.5"), 13)


@pytest.mark.usefixtures("show_cost")
@pytest.mark.parametrize("is_stream", [False, True])
def test_who_may_see_costs_sees_ours_alone(application: Application, upstream: FakeUpstream, is_stream: bool) -> None:
    set_price(input="1", output="2")
    usage = {**TOKENS, **MONEY}
    whole = Script(body=orjson.dumps({**WHOLE, "usage": usage}))
    upstream.enqueue(a_stream({"choices": delta("a", "stop"), "usage": usage}) if is_stream else whole)
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if is_stream else {}
    reply = application.chat(stream=is_stream, **options)
    told = events_of(reply)[-2] if is_stream else reply.json()
    assert told["usage"] == {"cost": 0.000017, **TOKENS}
    assert "0.0123" not in reply.text
    [row] = closed_usage()
    assert (row.cost, row.upstream_cost) == (Decimal("0.000017"), Decimal("0.0123"))


@pytest.mark.parametrize(
    ("usage", "cost", "flags"),
    [
        ({"cost": 0.00016620000000000002}, "0.0001662", "upstream_cost_rounded"),
        ({"cost": {"total_cost": 0.25, "input_tokens_cost": 0.2}}, "0.25", ""),
        ({"cost_in_usd_ticks": 37_756_000}, "0.0037756", ""),
        ({"estimated_cost": 1e-06}, "0.000001", ""),
        ({"cost": "0.25"}, "0.25", ""),
        ({"cost": -1}, None, ""),
        ({"cost": "much"}, None, ""),
        ({"cost": True}, None, ""),
        ({}, None, ""),
    ],
)
def test_the_providers_own_figure_is_kept(
    application: Application, upstream: FakeUpstream, usage: dict[str, Any], cost: str | None, flags: str
) -> None:
    upstream.enqueue(Script(usage={**TOKENS, **usage}))
    assert application.chat().json()["usage"] == TOKENS
    [row] = closed_usage()
    assert (row.upstream_cost, row.flags) == (None if cost is None else Decimal(cost), flags)


def test_the_providers_own_figure_is_kept_of_a_translated_reply(
    application: Application, upstream: FakeUpstream
) -> None:
    upstream.enqueue(Script(usage={**TOKENS, **MONEY}), Script(usage={**TOKENS, **MONEY}))
    replies = [application.chat(path="/api/chat", stream=is_stream) for is_stream in (False, True)]
    assert all("cost" not in reply.text for reply in replies)
    assert [row.upstream_cost for row in closed_usage(2)] == [Decimal("0.0123")] * 2


# --- Wherever and however it is written -------------------------------------------------------------------------------

HIDDEN: dict[str, tuple[str, str]] = {
    "details": ('"usage":{"prompt_tokens_details":{"cached_tokens":0,"cost":0.777},%s}', '"cached_tokens":0'),
    "audio in usage": ('"usage":{"audio":{"seconds":2,"cost":0.777},%s}', '"seconds":2'),
    "reasoning in usage": ('"usage":{"reasoning":[{"text":{"cost":0.777,"n":1}}],%s}', '"n":1'),
    "content in usage": ('"usage":{"content":{"cost":0.777,"n":1},%s}', '"n":1'),
    "glued": ('"usage":{"totalcost":0.777,"costusd":0.777,"costInUsd":0.777,"USDTotal":"0.777",%s}', ""),
    "other names": ('"usage":{"total_price":0.777,"upstream_inference_cost":0.777,"basefee":0.777,%s}', ""),
    "escaped": (r'"usage":{"co\u0073t":0.777,"\u0070rice":{"a":0.777},%s}', ""),
    "beside": ('"usage":{%s},"x_gateway":{"a":[{"b":{"upstreamCost":0.777}}],"kept":1}', '"kept":1'),
}
IN_MESSAGE: dict[str, tuple[str, str]] = {
    "audio": ('"audio":{"id":"a","transcript":"cost","cost":0.777}', '"transcript":"cost"'),
    "reasoning": ('"reasoning_details":[{"type":"reasoning.text","text":"t","cost":0.777}]', '"text":"t"'),
    "annotations": ('"annotations":[{"type":"url_citation","price":0.777,"url":"u"}]', '"url":"u"'),
    "tool call": (
        '"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{\\"cost\\":1}","cost":0.777},"fee":0.777}]',
        r'"arguments":"{\"cost\":1}"',
    ),
    "anything": ('"provider":{"input":{"deep":[[{"charge":0.777,"kept":1}]]}}', '"kept":1'),
    "a part": ('"extra":1,"content":[{"type":"text","text":"hi","cost":0.777}]', '"text":"hi"'),
}
COUNTED = orjson.dumps(TOKENS).decode()[1:-1]


def text_of_reply(form: str, place: str, *, member: str) -> bytes:
    """A reply, or the one chunk of a stream, with the provider's price in it. member: `message` or `delta`."""
    said = '"role":"assistant","content":"hi"'
    beside = f'"usage":{{{COUNTED}}}'
    if place == "message":
        said = f"{said},{form}" if '"content"' not in form else f'"role":"assistant",{form}'
    else:
        beside = form.replace("%s", COUNTED)
    choice = f'{{"index":0,"{member}":{{{said}}},"finish_reason":"stop"}}'
    return f'{{"id":"gen-1","model":"gpt-4o","choices":[{choice}],{beside}}}'.encode()


def streamed(body: bytes) -> Script:
    recording = replace(a_stream().recording, body=body)  # type: ignore[type-var]
    return Script(recording=recording)


PLACES = [("usage", *each) for each in HIDDEN.values()] + [("message", *each) for each in IN_MESSAGE.values()]


@pytest.mark.parametrize("shows_cost", [False, True])
@pytest.mark.parametrize(("place", "form", "kept"), PLACES, ids=[*HIDDEN, *IN_MESSAGE])
def test_a_whole_reply_tells_the_upstreams_price_nowhere(
    application: Application,
    upstream: FakeUpstream,
    account: Account,
    place: str,
    form: str,
    kept: str,
    shows_cost: bool,
) -> None:
    Account.objects.filter(pk=account.pk).update(shows_cost=shows_cost)
    set_price(input="1", output="2")
    upstream.enqueue(Script(body=text_of_reply(form, place, member="message")))
    reply = application.chat()
    assert reply.status_code == 200
    assert "0.777" not in reply.text
    assert kept in reply.text
    usage = reply.json()["usage"]
    assert usage.get("cost") == (0.000017 if shows_cost else None)
    assert {name: usage[name] for name in TOKENS} == TOKENS


@pytest.mark.parametrize("shows_cost", [False, True])
@pytest.mark.parametrize("lines", ["one", "two", "many"])
@pytest.mark.parametrize(("place", "form", "kept"), PLACES, ids=[*HIDDEN, *IN_MESSAGE])
def test_a_stream_tells_the_upstreams_price_nowhere_on_however_many_lines(
    application: Application,
    upstream: FakeUpstream,
    account: Account,
    place: str,
    form: str,
    kept: str,
    lines: str,
    shows_cost: bool,
) -> None:
    Account.objects.filter(pk=account.pk).update(shows_cost=shows_cost)
    set_price(input="1", output="2")
    data = text_of_reply(form, place, member="delta")
    if lines == "two":
        data = data.replace(b'"usage":', b'"usage"\ndata: :', 1)
    if lines == "many":
        data = orjson.dumps(orjson.loads(data), option=orjson.OPT_INDENT_2).replace(b"\n", b"\ndata: ")
        data = data.replace(b'": ', b'"\ndata::\ndata: ')
    first = b'data: {"id":"gen-1","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    upstream.enqueue(streamed(first + b": cost 0.777\n\ndata: " + data + b"\n\ndata: [DONE]\n\n"))
    reply = application.chat(stream=True, stream_options={"include_usage": True})
    assert reply.status_code == 200
    assert "0.777" not in reply.text
    if lines != "many":
        assert kept in reply.text
    told = events_of(reply)[-2]
    assert told["usage"].get("cost") == (0.000017 if shows_cost else None)
    assert {name: told["usage"][name] for name in TOKENS} == TOKENS
    assert closed_usage()[0].total_tokens == 13


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    "said",
    [
        {"content": {"cost": 7, "total_price": [7]}},
        {"content": [{"cost": 7}]},
        {"content": "c", "parsed": {"price": 7}},
        {
            "content": "c",
            "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"cost": {"usd": 7}}}}],
        },
        {"content": "c", "tool_calls": [{"type": "custom", "custom": {"name": "f", "input": {"cost": 7}}}]},
        {"content": '{"cost": 7, "co\\u0073t": 8}', "reasoning": '{"price":7}'},
    ],
)
def test_json_that_the_model_wrote_stays(
    application: Application, upstream: FakeUpstream, said: dict[str, Any], is_stream: bool
) -> None:
    choice = {"index": 0, "delta" if is_stream else "message": {"role": "assistant", **said}, "finish_reason": "stop"}
    document = {"id": "gen-1", "model": "gpt-4o", "choices": [choice], "usage": {**TOKENS, "cost": 1}}
    upstream.enqueue(a_stream(document) if is_stream else Script(body=orjson.dumps(document)))
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if is_stream else {}
    reply = application.chat(stream=is_stream, **options)
    told = events_of(reply)[0] if is_stream else reply.json()
    assert told == {**document, "usage": TOKENS}


def test_what_only_a_patient_reader_takes_for_json_tells_no_price_either(
    application: Application, upstream: FakeUpstream
) -> None:
    chunk = (
        b'data: {"model":"gpt-4o","choices":[{"index":0,"delta":{"content":"a"}}],"x":NaN,"usage":{"cost":0.777}}\n\n'
    )
    end = orjson.dumps({"choices": delta("", "stop"), "usage": TOKENS})
    upstream.enqueue(streamed(chunk + b"data: " + end + b"\n\n: cost 0.777\ndata: [DONE]\n\n"))
    reply = application.chat(stream=True)
    assert "0.777" not in reply.text
    assert '"content":"a"' in reply.text


def test_text_on_several_lines_is_counted_where_no_usage_comes(
    application: Application, upstream: FakeUpstream
) -> None:
    chunk = b'data: {"model":"gpt-4o","choices":\ndata: [{"index":0,"delta":{"content":"one two three"}}]}\n\n'
    upstream.enqueue(streamed(chunk + b"data: [DONE]\n\n"))
    assert application.chat(stream=True).status_code == 200
    [row] = closed_usage()
    assert (row.status, row.completion_tokens) == ("estimated", estimated("one two three")[1])


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_translated_reply_tells_no_price_and_keeps_it(
    application: Application, upstream: FakeUpstream, provider: str, is_stream: bool
) -> None:
    make_route("smart", (provider, "first"))
    counts = TOKENS if provider == "openai" else {"input_tokens": 9, "output_tokens": 4}
    usage = {**counts, "cost": 0.777, "totalcost": 0.777, "details": {"cost": 0.777}}
    upstream.enqueue(Script(usage=usage, start_usage=usage))
    path = "/api/chat" if provider == "openai" else "/v1/chat/completions"
    reply = application.chat("smart", path=path, stream=is_stream)
    assert reply.status_code == 200
    assert "0.777" not in reply.text
    assert closed_usage()[0].upstream_cost == Decimal("0.777")


# --- Limits of cost ---------------------------------------------------------------------------------------------------


def limit_cost(account: Account, amount: str) -> None:
    call_command("set_limit", account.name, "cost", "day", amount, stdout=io.StringIO())


def test_a_lowered_maximum_under_a_limit_of_cost_is_not_told(
    application: Application, upstream: FakeUpstream, account: Account
) -> None:
    set_price(input="1", output="10")
    limit_cost(account, "1")
    reply = application.chat()
    assert reply.status_code == 200
    assert "x-llm-max-output-tokens" not in reply.headers
    assert (upstream.ledger.entries()[0].body or {})["max_tokens"] > 0


@pytest.mark.usefixtures("show_cost")
def test_a_lowered_maximum_is_told_to_who_may_see_costs(application: Application, account: Account) -> None:
    set_price(input="1", output="10")
    limit_cost(account, "0.01")
    assert int(application.chat().headers["x-llm-max-output-tokens"]) < 1000


@pytest.mark.parametrize("shows_cost", [False, True])
def test_a_spent_limit_of_cost_is_told_with_its_amount_only_to_who_may_see_costs(
    application: Application, account: Account, shows_cost: bool
) -> None:
    set_price(input="1", output="10")
    Account.objects.filter(pk=account.pk).update(shows_cost=shows_cost)
    limit_cost(account, "0")
    reply = application.chat()
    assert reply.status_code == 429
    assert ("$0" in error_of(reply)["message"]) is shows_cost
    assert ("cost limit per day" in error_of(reply)["message"]) is not shows_cost
