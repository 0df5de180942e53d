"""docs/adding-a-provider.md, followed to the letter: its file, its line, its settings, in a copy of this repository."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import openai
import orjson
import pytest

from llm.enums import CallOutcome, UsageSource, UsageStatus
from llm.errors import UpstreamFailed, UpstreamRateLimited, UpstreamRejected, UpstreamUnreachable
from llm.keys import create_key, get_or_create_account
from llm.models import Usage
from llm.providers.base import BaseLLMProvider, ProviderSettings
from llm.types import ChatMessage, ChatRequest
from tests import gateway_process
from tests.books import closed_usage
from tests.docs.pages import ROOT, blocks
from tests.docs.parrot import Parrot
from tests.gateway_process import Gateway
from tests.llm.providers import contract

PAGE = ROOT / "docs" / "adding-a-provider.md"
CODE, REGISTRY_LINE = blocks(PAGE, "python")
[ENV] = blocks(PAGE, "sh")
KEY = "a-key-of-yours"
MESSAGES: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Pieces of eight"}]
NOT_COPIED = shutil.ignore_patterns(".*", "var", "__pycache__", "node_modules", "tests", "benchmarks")


@pytest.fixture(scope="module")
def parrot() -> Iterator[Parrot]:
    with Parrot() as parrot:
        yield parrot


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, parrot: Parrot) -> Path:
    """This repository, changed as the page says, with the address of our parrot."""
    copy = tmp_path_factory.mktemp("docs") / "gateway"
    shutil.copytree(ROOT, copy, ignore=NOT_COPIED)
    (copy / "llm" / "providers" / "my_provider.py").write_text(CODE)
    registry = copy / "llm" / "providers" / "registry.py"
    before, opening, rest = registry.read_text().partition("PROVIDERS: dict[str, str] = {\n")
    assert opening
    registry.write_text(before + opening + REGISTRY_LINE + rest)
    (copy / ".env").write_text(ENV.replace("https://parrot.example.com", parrot.url))
    return copy


@pytest.fixture(scope="module")
def my_gateway(copy: Path, django_db_setup: None) -> Iterator[Gateway]:
    """A gateway that runs from the copy and takes what the page sets from the copy's .env."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway_process, "_ROOT", copy)
        gateway = Gateway({"LLM_ENV_FILE": ".env"})
    with gateway:
        yield gateway


@pytest.fixture
def my_key(transactional_db: None) -> str:
    return create_key(get_or_create_account("acme"), name="docs")[1]


@pytest.fixture
def client(my_gateway: Gateway, my_key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=my_key, base_url=my_gateway.openai_base_url, max_retries=0) as client:
        yield client


def test_it_is_at_most_50_lines_and_one() -> None:
    assert len(CODE.splitlines()) <= 50
    assert max(map(len, CODE.splitlines())) <= 120
    assert len(REGISTRY_LINE.splitlines()) == 1


