"""The official OpenAI SDK in front of the gateway, and the books behind it."""

from __future__ import annotations

import openai
import pytest

from llm.enums import Outcome, UsageSource, UsageStatus
from llm.models import Usage
from tests.books import closed_usage
from tests.fakes import FakeUpstream
from tests.gateway_process import Gateway

pytestmark = pytest.mark.e2e


def test_a_whole_reply_is_on_the_books_as_the_upstream_served_it(
    gateway: Gateway, upstream: FakeUpstream, api_key: str
) -> None:
    client = openai.OpenAI(api_key=api_key, base_url=gateway.openai_base_url, max_retries=0)
    reply = client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hello there"}])
    assert reply.choices[0].message.content == "You said: hello there"
    [row] = closed_usage()
    [entry] = upstream.ledger.entries()
    assert (row.status, row.usage_source, row.outcome) == (UsageStatus.SETTLED, UsageSource.REPORTED, Outcome.OK)
    assert (row.prompt_tokens, row.completion_tokens) == (entry.prompt_tokens, entry.completion_tokens) == (9, 4)
    assert row.upstream_response_id == entry.response_id == reply.id


@pytest.mark.parametrize("wants_usage", [True, False])
def test_a_stream_is_on_the_books_and_its_usage_goes_to_who_asked(
    gateway: Gateway, upstream: FakeUpstream, api_key: str, wants_usage: bool
) -> None:
    client = openai.OpenAI(api_key=api_key, base_url=gateway.openai_base_url, max_retries=0)
    chunks = list(
        client.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": "hello there"}],
            stream=True,
            stream_options={"include_usage": True} if wants_usage else openai.omit,
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "You said: hello there"
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == ([13] if wants_usage else [])
    [row] = closed_usage()
    [entry] = upstream.ledger.entries()
    assert (row.prompt_tokens, row.completion_tokens) == (entry.prompt_tokens, entry.completion_tokens) == (9, 4)
    assert (row.status, row.usage_source, row.is_stream) == (UsageStatus.SETTLED, UsageSource.REPORTED, True)


def test_a_wrong_key_is_refused_and_nothing_is_sent(gateway: Gateway, upstream: FakeUpstream) -> None:
    client = openai.OpenAI(api_key="llm_wrong", base_url=gateway.openai_base_url, max_retries=0)
    with pytest.raises(openai.AuthenticationError) as refusal:
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hello"}])
    assert refusal.value.code == "invalid_api_key"
    assert upstream.ledger.entries() == ()
    assert Usage.objects.count() == 0
