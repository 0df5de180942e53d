"""Several providers behind one gateway: whose address and key a call gets, its fallbacks, and what the row says."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from llm.keys import create_key, get_or_create_account
from llm.models import ModelRoute, Usage
from tests.books import closed_usage
from tests.e2e.callers import Application, assert_nothing_happened, error_of, text_of
from tests.e2e.test_responses import respond
from tests.e2e.test_unpriced import make_route
from tests.fakes import FakeUpstream, Script
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("instances")]

SAID = "You said: hello there"
KEYS = ("sk-main-one-0123456789abcdef", "sk-main-two-0123456789abcdef")
CLAUDE_KEY = "sk-ant-claude-0123456789abcdef"


@pytest.fixture(scope="module")
def _other_upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture
def local(_other_upstream: FakeUpstream) -> FakeUpstream:
    """The server of the instance `local`."""
    _other_upstream.reset()
    return _other_upstream


@pytest.fixture
def there(
    application: Application, start_gateway: Callable[..., Gateway], upstream: FakeUpstream, local: FakeUpstream
) -> Application:
    """In front of four instances: `main` with two keys, `claude`, and `local` and `east`, which are booked as names of
    their own.
    """
    gateway = start_gateway(
        OPENAI_API_KEY="",
        ANTHROPIC_API_KEY="",
        LLM_OPENAI_BASE_URL="",
        LLM_ANTHROPIC_BASE_URL="",
        LLM_PROVIDERS="main=openai,claude=anthropic,local=openai_compatible,east=anthropic",
        LLM_PROVIDER="main",
        LLM_PROVIDER_MAIN_BASE_URL=upstream.openai_base_url,
        LLM_PROVIDER_MAIN_API_KEYS=",".join(KEYS),
        LLM_PROVIDER_CLAUDE_BASE_URL=upstream.anthropic_base_url,
        LLM_PROVIDER_CLAUDE_API_KEY=CLAUDE_KEY,
        LLM_PROVIDER_LOCAL_BASE_URL=local.openai_base_url,
        LLM_PROVIDER_LOCAL_API_KEY="ollama",
        LLM_PROVIDER_LOCAL_DIALECTS="chat,responses",
        LLM_PROVIDER_LOCAL_BOOKED_AS="local",
        LLM_PROVIDER_EAST_BASE_URL=local.anthropic_base_url,
        LLM_PROVIDER_EAST_API_KEY=CLAUDE_KEY[::-1],
        LLM_PROVIDER_EAST_BOOKED_AS="orient",
        LLM_TARGET_FAILURES="5",
        LLM_TARGET_SKIP_SECONDS="3600",
    )
    return application.at(gateway)


def booked(row: Usage) -> tuple[str, str, str]:
    return row.provider, row.provider_instance, row.upstream_model


@pytest.mark.parametrize("is_stream", [False, True])
def test_each_instance_is_called_at_its_address_with_its_key(
    there: Application, upstream: FakeUpstream, local: FakeUpstream, is_stream: bool
) -> None:
    make_route("sonnet", ("claude", "claude-sonnet-5"))
    make_route("llama", ("local", "llama3.2"))
    for model in ("gpt-4o", "sonnet", "llama"):
        assert text_of(there.chat(model, stream=is_stream, max_tokens=100)) == SAID
    assert [booked(row) for row in closed_usage(3)] == [
        ("openai", "main", "gpt-4o"),
        ("anthropic", "claude", "claude-sonnet-5"),
        ("local", "local", "llama3.2"),
    ]
    to_main, to_claude = upstream.ledger.entries()
    [to_local] = local.ledger.entries()
    assert to_main.headers["authorization"] in {f"Bearer {key}" for key in KEYS}
    assert to_claude.headers["x-api-key"] == CLAUDE_KEY
    assert to_local.headers["authorization"] == "Bearer ollama"


def test_a_providers_name_in_a_route_means_its_first_instance(there: Application, upstream: FakeUpstream) -> None:
    """As it stands there from before the instances were named."""
    make_route("smart", ("anthropic", "claude-sonnet-5"))
    assert text_of(there.chat("smart", max_tokens=100)) == SAID
    assert booked(closed_usage()[0]) == ("anthropic", "claude", "claude-sonnet-5")


@pytest.mark.parametrize("instance", ["claude", "east"])
def test_a_models_own_maximum_is_asked_of_the_instance_that_is_called(
    there: Application, upstream: FakeUpstream, local: FakeUpstream, instance: str
) -> None:
    make_route("sonnet", (instance, "claude-sonnet-5"))
    assert there.chat("sonnet").status_code == 200
    called, other = (upstream, local) if instance == "claude" else (local, upstream)
    assert called.ledger.entries()[0].body["max_tokens"] == 64_000
    assert other.ledger.entries() == ()


def test_a_target_at_an_instance_that_is_gone_is_left_out(there: Application, upstream: FakeUpstream) -> None:
    make_route("smart", ("gone", "gpt-4o"), ("main", "gpt-4o"))
    make_route("lost", ("gone", "gpt-4o"))
    assert there.chat("smart").status_code == 200
    assert booked(closed_usage()[0]) == ("openai", "main", "gpt-4o")
    upstream.reset()
    reply = there.chat("lost")
    assert (reply.status_code, error_of(reply)["code"]) == (404, "model_not_found")
    assert "its provider isn't configured at this gateway" in error_of(reply)["message"]
    assert upstream.ledger.entries() == ()
    assert "lost" not in [model["id"] for model in there.send("GET", "/v1/models").json()["data"]]
    ModelRoute.objects.get(name="lost").targets.update(provider="main")
    assert there.chat("lost").status_code == 200


def test_a_pattern_hands_names_on_to_its_instance(
    there: Application, upstream: FakeUpstream, local: FakeUpstream
) -> None:
    make_route("claude-*", ("claude", "claude-*"))
    make_route("local/*", ("local", "*"))
    make_route("claude-old", ("main", "gpt-4o"))
    for model in ("claude-sonnet-5", "local/llama3.2", "claude-old"):
        assert text_of(there.chat(model, max_tokens=100)) == SAID
    assert [(row.model, *booked(row)) for row in closed_usage(3)] == [
        ("claude-sonnet-5", "anthropic", "claude", "claude-sonnet-5"),
        ("local/llama3.2", "local", "local", "llama3.2"),
        ("claude-old", "openai", "main", "gpt-4o"),
    ]


def test_weights_share_calls_out_between_instances(
    there: Application, upstream: FakeUpstream, local: FakeUpstream
) -> None:
    route = make_route("smart", ("main", "gpt-4o"), ("local", "llama3.2"))
    route.targets.update(weight=1)
    route.targets.create(position=2, provider="claude", upstream_model="claude-sonnet-5")
    for _ in range(30):
        assert there.chat("smart").headers["x-llm-attempts"] == "1"
    called = {row.provider_instance for row in closed_usage(30)}
    assert called == {"main", "local"}


# --- Keys -------------------------------------------------------------------------------------------------------------


def callers_of_both_keys(there: Application, upstream: FakeUpstream) -> dict[str, Application]:
    """By the key that their accounts' calls are sent with; each has made one call."""
    found: dict[str, Application] = {}
    for number in range(40):
        caller = there.using(create_key(get_or_create_account(f"account {number}"), name="tests")[1])
        assert caller.chat().status_code == 200
        found.setdefault(upstream.ledger.entries()[-1].headers["authorization"], caller)
        if len(found) == 2:
            return found
    raise AssertionError("all accounts have the same key")