@pytest.mark.e2e
def test_it_answers_through_http_and_is_on_the_books(
    my_gateway: Gateway, my_key: str, client: openai.OpenAI, parrot: Parrot
) -> None:
    parrot.requests.clear()
    headers = {"authorization": f"Bearer {my_key}"}

    native = httpx2.post(f"{my_gateway.url}/api/chat", json={"messages": MESSAGES}, headers=headers)
    stream = httpx2.post(f"{my_gateway.url}/api/chat", json={"messages": MESSAGES, "stream": True}, headers=headers)
    whole = client.chat.completions.create(model="polly", messages=MESSAGES)
    chunks = list(
        client.chat.completions.create(
            model="polly", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )

    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    assert native.json() == {"reply": "Pieces of eight ", "model": "polly", "usage": usage}
    events = [orjson.loads(line.removeprefix("data: ")) for line in stream.text.split("\n\n") if line]
    assert events == [{"delta": word} for word in ("Pieces ", "of ", "eight ")] + [{"model": "polly", "usage": usage}]
    assert whole.choices[0].message.content == "Pieces of eight "
    assert whole.usage is not None
    assert whole.usage.total_tokens == 8
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Pieces of eight "
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [8]
    for row in closed_usage(4):
        assert (row.provider, row.upstream_model, row.status) == ("my_provider", "polly", UsageStatus.SETTLED)
        assert (row.usage_source, row.outcome) == (UsageSource.REPORTED, CallOutcome.OK)
        assert (row.prompt_tokens, row.completion_tokens) == (5, 3)
        assert row.is_unpriced
    assert [asked["turns"] for asked in parrot.requests] == [[["system", "Be brief."], ["user", "Pieces of eight"]]] * 4
    assert set(parrot.keys) == {f"Bearer {KEY}"}


@pytest.mark.e2e
def test_its_failures_are_clean_errors_and_estimated_rows(my_gateway: Gateway, client: openai.OpenAI) -> None:
    client = client.with_options(max_retries=2)
    for model in ("fails", "cut", "forgetful", "babbling", "odd"):
        with pytest.raises(openai.InternalServerError) as failed:
            client.chat.completions.create(model=model, messages=MESSAGES)
        assert failed.value.status_code == 502
        assert failed.value.code == "upstream_error"
        assert failed.value.response.headers["x-should-retry"] == "false"
        assert KEY not in failed.value.response.text

    for row in closed_usage(5):
        assert (row.status, row.usage_source) == (UsageStatus.ESTIMATED, UsageSource.ESTIMATED)
        assert row.outcome == CallOutcome.UPSTREAM_FAILED
        assert row.prompt_tokens > 0
    assert KEY not in my_gateway.log()


@pytest.mark.e2e
def test_absurd_figures_of_it_are_disputed(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="dreaming", messages=MESSAGES)
    [row] = closed_usage()
    assert reply.usage is not None
    assert (row.status, row.is_disputed, row.is_billable) == (UsageStatus.ESTIMATED, True, False)
    assert (row.prompt_tokens, row.completion_tokens) == (reply.usage.prompt_tokens, reply.usage.completion_tokens)


@pytest.mark.e2e
def test_a_stream_of_it_that_is_cut_ends_in_an_error_event(client: openai.OpenAI) -> None:
    text = ""
    with pytest.raises(openai.APIError, match="my_provider"):  # noqa: PT012  # the stream fails on its way
        for chunk in client.chat.completions.create(model="cut", messages=MESSAGES, stream=True):
            text += chunk.choices[0].delta.content or ""
    [row] = closed_usage()
    assert text == "Pieces of eight "
    assert row.status == UsageStatus.ESTIMATED
    assert row.completion_tokens > 0


@pytest.mark.e2e
def test_what_it_refuses_costs_nothing(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="refuses", messages=MESSAGES)
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="busy", messages=MESSAGES)
    assert [(row.total_tokens, row.cost) for row in closed_usage(2)] == [(0, Decimal(0))] * 2
    assert not Usage.objects.unpriced().exists()


@pytest.fixture
async def provider(copy: Path, parrot: Parrot, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BaseLLMProvider]:
    """The page's class itself, for the contract."""
    monkeypatch.setenv("MY_PROVIDER_API_KEY", KEY)
    provider = _provider_class(copy)(ProviderSettings("my_provider", base_url=parrot.url, idle_timeout_s=5))
    yield provider
    await provider._client.aclose()


def _provider_class(copy: Path) -> Any:
    spec = importlib.util.spec_from_file_location("my_provider", copy / "llm" / "providers" / "my_provider.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MyProvider


def asked(model: str) -> ChatRequest:
    return ChatRequest(model, (ChatMessage("user", "Pieces of eight"),))


async def test_it_keeps_the_contract(provider: BaseLLMProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(provider, BaseLLMProvider)
    await contract.check_whole_reply(provider, asked("polly"))
    await contract.check_stream(provider, asked("polly"))
    await contract.check_cut_stream(provider, asked("forgetful"))
    contract.check_counting(provider, monkeypatch, model="polly")


@pytest.mark.parametrize("way", ["chat", "stream_chat"])
@pytest.mark.parametrize(
    ("model", "kind", "may_have_worked"),
    [
        ("refuses", UpstreamRejected, False),
        ("busy", UpstreamRateLimited, False),
        ("locked", UpstreamFailed, False),
        ("fails", UpstreamFailed, True),
        ("cut", UpstreamFailed, True),
        ("babbling", UpstreamFailed, True),
    ],
)
async def test_its_failures_are_ours(
    provider: BaseLLMProvider, model: str, kind: type[Exception], may_have_worked: bool, way: contract.Way
) -> None:
    error = await contract.failure_of(provider, asked(model), way=way)
    assert (type(error), error.may_have_worked) == (kind, may_have_worked)
    contract.check_secret_is_kept(error, KEY)


async def test_an_api_that_is_not_there(copy: Path) -> None:
    with Parrot() as gone:
        url = gone.url
    provider = _provider_class(copy)(ProviderSettings("my_provider", base_url=url))
    error = await contract.failure_of(provider, asked("polly"), way="chat")
    assert (type(error), error.may_have_worked) == (UpstreamUnreachable, False)
    await provider._client.aclose()
