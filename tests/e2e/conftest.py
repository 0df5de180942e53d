"""The gateways that these tests share: each distinct environment is one server for the whole session."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import anthropic
import httpx2
import openai
import pytest

from llm.models import Account
from tests.e2e.callers import PATIENCE_S, Application
from tests.fakes import FakeUpstream
from tests.gateway_process import Gateway

_OWN_GATEWAYS = ("impatient", "strict", "cancelling", "bookless", "before_anthropic")

METRICS_TOKEN = "the token of whoever may read the metrics"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one gateway go to one process, which then need not start it again."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        if (name := next((name for name in _OWN_GATEWAYS if name in names), None)) is not None:
            item.add_marker(pytest.mark.xdist_group(name))


@pytest.fixture(scope="session")
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(trust_env=False, timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture
def application(gateway: Gateway, api_key: str, http: httpx2.Client) -> Application:
    """Calls `gateway` with `api_key`."""
    return Application(gateway, api_key, http)


@pytest.fixture
def sdk(gateway: Gateway, api_key: str, http: httpx2.Client) -> openai.OpenAI:
    """The official SDK; it would retry what it thinks can be retried, and a test wants to see the first answer."""
    return openai.OpenAI(api_key=api_key, base_url=gateway.openai_base_url, max_retries=0, http_client=http)


@pytest.fixture
def impatient(start_gateway: Callable[..., Gateway]) -> Gateway:
    """Its bounds are short, each another: to a body, a first byte, silence, all of it; to reading on for one call."""
    return start_gateway(
        LLM_BODY_TIMEOUT_SECONDS="0.5",
        LLM_FIRST_BYTE_TIMEOUT_SECONDS="0.6",
        LLM_IDLE_TIMEOUT_SECONDS="0.8",
        LLM_TOTAL_TIMEOUT_SECONDS="2",
        LLM_DISCONNECT_DRAIN_CALLS="1",
        LLM_DISCONNECT_DRAIN_SECONDS="0.4",
    )


@pytest.fixture
def strict(start_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> Gateway:
    """Unpriced models as each provider's kind has it; metrics under a token; a caller who reads nothing goes soon."""
    return start_gateway(
        LLM_UNPRICED_MODELS="",
        LLM_BASE_URL=upstream.openai_base_url,
        LLM_COMPATIBLE_API_KEY="sk-test-of-a-compatible-server-0123456789",
        LLM_METRICS_TOKEN=METRICS_TOKEN,
        LLM_RELAY_STALL_SECONDS="0.5",
    )


@pytest.fixture
def cancelling(start_gateway: Callable[..., Gateway]) -> Gateway:
    """Hangs up on the upstream when its own caller has hung up."""
    return start_gateway(LLM_DISCONNECT_POLICY="cancel")


@pytest.fixture
def before_anthropic(start_gateway: Callable[..., Gateway]) -> Gateway:
    """Its models are Anthropic's."""
    return start_gateway(LLM_PROVIDER="anthropic")


@pytest.fixture
def claude(before_anthropic: Gateway, api_key: str, http: httpx2.Client) -> anthropic.Anthropic:
    """Anthropic's official SDK, in front of its own models."""
    return anthropic.Anthropic(api_key=api_key, base_url=before_anthropic.url, max_retries=0, http_client=http)


@pytest.fixture
def bookless(start_gateway: Callable[..., Gateway]) -> Gateway:
    """Its database can't be reached."""
    return start_gateway(DATABASE_URL="postgres://nobody@127.0.0.1:1/nothing")


@pytest.fixture
def show_cost(account: Account) -> None:
    """`account` sees what its calls cost."""
    account.shows_cost = True
    account.save()