def test_an_account_keeps_its_key(there: Application, upstream: FakeUpstream) -> None:
    callers = callers_of_both_keys(there, upstream)
    assert set(callers) == {f"Bearer {key}" for key in KEYS}
    for key, caller in callers.items():
        upstream.reset()
        replies = [caller.chat(), caller.chat(stream=True), caller.send("GET", "/v1/models")]
        assert [reply.status_code for reply in replies] == [200, 200, 200]
        assert {entry.headers["authorization"] for entry in upstream.ledger.entries()} == {key}
    by_account = {(row.account_id, row.credential) for row in Usage.objects.all()}
    assert len(by_account) == Usage.objects.values("account_id").distinct().count()
    assert len({credential for _, credential in by_account}) == 2
    assert all(len(credential) == 12 for _, credential in by_account)


@pytest.mark.parametrize(("script", "tries"), [(Script(status=401), 1), (Script(status=429, retry_after_s=60), 1)])
def test_a_key_that_is_refused_is_followed_by_the_next(
    there: Application, upstream: FakeUpstream, script: Script, tries: int
) -> None:
    upstream.enqueue(script)
    reply = there.chat()
    assert (reply.status_code, reply.headers["x-llm-attempts"]) == (200, str(tries + 1))
    assert len({entry.headers["authorization"] for entry in upstream.ledger.entries()}) == 2
    assert [row.provider_instance for row in closed_usage(2)] == ["main", "main"]


