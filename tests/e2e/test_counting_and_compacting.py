"""`POST /v1/responses/input_tokens` and `/compact`: by providers that have them, for nothing and by their usage."""

from __future__ import annotations

import io
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import openai
import orjson
import pytest
from django.core.management import call_command

from llm.enums import LimitMetric, LimitPer
from llm.keys import create_key, get_or_create_account
from llm.limits.changes import set_limit
from llm.models import Account, IdempotencyKey, Price, Usage
from tests.books import closed_usage
from tests.e2e.callers import Application, assert_nothing_happened, error_of
from tests.e2e.test_endings import Ending, ending_of
from tests.e2e.test_unpriced import make_route, set_price
from tests.fakes import FakeUpstream, Script
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

COUNT, COMPACT = "/v1/responses/input_tokens", "/v1/responses/compact"
TALK: Any = [{"role": "user", "content": "hello there"}, {"role": "assistant", "content": "hi"}]


def send(application: Application, path: str, **fields: Any) -> Any:
    return application.send("POST", path, body=orjson.dumps({"model": "gpt-4o", "input": TALK, **fields}))


def test_the_provider_counts_for_nothing(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    set_price(input="2", output="10")
    counted = sdk.responses.input_tokens.count(model="gpt-4o", input=TALK)
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", 14)
    [entry] = upstream.ledger.entries()
    assert (entry.path, entry.body) == (COUNT, {"model": "gpt-4o", "input": TALK})
    [row] = closed_usage()
    assert ending_of(row) == Ending("settled", "reported", "ok", (0, 0))
    assert (row.dialect, row.is_billable, row.cost, row.flags) == ("openai.responses", False, Decimal(0), "")
    call_command("verify_books", stdout=io.StringIO())


@pytest.mark.parametrize("path", [COUNT, "/v1/messages/count_tokens"])
def test_a_repeated_count_is_made_again(application: Application, upstream: FakeUpstream, path: str) -> None:
    """It costs nothing, so no idempotency key protects it; nor does it use up a key."""
    body = orjson.dumps({"model": "gpt-4o", "input" if path == COUNT else "messages": TALK})
    counted = [application.send("POST", path, body=body, headers={"idempotency-key": "order-1"}) for _ in range(2)]
    assert [reply.status_code for reply in counted] == [200, 200]
    assert counted[0].json() == counted[1].json()
    assert len(closed_usage(2)) == len(upstream.ledger.entries()) == 2
    assert not IdempotencyKey.objects.exists()


def test_counting_counts_for_limits_of_requests_alone(
    sdk: openai.OpenAI, account: Account, upstream: FakeUpstream
) -> None:
    for metric, amount in ((LimitMetric.REQUESTS, 2), (LimitMetric.TOKENS, 1), (LimitMetric.COST, 1)):
        set_limit(account, None, metric, LimitPer.DAY, amount, None)
    for _ in range(2):
        sdk.responses.input_tokens.count(model="gpt-4o", input=TALK)
    with pytest.raises(openai.RateLimitError) as refusal:
        sdk.responses.input_tokens.count(model="gpt-4o", input=TALK)
    assert refusal.value.code == "insufficient_quota"
    assert len(upstream.ledger.entries()) == len(closed_usage(2)) == 2


def test_a_compaction_is_billed_by_its_usage_and_can_be_gone_on_from(
    sdk: openai.OpenAI, upstream: FakeUpstream
) -> None:
    set_price(input="2", output="10")
    upstream.enqueue(Script(text="all was said", cache_read_tokens=5, reasoning_tokens=2))
    compacted = sdk.responses.compact(model="gpt-4o", input=TALK)
    assert (compacted.object, [item.type for item in compacted.output]) == (
        "response.compaction",
        ["message", "compaction"],
    )
    [entry] = upstream.ledger.entries()
    [row] = closed_usage()
    assert (entry.path, row.upstream_response_id) == (COMPACT, compacted.id)
    assert ending_of(row) == Ending("settled", "reported", "ok", (19, 5))
    assert (row.cache_read_tokens, row.reasoning_tokens, row.is_billable) == (5, 2, True)
    assert row.cost is not None
    assert row.cost > 0
    window: Any = [item.to_dict(warnings=False) for item in compacted.output]
    assert sdk.responses.create(model="gpt-4o", input=[*window, TALK[0]]).output_text
    assert upstream.ledger.entries()[-1].body["input"] == [*window, TALK[0]]


def test_a_compaction_without_usage_is_estimated(application: Application, upstream: FakeUpstream) -> None:
    upstream.enqueue(Script(omits_usage=True))
    assert send(application, COMPACT).status_code == 200
    [row] = closed_usage()
    assert (row.status, row.usage_source) == ("estimated", "estimated")
    assert min(row.prompt_tokens, row.completion_tokens) > 0


def test_what_a_compaction_repeats_of_tools_has_not_run_again(application: Application, upstream: FakeUpstream) -> None:
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    output = [{"type": "code_interpreter_call", "id": "ci_1"}, {"type": "web_search_call", "id": "ws_1"}]
    body = {"id": "resp_1", "object": "response.compaction", "output": output, "usage": usage}
    upstream.enqueue(Script(body=orjson.dumps(body)))
    assert send(application, COMPACT).json()["output"] == output
    [row] = closed_usage()
    assert (row.total_tokens, row.extra_meters, row.flags) == (7, {}, "")


@pytest.mark.parametrize("path", [COUNT, COMPACT])
def test_only_its_own_account_names_a_kept_response(
    application: Application, upstream: FakeUpstream, path: str
) -> None:
    made = application.send("POST", "/v1/responses", body=orjson.dumps({"model": "gpt-4o", "input": "hello"}))
    assert send(application, path, previous_response_id=made.json()["id"]).status_code == 200
    calls = len(upstream.ledger.entries())
    stranger = application.using(create_key(get_or_create_account("others"), name="theirs")[1])
    refused = send(stranger, path, previous_response_id=made.json()["id"])
    assert (refused.status_code, error_of(refused)["code"]) == (400, "previous_response_not_found")
    for fields, param in (
        ({"conversation": "conv_1"}, "conversation"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].id"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, None),
    ):
        refused = send(application, path, **fields)
        assert refused.status_code == 400
        assert error_of(refused)["param"] == (param or "input[0].content[0].file_id")
    assert (len(upstream.ledger.entries()), len(closed_usage(2))) == (calls, 2)


def test_a_provider_without_compaction_is_named(application: Application, upstream: FakeUpstream) -> None:
    make_route("other", ("anthropic", "claude-test"))
    refused = send(application, COMPACT, model="other")
    assert (refused.status_code, error_of(refused)["param"]) == (400, "model")
    assert f"“anthropic” of this model does not serve compactions (POST {COMPACT})" in error_of(refused)["message"]
    assert_nothing_happened(upstream)


@pytest.mark.parametrize(
    "refusal",
    [
        Script(status=404, body=b'{"detail":"Not Found"}'),
        Script(status=404, body=b"404 page not found", content_type="text/plain"),
        Script(status=405, body=b'{"detail":"Method Not Allowed"}'),
    ],
)
def test_a_server_that_does_not_know_the_path_is_named(
    application: Application, start_gateway: Callable[..., Gateway], upstream: FakeUpstream, refusal: Script
) -> None:
    gateway = start_gateway(
        LLM_PROVIDER="openai_compatible",
        LLM_BASE_URL=upstream.openai_base_url,
        LLM_COMPATIBLE_DIALECTS="chat,responses",
    )
    upstream.enqueue(refusal)
    refused = send(application.at(gateway), COMPACT)
    assert refused.status_code == 400
    assert "“openai_compatible” of this model does not serve compactions" in error_of(refused)["message"]
    [row] = closed_usage()
    assert (row.total_tokens, row.cost, row.outcome) == (0, Decimal(0), "upstream_refused")


def test_a_model_that_the_provider_does_not_know_is_told_in_its_words(
    application: Application, upstream: FakeUpstream
) -> None:
    upstream.enqueue(Script(status=404, error_message="The model `gpt-4o` does not exist"))
    refused = send(application, COUNT)
    assert (refused.status_code, error_of(refused)["message"]) == (404, "The model `gpt-4o` does not exist")


def test_a_compaction_holds_the_models_window_under_a_limit(
    application: Application, account: Account, upstream: FakeUpstream
) -> None:
    """It takes no maximum, so none is sent, and what no window bounds is refused."""
    set_price(input="2", output="10")
    set_limit(account, None, LimitMetric.TOKENS, LimitPer.DAY, 10_000, None)
    refused = send(application, COMPACT)
    assert (refused.status_code, error_of(refused)["code"]) == (400, "limit_not_applicable")
    assert_nothing_happened(upstream)
    Price.objects.create(provider="openai", model="small", source="staff", is_free=True, context_window=9_000)
    assert send(application, COMPACT, model="small").status_code == 200
    assert "max_output_tokens" not in upstream.ledger.entries()[0].body
    Price.objects.create(provider="openai", model="large", source="staff", is_free=True, context_window=90_000)
    refused = send(application, COMPACT, model="large")
    assert (refused.status_code, error_of(refused)["code"]) == (400, "limit_too_small")
    assert "max_completion_tokens" not in error_of(refused)["message"]
    assert Usage.objects.count() == 1
