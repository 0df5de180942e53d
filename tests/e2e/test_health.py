"""For those who watch the gateway: what it says of itself, and what it never says."""

from __future__ import annotations

import html

import httpx2
import orjson
import pytest
from django.db import connection
from prometheus_client.parser import text_string_to_metric_families

from llm.enums import PriceSource
from llm.models import Price
from llmproject import sessions
from tests.books import closed_usage
from tests.e2e.callers import CHAT, Application, assert_nothing_happened, error_of
from tests.e2e.conftest import METRICS_TOKEN
from tests.e2e.test_unpriced import set_price
from tests.fakes import FakeUpstream
from tests.gateway_process import Gateway

pytestmark = pytest.mark.e2e


# --- Alive and ready --------------------------------------------------------------------------------------------------


def test_the_process_says_that_it_lives_without_key_or_database(http: httpx2.Client, bookless: Gateway) -> None:
    reply = http.get(f"{bookless.url}/healthz")
    assert (reply.status_code, reply.json()) == (200, {"status": "ok"})


def test_a_gateway_with_its_database_is_ready(http: httpx2.Client, gateway: Gateway) -> None:
    reply = http.get(f"{gateway.url}/readyz")
    assert reply.status_code == 200
    state = reply.json()
    shares = state.pop("connections")
    is_sqlite = connection.vendor == "sqlite"
    assert (shares.pop("available") is None) is is_sqlite
    assert shares == {"gateway": 5, "pages": 4, "workers": 4, "spare": 5, "total": 18}
    assert state == {
        "status": "ok",
        "database": "ok",
        "process": "ok",
        "writer": "ok",
        "spool": "ok",
        "writes_waiting": 0,
        "spool_bytes": 0,
        "targets_skipped": 0,
    }


def test_a_gateway_without_its_database_is_not_ready(http: httpx2.Client, bookless: Gateway) -> None:
    reply = http.get(f"{bookless.url}/readyz")
    assert reply.status_code == 503
    state = reply.json()
    assert (state["status"], state["database"], state["process"], state["spool"]) == (
        "unavailable",
        "unavailable",
        "ok",
        "ok",
    )
    assert (state["writes_waiting"], state["spool_bytes"]) == (0, 0)
    assert (state["connections"]["total"], state["connections"]["available"]) == (18, None)


def test_a_gateway_without_its_database_has_metrics_nevertheless(http: httpx2.Client, bookless: Gateway) -> None:
    reply = http.get(f"{bookless.url}/metrics")
    assert reply.status_code == 200
    assert "llm_spool_bytes" in reply.text
    assert "llm_open_rows" not in reply.text


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
def test_without_its_database_a_gateway_makes_no_call_and_blames_no_key(
    application: Application, bookless: Gateway, upstream: FakeUpstream, path: str, is_stream: bool
) -> None:
    reply = application.at(bookless).chat(path=path, stream=is_stream)
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "books_unavailable")
    assert "nothing accepts connections at its address" in reply.json()["error"]["message"]
    assert reply.headers["retry-after"] == "5"
    assert_nothing_happened(upstream)


def test_without_its_database_a_gateway_lists_no_models(application: Application, bookless: Gateway) -> None:
    reply = application.at(bookless).send("GET", "/v1/models")
    assert (reply.status_code, error_of(reply)["code"]) == (503, "books_unavailable")


# --- Metrics ----------------------------------------------------------------------------------------------------------


def metrics_of(application: Application) -> dict[tuple[str, tuple[str, ...]], float]:
    """Samples by name and label values."""
    reply = application.http.get(f"{application.gateway.url}/metrics")
    assert reply.status_code == 200
    families = text_string_to_metric_families(reply.text)
    samples = (sample for family in families for sample in family.samples)
    return {(sample.name, tuple(sample.labels.values())): sample.value for sample in samples}


def test_a_call_is_counted_with_its_tokens_and_its_cost(application: Application) -> None:
    set_price(input="2.50", output="10")
    application.chat()
    before = metrics_of(application)
    application.chat()
    application.chat(stream=True)
    closed_usage(3)
    after = metrics_of(application)
    grown = {key: value - before.get(key, 0) for key, value in after.items()}
    assert grown["llm_calls_total", ("gpt-4o", "ok", "openai")] == 2
    assert grown["llm_tokens_total", ("prompt", "gpt-4o", "openai")] == 18
    assert grown["llm_tokens_total", ("completion", "gpt-4o", "openai")] == 8
    assert grown["llm_cost_usd_total", ("gpt-4o", "openai")] == pytest.approx(2 * 0.0000625)
    assert grown["llm_call_seconds_count", ("openai",)] == 2
    assert grown["llm_first_byte_seconds_count", ("openai",)] == 2
    assert grown["llm_gateway_overhead_seconds_count", ()] == 2
    assert after["llm_open_rows", ()] == 0
    assert after["llm_books_waiting", ()] == 0