def test_what_no_key_can_help_is_not_tried_with_the_next(there: Application, upstream: FakeUpstream) -> None:
    """A server that is overloaded is so for each of its keys."""
    reply = there.chat("fake-529")
    assert reply.status_code == 502
    assert len({entry.headers["authorization"] for entry in upstream.ledger.entries()}) == 1
    assert {row.provider_instance for row in closed_usage(3)} == {"main"}


def test_a_kept_response_stays_with_the_key_that_made_it(there: Application, upstream: FakeUpstream) -> None:
    for key, caller in callers_of_both_keys(there, upstream).items():
        # Made with the other key, since the account's own was refused for once.
        upstream.enqueue(Script(status=401))
        made = respond(caller).json()["id"]
        before = len(upstream.ledger.entries())
        assert respond(caller, previous_response_id=made).status_code == 200
        assert caller.send("GET", f"/v1/responses/{made}").status_code == 200
        [other] = {entry.headers["authorization"] for entry in upstream.ledger.entries()[before:]}
        assert other != key


def test_a_kept_response_is_not_looked_for_at_another_instance(
    there: Application, upstream: FakeUpstream, local: FakeUpstream
) -> None:
    make_route("llama", ("local", "llama3.2"))
    made = respond(there, model="llama").json()["id"]
    refused = respond(there, previous_response_id=made)
    assert (refused.status_code, error_of(refused)["code"]) == (400, "previous_response_not_found")
    assert respond(there, model="llama", previous_response_id=made).status_code == 200
    assert upstream.ledger.entries() == ()


# --- Health -----------------------------------------------------------------------------------------------------------


def test_a_target_that_keeps_failing_is_passed_over(
    there: Application, upstream: FakeUpstream, local: FakeUpstream
) -> None:
    make_route("smart", ("claude", "fake-401"), ("local", "llama3.2"))
    attempts = [there.chat("smart", max_tokens=100).headers["x-llm-attempts"] for _ in range(6)]
    assert attempts == ["2"] * 5 + ["1"]
    assert booked(closed_usage(11)[-1]) == ("local", "local", "llama3.2")
    metrics = there.send("GET", "/metrics").text
    assert 'llm_targets_skipped{provider_instance="claude"} 1.0' in metrics
    assert 'llm_targets_passed_over_total{provider_instance="claude"} 1.0' in metrics
    assert there.send("GET", "/readyz").json()["targets_skipped"] == 1


@pytest.mark.parametrize("status", [400, 404, 422])
def test_what_callers_ask_wrongly_is_no_failure_of_the_target(
    there: Application, upstream: FakeUpstream, local: FakeUpstream, status: int
) -> None:
    model = f"gpt-{status}"
    make_route("smart", ("main", model), ("local", "llama3.2"))
    for _ in range(6):
        upstream.enqueue(Script(status=status))
        there.chat("smart")
    upstream.enqueue(Script())
    reply = there.chat("smart")
    assert (reply.status_code, reply.headers["x-llm-attempts"]) == (200, "1")
    assert booked(Usage.objects.latest("opened_at")) == ("openai", "main", model)


def test_nothing_is_sent_to_openai_with_a_local_servers_key(
    application: Application, start_gateway: Callable[..., Gateway], upstream: FakeUpstream, local: FakeUpstream
) -> None:
    gateway = start_gateway(
        LLM_PROVIDER="openai_compatible", LLM_BASE_URL=local.openai_base_url, OPENAI_API_KEY="ollama"
    )
    make_route("gpt", ("openai", "gpt-4o"))
    there = application.at(gateway)
    assert there.chat("gpt").status_code == 404
    assert_nothing_happened(upstream)
    assert there.chat("llama3.2").status_code == 200
    assert local.ledger.entries()[-1].headers["authorization"] == "Bearer ollama"
