"""OpenAI's older completions, through the official SDK, and the books behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import orjson
import pytest

from llm.enums import CallOutcome, Dialect, LimitMetric, LimitPer, UsageSource, UsageStatus
from llm.limits.changes import set_limit
from llm.models import Account
from llm.providers.counting import count_text_tokens
from tests.books import closed_usage
from tests.e2e.callers import Application, assert_nothing_happened, error_of
from tests.fakes import FakeUpstream, Script
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

COMPLETIONS = "/v1/completions"
MODEL = "gpt-3.5-turbo-instruct"
SAID = "You said: hello there"


def complete(application: Application, **fields: Any) -> Any:
    body = orjson.dumps({"model": MODEL, "prompt": "hello there", **fields})
    return application.send("POST", COMPLETIONS, body=body)


@pytest.mark.parametrize("prompt", ["hello there", ["hello there", "hello there"], [1, 2, 3]])
def test_a_whole_completion(sdk: openai.OpenAI, upstream: FakeUpstream, prompt: Any) -> None:
    reply = sdk.completions.create(model=MODEL, prompt=prompt, n=2)
    assert len(reply.choices) == (4 if prompt == ["hello there"] * 2 else 2)
    [row] = closed_usage()
    [entry] = upstream.ledger.entries()
    assert (row.dialect, row.upstream_response_id) == (Dialect.OPENAI_COMPLETIONS, reply.id)
    assert (row.status, row.usage_source, row.outcome) == (UsageStatus.SETTLED, UsageSource.REPORTED, CallOutcome.OK)
    assert (row.prompt_tokens, row.completion_tokens) == (entry.prompt_tokens, entry.completion_tokens)


@pytest.mark.parametrize("wants_usage", [True, False])
def test_a_stream_is_on_the_books_and_its_usage_goes_to_who_asked(
    sdk: openai.OpenAI, upstream: FakeUpstream, wants_usage: bool
) -> None:
    options: Any = {"include_usage": True} if wants_usage else openai.omit
    chunks = list(sdk.completions.create(model=MODEL, prompt="hello there", stream=True, stream_options=options))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == SAID
    assert sum(chunk.usage is not None for chunk in chunks) == wants_usage
    [row] = closed_usage()
    assert (row.usage_source, row.completion_tokens) == (UsageSource.REPORTED, 4)


def test_a_stream_that_breaks_off_is_an_error_and_an_estimate(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    upstream.enqueue(Script(cut_after_events=2))
    with pytest.raises(openai.APIError):
        list(sdk.completions.create(model=MODEL, prompt="hello there", stream=True))
    [row] = closed_usage()
    assert (row.status, row.completion_tokens) == (UsageStatus.ESTIMATED, count_text_tokens("You said: "))


def test_request_and_reply_pass_to_the_byte(application: Application, upstream: FakeUpstream) -> None:
    reply = b'{ "id":"cmpl-1", "choices":[{"text":"x","logprobs":{"top_logprobs":[{" cost":-0.10}]}}], "usage":null}\n'
    upstream.enqueue(Script(body=reply))
    sent = b'{ "prompt" : "hello", "model":"gpt-3.5-turbo-instruct", "echo": true, "x": 1.0e3 }'
    assert application.send("POST", COMPLETIONS, body=sent).content == reply
    assert upstream.ledger.entries()[0].raw == sent


@pytest.mark.parametrize("provider", ["anthropic", "echo", "openai_compatible"])
def test_a_provider_without_completions_is_named(
    application: Application, start_gateway: Callable[..., Gateway], upstream: FakeUpstream, provider: str
) -> None:
    refused = complete(application.at(start_gateway(LLM_PROVIDER=provider, LLM_BASE_URL=upstream.openai_base_url)))
    assert refused.status_code == 400
    assert f"“{provider}” of this model does not serve text completions" in error_of(refused)["message"]
    assert_nothing_happened(upstream)


def test_a_limit_holds_the_choices_of_each_prompt(
    application: Application, account: Account, upstream: FakeUpstream
) -> None:
    set_limit(account, None, LimitMetric.TOKENS, LimitPer.DAY, 2_000, None)
    reply = complete(application, prompt=["a"] * 18, max_tokens=100)
    maximum = int(reply.headers["x-llm-max-output-tokens"])
    assert upstream.ledger.entries()[0].body["max_tokens"] == maximum
    assert 80 < maximum < 100