def test_refusals_are_counted_by_their_code(application: Application) -> None:
    before = metrics_of(application)
    application.send("POST", CHAT, body=b"[]")
    application.using("llm_wrong").chat()
    after = metrics_of(application)
    overhead = "llm_gateway_overhead_seconds_count", ()
    assert after.get(overhead, 0) == before.get(overhead, 0)
    for code in ("invalid_request", "invalid_api_key"):
        key = ("llm_refused_total", (code,))
        assert after.get(key, 0) - before.get(key, 0) == 1


def test_calls_under_way_are_counted_while_they_last(application: Application, upstream: FakeUpstream) -> None:
    before = metrics_of(application)["llm_calls_in_flight", ()]
    with application.begin("fake-slow-0.5"):
        upstream.ledger.wait_for_open(1)
        during = metrics_of(application)
        assert during["llm_calls_in_flight", ()] == before + 1
        assert during["llm_open_rows", ()] == 1
        upstream.ledger.wait_for(1)
    closed_usage()
    assert metrics_of(application)["llm_calls_in_flight", ()] == before


def test_no_label_names_an_account_a_key_or_what_a_caller_made_up(application: Application) -> None:
    Price.objects.create(provider="openai", model="gpt-9", match={"starts_with": "gpt-9"}, source=PriceSource.IMPORTED)
    for name in ("made-up-by-a-caller", "gpt-9-made-up-by-a-caller", "fake-400", "fake-made-up-by-a-caller"):
        application.chat(name)
    closed_usage(4)
    text = application.http.get(f"{application.gateway.url}/metrics").text
    assert "made-up-by-a-caller" not in text
    assert "acme" not in text
    assert application.secret[:12] not in text


def test_metrics_under_a_token_are_shown_to_who_has_it(application: Application, strict: Gateway) -> None:
    url = f"{strict.url}/metrics"
    allowed = application.http.get(url, headers={"authorization": f"Bearer {METRICS_TOKEN}"})
    assert (allowed.status_code, "llm_open_rows" in allowed.text) == (200, True)


@pytest.mark.parametrize("credential", [None, "", "wrong", METRICS_TOKEN[:-1], METRICS_TOKEN + "x", "é"])
def test_metrics_under_a_token_are_refused_to_others(
    application: Application, strict: Gateway, credential: str | None
) -> None:
    headers = {} if credential is None else {b"x-api-key": credential.encode("latin-1")}
    reply = application.http.get(f"{strict.url}/metrics", headers=headers)
    assert (reply.status_code, error_of(reply)["code"]) == (401, "invalid_api_key")
    # Not a word of API keys: none would do.
    assert error_of(reply)["message"] == "This needs the token in LLM_METRICS_TOKEN, as “Authorization: Bearer …”."


def test_an_api_key_opens_no_metrics_under_a_token(application: Application, strict: Gateway) -> None:
    reply = application.at(strict).send("GET", "/metrics")
    assert reply.status_code == 401


def test_with_its_database_away_the_log_says_why_and_pages_and_lists_say_it_too(
    http: httpx2.Client, bookless: Gateway, application: Application
) -> None:
    sentence = (
        "The database can't be used at the moment: nothing accepts connections at its address. Try again shortly."
    )
    listed = http.get(f"{bookless.url}/api/v1/calls/", headers={"authorization": f"Bearer {application.secret}"})
    page = http.get(f"{bookless.url}/admin/login/", headers={"cookie": f"sessionid={sessions._new_key()}"})
    assert (listed.status_code, listed.json(), listed.headers["retry-after"]) == (503, {"detail": sentence}, "5")
    assert (page.status_code, html.escape(sentence) in page.text, page.headers["retry-after"]) == (503, True, "5")
    lines = [orjson.loads(line) for line in bookless.log().splitlines() if line.startswith("{")]
    told = {(line["event"], line.get("during"), line["reason"]) for line in lines if "reason" in line}
    assert told >= {
        ("books.unavailable", None, "refused"),
        ("database.unavailable", "api", "refused"),
        ("database.unavailable", "page", "refused"),
    }
    assert {reason for _, _, reason in told} == {"refused"}
    assert not [line for line in lines if line["level"] == "error"]
    assert "nobody@" not in bookless.log()


# --- The log ----------------------------------------------------------------------------------------------------------


def test_the_log_has_one_line_a_call_without_prompt_or_key(application: Application, gateway: Gateway) -> None:
    reply = application.chat(messages=[{"role": "user", "content": "a very private question"}])
    [row] = closed_usage()
    lines = [orjson.loads(line) for line in gateway.log().splitlines() if str(row.id) in line]
    [line] = lines
    assert (line["event"], line["outcome"], line["status"]) == ("call.settled", "ok", "settled")
    assert (line["prompt_tokens"], line["completion_tokens"]) == (row.prompt_tokens, row.completion_tokens)
    assert line["request_id"] == reply.headers["x-request-id"]
    assert "private" not in gateway.log()
    assert application.secret not in gateway.log()
